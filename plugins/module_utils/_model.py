# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can hold: one frozen type per thing, used for what is wanted and for what is observed alike.

``None`` means "not managed": such a field is neither compared nor changed. Each field says in its metadata
whether the kernel can change it in place; where it cannot, a difference makes the thing anew.

Nothing here knows Ansible or the kernel.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import ClassVar, FrozenSet, NamedTuple, Optional, Tuple

OWNER = "fromscratch.containers"  # the ifalias of every link that the collection makes
UNMARKED = OWNER + ", unmarked"  # the owner of a link that was made, but not yet marked, when its maker was killed
IFNAME_MAX = 15


def another_family(have, want):
    return (":" in have) != (":" in want)


# What the kernel does with a field, None meaning "not managed":
settable = partial(field, default=None)  # it changes in place
fixed = partial(field, default=None, metadata={"fixed": True})  # it is set at creation: a difference makes the thing anew
at_least = partial(field, default=None, metadata={"at_least": True})  # a set: the members wanted, whatever else there is
identity = partial(field, default=None, metadata={"identity": True})  # it finds the thing, and is never compared
fact = partial(field, default=None, metadata={"identity": True, "hidden": True}, compare=False)  # only observed
told = partial(field, default=None, metadata={"identity": True}, compare=False)  # only observed, and shown
hint = fact  # only wanted: what other fields are worked out from


class FdbEntry(NamedTuple):
    """A static forwarding entry of a VXLAN: frames to ``mac`` are sent to the VTEP ``dst``, by the link ``via``.

    To the kernel, entries that differ in ``via`` alone are two: it sends each frame twice.
    """

    mac: str
    dst: str
    via: str = ""

    def __str__(self):
        return f"{self.mac} dst {self.dst}" + (f" via {self.via}" if self.via else "")


DEFAULT, DEFAULT6 = "default", "::/0"


class Route(NamedTuple):
    """``dst`` in CIDR form, or ``default`` for IPv4's; ``via`` a gateway, or None for a route on the link itself."""

    dst: str
    via: Optional[str] = None

    def __str__(self):
        return f"{self.dst} via {self.via}" if self.via else self.dst


class Neighbour(NamedTuple):
    """A permanent entry of the ARP table, or of IPv6's neighbours: ``address`` is at ``mac``."""

    address: str
    mac: str

    def __str__(self):
        return f"{self.address} lladdr {self.mac}"


class Item:
    """What all the types share. ``word`` is the noun in messages, ``key`` finds the thing on one host."""

    word = "item"
    words: ClassVar = {}  # the fields that are words of ``ip link ... type KIND``
    mac_on_bridge: ClassVar = None  # the field of the MAC that others on its bridge see

    @property
    def realms(self):
        """Where each of the item's addresses may stand only once."""
        return (("netns", getattr(self, "netns", None)),)

    @property
    def places(self):
        """Each (namespace, name) that the links of the item take."""
        return [(self.netns, self.name)]

    @property
    def key(self):
        netns = getattr(self, "netns", None)
        return f"{self.word} {self.name}" + (f" in netns {netns}" if netns else "")

    def over(self, observed):
        """This item with every unmanaged field as observed: what the host holds once this is applied."""
        if observed is None:
            return self
        updates = {}
        for each in fields(self):
            wanted, have = getattr(self, each.name), getattr(observed, each.name)
            if wanted is None or each.metadata.get("hidden"):
                updates[each.name] = have
            elif each.metadata.get("at_least"):
                updates[each.name] = wanted | (have or frozenset())
        return replace(self, **updates)

    def settled(self):
        """What observing must find once this has been applied."""
        return self

    def shown(self):
        """A plain dict for return values and diffs: sets sorted, unmanaged and hidden fields left out."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)
                if getattr(self, each.name) is not None and not each.metadata.get("hidden")}


def _plain(value):
    if isinstance(value, (FdbEntry, Route, Neighbour)):
        return {key: part for key, part in value._asdict().items() if part}
    if isinstance(value, frozenset):
        return [_plain(each) for each in sorted(value, key=str)]
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


@dataclass(frozen=True)
class Bridge(Item):
    """A Linux bridge. Times in seconds. ``held``: the addresses in the kernel's order, secondary ones last."""

    word = kind = "bridge"
    words: ClassVar = {"stp": "stp_state", "priority": "priority", "forward_delay": "forward_delay", "hello_time": "hello_time",
                       "max_age": "max_age", "ageing_time": "ageing_time", "vlan_filtering": "vlan_filtering"}
    mac_on_bridge: ClassVar = "mac"

    name: str = identity()
    netns: Optional[str] = identity()
    mac: Optional[str] = settable()
    mtu: Optional[int] = settable()
    addresses: Optional[FrozenSet[str]] = settable()
    underlay: Optional[str] = hint()
    underlay_device: Optional[str] = hint()
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
    owner: Optional[str] = fact()
    held: Optional[Tuple[str, ...]] = fact()

    def fitted(self, mtu):
        return replace(self, mtu=mtu)

    @property
    def realms(self):
        return (("netns", self.netns), ("bridge", self.netns, self.name))


