# SPDX-License-Identifier: GPL-3.0-or-later
"""The asserts of what the tests share say as much as their own."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(f"{__name__}.support")
