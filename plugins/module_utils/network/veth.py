# SPDX-License-Identifier: GPL-3.0-or-later
"""veth pairs: the cable between a host and a namespace.

The inner end is placed in its namespace by the call that creates the pair, so it never stands in the host under a
name that collides. An end dies with its namespace and takes the other along. A pair is ours only as a whole: where
the ends found are not each other's, or one is gone, what is ours of it is deleted and the pair made anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Optional

from ..core import validate
from ..core.errors import ModuleError
from ..core.plan import CREATE, ours
from ..core.resource import OWNER, UNMARKED
from . import addressing, identity, operations
from .identity import derived_ifname
from .link_kind import LinkKind
from .links import DEFAULT, DEFAULT6, VethPair

INNER = OWNER + ":inner"  # the alias of inner ends, so that pruning a host's own ends spares them


OPTIONS = {
    "name": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "netns": {"type": "str"},
    "container": {"type": "str"},
    "namespace": {"type": "str"},
    "pid": {"type": "int"},
    "inner_name": {"type": "str", "default": "eth0"},
    "addresses": {"type": "list", "elements": "str"},
    "gateway": {"type": "str"},
    "routes": {"type": "list", "elements": "dict", "options": {
        "dst": {"type": "str", "required": True},
        "via": {"type": "str"},
    }},
    "mtu": {"type": "int"},
    "underlay": {"type": "str"},
    "underlay_device": {"type": "str"},
    "mac": {"type": "str"},
    "inner_mac": {"type": "str"},
    "bridge": {"type": "str"},
}
RULES = {
    "required_one_of": [("name", "container", "namespace")],  # a pair has the name of the one or the other
    "required_if": [("state", "present", ("container", "namespace", "pid"), True)],  # where the inner end goes
    "mutually_exclusive": [("container", "namespace", "pid")],
}


def pair(options: Dict[str, Any]) -> VethPair:
    """Return the desired VethPair of one item's options. Raise OptionError."""
    inner_netns = where(options)
    name = host_end(options)
    netns = validate.thing_name("netns", options["netns"])
    mac = addressing.mac("mac", options["mac"]) or identity.own_mac("veth-host", name, netns)
    if options["state"] == "absent":
        # The host end takes the inner one along, whose namespace may be gone, or be somebody else's by now.
        return VethPair(name=name, netns=netns, inner_name=None, mac=mac)
    addresses = addressing.interface_addresses("addresses", options["addresses"])
    gateway = addressing.host_ip("gateway", options["gateway"])
    routes = addressing.routes("routes", options["routes"], gateway)
    if routes and addresses is not None:
        addressing.refuse_unreachable(routes, addresses, gateway=gateway)
    mtu = addressing.mtu("mtu", options["mtu"], addresses)
    return VethPair(
        name=name, netns=netns, inner_netns=inner_netns, joined=True, up=True, mac=mac, mtu=mtu, inner_mtu=mtu,
        inner_name=addressing.interface_name("inner_name", options["inner_name"]), accept_ra=False, accept_redirects=False,
        inner_accept_ra=False if addresses else None, inner_accept_redirects=False if addresses else None,
        inner_ipv6=addressing.needs_ipv6(addresses),
        inner_mac=(addressing.mac("inner_mac", options["inner_mac"])
                   or identity.own_mac("veth", name, netns, options["addresses"])),
        underlay=addressing.unicast("underlay", options["underlay"]),
        underlay_device=addressing.interface_name("underlay_device", options["underlay_device"]),
        bridge=options["bridge"] and addressing.interface_name("bridge", options["bridge"]),
        addresses=addresses, routes=routes)


def where(options: Dict[str, Any]) -> Optional[str]:
    """Return the namespace of the inner end: a name, or a path below /proc; None where the pair is absent."""
    if options["pid"] is not None:
        return f"/proc/{validate.in_range('pid', options['pid'], 1, 4194304)}/ns/net"
    return validate.thing_name("container", options["container"]) or validate.thing_name("namespace", options["namespace"])


def host_end(options: Dict[str, Any]) -> str:
    if options["name"] is not None:
        return addressing.interface_name("name", options["name"])
    return derived_ifname("ve-", options["container"] or options["namespace"])


