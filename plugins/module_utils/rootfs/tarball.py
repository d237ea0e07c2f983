# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack the tarball of a root filesystem, and trust nothing in it.

Python's own filters do not fit: ``data`` refuses the absolute symlinks that Alpine is full of and strips setuid bits,
the others let too much through. The rule here: whatever is written is written into a directory that the tarball itself
made, never through a link. So every member is judged against all that came before it, and nothing takes the place of another.
A symlink may then point where it likes inside of the container's root.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from typing import Any, Dict, List, Optional, Tuple

CHUNK = 1 << 16
LONGEST_READ = 1 << 20  # no header is longer; tarfile would read one of gigabytes into memory
MOST_MEMBERS = 500000
MOST_TEXT = 1 << 26  # bytes of all paths together
LONGEST_PATH = 2048  # of the kernel's 4095 bytes, the directories that the root lies in need some, too
LONGEST_NAME = 255
LONGEST_TARGET = 4095
DEEPEST = 200  # Python removes a tree by recursion
LATEST = 2 ** 62  # seconds; the kernel takes no more than 2 ** 63
BLOCK = 4096
NOBODY = 2 ** 32 - 1  # chown reads it as "leave alone"

DESCRIPTOR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

DIRECTORY, FILE, SYMLINK, HARDLINK = "directory", "file", "symlink", "hard link"


class TarballError(Exception):
    """Report why a tarball cannot be unpacked, as text that follows its name."""


class Hashed:
    """Read a file, and hash what was read with SHA-256."""

    def __init__(self, file):
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size=-1):
        """Return the next bytes of the file."""
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def sha256(self):
        """Return the digest of the whole file, in hexadecimal."""
        while self.read(CHUNK):
            pass
        return self._digest.hexdigest()


class Stream:
    """Decompress a gzip file, forward only: an archive that makes tarfile loop ends here."""

    def __init__(self, file):
        self._gzip = gzip.GzipFile(fileobj=file, mode="rb")
        self._at = 0
        self.last = b""  # what the last read gave

    def tell(self):
        """Return the position in the decompressed stream."""
        return self._at

    def read(self, size=-1):
        """Return the next bytes of the decompressed stream. Raise TarballError."""
        if not 0 <= size <= LONGEST_READ:
            raise TarballError("has a header of an impossible length")
        try:
            self.last = self._gzip.read(size)
        except EOFError:
            raise TarballError("is cut short: the gzip file ends too early") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise TarballError(f"is not a gzip file, or a damaged one ({error})") from None
        self._at += len(self.last)
        return self.last

    def seek(self, position, whence=os.SEEK_SET):
        """Skip forward to a position. Raise TarballError."""
        if whence != os.SEEK_SET or position < self._at:
            raise TarballError("has a member that begins before the one in front of it")
        while self._at < position and self.read(min(CHUNK, position - self._at)):
            pass
        return self._at

    def finish(self):
        """Read to the end, so that gzip verifies its checksum. Raise TarballError."""
        if self.last != bytes(512):
            raise TarballError("is cut short or damaged: there is no end of archive where it should be")
        rest = 0
        while self.read(CHUNK):
            rest += len(self.last)
            if rest > LONGEST_READ or self.last.strip(b"\0"):
                raise TarballError("goes on after its end of archive")


def members(file):
    """Yield (archive, member) for each member in turn. Raise TarballError."""
    stream: Any = Stream(file)  # all that tarfile asks of one that it reads
    with reasons(), tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
        archive: Any = opened  # some of its attributes have no types
        if archive.firstmember is None:
            raise TarballError("is an empty archive")
        for member in iter(archive.next, None):
            yield archive, member
            archive.members.clear()  # tarfile keeps them all
        stream.finish()


@contextlib.contextmanager
def reasons():
    """Raise what tarfile raises about a bad archive as TarballError."""
    try:
        yield
    except tarfile.TarError as error:
        raise TarballError(f"is not a tar archive, or a damaged one ({error})") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise TarballError(f"has a damaged header ({error})") from None


