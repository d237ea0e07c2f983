# SPDX-License-Identifier: GPL-3.0-or-later
"""Root filesystems that containers still run on when another takes their place, or nothing does.

To an overlay its lower layer must not change, and a tree that is removed is empty in all containers on it. So it is moved
aside, and goes with the last of them. Which tree one runs on, the file that the tree was made with tells by its number: it
is the same through an overlay, whichever way the container was started.
"""

from __future__ import annotations

import os
from typing import Optional

from ._container import from_json
from ._files import remove_tree
from ._paths import STATE
from ._process import read, running
from ._rootfs import RECORD


def directory(dest):
    """Where the former trees of a place are."""
    parent, base = os.path.split(dest)
    return os.path.join(parent, f".{base}.used")


def place(dest, tree):
    """Where a tree of ``dest`` is to be moved, as long as containers run on it; None where it is gone already."""
    number = _number(tree)
    return number and os.path.join(directory(dest), str(number))


def kept(dest):
    """The trees that have been moved aside."""
    try:
        return [os.path.join(directory(dest), name) for name in sorted(os.listdir(directory(dest)))]
    except OSError:
        return []


def users(dest, tree, but=()):
    """The names of the running containers on a tree of ``dest``, also where that cannot be told."""
    number, found = _number(tree), []
    for name in sorted(os.listdir(STATE)) if number and os.path.isdir(STATE) else ():
        pid = None if name in but else running(name)
        if pid and _rootfs(name) == os.path.realpath(dest) and _number(f"/proc/{pid}/root") in (number, None):
            found.append(name)
    return found


def keep(dest, tree):
    """Moves a tree aside where containers run on it."""
    if users(dest, tree):
        os.makedirs(directory(dest), mode=0o700, exist_ok=True)
        os.rename(tree, place(dest, tree))


def release(dest):
    """Removes what no container runs on any more."""
    for tree in kept(dest):
        if not users(dest, tree):
            remove_tree(tree)
    if os.path.isdir(directory(dest)) and not os.listdir(directory(dest)):
        os.rmdir(directory(dest))


def _number(tree) -> Optional[int]:
    try:
        return os.lstat(os.path.join(tree, RECORD)).st_ino
    except OSError:
        return None


def _rootfs(name):
    try:
        return os.path.realpath(from_json(read(f"{STATE}/{name}/container.json") or "").rootfs)
    except (ValueError, KeyError, TypeError):
        return None
