# SPDX-License-Identifier: GPL-3.0-or-later
"""Linux bridges.

A bridge takes the lowest MAC of its ports, and changes it as ports come and go; every neighbour then sends to the
wrong address until its ARP entry ages out. So every bridge gets a MAC of its own, at creation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict

from ..core import validate
from ..core.errors import OptionError
from . import addressing, identity, operations
from .link_kind import LinkKind
from .links import Bridge, Neighbour

OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "netns": {"type": "str"},
    "addresses": {"type": "list", "elements": "str"},
    "mac": {"type": "str"},
    "mtu": {"type": "int"},
    "underlay": {"type": "str"},
    "underlay_device": {"type": "str"},
    "ports": {"type": "list", "elements": "str"},
    "hairpin_ports": {"type": "list", "elements": "str"},
    "neighbours": {"type": "list", "elements": "dict", "options": {
        "address": {"type": "str", "required": True},
        "mac": {"type": "str", "required": True},
    }},
    "stp": {"type": "bool", "default": False},
    "priority": {"type": "int"},
    "forward_delay": {"type": "int"},
    "hello_time": {"type": "int"},
    "max_age": {"type": "int"},
    "ageing_time": {"type": "int"},
    "vlan_filtering": {"type": "bool"},
}


def bridge(options: Dict[str, Any]) -> Bridge:
    """Return the desired Bridge of one item's options. Raise OptionError."""
    name = addressing.interface_name("name", options["name"])
    netns = validate.thing_name("netns", options["netns"])
    addresses = addressing.interface_addresses("addresses", options["addresses"])
    ports, hairpins = options["ports"], options["hairpin_ports"]
    for port in set(hairpins or ()) - set(ports or ()):
        raise OptionError("hairpin_ports", port, "it is not one of ports")
    return Bridge(
        name=name, netns=netns, addresses=addresses, up=True, accept_ra=False, accept_redirects=False,
        ipv6=addressing.needs_ipv6(addresses),
        mac=addressing.mac("mac", options["mac"]) or identity.own_mac("bridge", name, netns, options["addresses"]),
        mtu=addressing.mtu("mtu", options["mtu"], addresses), underlay=addressing.unicast("underlay", options["underlay"]),
        underlay_device=addressing.interface_name("underlay_device", options["underlay_device"]),
        ports=None if ports is None else frozenset(addressing.interface_name("ports", port) for port in ports),
        hairpin_ports=None if hairpins is None else frozenset(hairpins), neighbours=neighbours(options["neighbours"]),
        stp=options["stp"], vlan_filtering=options["vlan_filtering"],
        priority=validate.in_range("priority", options["priority"], 0, 65535),
        forward_delay=validate.in_range("forward_delay", options["forward_delay"], 2, 30),
        hello_time=validate.in_range("hello_time", options["hello_time"], 1, 10),
        max_age=validate.in_range("max_age", options["max_age"], 6, 40),
        ageing_time=validate.in_range("ageing_time", options["ageing_time"], 0, 1000000))


def neighbours(values):
    """Return the frozenset of permanent neighbours, or None where they are not managed. Raise OptionError."""
    if values is None:
        return None
    found = [Neighbour(addressing.unicast("neighbours.address", each["address"]), addressing.mac("neighbours.mac", each["mac"]))
             for each in values]
    validate.refuse_duplicates("neighbours.address", [each.address for each in found])
    return frozenset(found)


# The kernel counts these in hundredths of a second.
TIMES = ("forward_delay", "hello_time", "max_age", "ageing_time")


class Bridges(LinkKind):
    item = Bridge
    options = OPTIONS
    parse = staticmethod(bridge)

    def look(self, item):
        """Return the observed bridge without what is not managed of ports that other programs added."""
        found = super().look(item)
        if found is None or found.hairpin_ports is None or not item.ports:
            return found
        return replace(found, hairpin_ports=found.hairpin_ports & item.ports)

    def find(self, namespace, netns, link):
        data = link.data
        addresses = namespace.addresses(link.index)
        return Bridge(
            name=link.name, netns=netns, owner=link.alias, mac=link.mac, mtu=link.mtu, up=link.up,
            addresses=frozenset(addresses), kernel_order=addresses, neighbours=namespace.neighbours(link.index),
            ports=frozenset(each.name for each in namespace.links.values() if each.master == link.index),
            hairpin_ports=frozenset(each.name for each in namespace.links.values() if each.master == link.index and each.hairpin),
            stp=bool(data["stp_state"]), priority=data["priority"],
            vlan_filtering=bool(data.get("vlan_filtering")), **link.settings,
            **{name: data[name] // 100 for name in TIMES})

    def plan(self, wanted, observed, prune, state):
        plan, after = super().plan(wanted, observed, prune, state)
        here = [change.after for change in plan.changes if change.after and change.after.netns is None]
        return plan, after.after(made=[("address", address.split("/")[0]) for bridge in here for address in bridge.addresses or ()])

    def needs(self, change):
        bridge = change.after
        ports = bridge.ports - (change.before.ports if change.before else frozenset()) if bridge.ports else ()
        return [(bridge.netns, None)] + [(bridge.netns, port) for port in sorted(ports)]

    def changed(self, change):
        bridge = change.after
        gained, _lost = operations.gained_and_lost(change, "ports")
        hairpins, others = operations.gained_and_lost(change, "hairpin_ports")
        data = tuple((word, value * 100 if word in TIMES else value) for word, value in operations.data_of(change))
        return (operations.link(change, data, own_mtu=True)
                + operations.addresses(change, bridge.netns, bridge.name)
                + [operations.LinkSet(bridge.netns, port, master=bridge.name) for port in gained]
                + [operations.PortHairpin(bridge.netns, port, False) for port in others]
                + [operations.PortHairpin(bridge.netns, port, True) for port in hairpins]
                + operations.up(change, bridge.netns, bridge.name)
                + self._neighbours(change))

    def _neighbours(self, change):
        """Return the operations on neighbours.

        They come last: the kernel forgets neighbours with the MAC or last address, and when down.
        """
        bridge = change.after
        gained, lost = operations.gained_and_lost(change, "neighbours")
        if bridge.neighbours and change.differing() & {"mac", "up", "addresses"}:
            gained = sorted(bridge.neighbours)
        again = {each.address for each in bridge.neighbours or ()}
        return ([operations.NeighbourDel(bridge.netns, bridge.name, each) for each in lost if each.address not in again]
                + [operations.NeighbourReplace(bridge.netns, bridge.name, each) for each in gained])
