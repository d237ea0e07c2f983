# SPDX-License-Identifier: GPL-3.0-or-later
"""Root filesystems that containers still run on when another takes their place, or nothing does.

To an overlay its lower layer must not change, and a tree that is removed is empty in all containers on it. So it is moved
aside, and goes with the last of them. Which tree one runs on, the record in the tree tells by the time that it was written:
it is the same through an overlay, whichever way the container was started.
"""

from __future__ import annotations

import contextlib
import os

from ._container import from_json
from ._files import remove_tree
from ._paths import STATE, tidy
from ._process import read, running
from ._rootfs import RECORD


def directory(dest):
    """Where the former trees of a place are."""
    parent, base = os.path.split(dest)
    return os.path.join(parent, f".{base}.used")


def place(dest, tree):
    """Where a tree of ``dest`` is moved, as long as containers run on it."""
    return os.path.join(directory(dest), str(_written(tree)))


def kept(dest):
    """The trees that have been moved aside."""
    try:
        return [os.path.join(directory(dest), name) for name in sorted(os.listdir(directory(dest)))]
    except OSError:
        return []


def unused(dest, but=()):
    """Those of them that no container runs on any more."""
    return [tree for tree in kept(dest) if not users(dest, tree, but)]


def users(dest, tree, but=()):
    """The names of the running containers on a tree of ``dest``: of those that do not tell, it may be any."""
    written, found = _written(tree), []
    others = {_written(each) for each in (dest, *kept(dest))} - {written, None}
    for name in sorted(os.listdir(STATE)) if written and os.path.isdir(STATE) else ():
        pid = None if name in but else running(name)
        if pid and _rootfs(name) == os.path.realpath(dest) and _written(f"/proc/{pid}/root") not in others:
            found.append(name)
    return found


def keep(dest, tree):
    """Moves a tree aside where containers run on it."""
    if users(dest, tree):
        os.makedirs(directory(dest), mode=0o700, exist_ok=True)
        os.rename(tree, place(dest, tree))


def moving(dest, tree, now=None):
    """The same as commands, for a tree that is at ``now`` by then."""
    return [["mkdir", "-p", "-m", "0700", directory(dest)],
            ["mv", "-T", now or tree, place(dest, tree)]] if users(dest, tree) else []


def release(dest):
    """Removes what no container runs on any more."""
    for tree in unused(dest):
        remove_tree(tree)
    with contextlib.suppress(OSError):  # it has others in it, or was never made
        os.rmdir(directory(dest))
        tidy(os.path.dirname(dest))


def _written(tree):
    try:
        return os.lstat(os.path.join(tree, RECORD)).st_mtime_ns
    except OSError:
        return None


def _rootfs(name):
    try:
        return os.path.realpath(from_json(read(f"{STATE}/{name}/container.json") or "").rootfs)
    except (ValueError, KeyError, TypeError):
        return None
