# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems from Alpine's tarballs.

A tree is made whole in a directory beside its place (_staging) and put there by one rename; a record of what it is made
of lies inside of it and so arrives with it. The record decides what is ours and what has to be done: the same
checksum again needs neither a download nor a look at the rest of the tree.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shlex
import stat
from dataclasses import replace

from . import _releases as releases
from . import _rootfs, _staging, _tarball, _trees
from ._download import SMALL, Web
from ._errors import Invalid, Problem
from ._files import mounts_below
from ._kind import Kind
from ._model import OWNER
from ._paths import tidy
from ._plan import DELETE
from ._rootfs import RECORD, Rootfs

RECORD_MAX = 8192
OTHER_MIRROR = "choose another mirror, or give a tarball as src"


class Rootfses(Kind):
    options = _rootfs.OPTIONS
    parse = staticmethod(_rootfs.rootfs)

    def __init__(self, params, ahead=None):
        super().__init__(ahead)
        self._web = Web(params)

    def require(self):
        self._web.require()

    def complete(self, item):
        """With the checksum of the tarball that is wanted: from the task, the table, the record or the mirror."""
        have = read_record(item.dest)
        checksum = item.checksum or releases.known(item.version, item.arch)
        if item.source.startswith("/"):
            with opened("src", item.source) as file:
                checksum = verified("src", item.source, sha256(file), checksum)
        elif not checksum and have and (have.version, have.arch) == (item.version, item.arch):
            checksum = have.checksum  # a release does not change; no need to ask the mirror at every run
        elif not checksum:
            checksum = releases.published(self._small(item.source + ".sha256"), item.source)
        if have and have.checksum == checksum:  # the same tarball by another name
            item = replace(item, version=have.version, arch=have.arch)
        return replace(item, checksum=checksum, leftover="")

    def _small(self, source):
        local, remedy = releases.local_path(source), f"set checksum, or {OTHER_MIRROR}"
        if local is None:
            return self._web.small(source, remedy)
        with opened("mirror", local, remedy) as file:
            return file.read(SMALL).decode("utf-8", "replace")

    # Looking

    def observe(self, wanted, prune):
        _rootfs.refuse_nested("dest", [item.dest for item in wanted])
        found = [look(item.dest) for item in wanted]
        if prune:
            sought = {item.dest for item in wanted}
            found += [look(path) for path in neighbours(sought) if path not in sought]
        return {item.key: item for item in found if item is not None}

    def missing(self, plan):
        """What is mounted in a tree that has to go. Also the moment to judge a tarball that is on this host already."""
        for change in plan.changes:
            if unpacks(change) and releases.local_path(change.after.source):
                with self._local(change.after) as file:
                    judged(change.after, file, _staging.room(os.path.dirname(change.after.dest)))
        return [f"{change.item}: a tree without mounts, but {point} is a mount point (umount it, or stop the container)"
                for change in plan.changes if change.before and (unpacks(change) or change.action == DELETE)
                for point in mounts_below(change.before.dest)]

    def expect(self, plan):
        self.ahead.made.update(change.after.dest for change in plan.changes if unpacks(change))

    @contextlib.contextmanager
    def _local(self, item):
        """The tarball that is on the host, open, its checksum verified."""
        with opened(option_of(item), releases.local_path(item.source)) as file:
            verified(option_of(item), item.source, sha256(file), item.checksum)
            yield file

    # Saying

    def commands(self, plan):
        return [line for change in plan.changes for line in self._lines(change)]

    def _lines(self, change):
        dest = (change.after or change.before).dest
        staging = _staging.Staging(dest)
        old = change.before
        lines = [line for tree in staging.trees for line in _trees.keeping(dest, tree)]
        lines += [["rm", "-rf", each] for each in _left(dest)] if old and old.leftover else []
        if unpacks(change):
            if not os.path.isdir(os.path.dirname(dest)):
                lines.append(["mkdir", "-p", os.path.dirname(dest)])
            lines += [["mkdir", "-m", "0700", staging.path]] + self._making(change.after, staging)
            if old and old.checksum:
                lines += _trees.keeping(dest, dest) or [["mv", "-T", dest, staging.old]]
            lines += [["mv", "-T", staging.tree, dest], ["rm", "-rf", staging.path]]
        elif change.action == DELETE and old.checksum:
            lines += _trees.keeping(dest, dest) or [["mkdir", "-m", "0700", staging.path], ["mv", "-T", dest, staging.old],
                                                    ["rm", "-rf", staging.path]]
        lines += [_trees.releasing(dest)] * any(line[0] == "mv" and line[-1].startswith(_trees.directory(dest)) for line in lines)
        return [line if isinstance(line, str) else shlex.join(line) for line in lines]

    def _making(self, item, staging):
        tarball, lines = releases.local_path(item.source), []
        if tarball is None:
            tarball = staging.tarball
            lines.append(self._web.curl() + ["--output", tarball, item.source])
        record = shlex.join(["printf", r"%s\n", record_of(item)])
        return lines + [
            f"{shlex.join(['echo', item.checksum + '  ' + tarball])} | sha256sum -c -",
            ["mkdir", staging.tree],
            ["tar", "-xzpf", tarball, "--numeric-owner", "-C", staging.tree],
            f"{record} > {shlex.quote(os.path.join(staging.tree, RECORD))}",
            ["chmod", "0755", staging.tree]]

    # Doing

    def apply(self, plan):
        for change in plan.changes:
            item = change.after or change.before
            with self._explained(item), _staging.Staging(item.dest) as staging:
                if unpacks(change):
                    self._fill(staging, item)
                    staging.put()
                elif change.action == DELETE and read_record(item.dest):  # also what a run had left in between
                    staging.take(RECORD)
            if change.action == DELETE:
                tidy(os.path.dirname(item.dest))

    def _fill(self, staging, item):
        if releases.local_path(item.source):
            source = self._local(item)
        else:
            found = self._web.save(item.source, staging.tarball, OTHER_MIRROR)
            verified("mirror", item.source, found, item.checksum)
            source = opened("mirror", staging.tarball)
        with source as file:
            judged(item, file, _staging.room(staging.path))
            with fitting(item):
                _tarball.unpack(file, staging.tree)
        write_record(staging.tree, item)

    @staticmethod
    @contextlib.contextmanager
    def _explained(item):
        try:
            yield
        except OSError as error:
            remedy = ""
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = f"; make room on the file system of {os.path.dirname(item.dest)}, or choose another dest"
            raise Problem(f"dest: While {item.dest} was worked on: {error.strerror or error}{remedy}") from error


