# SPDX-License-Identifier: GPL-3.0-or-later
"""Define links as a host holds them: bridges, VXLAN devices and veth pairs, with their addresses, routes and entries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, FrozenSet, NamedTuple, Optional, Tuple

from ..core.resource import Item, at_least, fixed, identity, input_only, observed_only, settable

IFNAME_MAX = 15


def another_family(have, want):
    """Return whether two addresses differ in their address family."""
    return (":" in have) != (":" in want)


class FdbEntry(NamedTuple):
    """Hold a static forwarding entry of a VXLAN: frames to ``mac`` are sent to the VTEP ``dst``, by the link ``via``.

    To the kernel, entries that differ in ``via`` alone are two: it sends each frame twice.
    """

    mac: str
    dst: str
    via: str = ""

    def __str__(self):
        return f"{self.mac} dst {self.dst}" + (f" via {self.via}" if self.via else "")


DEFAULT, DEFAULT6 = "default", "::/0"


class Route(NamedTuple):
    """Hold a route: ``dst`` in CIDR form, or ``default`` for IPv4's; ``via`` a gateway, or None for a route on the link itself."""

    dst: str
    via: Optional[str] = None

    def __str__(self):
        return f"{self.dst} via {self.via}" if self.via else self.dst


class Neighbour(NamedTuple):
    """Hold a permanent entry of the ARP table, or of IPv6's neighbours: ``address`` is at ``mac``."""

    address: str
    mac: str

    def __str__(self):
        return f"{self.address} lladdr {self.mac}"


@dataclass(frozen=True)
class Bridge(Item):
    """Hold a Linux bridge. Times are in seconds. ``kernel_order`` are the addresses in the kernel's order, secondary ones last."""

    word = kind = "bridge"
    words: ClassVar = {"stp": "stp_state", "priority": "priority", "forward_delay": "forward_delay", "hello_time": "hello_time",
                       "max_age": "max_age", "ageing_time": "ageing_time", "vlan_filtering": "vlan_filtering"}
    mac_on_bridge: ClassVar = "mac"

    name: str = identity()
    netns: Optional[str] = identity()
    mac: Optional[str] = settable()
    mtu: Optional[int] = settable()
    addresses: Optional[FrozenSet[str]] = settable()
    underlay: Optional[str] = input_only()
    underlay_device: Optional[str] = input_only()
    ports: Optional[FrozenSet[str]] = at_least()
    hairpin_ports: Optional[FrozenSet[str]] = settable()
    neighbours: Optional[FrozenSet[Neighbour]] = settable()
    stp: Optional[bool] = settable()
    priority: Optional[int] = settable()
    forward_delay: Optional[int] = settable()
    hello_time: Optional[int] = settable()
    max_age: Optional[int] = settable()
    ageing_time: Optional[int] = settable()
    vlan_filtering: Optional[bool] = settable()
    accept_ra: Optional[bool] = settable()
    accept_redirects: Optional[bool] = settable()
    ipv6: Optional[bool] = settable()
    up: Optional[bool] = settable()
    owner: Optional[str] = observed_only()
    kernel_order: Optional[Tuple[str, ...]] = observed_only()

    def fitted(self, mtu):
        """Return the bridge with an MTU."""
        return replace(self, mtu=mtu)

    @property
    def address_scopes(self):
        return (("netns", self.netns), ("bridge", self.netns, self.name))


