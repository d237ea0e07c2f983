# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's links as data: what netlink would tell of them, by namespace and name."""

from __future__ import annotations

from ansible_collections.fromscratch.containers.plugins.module_utils.core.resource import OWNER
from ansible_collections.fromscratch.containers.plugins.module_utils.network.links import FdbEntry, Neighbour, Route
from ansible_collections.fromscratch.containers.plugins.module_utils.network.view import HostView, Link, NamespaceView

HOST = "host"  # the namespace that the module runs in
# What the kernel gives to a new link of each kind, in its own words and units.
DATA = {
    "bridge": {"stp_state": 0, "priority": 32768, "forward_delay": 1500, "hello_time": 200, "max_age": 2000, "ageing_time": 30000,
               "vlan_filtering": 0},
    "vxlan": {"port": 4789, "ttl": 0, "ageing": 300, "learning": 1, "udp_csum": 1},
}
OPEN = {"accept_ra": True, "accept_redirects": True, "ipv6": True}
# What a link of ours has beside, once a run has finished it.
OURS = {"alias": OWNER, "up": True, "settings": {"accept_ra": False, "accept_redirects": False}}


class Snapshot(HostView):
    """Namespaces of a mapping by name, each with its links by name.

    A link says what differs from a new one of its kind; ``ours`` stands for what a run leaves. ``master`` and ``link`` are names,
    and ``peer`` is ``NAMESPACE/NAME``.
    """

    def __init__(self, namespaces):
        self.gone = frozenset()
        self._ids = {name: at for at, name in enumerate(namespaces)}
        # Each namespace counts for itself, so that links of two may well have one index.
        indices = {(netns, name): at for netns, links in namespaces.items() for at, name in enumerate(links, 2)}
        self._namespaces = {
            None if netns == HOST else netns: NamespaceSnapshot(self, netns, links, indices)
            for netns, links in {HOST: {}, **namespaces}.items()}

    def namespace(self, netns):
        return None if ("netns", netns) in self.gone else self._namespaces.get(netns)

    def names(self):
        return sorted(filter(None, self._namespaces))

    def same(self, one, other):
        return one == other

    def whereabouts(self, netns):
        return netns

    def id_of(self, netns):
        return self._ids[netns or HOST]

    def at(self, state):
        self.gone = state.gone

    def forget(self):
        """Nothing: it is read but once."""

    def close(self):
        """Nothing is open."""


class NamespaceSnapshot(NamespaceView):
    def __init__(self, host, netns, given, indices):
        self._host, self._netns = host, None if netns == HOST else netns
        given = {name: {**(OURS if values.get("ours") else {}), **values} for name, values in given.items()}
        self._given = {indices[netns, name]: values for name, values in given.items()}
        self._links = {name: self._link(netns, name, values, indices) for name, values in given.items()}

    def _link(self, netns, name, values, indices):
        peer_netns, unused, peer = values.get("peer", "").partition("/")
        kind = values.get("kind")
        data = {**DATA.get(kind, {}), **values.get("data", {})}
        if "link" in values:
            data["link"] = indices[netns, values["link"]]
        return Link(
            index=indices[netns, name], name=name, kind=kind, mac=values.get("mac"), mtu=values.get("mtu", 1500),
            up=values.get("up", False), alias=values.get("alias", ""), master=indices.get((netns, values.get("master"))),
            peer=indices.get((peer_netns, peer)), peer_netns=self._host.id_of(peer_netns) if peer and peer_netns != netns else None,
            hairpin=values.get("hairpin", False), flood=values.get("flood", True if "master" in values else None), data=data,
            settings={**OPEN, **values.get("settings", {})})

    @property
    def links(self):
        return {name: link for name, link in self._links.items() if ("link", self._netns, name) not in self._host.gone}

    def addresses(self, index):
        return tuple(self._given[index].get("addresses", ()))

    def routes(self, index):
        return frozenset(Route(**each) for each in self._given[index].get("routes", ()))

    def neighbours(self, index):
        return frozenset(Neighbour(**each) for each in self._given[index].get("neighbours", ()))

    def fdb(self, index):
        return frozenset(FdbEntry(**each) for each in self._given[index].get("fdb", ()))

    def port_fdb(self, index):
        return frozenset(self._given[index].get("port_fdb", ()))

    def id_of(self, netns):
        return self._host.id_of(netns)

    def other_way(self, peer, source, device):
        """The link's name that the snapshot gives for a peer beside an address of the device."""
        return self._given[device.index].get("other_ways", {}).get(peer)
