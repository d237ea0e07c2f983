# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply operations on links over netlink. ``iproute2`` renders the same operations as commands."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import lru_cache, singledispatch
from itertools import groupby
from pathlib import Path
from typing import Any, Sequence

from ..core.errors import ModuleError
from . import namespaces, neighbour_tables, operations
from .iproute2 import commands
from .links import DEFAULT, DEFAULT6
from .netlink import NUD_NOARP, NUD_PERMANENT, Links, NetlinkError, port_flags

NTF_SELF, NTF_MASTER = 2, 4
STATIC = 4
SCOPE_LINK, SCOPE_NOWHERE = 253, 255
IFA_F_NODAD = 2
# The kind's own attributes: the word of ip-link(8) and the netlink name where they are not alike.
ATTRIBUTES = {"udpcsum": "udp_csum", "dstport": "port", "dev": "link", "remote": "group"}
# A thing that is gone already: ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL.
GONE = (2, 3, 19, 99)


def _fdb_entry(operation, index):
    mac, dst, via = operation.entry
    return neighbour_tables.Entry(socket.AF_BRIDGE, index(operation.dev), NUD_PERMANENT | NUD_NOARP, NTF_SELF, mac, dst,
                                  index(via) if via else None)


def _port_fdb_entry(operation, index):
    return neighbour_tables.Entry(socket.AF_BRIDGE, index(operation.dev), NUD_NOARP, NTF_MASTER, operation.mac)


def _neighbour(operation, index):
    address, mac = operation.neighbour
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return neighbour_tables.Entry(family, index(operation.dev), NUD_PERMANENT, 0, mac, address)


# Operations on the neighbour tables, of which there may be very many: the entry that each is about, and what becomes of that.
IN_TABLES = {
    operations.FdbAppend: (_fdb_entry, neighbour_tables.APPEND), operations.FdbReplace: (_fdb_entry, neighbour_tables.REPLACE),
    operations.FdbDel: (_fdb_entry, None),
    operations.PortFdbReplace: (_port_fdb_entry, neighbour_tables.REPLACE), operations.PortFdbDel: (_port_fdb_entry, None),
    operations.NeighbourReplace: (_neighbour, neighbour_tables.REPLACE), operations.NeighbourDel: (_neighbour, None)}


@contextlib.contextmanager
def _named(operation):
    """Name the operation in the error of what is done for it."""
    try:
        yield
    except (NetlinkError, OSError, ModuleError) as error:
        reason = os.strerror(error.code) if isinstance(error, NetlinkError) else error
        raise ModuleError(f"While doing what '{'; '.join(commands([operation]))}' does: {reason}") from error


def apply(links: Links, ordered: Sequence[Any]) -> None:
    """Apply operations on links, in their order. Raise ModuleError, which names the first that the kernel refuses."""
    for (in_tables, netns), group in groupby(ordered, lambda operation: (type(operation) in IN_TABLES, operation.netns)):
        if in_tables:
            _change_tables(links, netns, list(group))
            continue
        for operation in group:
            with _named(operation):
                _apply(operation, links)


def _change_tables(links, netns, entries):
    with _named(entries[0]):
        index = lru_cache(None)(links.there(netns).index)
    requests = []
    for operation in entries:
        with _named(operation):
            entry, how = IN_TABLES[type(operation)]
            requests.append(neighbour_tables.Request(entry(operation, index), how))
    for position, code in neighbour_tables.send(netns, requests):
        if requests[position].how is not None or code not in GONE:
            with _named(entries[position]):
                raise NetlinkError(code)


@singledispatch
def _apply(operation, links):
    raise TypeError(operation)


@_apply.register
def _add(operation: operations.LinkAdd, links):
    there = links.there(operation.netns)
    attributes = _attributes(operation, there)
    if operation.inner:
        inner = {"ifname": operation.inner.name, "address": operation.inner.mac, "mtu": operation.inner.mtu}
        attributes["peer"] = {key: value for key, value in inner.items() if value is not None}
        if operation.inner.netns is not None:
            target = os.open(namespaces.path_of(operation.inner.netns), os.O_RDONLY | os.O_CLOEXEC)
            attributes["peer"]["net_ns_fd"] = target
    try:
        there.socket.link("add", ifname=operation.name, kind=operation.kind, **attributes)
    finally:
        if operation.inner and operation.inner.netns is not None:
            os.close(target)