class Tree:
    """Judge members in the archive's order. ``judged`` holds (path, target of a hard link or None) of each."""

    def __init__(self, room: Optional[int] = None):
        self.room, self.size, self.text = room, 0, 0
        self.kinds = {b"": DIRECTORY}  # by path: of members, and of the directories that their paths imply
        self.judged: List[Tuple[bytes, Optional[bytes]]] = []

    def add(self, member: tarfile.TarInfo) -> Tuple[bytes, Optional[bytes]]:
        """Return (path, target of a hard link or None) of a member. Raise TarballError."""
        kind, path, target = _kind(member), _path(member.name, "a member"), None
        name, known = path.decode("utf-8", "backslashreplace") or ".", self.kinds.get(path)
        if known and not known == kind == DIRECTORY:
            raise TarballError(f"has the member {name} twice, as {known} and as {kind}" if path else f"has a {kind} for its root")
        if kind == HARDLINK:
            target = _path(member.linkname, f"the hard link {name}")
            if self.kinds.get(target, DIRECTORY) == DIRECTORY:
                raise TarballError(f"has the hard link {name} to {member.linkname!r}, which is no file before it")
        if kind == SYMLINK:
            _judge_symlink(name, path, member.linkname)
        if not (0 <= member.uid < NOBODY and 0 <= member.gid < NOBODY):
            raise TarballError(f"has the member {name} with an impossible owner, {member.uid}:{member.gid}")
        if not abs(member.mtime) < LATEST:  # nor is it so with NaN
            raise TarballError(f"has the member {name} with an impossible time, {member.mtime}")
        if member.size < 0:
            raise TarballError(f"has the member {name} with the size {member.size}")
        self._place(name, path, kind)
        self._measure(member)
        self.judged.append((path, target))
        return path, target

    def _place(self, name, path, kind):
        """Record a member and the directories above it; those above a recorded path are recorded."""
        while path not in self.kinds:
            self.kinds[path] = kind
            self.text += len(path)
            path, kind = path.rpartition(b"/")[0], DIRECTORY
        if kind == DIRECTORY != self.kinds[path]:
            above = path.decode("utf-8", "backslashreplace")
            raise TarballError(f"has the member {name!r} behind {above}, which is a {self.kinds[path]}")
        if len(self.kinds) > MOST_MEMBERS or self.text > MOST_TEXT:
            raise TarballError(f"has more than {MOST_MEMBERS} members, or paths of more than {MOST_TEXT >> 20} MiB")

    def _measure(self, member):
        self.size += -(-member.size // BLOCK) * BLOCK if member.isreg() else 0
        if self.room is not None and self.size > self.room:
            raise TarballError(f"needs more room than there is, at least {self.size >> 20} MiB "
                               f"where {self.room >> 20} MiB are free")


def _path(text, what):
    """Return a normalized path; that of the root is empty. Raise TarballError."""
    raw = text.encode("utf-8", "surrogateescape")
    names = [name for name in raw.split(b"/") if name not in (b"", b".")]
    if raw.startswith(b"/"):
        raise TarballError(f"has {what} with the absolute path {text!r}")
    if b".." in names:
        raise TarballError(f"has {what} with the path {text!r}, which leads outside")
    if b"\0" in raw or len(raw) > LONGEST_PATH or len(names) > DEEPEST or max(map(len, names), default=0) > LONGEST_NAME:
        raise TarballError(f"has {what} with an impossible path of {len(raw)} bytes and {len(names)} names")
    return b"/".join(names)


def _judge_symlink(name, path, target):
    """Raise TarballError for a relative target that would climb out on the host; an absolute one is resolved in the container."""
    if not target or "\0" in target or len(target.encode("utf-8", "surrogateescape")) > LONGEST_TARGET:
        raise TarballError(f"has the symlink {name} with an impossible target")
    depth = path.count(b"/")
    for part in () if target.startswith("/") else target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            raise TarballError(f"has the symlink {name} to {target!r}, which leads outside")


def _kind(member):
    for kind, fits in ((FILE, member.isreg), (DIRECTORY, member.isdir), (SYMLINK, member.issym), (HARDLINK, member.islnk)):
        if fits():
            return kind
    what = "device node" if member.isdev() and not member.isfifo() else "FIFO" if member.isfifo() else "unknown thing"
    raise TarballError(f"has the {what} {member.name!r}; a root filesystem gets its devices when the container starts")


class Writer:
    """Write members below a directory, to paths that a Tree has judged."""

    def __init__(self, path):
        self._top = os.open(path, DESCRIPTOR)
        self._directories: Dict[bytes, Optional[tarfile.TarInfo]] = {b"": None}  # those that are made, with their members

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        os.close(self._top)

    def make_directory(self, path):
        """Create a directory, and those above it."""
        if path not in self._directories:
            self.make_directory(path.rpartition(b"/")[0])
            os.mkdir(path, 0o700, dir_fd=self._top)
            self._directories[path] = None

    def write(self, path, member, target, data):
        """Write one member: ``target`` is what it is a hard link to, ``data`` the contents of a file."""
        self.make_directory(path if member.isdir() else path.rpartition(b"/")[0])
        if member.isdir():
            self._directories[path] = member
        elif target is not None:
            os.link(target, path, src_dir_fd=self._top, dst_dir_fd=self._top, follow_symlinks=False)
        elif member.issym():
            os.symlink(member.linkname.encode("utf-8", "surrogateescape"), path, dir_fd=self._top)
            os.chown(path, member.uid, member.gid, dir_fd=self._top, follow_symlinks=False)
            os.utime(path, ns=_times(member), dir_fd=self._top, follow_symlinks=False)
        else:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._top)
            with open(file, "wb") as stream:
                shutil.copyfileobj(data, stream, CHUNK)
                stream.flush()
                _own(file, member)

    def finish(self):
        """Set owners, modes and times of directories, which change as long as something is created in them."""
        for path, member in self._directories.items():
            file = os.open(path or b".", DESCRIPTOR, dir_fd=self._top)
            try:
                if path and member:
                    _own(file, member)
                else:  # the root is root's, whatever the tarball says
                    os.fchmod(file, 0o755)
                    if member:
                        os.utime(file, ns=_times(member))
            finally:
                os.close(file)


def _own(file, member):
    # In this order: changing the owner clears setuid, and writing may.
    os.fchown(file, member.uid, member.gid)
    os.fchmod(file, member.mode & 0o7777)
    os.utime(file, ns=_times(member))


def _times(member):
    mtime = int(member.mtime * 10 ** 9)
    return mtime, mtime


@reasons()
def inspect(file: Any, room: Optional[int] = None) -> Tree:
    """Return the Tree that has judged a tarball.

    Raise TarballError where it cannot be unpacked into ``room`` bytes. Write nothing.
    """
    tree = Tree(room)
    for _archive, member in members(file):
        tree.add(member)
    return tree


@reasons()
def unpack(file: Any, path: str, tree: Tree) -> None:
    """Unpack into an empty directory which nobody else can reach. Raise TarballError; the caller then removes the directory.

    ``tree`` is a new one, or has judged these members: the digest of the file proves that they are the same.
    """
    judged = iter(tuple(tree.judged))
    with Writer(path) as writer:
        for archive, member in members(file):
            inside, target = next(judged, None) or tree.add(member)
            if tree.kinds[inside] != _kind(member):
                raise TarballError("has changed since it was judged")
            writer.write(inside, member, target, archive.extractfile(member) if member.isreg() else None)
        writer.finish()
