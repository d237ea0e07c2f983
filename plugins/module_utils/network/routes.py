# SPDX-License-Identifier: GPL-3.0-or-later
"""By which link the kernel reaches an address, as ``ip route get PEER from ADDRESS`` tells."""

from __future__ import annotations

import ipaddress
import socket

from .netlink import NetlinkError

UNICAST = 1


def other_way(namespace, peer, source, device):
    """The name of the link by which the kernel reaches a peer from this address, where no route leads there by ``device``.

    None without a route, which may be made later, for what is an address of this very host, and where the device belongs to
    something else, such as a VRF, whose routes are its own.
    """
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    try:
        found = next(iter(namespace.socket.route("get", family=family, dst=peer, src=source)))
    except NetlinkError:
        return None
    way = found.get_attr("RTA_OIF")
    if found["type"] != UNICAST or device.master or way in (None, device.index):
        return None
    if any(_leads(each, ipaddress.ip_address(peer), device.index) for each in namespace.socket.get_routes(family=family)):
        return None
    return namespace.name_of(way)


def _leads(route, peer, index):
    """Whether one of the ways of a route is by this link, and the peer is among its destinations."""
    ways = [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()] + [route.get_attr("RTA_OIF")]
    dst = route.get_attr("RTA_DST")
    return index in ways and route["type"] == UNICAST and (
        dst is None or peer in ipaddress.ip_network(f"{dst}/{route['dst_len']}"))
