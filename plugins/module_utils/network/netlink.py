# SPDX-License-Identifier: GPL-3.0-or-later
"""Links over netlink, as they are there. ``changes`` changes them.

Beside ``core.dependencies``, and ``firewall.conntrack`` for its own part, this is the only importer of pyroute2. A handle is a
netlink socket opened inside a namespace, which stays there; observing a namespace that does not exist finds nothing, and creates
nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Dict, FrozenSet, Optional

from ..container.launcher.record import running
from ..core.plan import NOW
from . import namespaces, neighbour_tables, operations
from .links import DEFAULT, DEFAULT6
from .routes import other_way
from .view import HostView, Link, NamespaceView

try:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError
except ImportError:  # core.dependencies says so before anything is opened
    IPRoute = NetlinkError = NetlinkDumpInterrupted = None

READS = 20  # of a list that others change all the time
IFF_UP = 1
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
LINK_LOCAL = ipaddress.ip_network("fe80::/10")
KERNEL_PROTOCOLS = (1, 2, 9)  # routes that come with a redirect, with an address, and with a router advertisement
MAIN_TABLE = 254
IFA_F_PERMANENT, IFA_F_MANAGETEMPADDR = 0x80, 0x100
NO_ID = 0xffffffff
# The flags of a bridge port, and whether they are on where it floods.
PORT = {"learning": True, "unicast_flood": True, "mcast_flood": True, "bcast_flood": True, "neigh_suppress": False}


def _link(message):
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    data = info.get_attr("IFLA_INFO_DATA") if info and kind in ("bridge", "vxlan") else None
    prefix = "IFLA_BR_" if kind == "bridge" else "IFLA_VXLAN_"
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS"),
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & IFF_UP),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        master=message.get_attr("IFLA_MASTER"),
        peer=message.get_attr("IFLA_LINK"),
        peer_netns=message.get_attr("IFLA_LINK_NETNSID"),
        hairpin=bool(_port(info, "IFLA_BRPORT_MODE")),
        flood=_flood(info),
        data={key[len(prefix):].lower(): value for key, value in (data["attrs"] if data else [])
              if key.startswith(prefix)},
        settings=_settings(message.get_attr("IFLA_AF_SPEC")))


def _settings(spec):
    """Return what a link accepts from its neighbours. Without IPv6, as below an MTU of 1280, it accepts none of that."""
    ipv4 = (spec and spec.get_attr("AF_INET")) or {}
    ipv6 = spec and spec.get_attr("AF_INET6")
    ipv6 = (ipv6 and ipv6.get_attr("IFLA_INET6_CONF")) or {"disable_ipv6": 1}
    return {"accept_ra": bool(ipv6.get("accept_ra")), "ipv6": not ipv6["disable_ipv6"],
            "accept_redirects": bool(ipv4.get("accept_redirects") or ipv6.get("accept_redirects"))}


def _port(info, name):
    """Return an attribute of a bridge port; None of a link that is none."""
    if not info or info.get_attr("IFLA_INFO_SLAVE_KIND") != "bridge":
        return None
    return info.get_attr("IFLA_INFO_SLAVE_DATA").get_attr(name)


def _flood(info):
    flags = {name: _port(info, f"IFLA_BRPORT_{name.upper()}") for name in PORT}
    return next((flood for flood in (True, False) if flags == port_flags(flood)), None)


def port_flags(flood):
    """Return the flags with which a bridge port floods, and the bridge learns from it; or neither."""
    return {name: int(flood if on else not flood) for name, on in PORT.items()}


class Sockets:
    """Keep the open netlink sockets. Beyond ``MOST``, the one that was opened first is closed.

    Each takes several descriptors, of which a process may have 1024 on most hosts.
    """

    MOST = 128

    def __init__(self):
        self._open = {}  # by namespace, in the order of opening

    def of(self, namespace):
        if namespace not in self._open:
            if len(self._open) == self.MOST:
                self.close(next(iter(self._open)))
            with namespaces.entered(namespace.netns):
                self._open[namespace] = IPRoute()
        return self._open[namespace]

    def close(self, namespace):
        if namespace in self._open:
            self._open.pop(namespace).close()


class Namespace(NamespaceView):
    """Read one network namespace, at most once for each kind of object until it is changed."""

    def __init__(self, netns, gone, sockets):
        self.netns, self.inode = netns, namespaces.inode(netns)
        self._gone = gone
        self._sockets, self._seen = sockets, {}

    @property
    def socket(self):
        return self._sockets.of(self)

    def close(self):
        self._sockets.close(self)

    def forget(self):
        self._seen.clear()

    def _read(self, what, read):
        tries = 0
        while what not in self._seen:
            try:
                self._seen[what] = read()
            except (NetlinkDumpInterrupted, neighbour_tables.DumpInterrupted):
                tries += 1  # somebody else changed it meanwhile, and the list may lack something
                if tries == READS:
                    raise
        return self._seen[what]

    @property
    def links(self) -> Dict[str, Link]:
        return self._read("links", lambda: {
            link.name: link for link in map(_link, self.socket.get_links())
            if ("link", self.netns, link.name) not in self._gone()})

    def index(self, name):
        """Return the index of a link, asking for it alone where the links have not been read, or an operation has just added it."""
        for known in self._seen.get("links", {}), self._seen.setdefault("made", {}):
            if name in known:
                return known[name].index
        self._seen["made"][name] = _link(next(iter(self.socket.link("get", ifname=name))))
        return self._seen["made"][name].index

    def named(self, name):
        """Return what identifies a link in a request: the kernel accepts its name, too, which saves asking for the index."""
        known = self._seen.get("links", {})
        return {"index": known[name].index} if name in known else {"index": 0, "ifname": name}

    @property
    def names(self):
        return self._read("names", lambda: super(Namespace, self).names)

    def addresses(self, index) -> tuple:
        """Return the addresses of a link in CIDR form, in the kernel's order.

        The link-local IPv6 address that the kernel gives every link is left out, and so are those of a router or a DHCP server:
        they come and go by themselves.
        """
        found = self._read("addresses", lambda: [
            (each["index"], each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"), each["prefixlen"])
            for each in self.socket.get_addr() if _told(each.get_attr("IFA_FLAGS", each["flags"]))])
        return tuple(f"{ipaddress.ip_address(address)}/{prefix}" for owner, address, prefix in found
                     if owner == index and ipaddress.ip_address(address) not in LINK_LOCAL)

    def routes(self, index) -> frozenset:
        found = self._read("routes", lambda: list(self.socket.get_routes(table=MAIN_TABLE)))
        return frozenset(_route(each) for each in found
                         if each.get_attr("RTA_OIF") == index and each["proto"] not in KERNEL_PROTOCOLS
                         and each["type"] == 1 and each.get_attr("RTA_TABLE") == MAIN_TABLE)

    def _table(self, family, index):
        """The entries of a neighbour table that are about a link."""
        return self._read(("table", family), lambda: neighbour_tables.dump(self.netns, family)).get(index, ())

    def port_fdb(self, index) -> frozenset:
        return frozenset(entry.mac for entry in self._table(socket.AF_BRIDGE, index) if entry.state == NUD_NOARP and entry.master)

    def neighbours(self, index) -> frozenset:
        return frozenset(operations.Neighbour(entry.dst, entry.mac) for family in (socket.AF_INET, socket.AF_INET6)
                         for entry in self._table(family, index) if entry.state == NUD_PERMANENT)

    def fdb(self, index) -> frozenset:
        return frozenset(operations.FdbEntry(entry.mac, entry.dst, self.name_of(entry.via) or "")
                         for entry in self._table(socket.AF_BRIDGE, index) if entry.state & NUD_PERMANENT and entry.dst)

    def other_way(self, peer, source, device):
        family = socket.AF_INET6 if ":" in peer else socket.AF_INET
        try:
            found = next(iter(self.socket.route("get", family=family, dst=peer, src=source)))
        except NetlinkError:
            return None
        return other_way(self, found, lambda: self.socket.get_routes(family=family), peer, device)

    def id_of(self, netns) -> Optional[int]:
        with open(namespaces.path_of(netns), "rb") as other:
            found = self.socket.get_netnsid(fd=other.fileno())["nsid"]
        return None if found == NO_ID else found


def _told(flags):
    """Return whether an address with these flags was set by a program, permanently."""
    return bool(flags & IFA_F_PERMANENT) and not flags & IFA_F_MANAGETEMPADDR


def _route(message):
    dst, default = message.get_attr("RTA_DST"), DEFAULT6 if message["family"] == socket.AF_INET6 else DEFAULT
    return operations.Route(f"{dst}/{message['dst_len']}" if dst else default, message.get_attr("RTA_GATEWAY"))


class Links(HostView):
    """Read links over netlink: open namespaces as they are needed, close all."""

    def __init__(self):
        self._gone: FrozenSet[Any] = NOW.gone
        self._open: Dict[Optional[str], Namespace] = {}
        self._sockets = Sockets()

    def close(self):
        while self._open:
            self._open.popitem()[1].close()

    def at(self, state):
        if state.gone != self._gone:
            self._gone = state.gone
            self.forget()

    def forget(self):
        for namespace in self._open.values():
            namespace.forget()

    def namespace(self, netns) -> Optional[Namespace]:
        """Return the namespace, or None where it does not exist, or will be gone.

        One that has taken the name of another is read anew.
        """
        if ("netns", netns) in self._gone:
            return None
        known = self._open.get(netns)
        if netns is not None and (known is None or known.inode != namespaces.inode(netns)):
            if known:
                self._open.pop(netns).close()
            if not namespaces.exists(netns):
                return None
        if netns not in self._open:
            self._open[netns] = Namespace(netns, lambda: self._gone, self._sockets)
        return self._open[netns]

    def names(self):
        return namespaces.names()

    def same(self, one, other):
        return namespaces.exists(one) and namespaces.exists(other) and namespaces.same(one, other)

    def whereabouts(self, netns):
        pid = running(netns) if netns and not netns.startswith("/") else None
        there = f"/proc/{pid}/ns/net"
        return there if pid and namespaces.inode(there) not in (None, namespaces.inode(netns)) else netns