@dataclass(frozen=True)
class Vxlan(Item):
    """A VXLAN device: one VTEP of one network.

    ``remote`` is the device's own default destination: the one peer, as in ``ip link add ... remote``, or ``""``
    where the peers are all-zero FDB entries (none, or several: head-end replication). ``remotes`` are those entries,
    the one of ``remote`` among them; ``held`` is how the kernel has them. ``flood`` is about the bridge port that the
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
    owner: Optional[str] = fact()
    held: Optional[Tuple[FdbEntry, ...]] = fact()

    def over(self, observed):
        """Where ``local`` goes to another address family, what is not managed of the former one has to go."""
        item = super().over(observed)
        if not item.local:
            return item

        def kept(address):
            return not address or (":" in address) == (":" in item.local)

        return replace(item, remote=item.remote if kept(item.remote) else "",
                       group=item.group if kept(item.group) else "",
                       remotes=item.remotes and frozenset(filter(kept, item.remotes)),
                       fdb=item.fdb and frozenset(each for each in item.fdb if kept(each.dst)))


@dataclass(frozen=True)
class VethPair(Item):
    """A virtual cable: the host end ``name`` in ``netns``, the inner end ``inner_name`` in ``inner_netns``.

    ``joined`` is whether the two ends that were found belong to each other; ``ends`` are the links (netns, name) to
    delete when the pair has to go; ``held`` the addresses in the kernel's order, secondary ones last.
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
    underlay: Optional[str] = hint()
    underlay_device: Optional[str] = hint()
    bridge: Optional[str] = settable()
    plugged: Optional[str] = hint()
    addresses: Optional[FrozenSet[str]] = settable()
    routes: Optional[FrozenSet[Route]] = settable()
    accept_ra: Optional[bool] = settable()
    accept_redirects: Optional[bool] = settable()
    inner_accept_ra: Optional[bool] = settable()
    inner_accept_redirects: Optional[bool] = settable()
    inner_ipv6: Optional[bool] = settable()
    up: Optional[bool] = settable()
    owner: Optional[str] = fact()
    ends: Optional[Tuple[Tuple[Optional[str], str], ...]] = fact()
    held: Optional[Tuple[str, ...]] = fact()

    def fitted(self, mtu):
        return replace(self, mtu=mtu, inner_mtu=mtu)

    @property
    def places(self):
        return [(self.netns, self.name), (self.inner_netns, self.inner_name)]

    @property
    def realms(self):
        inner, bridge = (("netns", self.inner_netns),), self.bridge or self.plugged
        return inner + (("bridge", self.netns, bridge),) if bridge else inner


def derived_mac(*parts):
    """A locally administered unicast MAC that is the same wherever it is computed from the same parts."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()
    return "02:" + ":".join(digest[at:at + 2] for at in range(0, 10, 2))


def derived_ifname(prefix, name):
    """``prefix`` + ``name``, or a shortened name with a hash where that passes 15 characters."""
    whole = prefix + name
    if len(whole) <= IFNAME_MAX:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{whole[:IFNAME_MAX - 7]}-{digest}"
