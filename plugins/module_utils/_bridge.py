# SPDX-License-Identifier: GPL-3.0-or-later
"""Linux bridges.

A bridge takes the lowest MAC of its ports, and changes it as ports come and go; every neighbour then sends to the
wrong address until its ARP entry ages out. So every bridge gets a MAC of its own, at creation.
"""

from __future__ import annotations

from . import _steps
from ._link_kind import LinkKind
from ._model import Bridge

# The kernel counts these in hundredths of a second.
TIMES = ("forward_delay", "hello_time", "max_age", "ageing_time")


class Bridges(LinkKind):
    item = Bridge

    def find(self, namespace, netns, link):
        data = link.data
        addresses = namespace.addresses(link.index)
        return Bridge(
            name=link.name, netns=netns, owner=link.alias, mac=link.mac, mtu=link.mtu, up=link.up,
            addresses=frozenset(addresses), held=addresses,
            ports=frozenset(each.name for each in namespace.links.values() if each.master == link.index),
            stp=bool(data["stp_state"]), priority=data["priority"],
            vlan_filtering=bool(data.get("vlan_filtering")),
            **{name: data[name] // 100 for name in TIMES})

    def needs(self, change):
        bridge = change.after
        ports = bridge.ports - (change.before.ports if change.before else frozenset()) if bridge.ports else ()
        return [(bridge.netns, None)] + [(bridge.netns, port) for port in sorted(ports)]

    def changed(self, change):
        bridge = change.after
        gained, unused = _steps.gained_and_lost(change, "ports")
        data = tuple((word, value * 100 if word in TIMES else value) for word, value in _steps.data_of(change))
        return (_steps.link(change, data)
                + _steps.addresses(change, bridge.netns, bridge.name)
                + [_steps.LinkSet(bridge.netns, port, master=bridge.name) for port in gained]
                + _steps.up(change, bridge.netns, bridge.name))
