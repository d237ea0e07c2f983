# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks the tarball of a root file system, and trusts nothing in it.

Python's own filters do not fit: ``data`` refuses the absolute symlinks that Alpine is full of and strips setuid bits,
the others let too much through. The rule here: whatever is written is written into a directory that the tarball itself
made, never through a link. So every member is judged against all that came before it, once before anything is
written and once more while writing. A symlink may then point where it likes inside of the container's root.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import zlib
from typing import NamedTuple, Optional, Tuple

CHUNK = 1 << 16
LONGEST_READ = 1 << 20  # no header is longer; tarfile would read one of gigabytes into memory
MOST_MEMBERS = 500000
LONGEST_PATH = 2048  # of the kernel's 4095 bytes, the directories that the root lies in need some, too
LONGEST_NAME = 255
LONGEST_TARGET = 4095
DEEPEST = 200  # Python removes a tree by recursion
LATEST = 2 ** 62  # seconds; the kernel takes no more than 2 ** 63
BLOCK = 4096
NOBODY = 2 ** 32 - 1  # chown reads it as "leave alone"

DIRECTORY, FILE, SYMLINK, HARDLINK = "directory", "file", "symlink", "hard link"


class Unfit(Exception):
    """Why a tarball cannot be unpacked, in words that go on after its name."""


class Stream:
    """The unpacked stream of a gzip file, forward only: an archive that makes tarfile go in circles ends here."""

    def __init__(self, file):
        self._gzip = gzip.GzipFile(fileobj=file, mode="rb")
        self._at = 0
        self.last = b""  # what the last read gave

    def tell(self):
        return self._at

    def read(self, size=-1):
        if not 0 <= size <= LONGEST_READ:
            raise Unfit("has a header of an impossible length")
        try:
            self.last = self._gzip.read(size)
        except EOFError:
            raise Unfit("is cut short: the gzip file ends too early") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise Unfit(f"is not a gzip file, or a damaged one ({error})") from None
        self._at += len(self.last)
        return self.last

    def seek(self, position, whence=os.SEEK_SET):
        if whence != os.SEEK_SET or position < self._at:
            raise Unfit("has a member that begins before the one in front of it")
        while self._at < position and self.read(min(CHUNK, position - self._at)):
            pass
        return self._at

    def finish(self):
        """To the end, so that gzip's own checksum is looked at."""
        if self.last != bytes(512):
            raise Unfit("is cut short or damaged: there is no end of archive where it should be")
        rest = 0
        while self.read(CHUNK):
            rest += len(self.last)
            if rest > LONGEST_READ or self.last.strip(b"\0"):
                raise Unfit("goes on after its end of archive")


def members(file):
    """(archive, member) for each member in turn."""
    stream = Stream(file)
    with reasons(), tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        if archive.firstmember is None:
            raise Unfit("is an empty archive")
        while True:
            member = archive.next()
            if member is None:
                break
            yield archive, member
            archive.members.clear()  # tarfile keeps them all
        stream.finish()


@contextlib.contextmanager
def reasons():
    """What tarfile raises about a bad archive, as Unfit."""
    try:
        yield
    except tarfile.TarError as error:
        raise Unfit(f"is not a tar archive, or a damaged one ({error})") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise Unfit(f"has a damaged header ({error})") from None


def shown(parts):
    return b"/".join(parts).decode("utf-8", "backslashreplace") or "."


class Verdict(NamedTuple):
    """Where a member goes, what it is, the directories it implies, and the path that a hard link leads to."""

    parts: Tuple[bytes, ...]
    kind: str
    implied: Tuple[Tuple[bytes, ...], ...]
    target: Optional[Tuple[bytes, ...]] = None


