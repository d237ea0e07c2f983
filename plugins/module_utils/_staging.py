# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory beside the one that is wanted, in which it is made whole before a rename puts it in place.

Beside, so that it is the same file system; 0700 and root's, so that nobody reaches what is not finished; locked, so
that what a killed run has left can be told from what a living one works on.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from . import _trees
from ._errors import Foreign, Problem
from ._files import is_private, remove_tree

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def path_of(dest):
    parent, base = os.path.split(dest)
    return os.path.join(parent, f".{base}.partial")


def leftover(dest):
    """The path of what a run has left beside ``dest``, or ``""``. Raises Foreign where it is not one of ours."""
    path = path_of(dest)
    if not os.path.lexists(path):
        return ""
    if not is_private(path):
        raise Foreign(path, f"is where {dest} has to be unpacked, and was not made by this collection",
                      "Choose another dest, or remove it by hand first.")
    return path


def filled(path):
    """Whether a directory is there and has anything in it."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


def _clear(directory, keep=None):
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        elif name != keep:
            os.unlink(path)


def room(path):
    """The free bytes of the file system that a path, or the nearest of its parents that is there, is on."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Staging:
    """Use as a context: it is gone in the end, and so are the parents it made where the work failed."""

    def __init__(self, dest):
        self.dest = dest
        self.path = path_of(dest)
        self.tarball, self.tree, self.old, self.gone = (
            os.path.join(self.path, name) for name in ("tarball", "tree", "old", "gone"))
        self.trees = self.tree, self.old, self.gone
        self._made, self._lock = [], None

    def __enter__(self):
        try:
            self._make_parents(os.path.dirname(self.dest))
            self._acquire()
            self._recover()
            os.mkdir(self.tree, 0o700)
        except BaseException:
            self._release(failed=True)
            raise
        return self

    def __exit__(self, kind, value, trace):
        try:
            if os.path.lexists(self.path):
                self._keep()
                remove_tree(self.path)
            _trees.release(self.dest)
        except (OSError, Problem):
            if kind is None:  # else the first error says more
                raise
        finally:
            self._release(failed=kind is not None)

    def _make_parents(self, path):
        if os.path.isdir(path):
            return
        self._make_parents(os.path.dirname(path))
        os.mkdir(path)
        self._made.append(path)
        os.chmod(path, 0o755)  # whatever the umask is

    def _acquire(self):
        while self._lock is None:
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                leftover(self.dest)
            try:
                lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # another run has just finished
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise Problem(f"dest: another run is at work on {self.dest}, in {self.path}; wait for it") from None
            if os.path.isdir(self.path) and os.path.samestat(os.fstat(lock), os.stat(self.path)):
                self._lock = lock
            else:
                os.close(lock)
        os.fchmod(self._lock, 0o700)

    def _recover(self):
        """Clean up after a killed run. If it died between the two renames, what was there goes back first."""
        if os.path.isdir(self.old) and not os.path.lexists(self.dest):
            os.rename(self.old, self.dest)
        self._keep()
        _clear(self.path)

    def _keep(self):
        """A former tree that containers run on."""
        for tree in self.trees:
            _trees.keep(self.dest, tree)

    def _release(self, failed):
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        for path in reversed(self._made) if failed else ():
            try:
                os.rmdir(path)
            except OSError:
                break  # something else is in it by now

    def put(self):
        """The finished tree to where it belongs; what was there comes here, and goes with this directory."""
        _flush(self._lock)
        try:
            if not filled(self.dest):
                os.rename(self.tree, self.dest)
            elif not _exchange(self.tree, self.dest):
                self._in_two_steps()
        except OSError as error:
            raise Problem(f"dest: {self.dest} cannot be put in place: {self._reason(error)}") from error

    def _in_two_steps(self):
        os.rename(self.dest, self.old)
        try:
            os.rename(self.tree, self.dest)
        except OSError:
            os.rename(self.old, self.dest)
            raise

    def take(self, record):
        """What is at dest comes here, never to go back. Where it cannot be renamed it is removed in place, the record last."""
        try:
            os.rename(self.dest, self.gone)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            if used := _trees.users(self.dest):
                raise Problem(f"dest: {self.dest} comes from the lower layer of an overlay, where it cannot be moved aside for "
                              f"the containers that run on it; stop them first: {', '.join(used)}") from error
            _clear(self.dest, record)
            remove_tree(self.dest)

    @staticmethod
    def _reason(error):
        if error.errno == errno.EXDEV:
            return ("it comes from the lower layer of an overlay, where directories cannot be renamed; remove it with "
                    "state: absent first, or choose another dest")
        return error.strerror


def _flush(directory):
    """The data to the disk before the name: after a power cut the tree is whole, or not there."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is not None and syncfs(directory) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _exchange(one, other):
    """Both names change places at one moment. False where libc, the kernel or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0
