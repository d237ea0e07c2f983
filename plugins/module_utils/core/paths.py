# SPDX-License-Identifier: GPL-3.0-or-later
"""Know the directories that the collection owns on a host."""

from __future__ import annotations

import os

OWN = ("/var/lib/fromscratch", "/run/fromscratch")


def tidy(directory):
    """Remove a directory of the collection and its parents, as far as they are the collection's and empty."""
    for path in tidied(directory):
        try:
            os.rmdir(path)
        except OSError:
            return


def tidied(directory):
    """Return a directory of the collection and its parents, as far as they are the collection's; or that of a unit's drop-ins."""
    found = [directory] if directory.startswith("/etc/systemd/system/") and directory.endswith(".d") else []
    while f"{directory}/".startswith(tuple(f"{each}/" for each in OWN)):
        found.append(directory)
        directory = os.path.dirname(directory)
    return found
