# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan root filesystems from Alpine's tarballs.

``dest`` is a symbolic link to a tree in the store (store.py), which is named by the digest of its tarball. The tree contains its
record: the same checksum needs neither a download nor a look at the rest of the tree.
"""

from __future__ import annotations

import os
from dataclasses import replace

from ..core.kind import Kind
from ..core.plan import DELETE
from . import item as items
from . import record, releases, store, tarball
from .download import SMALL, Web
from .item import Rootfs
from .operations import OTHER_MIRROR, Forget, InStore, Switch, Unpack, fitting, opened, verified


class Rootfses(Kind):
    options = items.OPTIONS
    parse = staticmethod(items.rootfs)

    def __init__(self, params):
        super().__init__()
        self._web = Web(params)
        self._judged = {}  # the Trees of tarballs that are on this host, by the paths that they are to have in the store

    def requirements(self, options):
        self._web.require()
        return super().requirements(options)

    def complete(self, item, state) -> Rootfs:
        """With the checksum of the tarball that is wanted: from the task, the table, the record or the mirror."""
        have = record.tree_at(item.dest)
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

    def observe(self, wanted, prune, state):
        items.refuse_nested("dest", [item.dest for item in wanted])
        dests = [item.dest for item in wanted]
        dests += [path for path in record.neighbours(dests) if path not in dests] if prune else []
        found, parents = {}, set()
        for dest in dests:
            have = record.look(dest, os.path.dirname(dest) not in parents)
            parents.add(os.path.dirname(dest))
            if have is not None:
                found[have.key] = have
        return found

    def plan(self, wanted, observed, prune, state):
        plan, after = super().plan(wanted, observed, prune, state)
        coming = [change.after for change in plan.changes if switches(change)]
        for item in coming:
            self.judge(item)
        return plan, after.after(made=[item.dest for item in coming],
                                 trees={item.dest: os.path.realpath(item.tree) for item in coming})

    def judge(self, item):
        """Judge a tarball that is on this host already, before anything is changed."""
        local = releases.local_path(item.source)
        if local and item.tree not in self._judged and record.lacking(item):
            with fitting(item, local) as file:
                self._judged[item.tree] = tarball.inspect(file, store.room(item.parent))

    def operations(self, plan):
        """A list for each store. What has two names is unpacked once."""
        found, trees = {}, set()
        for change in plan.changes:
            item = change.after or change.before
            operations = found.setdefault(item.parent, [])
            if change.action == DELETE:
                operations.append(Forget(item))
            elif switches(change):
                operations += [Unpack(item, self._web, self._judged.get(item.tree))] * (item.tree not in trees)
                operations.append(Switch(item))
                trees.add(item.tree)
        return [InStore(parent, tuple(operations)) for parent, operations in found.items()]


def switches(change):
    """Return whether a change points the link to another tree; else it is about the store alone."""
    return change.after is not None and (change.before is None or not change.differing() <= {"leftover", "closed"})