@dataclass(frozen=True)
class Vxlan(Item):
    """Hold a VXLAN device: the VTEP of a host in one network.

    ``remote`` is the device's own default destination: the one peer, as in ``ip link add ... remote``, or ``""``
    where the peers are all-zero FDB entries (none, or several: head-end replication). ``remotes`` are those entries,
    the one of ``remote`` among them; ``kernel_order`` is how the kernel has them. ``flood`` is about the bridge port that the
    device is, and ``port_fdb`` the MACs that its bridge is told to find there.
    """

    word = kind = "vxlan"
    words: ClassVar = {"vni": "id", "local": "local", "remote": "remote", "group": "group", "device": "dev", "port": "dstport",
                       "learning": "learning", "ttl": "ttl", "ageing": "ageing", "udp_checksum": "udpcsum"}

    name: str = identity()
    netns: Optional[str] = identity()
    vni: Optional[int] = fixed()
    local: Optional[str] = field(default=None, metadata={"fixed": another_family})
    remote: Optional[str] = settable()
    group: Optional[str] = fixed()
    remotes: Optional[FrozenSet[str]] = settable()
    device: Optional[str] = fixed()  # changed in place, it leaves the entry of ``remote`` on the former
    port: Optional[int] = fixed()
    learning: Optional[bool] = settable()
    ttl: Optional[int] = settable()
    ageing: Optional[int] = settable()
    udp_checksum: Optional[bool] = fixed()
    mac: Optional[str] = settable()
    mtu: Optional[int] = settable()
    bridge: Optional[str] = settable()
    flood: Optional[bool] = settable()
    port_fdb: Optional[FrozenSet[str]] = settable()
    fdb: Optional[FrozenSet[FdbEntry]] = settable()
    accept_ra: Optional[bool] = settable()
    accept_redirects: Optional[bool] = settable()
    up: Optional[bool] = settable()
    owner: Optional[str] = observed_only()
    kernel_order: Optional[Tuple[FdbEntry, ...]] = observed_only()

    def merged_onto(self, observed):
        """Return the merged device; where ``local`` changes its address family, without what is not managed of the former one."""
        item = super().merged_onto(observed)
        local = item.local
        if not local:
            return item

        def kept(address):
            return not address or (":" in address) == (":" in local)

        return replace(item, remote=item.remote if kept(item.remote) else "",
                       group=item.group if kept(item.group) else "",
                       remotes=item.remotes and frozenset(filter(kept, item.remotes)),
                       fdb=item.fdb and frozenset(each for each in item.fdb if kept(each.dst)))


@dataclass(frozen=True)
class VethPair(Item):
    """Hold a veth pair: the host end ``name`` in ``netns``, the inner end ``inner_name`` in ``inner_netns``.

    ``joined`` is whether the two ends that were observed belong to each other; ``ends`` are the links (netns, name) to
    delete when the pair is removed; ``kernel_order`` the addresses in the kernel's order, secondary ones last.
    """

    word = "veth_pair"
    kind = "veth"
    mac_on_bridge: ClassVar = "inner_mac"

    name: str = identity()
    netns: Optional[str] = identity()
    inner_netns: Optional[str] = identity()
    inner_name: Optional[str] = field(default="eth0", metadata={"identity": True})
    joined: Optional[bool] = fixed()
    mac: Optional[str] = settable()
    inner_mac: Optional[str] = settable()
    mtu: Optional[int] = settable()
    inner_mtu: Optional[int] = settable()
    underlay: Optional[str] = input_only()
    underlay_device: Optional[str] = input_only()
    bridge: Optional[str] = settable()
    addresses: Optional[FrozenSet[str]] = settable()
    routes: Optional[FrozenSet[Route]] = settable()
    accept_ra: Optional[bool] = settable()
    accept_redirects: Optional[bool] = settable()
    inner_accept_ra: Optional[bool] = settable()
    inner_accept_redirects: Optional[bool] = settable()
    inner_ipv6: Optional[bool] = settable()
    up: Optional[bool] = settable()
    owner: Optional[str] = observed_only()
    ends: Optional[Tuple[Tuple[Optional[str], str], ...]] = observed_only()
    kernel_order: Optional[Tuple[str, ...]] = observed_only()

    def fitted(self, mtu):
        """Return the pair with an MTU at both ends."""
        return replace(self, mtu=mtu, inner_mtu=mtu)

    @property
    def link_names(self):
        return [(self.netns, self.name), (self.inner_netns, self.inner_name)]

    @property
    def address_scopes(self):
        inner = (("netns", self.inner_netns),)
        return inner + (("bridge", self.netns, self.bridge),) if self.bridge else inner
