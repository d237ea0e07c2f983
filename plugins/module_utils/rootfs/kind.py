# SPDX-License-Identifier: GPL-3.0-or-later
"""Root filesystems from Alpine's tarballs.

``dest`` is a link to a tree of the store (store.py), which is known by the digest of its tarball. The record of what a tree is made
of lies inside of it: the same checksum again needs neither a download nor a look at the rest of the tree.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import stat
from dataclasses import replace

from ..container.state import trees_in_use
from ..core.errors import ModuleError, OptionError
from ..core.kind import Kind
from ..core.plan import DELETE
from ..core.resource import OWNER
from . import item as items
from . import releases, store, tarball
from .download import SMALL, Web
from .item import RECORD, Rootfs

RECORD_MAX = 8192
OTHER_MIRROR = "choose another mirror, or give a tarball as src"


class Rootfses(Kind):
    options = items.OPTIONS
    parse = staticmethod(items.rootfs)

    def __init__(self, params, ahead=None):
        super().__init__(ahead)
        self._web = Web(params)
        self._judged = {}  # the Trees of tarballs that are on this host, by the paths that they are to have in the store

    def require(self):
        self._web.require()

    def complete(self, item):
        """With the checksum of the tarball that is wanted: from the task, the table, the record or the mirror."""
        have = tree_at(item.dest)
        checksum = item.checksum or releases.known(item.version, item.arch)
        if item.source.startswith("/"):
            with opened("src", item.source) as file:
                checksum = verified(item, tarball.Hashed(file).sha256(), checksum)
        elif not checksum and have and (have.version, have.arch) == (item.version, item.arch):
            checksum = have.checksum  # a release does not change; no need to ask the mirror at every run
        elif not checksum:
            checksum = releases.published(self._small(item.source + ".sha256"), item.source)
        if have and have.checksum == checksum:  # the same tarball by another name
            item = replace(item, version=have.version, arch=have.arch)
        return replace(item, checksum=checksum, immutable=True, closed=True, leftover="")

    def _small(self, source):
        local, remedy = releases.local_path(source), f"set checksum, or {OTHER_MIRROR}"
        if local is None:
            return self._web.small(source, remedy)
        with opened("mirror", local, remedy) as file:
            return file.read(SMALL).decode("utf-8", "replace")

    # Looking

    def observe(self, wanted, prune):
        items.refuse_nested("dest", [item.dest for item in wanted])
        dests = [item.dest for item in wanted]
        dests += [path for path in neighbours(dests) if path not in dests] if prune else []
        found, parents = {}, set()
        for dest in dests:
            have = look(dest, os.path.dirname(dest) not in parents)
            parents.add(os.path.dirname(dest))
            if have is not None:
                found[have.key] = have
        return found

    def missing(self, plan):
        """Nothing; but the moment to judge a tarball that is on this host already, before anything is changed."""
        for item in (change.after for change in plan.changes if switches(change) and lacking(change.after)):
            local, final = releases.local_path(item.source), store.place(item.dest, item.checksum)
            if local and final not in self._judged:
                with fitting(item, local) as file:
                    self._judged[final] = tarball.inspect(file, store.room(os.path.dirname(item.dest)))
        return []

    def expect(self, plan):
        for item in (change.after for change in plan.changes if switches(change)):
            self.ahead.made.add(item.dest)
            self.ahead.trees[item.dest] = os.path.realpath(store.place(item.dest, item.checksum))

    # Saying

    def commands(self, plan):
        lines, coming = [], {}
        for change in plan.changes:
            lines += self._lines(change, coming)
        for parent in sorted({os.path.dirname(change.before.dest) for change in plan.changes if change.before}):
            leaving = [change.before.dest for change in plan.changes if switches(change) or change.action == DELETE]
            lines += store.clearing(parent, leaving, coming)
        return lines

    def _lines(self, change, coming):
        """``coming``: the trees that links lead to, or that are kept for containers, once these commands have run."""
        item, lines, former = change.after or change.before, [], None
        there, dest = store.directory(item.dest), item.dest
        if change.after and not os.path.isdir(os.path.dirname(dest)):
            lines.append(["mkdir", "-p", os.path.dirname(dest)])
        if change.after and not os.path.isdir(there):
            lines.append(["mkdir", "-p", "-m", "0700", there])
        elif change.after and not store.is_closed(dest):
            lines.append(["chmod", "0700", there])
        if switches(change):
            tree = store.place(dest, item.checksum)
            if lacking(item) and tree not in coming:
                lines += self._making(item, os.path.join(there, store.WORK), tree)
            coming[tree] = item
            former = moved(item)
            lines += [["mv", "-T", dest, former]] if former else []
            lines.append(["ln", "-sfn", store.target(item.checksum), dest])
        elif change.action == DELETE and os.path.islink(dest):
            lines.append(["rm", dest])
        elif change.action == DELETE and os.path.isdir(dest):
            former = moved(item)
            lines += [["mkdir", "-p", "-m", "0700", there], ["mv", "-T", dest, former]]
        if former and former not in coming:
            lines += self._going(dest, former)
        return [line if isinstance(line, str) else shlex.join(line) for line in lines]

    @staticmethod
    def _going(tree, former):
        """The end of a tree that goes to the path ``former`` of the store."""
        used = trees_in_use([os.path.realpath(tree)])
        return [store.releasing(os.path.dirname(os.path.dirname(former)))] if used else [["rm", "-rf", former]]

    def _making(self, item, work, final):
        source, tree, lines = releases.local_path(item.source), os.path.join(work, "tree"), []
        if source is None:
            source = os.path.join(work, "tarball")
            lines.append(self._web.curl() + ["--output", source, item.source])
        record = shlex.join(["printf", r"%s\n", record_of(item)])
        damaged = os.path.isdir(final) and store.aside(item.dest, final)
        return [
            ["mkdir", work], *lines,
            f"{shlex.join(['echo', item.checksum + '  ' + source])} | sha256sum -c -",
            ["mkdir", tree],
            ["tar", "-xzpf", source, "--numeric-owner", "-C", tree],
            f"{record} > {shlex.quote(os.path.join(tree, RECORD))}",
            ["chmod", "0755", tree],
            *([["mv", "-T", final, damaged]] if damaged else []),
            ["mv", "-T", tree, final],
            *(self._going(final, damaged) if damaged else []),
            ["rm", "-r", work]]

    # Doing

    def apply(self, plan):
        for change in plan.changes:
            item = change.after or change.before
            with self._explained(item), store.Store(os.path.dirname(item.dest)) as into:
                if switches(change):
                    if lacking(item):
                        into.begin()
                        final = store.place(item.dest, item.checksum)
                        self._fill(into, item, self._judged.pop(final, None))
                        into.add(final)
                    into.name(item.dest, item.checksum, moved(item))
                elif change.action == DELETE and ours_at(item.dest):
                    into.forget(item.dest)

    def _fill(self, into, item, judged):
        local = releases.local_path(item.source)
        if not local:
            verified(item, self._web.save(item.source, into.tarball, OTHER_MIRROR))
        with fitting(item, local or into.tarball) as file:
            tarball.unpack(file, into.tree, judged or tarball.Tree(store.room(into.path)))
        write_record(into.tree, item)

    @staticmethod
    @contextlib.contextmanager
    def _explained(item):
        try:
            yield
        except OSError as error:
            remedy = ""
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = f"; make room on the file system of {os.path.dirname(item.dest)}, or choose another dest"
            raise ModuleError(f"dest: While {item.dest} was worked on: {error.strerror or error}{remedy}") from error


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

def tree_at(dest):
    """What a link of ours leads to, or what an earlier release has made at ``dest`` itself; None for anything else."""
    link = os.path.islink(dest)
    digest = store.digest_of(dest) if link else None
    have = read_record(store.place(dest, digest) if digest else dest) if digest or not link else None
    return have and replace(have, dest=dest, immutable=link) if not link or (have and have.checksum == digest) else None


def ours_at(dest):
    return store.digest_of(dest) is not None if os.path.islink(dest) else read_record(dest) is not None


def lacking(item):
    """Whether the store has not got the tree yet, nor will by taking that of an earlier release into it."""
    have = read_record(store.place(item.dest, item.checksum))
    return not (have and have.checksum == item.checksum) and not adopted(item)


def adopted(item):
    """Whether an earlier release has made this very tree at ``dest`` itself."""
    have = tree_at(item.dest)
    return bool(have and not have.immutable and have.checksum == item.checksum
                and not os.path.lexists(store.place(item.dest, item.checksum)))


def moved(item):
    """Where a directory that is at ``dest`` itself goes; None where there is none."""
    if os.path.islink(item.dest) or not os.path.isdir(item.dest):
        return None
    return store.place(item.dest, item.checksum) if adopted(item) else store.aside(item.dest, item.dest)


def look(dest, beside=True):
    """What is at ``dest``, with what is left ``beside`` it; None where nothing is. Raises OptionError where ours cannot be."""
    parent, base = os.path.split(dest)
    items.refuse_system("dest", dest, os.path.join(os.path.realpath(parent), base))
    refuse_parents(dest)
    store.refuse_foreign(parent)
    left = next(iter(store.unused(parent) if beside else ()), "")
    empty = Rootfs(dest=dest, closed=store.is_closed(dest), leftover=left, owner=OWNER)
    nothing = empty if left else None
    try:
        status = os.lstat(dest)
    except FileNotFoundError:
        return nothing
    have = tree_at(dest)
    if stat.S_ISLNK(status.st_mode) and not ours_at(dest):
        raise OptionError("dest", dest, f"it is a symbolic link, to {os.readlink(dest)}; give the directory itself")
    if have is not None or stat.S_ISLNK(status.st_mode):
        return replace(have or empty, closed=empty.closed, leftover=left)
    if stat.S_ISDIR(status.st_mode):
        if os.path.ismount(dest):
            raise OptionError("dest", dest, "it is a mount point, which cannot be replaced; give a directory below it")
        if not os.listdir(dest):
            return nothing
    return replace(empty, owner="somebody else")


def refuse_parents(dest):
    path = os.path.dirname(dest)
    while path != "/":
        if os.path.lexists(path) and not os.path.isdir(path):
            raise OptionError("dest", dest, f"{path} is not a directory")
        if read_record(path) is not None:
            raise OptionError("dest", dest, f"it is inside of the rootfs {path}, and would be replaced with it; give it a place "
                                        "beside that")
        path = os.path.dirname(path)


def neighbours(paths):
    """All of ours that lie beside any of the paths."""
    found = set()
    for parent in {os.path.dirname(path) for path in paths}:
        with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
            found |= {entry.path for entry in entries if ours_at(entry.path)}
    return sorted(found)


# The tarball

def switches(change):
    """Whether the link has to lead elsewhere; else it is about the store alone."""
    return change.after is not None and (change.before is None or not change.differing() <= {"leftover", "closed"})


def option_of(item):
    return "src" if item.source.startswith("/") else "mirror"


@contextlib.contextmanager
def opened(option, path, remedy="give the path of a tarball on this host"):
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC))  # noqa: SIM115 (closed below)
    except OSError as error:
        raise OptionError(option, path, f"{error.strerror}; {remedy}") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OptionError(option, path, f"it is not a file; {remedy}")
        yield file


def verified(item, found, wanted=None):
    """The SHA-256 that a tarball has, which must be the one that is ``wanted``, or the item's own."""
    wanted = wanted or item.checksum
    if wanted and found != wanted:
        raise ModuleError(f"{option_of(item)}: {item.source} has the SHA-256 {found}, and not {wanted}: it is damaged, or another "
                          f"tarball. Get it again; or, if you know that it is the right one, set checksum: sha256:{found}")
    return found


@contextlib.contextmanager
def fitting(item, path):
    """The item's tarball, open to be read once. Raises ModuleError where it is unfit, or turns out to have been another."""
    with opened(option_of(item), path) as opened_file:
        file, unfit = tarball.Hashed(opened_file), None
        try:
            yield file
        except tarball.TarballError as error:
            unfit = error
        verified(item, file.sha256())
    if unfit:
        remedy = ("make room, or choose another dest" if "more room" in str(unfit) else
                  "get it again from where it was made, or give another tarball")
        raise ModuleError(f"{option_of(item)}: {item.source} {unfit}. Nothing was changed; {remedy}")
