# SPDX-License-Identifier: GPL-3.0-or-later
"""Tarballs of root filesystems, and the trees that are made of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

FILE, DIR, SYM, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def archive(*members, tail=b"", end=True, layout=tarfile.GNU_FORMAT):
    """A tar of (type, name, content or target, attributes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as tar:
        for kind, name, *rest in members:
            member = tarfile.TarInfo(name)
            member.type, member.mtime, member.mode = kind, 1000000000, 0o755
            content = rest[0] if rest else b""
            if kind in (SYM, LINK):
                member.linkname = content
            elif kind == FILE:
                member.size = len(content)
            for key, value in (rest[1] if len(rest) > 1 else {}).items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content) if kind == FILE else None)
        length = tar.offset
    return out.getvalue()[:None if end else length] + tail


BUSYBOX = (FILE, "./bin/busybox", b"\x7fELF", {"mode": 0o4755, "uid": 3, "gid": 7})
GOOD = [(DIR, "./"), (DIR, "./bin"), BUSYBOX, (SYM, "./bin/sh", "/bin/busybox"), (LINK, "./bin/ls", "./bin/busybox"),
        (DIR, "./tmp", b"", {"mode": 0o1777}), (SYM, "./tmp/up", "../bin"), (DIR, "./proc", b"", {"mode": 0o555}),
        (FILE, "./implied/by/name", b"x" * 100000, {"mode": 0o640, "mtime": 1234567890}),
        (FILE, b"./lat\xedn".decode("utf-8", "surrogateescape"), b"")]


def packed(path, *members, **options):
    path.write_bytes(gzip.compress(archive(*members, **options), mtime=0))
    return str(path)


def picture(path):
    """All there is below a path, down to owners, modes, times, links and contents."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(path)):
        for name in [b"."] + folders + files:
            each = os.path.normpath(os.path.join(folder, name))
            status = os.lstat(each)
            kind = stat.S_IFMT(status.st_mode)
            found[os.path.relpath(each, os.fsencode(path))] = (
                oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns,
                status.st_nlink if kind == stat.S_IFREG else None,
                os.readlink(each) if kind == stat.S_IFLNK else Path(os.fsdecode(each)).read_bytes()
                if kind == stat.S_IFREG else None)
    return found


def unmade(path):
    """The picture, but for the times of the directory itself and of the store, in which something was made and removed again."""
    return {name: entry[:3] if name in (b".", b".store") else entry for name, entry in picture(path).items()}


def tree_of(path):
    """The picture without what the tarball does not decide: record, root and the times of implied directories."""
    return {name: entry[:3] if name in (b"implied", b"implied/by") else entry for name, entry in picture(path).items()
            if name not in (b".", b".alpine_rootfs.json")}


def names(place):
    """What lies in a directory beside the store."""
    return sorted(set(os.listdir(place)) - {".store"})


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