class Judge:
    """Judges members one after the other, knowing what came before."""

    def __init__(self, room=None):
        self.room, self.size = room, 0
        self.kinds = {(): DIRECTORY}

    def judge(self, member):
        """The Verdict. Raises Unfit."""
        parts, kind, target = self._parts(member.name, "a member"), _kind(member), None
        implied = self._parents(parts)
        have = self.kinds.get(parts)
        if have and not have == kind == DIRECTORY:
            raise Unfit(f"has the member {shown(parts)} twice, as {have} and as {kind}" if parts
                        else f"has a {kind} for its root")
        if kind == SYMLINK:
            self._symlink(parts, member.linkname)
        elif kind == HARDLINK:
            target = self._parts(member.linkname, f"the hard link {shown(parts)}")
            if self.kinds.get(target) not in (FILE, SYMLINK, HARDLINK):
                raise Unfit(f"has the hard link {shown(parts)} to {shown(target)}, which is no file before it")
        if not (0 <= member.uid < NOBODY and 0 <= member.gid < NOBODY):
            raise Unfit(f"has the member {shown(parts)} with an impossible owner, {member.uid}:{member.gid}")
        if not abs(member.mtime) < LATEST:  # nor is it so with NaN
            raise Unfit(f"has the member {shown(parts)} with an impossible time, {member.mtime}")
        self.kinds[parts] = kind
        self._measure(member, parts)
        return Verdict(parts, kind, tuple(implied), target)

    @staticmethod
    def _parts(name, what):
        raw = name.encode("utf-8", "surrogateescape")
        if raw.startswith(b"/"):
            raise Unfit(f"has {what} with the absolute path {name!r}")
        parts = tuple(each for each in raw.split(b"/") if each not in (b"", b"."))
        if b".." in parts:
            raise Unfit(f"has {what} with the path {name!r}, which leads outside")
        if b"\0" in raw or len(raw) > LONGEST_PATH or len(parts) > DEEPEST or any(len(each) > LONGEST_NAME for each in parts):
            raise Unfit(f"has {what} with an impossible path of {len(raw)} bytes and {len(parts)} names")
        return parts

    def _parents(self, parts):
        implied = []
        for depth in range(1, len(parts)):
            kind = self.kinds.get(parts[:depth])
            if kind is None:
                self.kinds[parts[:depth]] = DIRECTORY
                implied.append(parts[:depth])
            elif kind != DIRECTORY:
                raise Unfit(f"has the member {shown(parts)} behind {shown(parts[:depth])}, which is a {kind}")
        return implied

    @staticmethod
    def _symlink(parts, target):
        """An absolute target is resolved inside of the container; a relative one must not climb out on the host."""
        if not target or "\0" in target or len(target.encode("utf-8", "surrogateescape")) > LONGEST_TARGET:
            raise Unfit(f"has the symlink {shown(parts)} with an impossible target")
        depth = len(parts) - 1
        for each in () if target.startswith("/") else target.split("/"):
            depth += {"": 0, ".": 0, "..": -1}.get(each, 1)
            if depth < 0:
                raise Unfit(f"has the symlink {shown(parts)} to {target!r}, which leads outside")

    def _measure(self, member, parts):
        if member.size < 0:
            raise Unfit(f"has the member {shown(parts)} with the size {member.size}")
        if len(self.kinds) > MOST_MEMBERS:
            raise Unfit(f"has more than {MOST_MEMBERS} members")
        if member.isreg():
            self.size += -(-member.size // BLOCK) * BLOCK
        if self.room is not None and self.size > self.room:
            raise Unfit(f"needs more room than there is, at least {self.size >> 20} MiB "
                        f"where {self.room >> 20} MiB are free")


def _kind(member):
    if member.isreg():
        return FILE
    if member.isdir():
        return DIRECTORY
    if member.issym():
        return SYMLINK
    if member.islnk():
        return HARDLINK
    what = "device node" if member.isdev() and not member.isfifo() else "FIFO" if member.isfifo() else "unknown thing"
    raise Unfit(f"has the {what} {member.name!r}; a root file system gets its devices when the container starts")


@reasons()
def inspect(file, room=None):
    """Raises Unfit where the tarball cannot be unpacked into ``room`` bytes. Writes nothing."""
    judge = Judge(room)
    for unused, member in members(file):
        judge.judge(member)


@reasons()
def unpack(file, tree):
    """Unpack into the directory ``tree``, which is empty and which nobody else can reach."""
    judge, top, directories = Judge(), os.fsencode(tree), {(): None}
    for archive, member in members(file):
        parts, kind, implied, target = judge.judge(member)
        for each in implied:
            os.mkdir(_path(top, each), 0o700)
            directories[each] = None
        path = _path(top, parts)
        if kind == DIRECTORY:
            if parts not in directories:
                os.mkdir(path, 0o700)
            directories[parts] = member
        elif kind == FILE:
            _write(archive.extractfile(member), member, path)
        elif kind == SYMLINK:
            os.symlink(member.linkname.encode("utf-8", "surrogateescape"), path)
            os.lchown(path, member.uid, member.gid)
            os.utime(path, ns=_times(member), follow_symlinks=False)
        else:
            os.link(_path(top, target), path, follow_symlinks=False)
    # Last: what is made in a directory changes its time.
    for parts, member in directories.items():
        path = _path(top, parts)
        tells = member is not None and parts  # the root is root's, whatever the tarball says
        os.chown(path, *((member.uid, member.gid) if tells else (0, 0)))
        os.chmod(path, member.mode & 0o7777 if tells else 0o755)
        if member is not None:
            os.utime(path, ns=_times(member))


def _path(top, parts):
    return b"/".join((top,) + parts)


def _times(member):
    mtime = int(member.mtime * 10 ** 9)
    return mtime, mtime


def _write(data, member, path):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            chunk = data.read(CHUNK)
            if not chunk:
                break
            _write_all(file, chunk)
        # In this order: changing the owner clears setuid, and writing may.
        os.fchown(file, member.uid, member.gid)
        os.fchmod(file, member.mode & 0o7777)
        os.utime(file, ns=_times(member))
    finally:
        os.close(file)


def _write_all(file, chunk):
    view = memoryview(chunk)
    while view:
        view = view[os.write(file, view):]