# The record

def record_of(item):
    return json.dumps({"owner": OWNER, "version": item.version, "arch": item.arch, "checksum": item.checksum,
                       "source": item.source}, sort_keys=True)


def write_record(tree, item):
    path = os.path.join(tree, RECORD)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # a tarball that was made of such a tree brings one
    with open(path, "x", encoding="utf-8") as file:
        file.write(record_of(item) + "\n")
        os.fchmod(file.fileno(), 0o644)


def read_record(dest):
    """The rootfs that the record in a directory tells of; None where there is none, or not one that root wrote."""
    try:
        file = os.open(os.path.join(dest, RECORD), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0:
            return None
        try:
            record = json.loads(stream.read(RECORD_MAX))
            if record.pop("owner") != OWNER or not releases.SHA256.fullmatch(record["checksum"]):
                return None
            if not all(isinstance(value, str) for value in record.values()):
                return None
            return Rootfs(dest=dest, owner=OWNER, **record)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


# The host

def look(dest):
    """What is at ``dest``, or None where nothing is. Raises Invalid where nothing of ours can be there."""
    parent, base = os.path.split(dest)
    _rootfs.refuse_system("dest", dest, os.path.join(os.path.realpath(parent), base))
    refuse_parents(dest)
    left = next(iter(_left(dest)), "")
    try:
        status = os.lstat(dest)
    except FileNotFoundError:
        return Rootfs(dest=dest, leftover=left, owner=OWNER) if left else None
    if stat.S_ISLNK(status.st_mode):
        raise Invalid("dest", dest, f"it is a symbolic link, to {os.readlink(dest)}; give the directory itself")
    if stat.S_ISDIR(status.st_mode):
        if os.path.ismount(dest):
            raise Invalid("dest", dest, "it is a mount point, which cannot be replaced; give a directory below it")
        have = read_record(dest)
        if have is not None:
            return replace(have, leftover=left)
        if not _staging.filled(dest):
            return Rootfs(dest=dest, leftover=left, owner=OWNER) if left else None
    return Rootfs(dest=dest, leftover=left, owner="somebody else")


def _left(dest):
    """What is beside it of earlier runs, and of no use to anybody."""
    return [each for each in [_staging.leftover(dest)] if each] + _trees.unused(dest)


def refuse_parents(dest):
    path = os.path.dirname(dest)
    while path != "/":
        if os.path.lexists(path) and not os.path.isdir(path):
            raise Invalid("dest", dest, f"{path} is not a directory")
        if read_record(path) is not None:
            raise Invalid("dest", dest, f"it is inside of the rootfs {path}, and would be replaced with it; give it a place "
                                        "beside that")
        path = os.path.dirname(path)


def neighbours(paths):
    """All directories of ours that lie beside any of the paths."""
    found = set()
    for parent in {os.path.dirname(path) for path in paths}:
        with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
            found |= {entry.path for entry in entries
                      if entry.is_dir(follow_symlinks=False) and read_record(entry.path)}
    return sorted(found)


# The tarball

def unpacks(change):
    """Whether the change needs the tarball; else it is about something left behind."""
    return change.after is not None and (change.before is None or change.differing() != {"leftover"})


def option_of(item):
    return "src" if item.source.startswith("/") else "mirror"


@contextlib.contextmanager
def opened(option, path, remedy="give the path of a tarball on this host"):
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC))  # noqa: SIM115 (closed below)
    except OSError as error:
        raise Invalid(option, path, f"{error.strerror}; {remedy}") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Invalid(option, path, f"it is not a file; {remedy}")
        yield file


def sha256(file):
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(1 << 20), b""):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def verified(option, source, found, wanted):
    if wanted and found != wanted:
        raise Problem(f"{option}: {source} has the SHA-256 {found}, and not {wanted}: it is damaged, or another "
                      f"tarball. Get it again; or, if you know that it is the right one, set checksum: sha256:{found}")
    return found


@contextlib.contextmanager
def fitting(item):
    try:
        yield
    except _tarball.Unfit as error:
        remedy = ("make room, or choose another dest" if "more room" in str(error) else
                  "get it again from where it was made, or give another tarball")
        raise Problem(f"{option_of(item)}: {item.source} {error}. Nothing was changed; {remedy}") from None


def judged(item, file, room):
    """Raises Problem where the tarball cannot be unpacked."""
    with fitting(item):
        _tarball.inspect(file, room)
        file.seek(0)
