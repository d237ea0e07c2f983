# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the collection keeps what is its own on a host."""

from __future__ import annotations

import os

OWN = ("/var/lib/fromscratch", "/run/fromscratch")


def tidy(directory):
    """Removes one of our directories and those above it, as far as they are empty: the last thing leaves none behind."""
    for each in tidied(directory):
        try:
            os.rmdir(each)
        except OSError:
            return


def tidied(directory):
    """One of our directories and those above it, as far as they are ours; or that of one unit's drop-ins."""
    found = [directory] if directory.startswith("/etc/systemd/system/") and directory.endswith(".d") else []
    while f"{directory}/".startswith(tuple(f"{each}/" for each in OWN)):
        found.append(directory)
        directory = os.path.dirname(directory)
    return found
