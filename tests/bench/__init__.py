# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks; with what the tests share comes the way to the collection."""

from .. import conftest  # noqa: F401
