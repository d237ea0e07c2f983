# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out by which link the kernel reaches an address, as ``ip route get PEER from ADDRESS`` does."""

from __future__ import annotations

import ipaddress

UNICAST = 1


def other_way(namespace, found, routes, peer, device):
    """Return the link of the route ``found`` to a peer, where none of all ``routes`` leads there by ``device``; else None."""
    way = found.get_attr("RTA_OIF")
    if found["type"] != UNICAST or device.master or way in (None, device.index):
        return None
    if any(_leads(each, ipaddress.ip_address(peer), device.index) for each in routes()):
        return None
    return namespace.name_of(way)


def _leads(route, peer, index):
    """Return whether a next hop of a route is on this link, and the peer is among its destinations."""
    ways = [hop["oif"] for hop in route.get_attr("RTA_MULTIPATH") or ()] + [route.get_attr("RTA_OIF")]
    dst = route.get_attr("RTA_DST")
    return index in ways and route["type"] == UNICAST and (
        dst is None or peer in ipaddress.ip_network(f"{dst}/{route['dst_len']}"))
