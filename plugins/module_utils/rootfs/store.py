# SPDX-License-Identifier: GPL-3.0-or-later
"""Store immutable trees, each named by the digest of its tarball, and point names to them.

Beside each root filesystem is the directory ``.store``, closed to all but root, because trees contain set-user-ID files. A tree is
unpacked there completely, named by one rename, and never written again. ``dest`` is a symbolic link to it, which one rename
switches as well. So a tree never moves while containers run on it, and is removed when neither a link nor a container uses it.
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
from ..core.plan import NOW

NAME = STORE
WORK = "new"  # in the store: where a tree is made
FORMER = ".alpine_rootfs.used"  # where earlier releases moved trees that containers ran on
TREE = re.compile(r"sha256-[0-9a-f]{64}")
OURS = {NAME: re.compile(rf"{TREE.pattern}|inode-\d+|{WORK}|link"), FORMER: re.compile(r".+\.\d+")}  # what is made in them
OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def directory(dest: str) -> str:
    """Return the path of the store of a root filesystem."""
    return os.path.join(os.path.dirname(dest), NAME)


def place(dest: str, digest: str) -> str:
    """Return the path of a tarball's tree."""
    return os.path.join(directory(dest), f"sha256-{digest}")


def aside(dest: str, tree: str) -> str:
    """Return where to move a directory that is in the way, and on which containers may run: into the store, named by its inode."""
    return os.path.join(directory(dest), f"inode-{number(tree)}")


def is_closed(there):
    """Return whether only root can read a store, if there is one."""
    return is_private(there) or not os.path.lexists(there)


def target(digest) -> str:
    """Return the target of the link to a tree: relative, so that both can be viewed and moved together."""
    return f"{NAME}/sha256-{digest}"


def digest_of(link: str) -> Optional[str]:
    """Return the digest that a link of the collection points to, or None for another."""
    head, _slash, tail = os.readlink(link).rpartition("/")
    return tail[len("sha256-"):] if head == NAME and TREE.fullmatch(tail) else None


def is_store_tree(path: str) -> bool:
    """Return whether a path resolves to a tree of a store, which is never written to."""
    head, tail = os.path.split(os.path.realpath(path))
    return os.path.basename(head) == NAME and bool(TREE.fullmatch(tail))


def tree_of(path, state=NOW):
    """Return what identifies a root filesystem: the path of its tree, or "device:inode" of a directory outside of a store.

    ``state`` is what earlier kinds of this run will leave. Return None where nothing is.
    """
    if path in state.trees:
        return state.trees[path]
    if is_store_tree(path):
        return os.path.realpath(path)
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def room(path: str) -> int:
    """Return the free bytes of the file system that a path, or its nearest existing parent, is on."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


# What is of use to somebody

def unused(parent, leaving=()):
    """Return the trees, and leftovers of interrupted runs, that nothing uses once the links ``leaving`` are switched."""
    found = unnamed(parent, leaving)
    used = trees_in_use(found) | _lower_layers(parent, found) if found else ()
    return [each for each in found if each not in used and not (os.path.isdir(each) and mounts_below(each))]


def unnamed(parent, leaving=()):
    """Return the same, including those that containers use."""
    found = []
    for name, pattern in OURS.items():
        there = os.path.join(os.path.realpath(parent), name)
        if is_private(there):
            found += sorted(os.path.join(there, each) for each in os.listdir(there) if pattern.fullmatch(each))
    with os.scandir(parent) if found else contextlib.nullcontext(()) as entries:
        named = {os.path.realpath(each.path) for each in entries if each.is_symlink() and each.path not in leaving}
    return [each for each in found if each not in named]


def _lower_layers(parent, trees):
    """Return the trees that are the lower layer of a mounted overlay. One mounted through a link may be any of them."""
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
    """Remove the unused trees beside a root filesystem, unless another run is at work there."""
    parent = parent_of(path)
    if is_private(os.path.join(parent, NAME)) or is_private(os.path.join(parent, FORMER)):
        with contextlib.suppress(Busy), Store(parent):
            pass


def clearing(parent, leaving, coming):
    """Return the commands that remove what is unused once the links ``leaving`` are switched, such as to the trees ``coming``."""
    gone = [tree for tree in unused(parent, leaving) if tree not in coming]
    lines = [shlex.join(["rm", "-rf", tree]) for tree in gone]
    if trees_in_use(set(unnamed(parent, leaving)).difference(gone, coming)):
        return [*lines, releasing(parent)]  # containers of this very run may have stopped by then
    if not coming and (gone or leaving):
        lines += [shlex.join(["rmdir", "--ignore-fail-on-non-empty", os.path.join(parent, NAME)]), *emptied(parent)]
    return lines


def releasing(parent):
    """Return the command that removes the unused trees of a directory's store."""
    end, parent = "".join(f"; {line}" for line in emptied(parent)), shlex.quote(parent)
    stores, trees = (" ".join(f"{parent}/{name}{tail}" for name in OURS) for tail in ("", "/*"))
    # What find says of a name that is not there counts as one that leads to it.
    return (f"for tree in {trees}; do "
            f'[ "$(find -L {parent} -maxdepth 1 -samefile "$tree" 2>&1)" ] || '
            f'grep -qsxF -e "$tree" -e "$(stat -c %i "$tree")" -e {UNKNOWN} {RUN}/* || rm -rf "$tree"; done; '
            f'for store in {stores}; do [ ! -d "$store" ] || rmdir --ignore-fail-on-non-empty "$store"; done{end}')


