# SPDX-License-Identifier: GPL-3.0-or-later
"""Report what earlier runs have left on the host and the task does not name, and its effect on what the task names.

``conflicts`` refuses what cannot work together; here is what may be intended, and what only the controller can judge, which knows
the other hosts.
"""

from __future__ import annotations

import ipaddress

from .conflicts import REMEDY, described


def left_of(plans, state):
    """Return all items that stay without being named. A module for one kind does not know all that a host has."""
    return [item for planned in plans if planned.option and not planned.prune
            for item in planned.kind.left(planned.sought, state)]


def told(named, left):
    """Return the left items with an address, and the VNIs of their bridge's tunnels, by which other hosts may reach them."""
    joined = {}
    for tunnel in [*_of("vxlan", named), *_of("vxlan", left)]:
        joined.setdefault((tunnel.netns, tunnel.bridge), set()).add(tunnel.vni)
    return [{"item": described(item), "addresses": sorted(each.split("/")[0] for each in item.addresses),
             "vnis": sorted(joined.get((item.netns, item.name if item.word == "bridge" else item.bridge), ()))}
            for item in [*_of("bridge", left), *_of("veth_pair", left)] if item.addresses]


def warnings(named, left):
    """Yield what works, though perhaps not as intended, as sentences."""
    bridges = {(item.netns, item.name) for item in _of("bridge", named)}
    tables = _of("nftables table", named)
    held = any(table.family == "bridge" for table in tables)
    for tunnel in _of("vxlan", left):
        if tables and tunnel.netns is None:  # the rules are about what the task names
            yield (f"The tunnel {tunnel.name} with the VNI {tunnel.vni} is left of an earlier run, and no rule of this task keeps "
                   f"strangers out of it: {REMEDY}, or name it")
        if (tunnel.netns, tunnel.bridge) in bridges:  # one's own tasks may join two networks by a bridge
            yield (f"The tunnel {tunnel.name} with the VNI {tunnel.vni} is left of an earlier run as a port of {tunnel.bridge}, "
                   f"and joins another network to it, in a loop where two hosts do so: {REMEDY}, or name it")
    for pair in _of("veth_pair", left):
        if held and (pair.netns, pair.bridge) in bridges:
            yield (f"{described(pair)} is left of an earlier run as a port of {pair.bridge}, and no rule of this task holds it to "
                   f"its own addresses: {REMEDY}, or name it")
    yield from _shared_subnets(_of("bridge", named), _of("bridge", left))


def _shared_subnets(named, left):
    """Yield bridges that share a subnet: the host itself reaches what is behind one of them only, which nobody else notices."""
    known = []
    for bridge in [*named, *left]:
        nets = [net for net in (ipaddress.ip_interface(each).network for each in sorted(bridge.addresses or ()))
                if net.prefixlen < net.max_prefixlen]  # an address by itself, such as a VIP, is no subnet
        for other, others in known:
            shared = [net for net in nets for each in others if net.version == each.version and net.overlaps(each)]
            if shared and other.netns == bridge.netns and other in named:
                remedy = (f"{bridge.key} is left of an earlier run: {REMEDY}" if bridge not in named else
                          "give one of them other addresses, or none")
                yield (f"{other.key} and {bridge.key} both are in the subnet {shared[0]}, and this host itself reaches what is "
                       f"behind one of them only: {remedy}")
        known.append((bridge, nets))


def _of(word, items):
    return [item for item in items if item.word == word]
