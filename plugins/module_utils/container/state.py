# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out which trees the containers of this host use."""

from __future__ import annotations

import os

from .launcher.record import RUN, lines, running
from .launcher.record import inode as number

# The shell scripts of earlier releases have recorded the inode of the tree in place of its path, or that they could not tell.
UNKNOWN = "unknown"


def trees_in_use(trees):
    """Return the subset of the trees, given by their real paths, that running containers were started on."""
    recorded = set()
    for name in os.listdir(RUN) if os.path.isdir(RUN) else ():
        if running(name):
            recorded.update(lines(name)[3:] or [UNKNOWN])
    return {each for each in trees if recorded & {each, number(each), UNKNOWN}}
