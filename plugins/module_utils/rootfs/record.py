# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and write the records of root filesystems: each tree contains one, of what it was made from."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import replace
from typing import Optional

from ..core.errors import OptionError
from ..core.resource import OWNER
from . import releases, store
from .item import RECORD, Rootfs, refuse_system

RECORD_MAX = 8192


def to_json(item: Rootfs) -> str:
    """Return the record of a root filesystem."""
    return json.dumps({"owner": OWNER, "version": item.version, "arch": item.arch, "checksum": item.checksum,
                       "source": item.source}, sort_keys=True)


def write(tree: str, item: Rootfs) -> None:
    """Write the record into a tree."""
    path = os.path.join(tree, RECORD)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # a tarball that was made of such a tree brings one
    with open(path, "x", encoding="utf-8") as file:
        file.write(to_json(item) + "\n")
        os.fchmod(file.fileno(), 0o644)


def read(dest: str) -> Optional[Rootfs]:
    """Return the Rootfs that a directory's record describes; None without a record that root wrote."""
    try:
        file = os.open(os.path.join(dest, RECORD), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0:
            return None
        try:
            found = Rootfs(dest=dest, **json.loads(stream.read(RECORD_MAX)))
            fitting = found.owner == OWNER and releases.SHA256.fullmatch(found.checksum or "")
            return found if fitting and all(isinstance(value, str) for value in (found.version, found.arch, found.source)) else None
        except (ValueError, TypeError):
            return None


def tree_at(dest: str) -> Optional[Rootfs]:
    """Return the Rootfs that ``dest`` points to, or that an earlier release unpacked at ``dest`` itself; None for anything else."""
    if not os.path.islink(dest):
        have = read(dest)
        return have and replace(have, immutable=False)
    digest = store.digest_of(dest)
    have = read(store.place(dest, digest)) if digest else None
    return replace(have, dest=dest, immutable=True) if have and have.checksum == digest else None


def ours_at(dest: str) -> bool:
    """Return whether the collection owns what is at ``dest``."""
    return store.digest_of(dest) is not None if os.path.islink(dest) else read(dest) is not None


def lacking(item: Rootfs) -> bool:
    """Return whether the tree is missing from the store, and would not get there by moving that of an earlier release."""
    have = read(item.tree)
    return not (have and have.checksum == item.checksum) and not adopted(item)


def adopted(item: Rootfs) -> bool:
    """Return whether an earlier release unpacked this very tree at ``dest`` itself."""
    have = tree_at(item.dest)
    return bool(have and not have.immutable and have.checksum == item.checksum and not os.path.lexists(item.tree))


def moved(item: Rootfs) -> Optional[str]:
    """Return where a directory at ``dest`` itself is moved to, or None where there is none."""
    if os.path.islink(item.dest) or not os.path.isdir(item.dest):
        return None
    return item.tree if adopted(item) else store.aside(item.dest, item.dest)


def look(dest: str, beside: bool = True) -> Optional[Rootfs]:
    """Return the Rootfs observed at ``dest``, with what is unused ``beside`` it, or None. Raise OptionError where none may be."""
    parent, base = os.path.split(dest)
    refuse_system("dest", dest, os.path.join(os.path.realpath(parent), base))
    refuse_parents(dest)
    store.refuse_foreign(parent)
    left = next(iter(store.unused(parent) if beside else ()), "")
    empty = Rootfs(dest=dest, closed=store.is_closed(store.directory(dest)), leftover=left, owner=OWNER)
    have = tree_at(dest)
    if os.path.islink(dest) and not ours_at(dest):
        raise OptionError("dest", dest, f"it is a symbolic link, to {os.readlink(dest)}; give the directory itself")
    if have is not None or os.path.islink(dest):
        return replace(have or empty, closed=empty.closed, leftover=left)
    if os.path.ismount(dest):
        raise OptionError("dest", dest, "it is a mount point, which cannot be replaced; give a directory below it")
    if os.path.lexists(dest) and not (os.path.isdir(dest) and not os.listdir(dest)):
        return replace(empty, owner="somebody else")
    return empty if left else None


def refuse_parents(dest):
    """Raise OptionError where a directory above ``dest`` is none, or is another root filesystem."""
    path = os.path.dirname(dest)
    while path != "/":
        if os.path.lexists(path) and not os.path.isdir(path):
            raise OptionError("dest", dest, f"{path} is not a directory")
        if read(path) is not None:
            raise OptionError("dest", dest, f"it is inside of the rootfs {path}, and would be replaced with it; give it a place "
                              "beside that")
        path = os.path.dirname(path)


def neighbours(paths):
    """Return the paths of the collection's root filesystems beside any of the paths."""
    found = set()
    for parent in {os.path.dirname(path) for path in paths}:
        with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
            found |= {entry.path for entry in entries if ours_at(entry.path)}
    return sorted(found)
