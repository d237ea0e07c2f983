# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacks the tarball of a root file system, and trusts nothing in it.

Python's own filters do not fit: ``data`` refuses the absolute symlinks that Alpine is full of and strips setuid bits,
the others let too much through. The rule here: whatever is written is written into a directory that the tarball itself
made, never through a link. So every member is judged against all that came before it, and written by the descriptor of its
directory, which is opened by its one name from that of the directory above. A symlink may then point where it likes inside of the
container's root.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import zlib

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

MOST_SEEN = 1000
MOST_OPEN = 512  # more than two paths have directories
DESCRIPTOR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

DIRECTORY, FILE, SYMLINK, HARDLINK = "directory", "file", "symlink", "hard link"


class Unfit(Exception):
    """Why a tarball cannot be unpacked, in words that go on after its name."""


class Hashed:
    """A file, and the SHA-256 of what has been read of it."""

    def __init__(self, file):
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size=-1):
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def sha256(self):
        """The digest of the whole file."""
        while self.read(CHUNK):
            pass
        return self._digest.hexdigest()


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


class Node:
    """A member, or a directory that the path of one implies: its name, and the directory that it is in."""

    __slots__ = ("children", "depth", "kind", "member", "name", "parent")

    def __init__(self, name, parent, kind):
        self.name, self.parent, self.kind, self.member = name, parent, kind, None
        self.depth = parent.depth + 1 if parent else 0
        self.children = {} if kind == DIRECTORY else None

    def __str__(self):
        names, node = [], self
        while node.parent:
            names.append(node.name)
            node = node.parent
        return b"/".join(reversed(names)).decode("utf-8", "backslashreplace") or "."


