# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module must know about one kind of thing, for ``_run`` to do the rest; and what all kinds of link share."""

from __future__ import annotations

from dataclasses import replace

from ._commands import commands
from ._deps import require_pyroute2
from ._link import Links
from ._model import OWNER
from ._plan import CREATE, DELETE, RECREATE
from ._steps import LinkDel


class Kind:
    """One kind of thing. A subclass fills in these; all but ``apply`` leave the host as it is."""

    def require(self):
        """Raises Problem where something the kind needs on every host is missing."""

    def complete(self, item):
        """The wanted item with the defaults that only this host can tell."""
        return item

    def observe(self, wanted, prune):
        """The items found, by key: those wanted, and with ``prune`` all others of the kind."""
        raise NotImplementedError

    def missing(self, plan):
        """What the plan needs that is not there yet, in words. A real run refuses; check mode warns."""
        return []

    def commands(self, plan):
        """The plan as the commands of an administrator."""
        raise NotImplementedError

    def apply(self, plan):
        raise NotImplementedError

    def close(self):
        """Lets go of what observing and applying have opened."""


class LinkKind(Kind):
    """Links: planned as steps, which are applied over netlink and rendered as iproute2 commands."""

    item = None  # the type of the model

    def __init__(self):
        self.links = Links()

    def require(self):
        require_pyroute2()

    def find(self, namespace, netns, name):
        """The observed item behind a link of this kind."""
        raise NotImplementedError

    def changed(self, change):
        """The steps of a creation or an update."""
        raise NotImplementedError

    def needs(self, change):
        """(netns, link) that must exist before the change; link None for the namespace alone."""
        return []

    def observe(self, wanted, prune):
        self.links.forget()
        found = {}
        for item in wanted:
            have = self.look(item)
            if have is not None:
                found[item.key] = have
        if prune:
            for netns in {item.netns for item in wanted} | {None}:
                for have in self.ours_in(netns):
                    found.setdefault(have.key, have)
        return found

    def look(self, item):
        namespace = self.links.namespace(item.netns)
        link = namespace.links.get(item.name) if namespace else None
        if link is None:
            return None
        if link.kind != self.item.kind or link.alias != OWNER:
            return self.item(name=item.name, netns=item.netns, owner=link.alias or link.kind or "the kernel")
        return self.find(namespace, item.netns, link)

    def ours_in(self, netns):
        namespace = self.links.namespace(netns)
        return [self.find(namespace, netns, link) for link in list(namespace.links.values())
                if link.kind == self.item.kind and link.alias == OWNER] if namespace else []

    def steps(self, change):
        if change.action == DELETE:
            return self.deleted(change.before)
        if change.action == RECREATE:
            anew = replace(change, action=CREATE, before=None, differences=())
            return self.deleted(change.before) + self.changed(anew)
        return self.changed(change)

    def deleted(self, item):
        return [LinkDel(item.netns, item.name)]

    def missing(self, plan):
        problems = []
        for change in plan.changes:
            for netns, name in self.needs(change) if change.after else ():
                namespace = self.links.namespace(netns)
                if namespace is None:
                    problems.append(f"{change.item}: there is no network namespace {netns}"
                                    f" (make it with ns_container, or with 'ip netns add')")
                elif name and name not in namespace.links:
                    problems.append(f"{change.item}: there is no link {name}" + (f" in netns {netns}" if netns else ""))
        return list(dict.fromkeys(problems))

    def commands(self, plan):
        return commands([step for change in plan.changes for step in self.steps(change)])

    def apply(self, plan):
        for change in plan.changes:
            self.links.apply(self.steps(change))

    def close(self):
        self.links.close()

