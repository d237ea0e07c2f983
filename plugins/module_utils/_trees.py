# SPDX-License-Identifier: GPL-3.0-or-later
"""Root filesystems that containers still run on when another takes their place, or nothing does.

To an overlay its lower layer must not change, and a tree that is removed is empty in all containers on it. So it is moved
aside, and goes with the last of them. Which tree it runs on, a container's script has written beside its pid, by the inode: it
does not change by a move, and nobody inside can alter it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex

from ._errors import Foreign
from ._files import is_private, remove_tree
from ._paths import RUN, tidy
from ._process import read, running

UNKNOWN = "unknown"


def directory(dest):
    """Where the former trees are of all root filesystems that lie side by side."""
    return os.path.join(os.path.dirname(dest), ".alpine_rootfs.used")


def place(dest, tree):
    """Where a tree of ``dest`` is moved, as long as containers run on it."""
    return os.path.join(directory(dest), f"{os.path.basename(dest)}.{number(tree)}")


def kept(dest):
    """The trees that have been moved aside there, which may have been of others."""
    if not is_private(directory(dest)):
        return []
    with os.scandir(directory(dest)) as entries:
        return sorted(each.path for each in entries if each.is_dir(follow_symlinks=False) and re.search(r"\.[0-9]+$", each.name))


def unused(dest):
    """Those of ``dest`` that no container runs on any more."""
    return [tree for tree in kept(dest) if tree.rpartition(".")[0] == os.path.join(directory(dest), os.path.basename(dest))
            and not users(tree)]


def users(tree):
    """The names of the running containers on a tree. Of one that cannot tell, it may be any."""
    ours = number(tree)
    found = sorted(os.listdir(RUN)) if ours and os.path.isdir(RUN) else ()
    return [name for name in found if running(name) and _started_on(name) in (ours, UNKNOWN)]


def keep(dest, tree):
    """Moves a tree aside where containers run on it."""
    if users(tree):
        _refuse_foreign(dest)
        os.makedirs(directory(dest), mode=0o700, exist_ok=True)
        os.rename(tree, place(dest, tree))


def keeping(dest, tree):
    """The same as commands; none where no container runs on it now."""
    if not users(tree):
        return []
    _refuse_foreign(dest)
    return [["mkdir", "-p", "-m", "0700", directory(dest)], ["mv", "-T", tree, place(dest, tree)]]


def release(dest):
    """Removes what no container runs on any more."""
    if is_private(directory(dest)):
        for tree in kept(dest):
            if not users(tree):
                remove_tree(tree)
        with contextlib.suppress(OSError):  # there are more
            os.rmdir(directory(dest))
            tidy(os.path.dirname(dest))


def releasing(dest):
    """The same as a command."""
    there = shlex.quote(directory(dest))
    return (f"for tree in {there}/*; do grep -qsx -e ${{tree##*.}} -e {UNKNOWN} {RUN}/* || rm -rf \"$tree\"; done; "
            f"[ ! -d {there} ] || rmdir --ignore-fail-on-non-empty {there}")


def number(tree):
    """The inode of a directory as descriptors of it tell it, which on an overlay is not what stat(2) does; None without any."""
    try:
        opened = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(f"/proc/self/fdinfo/{opened}", encoding="ascii") as file:
            found = re.search(r"^ino:\s*(\d+)$", file.read(), re.MULTILINE)
        return found[1] if found else str(os.fstat(opened).st_ino)
    finally:
        os.close(opened)


def _started_on(name):
    return [*(read(f"{RUN}/{name}") or "").split()[3:], UNKNOWN][0]


def _refuse_foreign(dest):
    if os.path.lexists(directory(dest)) and not is_private(directory(dest)):
        raise Foreign(directory(dest), f"is where the tree of {dest} has to go for the containers that run on it, and was not made "
                                       "by this collection", "Remove it by hand, or stop the containers first.")
