# SPDX-License-Identifier: GPL-3.0-or-later
"""Define the operations on root filesystems and on the store beside them."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from dataclasses import dataclass
from typing import Optional, Tuple, Union

from ..container.state import trees_in_use
from ..core.errors import ModuleError, OptionError
from . import record, releases, store, tarball
from .download import Web
from .item import RECORD, Rootfs

OTHER_MIRROR = "choose another mirror, or give a tarball as src"


@dataclass(frozen=True)
class Unpack:
    """Unpack a tarball into the store, where the tree is missing. ``judged`` is what is already known of its members."""

    item: Rootfs
    web: Web
    judged: Optional[tarball.Tree] = None

    def apply(self, into):
        if not record.lacking(self.item):
            return
        into.begin()
        source = releases.local_path(self.item.source)
        if source is None:
            source = into.tarball
            verified(self.item, self.web.save(self.item.source, source, OTHER_MIRROR))
        with fitting(self.item, source) as file:
            tarball.unpack(file, into.tree, self.judged or tarball.Tree(store.room(into.path)))
        record.write(into.tree, self.item)
        into.add(self.item.tree)

    def commands(self, into):
        if not record.lacking(self.item):
            return []
        source, lines = releases.local_path(self.item.source), []
        if source is None:
            source = into.tarball
            lines.append(shlex.join(self.web.curl(self.item.source, source)))
        content = shlex.join(["printf", r"%s\n", record.to_json(self.item)])
        damaged = os.path.isdir(self.item.tree) and store.aside(self.item.dest, self.item.tree)
        return [
            shlex.join(["mkdir", into.work]), *lines,
            f"{shlex.join(['echo', f'{self.item.checksum}  {source}'])} | sha256sum -c -",
            shlex.join(["mkdir", into.tree]),
            shlex.join(["tar", "-xzpf", source, "--numeric-owner", "-C", into.tree]),
            f"{content} > {shlex.quote(os.path.join(into.tree, RECORD))}",
            shlex.join(["chmod", "0755", into.tree]),
            *(put_aside(self.item.tree, damaged) if damaged else []),
            shlex.join(["mv", "-T", into.tree, self.item.tree]),
            shlex.join(["rm", "-r", into.work])]


@dataclass(frozen=True)
class Switch:
    """Point the name of a root filesystem to its tree. A directory in its place is exchanged with the link atomically."""

    item: Rootfs

    def apply(self, into):
        into.name(self.item.dest, self.item.checksum, record.moved(self.item))

    def commands(self, _into):
        former = record.moved(self.item)
        return [*(put_aside(self.item.dest, former, keep=former == self.item.tree) if former else []),
                shlex.join(["ln", "-sfn", store.target(self.item.checksum), self.item.dest])]


@dataclass(frozen=True)
class Forget:
    """Remove the name of a root filesystem, or move a directory in its place into the store."""

    item: Rootfs

    def apply(self, _into):
        if os.path.islink(self.item.dest):
            os.unlink(self.item.dest)
        elif record.ours_at(self.item.dest):
            os.rename(self.item.dest, store.aside(self.item.dest, self.item.dest))

    def commands(self, _into):
        if os.path.islink(self.item.dest):
            return [shlex.join(["rm", self.item.dest])]
        former = record.moved(self.item)
        return put_aside(self.item.dest, former) if former else []


@dataclass(frozen=True)
class InStore:
    """Change the store of a directory, locked against other runs, and remove unused trees. Raise ModuleError."""

    parent: str
    operations: Tuple[Union[Unpack, Switch, Forget], ...]

    def apply(self):
        try:
            with store.Store(self.parent) as into:
                for operation in self.operations:
                    operation.apply(into)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = f"; make room on the file system of {self.parent}, or choose another dest" if full else ""
            raise ModuleError(f"dest: Working in {self.parent} failed: {error.strerror or error}{remedy}") from error

    def commands(self):
        into, lines = store.Store(self.parent), []
        if not os.path.isdir(self.parent):
            lines.append(shlex.join(["mkdir", "-p", self.parent]))
        if not os.path.isdir(into.path):
            lines.append(shlex.join(["mkdir", "-p", "-m", "0700", into.path]))
        elif not store.is_closed(into.path):
            lines.append(shlex.join(["chmod", "0700", into.path]))
        lines += [line for operation in self.operations for line in operation.commands(into)]
        leaving = [operation.item.dest for operation in self.operations if not isinstance(operation, Unpack)]
        coming = [operation.item.tree for operation in self.operations if isinstance(operation, Switch)]
        return lines + store.clearing(self.parent, leaving, coming)


def put_aside(tree, former, keep=False):
    """Return the commands that move a directory out of the way, and remove it unless containers run on it."""
    lines = [shlex.join(["mv", "-T", tree, former])]
    if not keep:
        used = trees_in_use([os.path.realpath(tree)])
        lines.append(store.releasing(store.parent_of(former)) if used else shlex.join(["rm", "-rf", former]))
    return lines


@contextlib.contextmanager
def opened(option, path, remedy="give the path of a tarball on this host"):
    """Open a regular file for reading. Raise OptionError, with the ``remedy`` at its end."""
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC))  # noqa: SIM115 (closed below)
    except OSError as error:
        raise OptionError(option, path, f"{error.strerror}; {remedy}") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OptionError(option, path, f"it is not a file; {remedy}")
        yield file


def verified(item, found, wanted=None):
    """Return the SHA-256 that was ``found``. Raise ModuleError where it is not the one ``wanted``, or the item's own."""
    wanted = wanted or item.checksum
    if wanted and found != wanted:
        raise ModuleError(f"{item.option}: {item.source} has the SHA-256 {found}, and not {wanted}: it is damaged, or another "
                          f"tarball. Get it again; or, if you know that it is the right one, set checksum: sha256:{found}")
    return found


@contextlib.contextmanager
def fitting(item, path):
    """Open the item's tarball, to be read once. Raise ModuleError where it is unfit or has another checksum."""
    with opened(item.option, path) as opened_file:
        file, unfit = tarball.Hashed(opened_file), None
        try:
            yield file
        except tarball.TarballError as error:
            unfit = error
        verified(item, file.sha256())
    if unfit:
        remedy = ("make room, or choose another dest" if "more room" in str(unfit) else
                  "get it again from where it was made, or give another tarball")
        raise ModuleError(f"{item.option}: {item.source} {unfit}. Nothing was changed; {remedy}")
