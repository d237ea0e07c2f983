# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the collection keeps what is its own on a host."""

from __future__ import annotations

import os

OWN = ("/var/lib/fromscratch", "/run/fromscratch")


def tidy(directory):
    """Removes one of our directories and those above it, as far as they are empty: the last thing leaves none behind."""
    while directory.startswith(OWN):
        try:
            os.rmdir(directory)
        except OSError:
            return
        directory = os.path.dirname(directory)
