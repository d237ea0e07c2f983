# SPDX-License-Identifier: GPL-3.0-or-later
"""Immutable trees, each by the digest of its tarball, and the names that lead to them.

Beside every root filesystem that is wanted lies the directory ``.store``, closed to all but root, since there are set-user-ID
files in it. A tree is made in there whole, gets its name by one rename, and is written by nobody from then on. What people name
is a symbolic link to it, which is switched by one rename as well. So a tree never moves while containers run on it, and goes when
neither a link nor a container has any use for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shlex
import shutil
from typing import Optional

from ..container.launcher.record import RUN, STORE
from ..container.state import UNKNOWN, number, trees_in_use
from ..core.errors import ModuleError, NotOwnedError
from ..core.files import is_private, make_directory, mounts_below, remove_tree
from ..core.operations import emptied
from ..core.paths import tidy

NAME = STORE
WORK = "new"  # in the store: where a tree is made
FORMER = ".alpine_rootfs.used"  # where earlier releases moved trees that containers ran on
TREE = re.compile(r"sha256-[0-9a-f]{64}")
OURS = {NAME: re.compile(rf"{TREE.pattern}|inode-\d+|{WORK}|link"), FORMER: re.compile(r".+\.\d+")}  # what is made in them
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def directory(dest: str) -> str:
    """Where the trees of a root filesystem lie."""
    return os.path.join(os.path.dirname(dest), NAME)


def place(dest: str, digest: str) -> str:
    """Where the tree of a tarball lies."""
    return os.path.join(directory(dest), f"sha256-{digest}")


def aside(dest: str, tree: str) -> str:
    """Where a directory goes that is in the way, and on which containers may run: there it is known by its inode."""
    return os.path.join(directory(dest), f"inode-{number(tree)}")


def is_closed(there):
    """Whether nobody but root can look into a store, should it be there."""
    return is_private(there) or not os.path.lexists(there)


def target(digest) -> str:
    """What the link says: relative, so that both can be looked at, and moved, together."""
    return f"{NAME}/sha256-{digest}"


def digest_of(link: str) -> Optional[str]:
    """The digest that a link of ours says; None for any other."""
    head, unused, tail = os.readlink(link).rpartition("/")
    return tail[len("sha256-"):] if head == NAME and TREE.fullmatch(tail) else None


def is_store_tree(path: str) -> bool:
    """Whether a path leads to a tree of a store, which nobody may write to."""
    head, tail = os.path.split(os.path.realpath(path))
    return os.path.basename(head) == NAME and bool(TREE.fullmatch(tail))


def tree_of(path, ahead=None):
    """What tells the root filesystem at a path from one that takes its place: the path of its tree in the store, or the device
    and the inode of a directory of somebody's own. With ``ahead``, as it will be; None where nothing is."""
    if ahead is not None and path in ahead.trees:
        return ahead.trees[path]
    if is_store_tree(path):
        return os.path.realpath(path)
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def room(path: str) -> int:
    """The free bytes of the file system that a path, or the nearest of its parents that is there, is on."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


# What is of use to somebody

def unused(parent, leaving=()):
    """The trees, and what killed runs have left, that nobody names or runs on, once the links ``leaving`` lead elsewhere."""
    found = unnamed(parent, leaving)
    used = trees_in_use(found) | _lower_layers(parent, found) if found else ()
    return [each for each in found if each not in used and not (os.path.isdir(each) and mounts_below(each))]


def unnamed(parent, leaving=()):
    """The same, with those that containers have a use for."""
    found = []
    for name, pattern in OURS.items():
        there = os.path.join(os.path.realpath(parent), name)
        if is_private(there):
            found += sorted(os.path.join(there, each) for each in os.listdir(there) if pattern.fullmatch(each))
    with os.scandir(parent) if found else contextlib.nullcontext(()) as entries:
        named = {os.path.realpath(each.path) for each in entries if each.is_symlink() and each.path not in leaving}
    return [each for each in found if each not in named]


def _lower_layers(parent, trees):
    """The trees on which overlays are mounted. One that was mounted by a link may be on any of them."""
    used, parent = set(), os.path.realpath(parent)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        options = ",".join(line.split(" - ")[1].split(" ", 2)[2] for line in file if " - overlay " in line)
    for lower in re.findall(r"lowerdir\+?=([^,\n]*)", options):
        for layer in lower.split(":"):
            if os.path.realpath(os.path.dirname(layer)) == parent:
                return {each for each in trees if os.path.basename(each) != WORK}
            used.add(os.path.realpath(layer))
    return used


def release(path):
    """Remove what nobody names or runs on any more beside a root filesystem, unless another run is at work there."""
    parent = parent_of(path)
    if is_private(os.path.join(parent, NAME)) or is_private(os.path.join(parent, FORMER)):
        with contextlib.suppress(Busy), Store(parent):
            pass


def clearing(parent, leaving, coming):
    """The commands that remove what is of no use once the links ``leaving`` lead elsewhere, such as to the trees ``coming``."""
    gone = [tree for tree in unused(parent, leaving) if tree not in coming]
    lines = [shlex.join(["rm", "-rf", tree]) for tree in gone]
    if trees_in_use(set(unnamed(parent, leaving)).difference(gone, coming)):
        return [*lines, releasing(parent)]  # containers of this very run may have stopped by then
    if not coming and (gone or leaving):
        lines += [shlex.join(["rmdir", "--ignore-fail-on-non-empty", os.path.join(parent, NAME)]), *emptied(parent)]
    return lines


def releasing(parent):
    """The command that removes what nobody names or runs on any more."""
    end, parent = "".join(f"; {line}" for line in emptied(parent)), shlex.quote(parent)
    stores, trees = (" ".join(f"{parent}/{name}{tail}" for name in OURS) for tail in ("", "/*"))
    # What find says of a name that is not there counts as one that leads to it.
    return (f"for tree in {trees}; do "
            f'[ "$(find -L {parent} -maxdepth 1 -samefile "$tree" 2>&1)" ] || '
            f'grep -qsxF -e "$tree" -e "$(stat -c %i "$tree")" -e {UNKNOWN} {RUN}/* || rm -rf "$tree"; done; '
            f'for store in {stores}; do [ ! -d "$store" ] || rmdir --ignore-fail-on-non-empty "$store"; done{end}')


def parent_of(path):
    """The directory that holds both the link and the store, of either's path."""
    parent = os.path.dirname(os.path.realpath(path))
    return os.path.dirname(parent) if os.path.basename(parent) == NAME else parent