class Tree:
    """Judges members one after the other, knowing what came before. The cost of one does not grow with its depth where others have
    come from the same directory. ``judged`` is what came of each, in the order of the archive."""

    def __init__(self, room=None):
        self.room, self.size, self.count = room, 0, 1
        self.root, self.judged = Node(b"", None, DIRECTORY), []
        self._seen = {b"": self.root}  # directories by their paths, as members say them

    def add(self, member):
        """The Node of a member, and that which it is a hard link to. Raises Unfit."""
        kind, target = _kind(member), None
        directory, name = self._place(member.name, "a member", make=True)
        node = directory.children.get(name) if name else directory
        if node and not node.kind == kind == DIRECTORY:
            raise Unfit(f"has the member {node} twice, as {node.kind} and as {kind}" if name else f"has a {kind} for its root")
        if kind == HARDLINK:
            target = self._target(member, directory, name)
        node = node or self._new(name, directory, kind)
        if kind == SYMLINK:
            _judge_symlink(node, member.linkname)
        if not (0 <= member.uid < NOBODY and 0 <= member.gid < NOBODY):
            raise Unfit(f"has the member {node} with an impossible owner, {member.uid}:{member.gid}")
        if not abs(member.mtime) < LATEST:  # nor is it so with NaN
            raise Unfit(f"has the member {node} with an impossible time, {member.mtime}")
        self._measure(member, node)
        if kind == DIRECTORY:
            node.member = member
        self.judged.append((node, target))
        return node, target

    def directories(self):
        """All of them, each before those that are in it."""
        todo = [self.root]
        while todo:
            node = todo.pop()
            yield node
            todo += [each for each in node.children.values() if each.kind == DIRECTORY]

    def _place(self, path, what, make=False):
        """(the Node of the directory, the name in it) of a path; (the root, None) for the root itself."""
        raw = path.encode("utf-8", "surrogateescape")
        head, unused, name = raw.rstrip(b"/").rpartition(b"/")
        directory, parts = self._seen.get(head), [name]
        if directory is None or raw.startswith(b"/") or name in (b"", b"."):
            if raw.startswith(b"/"):
                raise Unfit(f"has {what} with the absolute path {path!r}")
            directory, parts = self.root, [each for each in raw.split(b"/") if each not in (b"", b".")]
        if b".." in parts:
            raise Unfit(f"has {what} with the path {path!r}, which leads outside")
        depth = directory.depth + len(parts)
        if b"\0" in raw or len(raw) > LONGEST_PATH or depth > DEEPEST or any(len(each) > LONGEST_NAME for each in parts):
            raise Unfit(f"has {what} with an impossible path of {len(raw)} bytes and {depth} names")
        if not parts:
            return self.root, None
        for each in parts[:-1]:
            node = directory.children.get(each)
            if node is None:
                if not make:
                    return None, parts[-1]
                node = self._new(each, directory, DIRECTORY)
            elif node.kind != DIRECTORY:
                if not make:
                    return None, parts[-1]
                raise Unfit(f"has the member {path!r} behind {node}, which is a {node.kind}")
            directory = node
        if len(parts) > 1 and name == parts[-1]:
            if len(self._seen) > MOST_SEEN:
                self._seen.clear()
            self._seen[head] = directory
        return directory, parts[-1]

    def _new(self, name, directory, kind):
        self.count += 1
        if self.count > MOST_MEMBERS:
            raise Unfit(f"has more than {MOST_MEMBERS} members")
        node = directory.children[name] = Node(name, directory, kind)
        return node

    def _target(self, member, directory, name):
        link = f"the hard link {Node(name, directory, HARDLINK)}"
        head, last = self._place(member.linkname, link)
        target = head and head.children.get(last)
        if target is None or target.kind == DIRECTORY:
            raise Unfit(f"has {link} to {member.linkname!r}, which is no file before it")
        return target

    def _measure(self, member, node):
        if member.size < 0:
            raise Unfit(f"has the member {node} with the size {member.size}")
        if member.isreg():
            self.size += -(-member.size // BLOCK) * BLOCK
        if self.room is not None and self.size > self.room:
            raise Unfit(f"needs more room than there is, at least {self.size >> 20} MiB "
                        f"where {self.room >> 20} MiB are free")


def _judge_symlink(node, target):
    """An absolute target is resolved inside of the container; a relative one must not climb out on the host."""
    if not target or "\0" in target or len(target.encode("utf-8", "surrogateescape")) > LONGEST_TARGET:
        raise Unfit(f"has the symlink {node} with an impossible target")
    depth = node.depth - 1
    for each in () if target.startswith("/") else target.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(each, 1)
        if depth < 0:
            raise Unfit(f"has the symlink {node} to {target!r}, which leads outside")


def _kind(member):
    for kind, fits in ((FILE, member.isreg), (DIRECTORY, member.isdir), (SYMLINK, member.issym), (HARDLINK, member.islnk)):
        if fits():
            return kind
    what = "device node" if member.isdev() and not member.isfifo() else "FIFO" if member.isfifo() else "unknown thing"
    raise Unfit(f"has the {what} {member.name!r}; a root file system gets its devices when the container starts")


class Writer:
    """Writes Nodes below a directory, each by the descriptor of the directory that it is in. The last of these stay open."""

    def __init__(self, path):
        self._top = os.open(path, DESCRIPTOR)
        self._open, self._made = {}, set()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for each in (self._top, *self._open.values()):
            os.close(each)

    def descriptor(self, node):
        """That of a directory, which is made where it has not been."""
        if node.parent is None:
            return self._top
        found = self._open.pop(node, None)
        if found is None:
            above = self.descriptor(node.parent)
            if node not in self._made:
                os.mkdir(node.name, 0o700, dir_fd=above)
                self._made.add(node)
            found = os.open(node.name, DESCRIPTOR, dir_fd=above)
        self._open[node] = found
        if len(self._open) > MOST_OPEN:
            os.close(self._open.pop(next(iter(self._open))))
        return found

    def write(self, node, member, target, data):
        if node.kind == DIRECTORY:
            self.descriptor(node)
            return
        within = self.descriptor(node.parent)
        if node.kind == FILE:
            file = os.open(node.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=within)
            with open(file, "wb") as stream:
                shutil.copyfileobj(data, stream, CHUNK)
                stream.flush()
                _own(file, member)
        elif node.kind == SYMLINK:
            os.symlink(member.linkname.encode("utf-8", "surrogateescape"), node.name, dir_fd=within)
            os.chown(node.name, member.uid, member.gid, dir_fd=within, follow_symlinks=False)
            os.utime(node.name, ns=_times(member), dir_fd=within, follow_symlinks=False)
        else:
            os.link(target.name, node.name, src_dir_fd=self.descriptor(target.parent), dst_dir_fd=self.descriptor(node.parent),
                    follow_symlinks=False)

    def finish(self, tree):
        """Owners, modes and times of directories come last: what is made in one changes its time."""
        for node in tree.directories():
            file = self.descriptor(node)
            if node.member and node.parent:
                _own(file, node.member)
            else:  # the root is root's, whatever the tarball says
                os.fchmod(file, 0o755)
                if node.member:
                    os.utime(file, ns=_times(node.member))


def _own(file, member):
    # In this order: changing the owner clears setuid, and writing may.
    os.fchown(file, member.uid, member.gid)
    os.fchmod(file, member.mode & 0o7777)
    os.utime(file, ns=_times(member))


def _times(member):
    mtime = int(member.mtime * 10 ** 9)
    return mtime, mtime


@reasons()
def inspect(file, room=None):
    """The judged Tree of a tarball. Raises Unfit where it cannot be unpacked into ``room`` bytes. Writes nothing."""
    tree = Tree(room)
    for unused, member in members(file):
        tree.add(member)
    return tree


@reasons()
def unpack(file, path, tree):
    """Unpack into a directory that is empty and which nobody else can reach. Raises Unfit, where what is in it is to be removed.

    ``tree`` is a new one, or has judged these members: the digest of the file tells whether it was these.
    """
    judged = iter(tuple(tree.judged))
    with Writer(path) as writer:
        for archive, member in members(file):
            node, target = next(judged, None) or tree.add(member)
            if node.kind != _kind(member):
                raise Unfit("has changed since it was judged")
            writer.write(node, member, target, archive.extractfile(member) if node.kind == FILE else None)
        writer.finish(tree)
