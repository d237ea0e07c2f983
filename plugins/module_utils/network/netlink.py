# SPDX-License-Identifier: GPL-3.0-or-later
"""Links over netlink: what is there, and the steps that change it.

Beside ``core.dependencies``, and ``firewall.conntrack`` for its own part, this is the only importer of pyroute2. A handle is a
netlink socket opened inside a namespace, which stays there; observing a namespace that does not exist finds nothing, and creates
nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from functools import lru_cache, singledispatchmethod
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, FrozenSet, Optional, Sequence

from ..container.launcher.record import running
from ..core.errors import ModuleError
from ..core.plan import NOW
from . import namespaces, neighbour_tables, operations
from .iproute2 import commands
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
NTF_MASTER = 4
LINK_LOCAL = ipaddress.ip_network("fe80::/10")
KERNEL_PROTOCOLS = (1, 2, 9)  # routes that come with a redirect, with an address, and with a router advertisement
STATIC = 4
MAIN_TABLE = 254
SCOPE_LINK, SCOPE_NOWHERE = 253, 255
IFA_F_NODAD = 2
IFA_F_PERMANENT, IFA_F_MANAGETEMPADDR = 0x80, 0x100
NO_ID = 0xffffffff
NTF_SELF = 2
# The kind's own attributes: the word of ip-link(8) and the netlink name where they are not alike.
ATTRIBUTES = {"udpcsum": "udp_csum", "dstport": "port", "dev": "link", "remote": "group"}
# The flags of a bridge port, and whether they are on where it floods.
PORT = {"learning": True, "unicast_flood": True, "mcast_flood": True, "bcast_flood": True, "neigh_suppress": False}
# A thing that is gone already: ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL.
GONE = (2, 3, 19, 99)


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


def _fdb_entry(step, index):
    mac, dst, via = step.entry
    return neighbour_tables.Entry(socket.AF_BRIDGE, index(step.dev), NUD_PERMANENT | NUD_NOARP, NTF_SELF, mac, dst,
                                  index(via) if via else None)


def _port_fdb_entry(step, index):
    return neighbour_tables.Entry(socket.AF_BRIDGE, index(step.dev), NUD_NOARP, NTF_MASTER, step.mac)


def _neighbour(step, index):
    address, mac = step.neighbour
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return neighbour_tables.Entry(family, index(step.dev), NUD_PERMANENT, 0, mac, address)


# Steps on the neighbour tables, of which there may be very many: the entry that each is about, and what becomes of that.
IN_TABLES = {
    operations.FdbAppend: (_fdb_entry, neighbour_tables.APPEND), operations.FdbReplace: (_fdb_entry, neighbour_tables.REPLACE),
    operations.FdbDel: (_fdb_entry, None),
    operations.PortFdbReplace: (_port_fdb_entry, neighbour_tables.REPLACE), operations.PortFdbDel: (_port_fdb_entry, None),
    operations.NeighbourReplace: (_neighbour, neighbour_tables.REPLACE), operations.NeighbourDel: (_neighbour, None)}


@contextlib.contextmanager
def _named(step):
    """Name the step in the error of what is done for it."""
    try:
        yield
    except (NetlinkError, OSError, ModuleError) as error:
        reason = os.strerror(error.code) if isinstance(error, NetlinkError) else error
        raise ModuleError(f"While doing what '{'; '.join(commands([step]))}' does: {reason}") from error


class Links(HostView):
    """Read and change links over netlink: open namespaces as they are needed, apply operations, close all."""

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

    def apply(self, steps: Sequence[Any]):
        for (in_tables, netns), group in groupby(steps, lambda step: (type(step) in IN_TABLES, step.netns)):
            if in_tables:
                self._change_tables(netns, list(group))
                continue
            for step in group:
                with _named(step):
                    self._step(step)

    def _change_tables(self, netns, steps):
        with _named(steps[0]):
            index = lru_cache(None)(self.there(netns).index)
        requests = []
        for step in steps:
            with _named(step):
                entry, how = IN_TABLES[type(step)]
                requests.append(neighbour_tables.Request(entry(step, index), how))
        for position, code in neighbour_tables.send(netns, requests):
            if requests[position].how is not None or code not in GONE:
                with _named(steps[position]):
                    raise NetlinkError(code)

    def names(self):
        return namespaces.names()

    def same(self, one, other):
        return namespaces.exists(one) and namespaces.exists(other) and namespaces.same(one, other)

    def whereabouts(self, netns):
        pid = running(netns) if netns and not netns.startswith("/") else None
        there = f"/proc/{pid}/ns/net"
        return there if pid and namespaces.inode(there) not in (None, namespaces.inode(netns)) else netns

    def _index(self, netns, name):
        return self.there(netns).index(name)

    @singledispatchmethod
    def _step(self, step):
        raise TypeError(step)

    @_step.register
    def _add(self, step: operations.LinkAdd):
        there = self.there(step.netns)
        attributes = _attributes(step, there)
        if step.inner:
            inner = {"ifname": step.inner.name, "address": step.inner.mac, "mtu": step.inner.mtu}
            attributes["peer"] = {key: value for key, value in inner.items() if value is not None}
            if step.inner.netns is not None:
                target = os.open(namespaces.path_of(step.inner.netns), os.O_RDONLY | os.O_CLOEXEC)
                attributes["peer"]["net_ns_fd"] = target
        try:
            there.socket.link("add", ifname=step.name, kind=step.kind, **attributes)
        finally:
            if step.inner and step.inner.netns is not None:
                os.close(target)

    @_step.register
    def _set(self, step: operations.LinkSet):
        there = self.there(step.netns)
        attributes = _attributes(step, there)
        if step.data:
            attributes["kind"] = step.kind
        if step.alias:
            attributes["ifalias"] = step.alias
        if step.master is not None:
            attributes["master"] = there.index(step.master) if step.master else 0
        if step.up is not None:
            attributes["state"] = "up" if step.up else "down"
        there.socket.link("set", **there.named(step.name), **attributes)

    @_step.register
    def _set_sysctls(self, step: operations.SysctlSet):
        self.there(step.netns)
        with namespaces.entered(step.netns):
            for path, value in step.settings:
                family, name = path.split("/")
                with contextlib.suppress(FileNotFoundError):
                    Path(f"/proc/sys/net/{family}/conf/{step.name}/{name}").write_text(str(value), encoding="ascii")

    @_step.register
    def _del(self, step: operations.LinkDel):
        there = self.namespace(step.netns)
        if there is not None:
            self._unless_gone(lambda: there.socket.link("del", index=there.index(step.name)))
            self.forget()  # the other end of a veth goes too, wherever it is

    @_step.register
    def _replace_address(self, step: operations.AddressReplace):
        nodad = {"flags": IFA_F_NODAD} if ":" in step.address else {}
        self.there(step.netns).socket.addr("replace", **nodad, **self._address_attributes(step))

    @_step.register
    def _del_address(self, step: operations.AddressDel):
        self._unless_gone(self.there(step.netns).socket.addr, "del", **self._address_attributes(step))

    def _address_attributes(self, step):
        address, prefix = step.address.split("/")
        return {"index": self._index(step.netns, step.dev), "address": address, "prefixlen": int(prefix)}

    @_step.register
    def _replace_route(self, step: operations.RouteReplace):
        on_link = {} if step.route.via else {"scope": SCOPE_LINK}
        self.there(step.netns).socket.route("replace", proto=STATIC, **on_link, **self._route_attributes(step))

    @_step.register
    def _del_route(self, step: operations.RouteDel):
        # Whoever made it: with neither protocol nor scope, any matches.
        self._unless_gone(self.there(step.netns).socket.route, "del", proto=0, type=0, scope=SCOPE_NOWHERE,
                          **self._route_attributes(step))

    def _route_attributes(self, step):
        dst, via = step.route
        attributes = {"oif": self._index(step.netns, step.dev),
                      "family": socket.AF_INET6 if ":" in (via or dst) else socket.AF_INET}
        if via:
            attributes["gateway"] = via
        if dst not in (DEFAULT, DEFAULT6):
            attributes["dst"] = dst
        return attributes

    @_step.register
    def _set_port(self, step: operations.PortSet):
        self.there(step.netns).socket.brport("set", index=self._index(step.netns, step.name), **port_flags(step.flood))

    @_step.register
    def _set_hairpin(self, step: operations.PortHairpin):
        self.there(step.netns).socket.brport("set", index=self._index(step.netns, step.name), mode=int(step.on))

    def _unless_gone(self, call, *args, **attributes):
        try:
            call(*args, **attributes)
        except NetlinkError as error:
            if error.code not in GONE:
                raise


def _attributes(step, there):
    """Return mac, mtu and the kind's data as keyword arguments of pyroute2."""
    attributes = {}
    if step.mac:
        attributes["address"] = step.mac
    if step.mtu:
        attributes["mtu"] = step.mtu
    prefix = {"bridge": "br_", "vxlan": "vxlan_"}.get(step.kind, "")
    for key, value in step.data:
        name = ATTRIBUTES.get(key, key)
        if key == "dev":
            value = there.index(value)
        elif isinstance(value, bool):
            value = int(value)
        if name in ("group", "local") and ":" in str(value):
            name += "6"
        attributes[prefix + name] = value
    return attributes