@_apply.register
def _set(operation: operations.LinkSet, links):
    there = links.there(operation.netns)
    attributes = _attributes(operation, there)
    if operation.data:
        attributes["kind"] = operation.kind
    if operation.alias:
        attributes["ifalias"] = operation.alias
    if operation.master is not None:
        attributes["master"] = there.index(operation.master) if operation.master else 0
    if operation.up is not None:
        attributes["state"] = "up" if operation.up else "down"
    there.socket.link("set", **there.named(operation.name), **attributes)


@_apply.register
def _set_sysctls(operation: operations.SysctlSet, links):
    links.there(operation.netns)
    with namespaces.entered(operation.netns):
        for path, value in operation.settings:
            family, name = path.split("/")
            with contextlib.suppress(FileNotFoundError):
                Path(f"/proc/sys/net/{family}/conf/{operation.name}/{name}").write_text(str(value), encoding="ascii")


@_apply.register
def _del(operation: operations.LinkDel, links):
    there = links.namespace(operation.netns)
    if there is not None:
        _unless_gone(lambda: there.socket.link("del", index=there.index(operation.name)))
        links.forget()  # the other end of a veth goes too, wherever it is


@_apply.register
def _replace_address(operation: operations.AddressReplace, links):
    nodad = {"flags": IFA_F_NODAD} if ":" in operation.address else {}
    links.there(operation.netns).socket.addr("replace", **nodad, **_address_attributes(operation, links))


@_apply.register
def _del_address(operation: operations.AddressDel, links):
    _unless_gone(links.there(operation.netns).socket.addr, "del", **_address_attributes(operation, links))


def _address_attributes(operation, links):
    address, prefix = operation.address.split("/")
    return {"index": links.there(operation.netns).index(operation.dev), "address": address, "prefixlen": int(prefix)}


@_apply.register
def _replace_route(operation: operations.RouteReplace, links):
    on_link = {} if operation.route.via else {"scope": SCOPE_LINK}
    links.there(operation.netns).socket.route("replace", proto=STATIC, **on_link, **_route_attributes(operation, links))


@_apply.register
def _del_route(operation: operations.RouteDel, links):
    # Whoever made it: with neither protocol nor scope, any matches.
    _unless_gone(links.there(operation.netns).socket.route, "del", proto=0, type=0, scope=SCOPE_NOWHERE,
                 **_route_attributes(operation, links))


def _route_attributes(operation, links):
    dst, via = operation.route
    attributes = {"oif": links.there(operation.netns).index(operation.dev),
                  "family": socket.AF_INET6 if ":" in (via or dst) else socket.AF_INET}
    if via:
        attributes["gateway"] = via
    if dst not in (DEFAULT, DEFAULT6):
        attributes["dst"] = dst
    return attributes


@_apply.register
def _set_port(operation: operations.PortSet, links):
    there = links.there(operation.netns)
    there.socket.brport("set", index=there.index(operation.name), **port_flags(operation.flood))


@_apply.register
def _set_hairpin(operation: operations.PortHairpin, links):
    there = links.there(operation.netns)
    there.socket.brport("set", index=there.index(operation.name), mode=int(operation.on))


def _unless_gone(call, *args, **attributes):
    try:
        call(*args, **attributes)
    except NetlinkError as error:
        if error.code not in GONE:
            raise


def _attributes(operation, there):
    """Return mac, mtu and the kind's data as keyword arguments of pyroute2."""
    attributes = {}
    if operation.mac:
        attributes["address"] = operation.mac
    if operation.mtu:
        attributes["mtu"] = operation.mtu
    prefix = {"bridge": "br_", "vxlan": "vxlan_"}.get(operation.kind, "")
    for key, value in operation.data:
        name = ATTRIBUTES.get(key, key)
        if key == "dev":
            value = there.index(value)
        elif isinstance(value, bool):
            value = int(value)
        if name in ("group", "local") and ":" in str(value):
            name += "6"
        attributes[prefix + name] = value
    return attributes