def parent_of(path):
    """Return the directory that holds both the link and the store, of either's path."""
    parent = os.path.dirname(os.path.realpath(path))
    return os.path.dirname(parent) if os.path.basename(parent) == NAME else parent


def waiting(paths, state):
    """Return the directories of these root filesystems in which a tree may become unused, by the plans made so far."""
    coming = {os.path.dirname(os.path.dirname(each)) for each in state.trees.values()}
    return sorted(each for each in set(map(parent_of, paths)) if each in coming or unnamed(each))


# Changing it

class Busy(ModuleError):
    """Report that another run is at work."""


class Store:
    """Lock the store of a directory for one run.

    At exit remove the unused trees, and the store when it is empty; where the work failed, also the directories created for it.
    """

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
                for tree in unused(self.parent) if claimed else ():
                    if tree in claimed:
                        remove_tree(tree)
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
            for name in OURS:
                if is_private(os.path.join(self.parent, name)):
                    with contextlib.suppress(OSError):  # there are trees in it
                        os.rmdir(os.path.join(self.parent, name))
            os.close(self._lock)
            self._lock = None
        for path in self._made if failed else ():
            with contextlib.suppress(OSError):  # something else is in it by now
                os.rmdir(path)
        tidy(self.parent)

    def begin(self):
        """Create an empty directory for the new tree, and a place for its tarball."""
        if os.path.lexists(self.work):  # of a run that was killed, or of another tree
            remove_tree(self.work)
        os.mkdir(self.work, 0o700)
        os.mkdir(self.tree, 0o700)

    def add(self, final):
        """Give the finished tree its name: after a power failure it is complete, or absent."""
        _call("syncfs", self._lock)
        if os.path.isdir(final):  # damaged
            os.rename(final, aside(self.path, final))
        os.rename(self.tree, final)

    def name(self, dest, digest, former):
        """Point ``dest`` to a tree. A directory in its place moves to the path ``former`` atomically."""
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
    """Lock a tree against starts of containers. Return whether none uses it: see launcher.start.hold."""
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
    """Raise NotOwnedError where something else is in the place of a store."""
    path = os.path.join(parent, NAME)
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path) or os.lstat(path).st_uid != 0):
        raise NotOwnedError(path, "is where root filesystems have to be unpacked, and was not made by this collection",
                            "Choose another dest, or remove it by hand first.")


def exchange(one, other):
    """Exchange two names atomically."""
    _call("renameat2", AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def _call(function, *arguments):
    """Call a function of the C library that Python does not offer."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