class VethPairs(LinkKind):
    item = VethPair
    options = OPTIONS
    rules = RULES
    parse = staticmethod(pair)

    def observe(self, wanted, prune, state):
        seen = {}
        for pair in wanted:
            inner = (pair.inner_netns, pair.inner_name)
            if pair.inner_name and inner in seen:
                raise ModuleError(f"{pair.key}: the inner end {pair.inner_name} in {pair.inner_netns} is that of "
                                  f"{seen[inner]}, too: give one of them another inner_name")
            seen[inner] = pair.key
        return super().observe(wanted, prune, state)

    def look(self, item: VethPair) -> Optional[VethPair]:
        host, namespace = None, self.links.namespace(item.netns)
        if namespace is not None and item.name in namespace.links:
            host = super().look(item)
            if not ours(host):
                return host
        if item.inner_netns is None and item.inner_name is None:
            return host
        return self._pair(item, host)

    def _pair(self, item, host):
        there = self.links.namespace(self.links.whereabouts(item.inner_netns))
        inner = there.links.get(item.inner_name) if there else None
        if there is None or inner is None:
            return host
        joined = host is not None and self._joined(item, inner)
        # Ours, too, where it is the other end of our host end, and a killed run did not get to set its alias.
        if not joined and (inner.kind != "veth" or inner.alias != INNER):
            return VethPair(name=item.name, netns=item.netns, inner_name=item.inner_name,
                            inner_netns=item.inner_netns, owner=inner.alias or inner.kind or "the kernel")
        ends = ((item.inner_netns, item.inner_name),)
        if not joined:
            return VethPair(name=item.name, netns=item.netns, inner_name=item.inner_name, inner_netns=item.inner_netns,
                            owner=OWNER, joined=False, ends=(host.ends if host else ()) + ends)
        outer = self.links.there(item.netns).links[item.name]
        addresses = there.addresses(inner.index)
        settings: Dict[str, Any] = {f"inner_{name}": value for name, value in inner.settings.items()}
        return VethPair(
            name=item.name, netns=item.netns, inner_name=item.inner_name, inner_netns=item.inner_netns,
            owner=host.owner if inner.alias == INNER else UNMARKED, joined=True, ends=host.ends,
            mac=outer.mac, inner_mac=inner.mac, mtu=outer.mtu, inner_mtu=inner.mtu,
            up=outer.up and inner.up, bridge=host.bridge,
            addresses=frozenset(addresses), kernel_order=addresses,
            accept_ra=outer.settings["accept_ra"], accept_redirects=outer.settings["accept_redirects"],
            **settings,
            routes=None if item.routes is None else there.routes(inner.index))

    def _joined(self, item, inner):
        here = self.links.there(item.netns)
        outer = here.links[item.name]
        # Hosts that are namespaces have the same indices: the id of the inner end's namespace tells them apart.
        return (inner.kind == "veth" and outer.peer == inner.index and inner.peer == outer.index
                and outer.peer_netns == here.id_of(self.links.whereabouts(item.inner_netns)))

    def find(self, namespace, netns, link):
        """Return the host end by itself, for pruning and as the first half of a pair."""
        return VethPair(name=link.name, netns=netns, inner_name=None, owner=link.alias, joined=False,
                        mac=link.mac, bridge=namespace.name_of(link.master) or "", ends=((netns, link.name),))

    def whole(self, item: VethPair) -> VethPair:
        """Return the pair with its inner end, where the namespace of that has a name."""
        here = self.links.there(item.netns)
        outer = here.links[item.name]
        for name in self.links.names() if outer.peer_netns is not None else ():
            if here.id_of(name) == outer.peer_netns:
                item, there = replace(item, inner_netns=name), self.links.namespace(name)
                inner = next((link.name for link in there.links.values() if link.index == outer.peer), None) if there else None
                return self._pair(replace(item, inner_name=inner), item) if inner else item
        return item

    def deleted(self, item, state):
        goes = not item.joined and any(gone[0] == "netns" for gone in state.gone)
        return [operations.LinkDel(netns, name, goes) for netns, name in item.ends]

    def needs(self, change):
        pair = change.after
        bridge = pair.bridge if not change.before or change.before.bridge != pair.bridge else None
        return [(pair.netns, bridge or None), (pair.inner_netns, None)]

    def plan(self, wanted, observed, prune, state):
        plan, after = super().plan(wanted, observed, prune, state)
        for pair in (change.after for change in plan.changes if change.after):
            if self.links.same(pair.netns, pair.inner_netns):
                raise ModuleError(f"{pair.key}: {pair.inner_netns} is the network namespace of its host end; "
                                  "the inner end goes into another")
        return plan, after

    def changed(self, change):
        pair = change.after
        netns, name = pair.inner_netns, pair.inner_name
        inner = operations.InnerEnd(name, netns, pair.inner_mac, pair.inner_mtu) if change.action == CREATE else None
        setting = operations.LinkSet(
            netns, name, alias=operations.mark(change, INNER),
            mac=pair.inner_mac if not inner and operations.concerns(change, "inner_mac") else None,
            mtu=pair.inner_mtu if not inner and operations.concerns(change, "inner_mtu") else None)
        stale, routes = self._routes(change)
        settings = operations.sysctls(change, netns, name, "inner_")
        # Those of a new link come before it is up, those of another after its MTU, which may take its IPv6 along.
        return (operations.link(change, inner=inner, of_inner=settings if inner else [])
                + operations.membership(change) + operations.up(change, pair.netns, pair.name)
                + operations.some(setting) + ([] if inner else settings) + operations.up(change, netns, name)
                + stale + operations.addresses(change, netns, name) + routes)

    def _routes(self, change):
        """Return the operations that delete routes, before any address, and those that set them, on a link that is up.

        The kernel drops routes with the address that they depend on: where one is deleted, all are set again. And to delete one
        without a gateway may delete another to the same destination: those go as well, before it, and come back.
        """
        pair = change.after
        gained, lost = operations.gained_and_lost(change, "routes")
        shared = {each.dst for each in lost if not each.via}
        siblings = {each for each in change.before.routes if each.dst in shared} if shared else set()
        lost = sorted(siblings.union(lost), key=lambda route: (route.via is None, str(route)))
        gained = siblings.intersection(pair.routes or ()).union(gained)
        if pair.routes and operations.gained_and_lost(change, "addresses")[1]:
            gained = pair.routes
        return ([operations.RouteDel(pair.inner_netns, pair.inner_name, each) for each in lost],
                [operations.RouteReplace(pair.inner_netns, pair.inner_name, each) for each in sorted(gained, key=_order)])


def _order(route):
    """Return a sort key: routes on the link itself before the gateways that they lead to, the default last."""
    return (route.via is not None, route.dst in (DEFAULT, DEFAULT6), str(route))
