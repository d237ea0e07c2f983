# SPDX-License-Identifier: GPL-3.0-or-later
"""What all kinds of link share: observed by name, planned as steps, applied over netlink, rendered for iproute2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Tuple

from ..core.dependencies import PYROUTE2
from ..core.errors import NotOwnedError, OptionError
from ..core.kind import Kind
from ..core.plan import CREATE, DELETE, NOW, RECREATE, diff
from ..core.resource import OWNER, UNMARKED
from .addressing import least_mtu
from .changes import apply
from .iproute2 import command, commands
from .netlink import Links
from .operations import LinkAdd, LinkDel, merged

# Ethernet 14, VXLAN 8, UDP 8, and IPv4 20 or IPv6 40.
OVERHEAD = {4: 50, 6: 70}


def tunnel_mtu(device, local):
    """What the encapsulation leaves of the underlay device's MTU."""
    return device.mtu - OVERHEAD[6 if ":" in local else 4]


def leads_nowhere(namespace, device):
    """Why the link cannot lead to another host, in words; None where it can."""
    if device.kind == "dummy":
        return "a dummy link"
    if device.kind == "bridge" and not any(link.master == device.index for link in namespace.links.values()):
        return "a bridge without a port"
    return None


def underlay_device(namespace, option, address):
    """The link that carries an address of the underlay. Raises OptionError."""
    device = namespace.device_of(address)
    if device is None:
        raise OptionError(option, address, "no link of this host has this underlay address; give one of its addresses, "
                          "or the device")
    if device.name == "lo":
        raise OptionError(option, address, "it is an address of lo, which leads nowhere: give the device that the "
                          "peers are reached by (overlay_device)")
    return device


@dataclass(frozen=True)
class ChangeLinks:
    """Change links step by step, on the host as it is."""

    links: Links
    steps: Tuple[Any, ...]

    def apply(self):
        self.links.at(NOW)
        apply(self.links, self.steps)

    def commands(self):
        return commands(self.steps)


class LinkKind(Kind):
    """Links: planned as steps, which are applied over netlink and rendered as iproute2 commands."""

    item: Any = None  # the type of the model

    def __init__(self, links=None):
        super().__init__()
        self.links = links or Links()

    def requirements(self, options):
        return (PYROUTE2,)  # to see what is there, too

    def complete(self, item, state):
        """The MTU, where the item says which underlay it has to fit."""
        self.links.at(state)
        namespace = self.links.namespace(item.netns)
        if item.underlay is None or item.mtu is not None or namespace is None:
            return item
        device = namespace.links.get(item.underlay_device) if item.underlay_device else underlay_device(
            namespace, "underlay", item.underlay)
        if device is None:
            raise OptionError("underlay_device", item.underlay_device, "this host has no such link")
        mtu = tunnel_mtu(device, item.underlay)
        least = least_mtu(item.addresses)
        if mtu < least:
            raise OptionError("underlay", item.underlay,
                              f"a tunnel through its device leaves {mtu} of the MTU, and the addresses need "
                              f"{least}: raise the MTU of the device, or choose other addresses")
        return item.fitted(mtu)

    def find(self, namespace, netns, link):
        """The observed item behind a link of this kind."""
        raise NotImplementedError

    def changed(self, change):
        """The steps of a creation or an update."""
        raise NotImplementedError

    def needs(self, change):
        """(netns, link) that must exist before the change; link None for the namespace alone."""
        return []

    def observe(self, wanted, prune, state):
        self.links.at(state)
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
        if link.kind == self.item.kind and link.alias == OWNER:
            return self.find(namespace, item.netns, link)
        if self.half_made(item, link):
            return replace(self.find(namespace, item.netns, link), owner=UNMARKED)
        if link.alias == OWNER:
            raise NotOwnedError(item.key, f"would take the name of a {link.kind} of this collection",
                                "Choose another name, or remove that first.")
        return self.item(name=item.name, netns=item.netns, owner=link.alias or link.kind or "the kernel")

    def half_made(self, item, link):
        """Whether a killed run made this link: it has the MAC of its creation, and nothing that comes after."""
        return (link.kind == self.item.kind and item.mac is not None and link.mac == item.mac
                and not link.alias and not link.up and link.master is None)

    def ours_in(self, netns):
        namespace = self.links.namespace(netns)
        return [self.find(namespace, netns, link) for link in list(namespace.links.values())
                if link.kind == self.item.kind and link.alias == OWNER] if namespace else []

    def left(self, named, state):
        keys, gone = {item.key for item in named}, state.gone
        found = [self.whole(have) for netns in sorted({item.netns for item in named} | {None}, key=str)
                 for have in self.ours_in(netns) if have.key not in keys]
        return [have for have in found
                if not any(("link", *name) in gone or ("netns", name[0]) in gone for name in have.link_names)]

    def whole(self, item):
        """An item found by its name alone, with all that is known of it."""
        return item

    def steps(self, plan):
        """What goes, goes first: another item may want its name or its VNI. To recreate is to delete and to create."""
        going = [change.before for change in plan.changes if change.action in (DELETE, RECREATE)]
        coming = [replace(change, action=CREATE, before=None, differences=()) if change.action == RECREATE else change
                  for change in plan.changes if change.after]
        return merged([step for item in going for step in self.deleted(item, plan.state)]
                      + [step for change in coming for step in self.changed(change)])

    def deleted(self, item, state):
        return [LinkDel(item.netns, item.name)]

    def plan(self, wanted, observed, prune, state):
        plan = diff(wanted, observed, prune, state)
        steps = self.steps(plan)
        made = {("link", step.netns, step.name) for step in steps if isinstance(step, LinkAdd)}
        gone = {("link", step.netns, step.name) for step in steps if isinstance(step, LinkDel)}
        return replace(plan, unmet=tuple(self._unmet(plan))), state.after(made, gone)

    def _unmet(self, plan):
        problems = []
        for change in plan.changes:
            for netns, name in self.needs(change) if change.after else ():
                namespace = self.links.namespace(netns)
                if namespace is None and ("netns", netns) not in plan.state.made:
                    problems.append(f"{change.item}: there is no network namespace {netns}" + (
                        "" if netns.startswith("/") else " (make it with ns_container, or with 'ip netns add')"))
                elif name and ("link", netns, name) not in plan.state.made and not (namespace and name in namespace.links):
                    problems.append(f"{change.item}: there is no link {name}" + (f" in netns {netns}" if netns else ""))
        return list(dict.fromkeys(problems))

    def operations(self, plan):
        return [ChangeLinks(self.links, tuple(self.steps(plan)))]

    def boot(self, items):
        """Creating a link is the one step that fails where it has been taken; a process's namespace is not there at boot."""
        wanted = {item.key: item for item in items if not (getattr(item, "inner_netns", None) or "").startswith("/")}
        return [(f"{command('ip', step.netns, 'link', 'show', 'dev', step.name)} >/dev/null 2>&1 || " if isinstance(
            step, LinkAdd) else "") + line for step in self.steps(diff(wanted, {})) for line in commands([step])]

    def close(self):
        self.links.close()