def waiting(paths, ahead):
    """The directories of these root filesystems in which something waits to become free, by the plans made so far."""
    coming = {os.path.dirname(os.path.dirname(each)) for each in ahead.trees.values()}
    return sorted(each for each in set(map(parent_of, paths)) if each in coming or unnamed(each))


# Changing it

class Busy(ModuleError):
    """Another run is at work."""


class Store:
    """The store in a directory, for one run at a time. Use it as a context: what is of no use is gone in the end, and so is the
    store when it is empty, with the directories that were made for it where the work failed."""

    def __init__(self, parent):
        self.parent, self.path = parent, os.path.join(parent, NAME)
        self.work = os.path.join(self.path, WORK)
        self.tarball, self.tree = os.path.join(self.work, "tarball"), os.path.join(self.work, "tree")
        self._made, self._lock = [], None

    def __enter__(self):
        path = self.parent
        while not os.path.isdir(path):
            self._made.append(path)
            path = os.path.dirname(path)
        try:
            make_directory(self.parent)
            self._acquire()
        except BaseException:
            self._release(failed=True)
            raise
        return self

    def __exit__(self, kind, value, trace):
        try:
            with contextlib.ExitStack() as locks:
                claimed = [each for each in unnamed(self.parent) if _claim(each, locks)]
                for each in unused(self.parent) if claimed else ():
                    if each in claimed:
                        remove_tree(each)
        except (OSError, ModuleError):
            if kind is None:  # else the first error says more
                raise
        finally:
            self._release(failed=kind is not None)

    def _acquire(self):
        while self._lock is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
            refuse_foreign(self.parent)
            with contextlib.suppress(FileNotFoundError):  # another run has just finished
                lock = os.open(self.path, OPEN)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.path.samestat(os.fstat(lock), os.stat(self.path)):
                        self._lock = lock
                except BlockingIOError:
                    raise Busy(f"dest: another run is at work in {self.path}; wait for it") from None
                finally:
                    if self._lock is None:
                        os.close(lock)
        os.fchmod(self._lock, 0o700)

    def _release(self, failed):
        if self._lock is not None:
            for each in OURS:
                if is_private(os.path.join(self.parent, each)):
                    with contextlib.suppress(OSError):  # there are trees in it
                        os.rmdir(os.path.join(self.parent, each))
            os.close(self._lock)
            self._lock = None
        for path in self._made if failed else ():
            with contextlib.suppress(OSError):  # something else is in it by now
                os.rmdir(path)
        tidy(self.parent)

    def begin(self):
        """An empty directory for the new tree, and a place for its tarball."""
        if os.path.lexists(self.work):  # of a run that was killed, or of another tree
            remove_tree(self.work)
        os.mkdir(self.work, 0o700)
        os.mkdir(self.tree, 0o700)

    def add(self, final):
        """Give the finished tree its name: after a power cut it is whole, or not there."""
        _call("syncfs", self._lock)
        if os.path.isdir(final):  # damaged
            os.rename(final, aside(self.path, final))
        os.rename(self.tree, final)

    def name(self, dest, digest, former):
        """Let ``dest`` lead to a tree. A directory in its place goes to the path ``former`` at the same moment."""
        link = former or os.path.join(self.path, "link")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)  # of a run that was killed
        os.symlink(target(digest), link)
        try:
            exchange(link, dest) if former else os.rename(link, dest)
        except OSError:
            os.unlink(link)
            raise


def _claim(tree, locks):
    """Keep starts of containers from a tree; whether none has a use for it already: see launcher.start.hold."""
    try:
        opened = os.open(tree, OPEN)
    except NotADirectoryError:  # a link that a killed run has left
        return True
    locks.callback(os.close, opened)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_foreign(parent):
    """Raise NotOwnedError where something else lies in the place of a store."""
    path = os.path.join(parent, NAME)
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path) or os.lstat(path).st_uid != 0):
        raise NotOwnedError(path, "is where root filesystems have to be unpacked, and was not made by this collection",
                            "Choose another dest, or remove it by hand first.")


def exchange(one, other):
    """Let two names change places at one moment."""
    _call("renameat2", AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def _call(function, *arguments):
    """Call a function of the C library that Python has none for."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
