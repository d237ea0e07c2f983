# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel remembers of UDP to published ports.

Of a flow, only the first packet passes the rules of nat; those after it go where that one went. UDP has no end that would be
seen: a client that goes on sending from its port reaches a former container for ever, or nobody where it began before there was
a rule. So the entries of a port are deleted when its rules change, and the next packet is a first one again.
"""

from __future__ import annotations

import re
import socket

from ..core.errors import ModuleError

try:
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket
except ImportError:  # told by `core.dependencies` before anything is planned
    pass

DNAT = re.compile(r"(?:\bip daddr (?P<address>[\d.]+) )?udp dport (?P<port>\d+) .*\bdnat\b")
GONE = 2  # ENOENT: it has expired meanwhile


def changed(before, after):
    """(address or None, port) of each published UDP port whose rules differ, by what stands in the table before and after."""
    lines = {line.strip() for line in (before or "").splitlines()} ^ {line.strip() for line in (after or "").splitlines()}
    found = {(match["address"], int(match["port"])) for match in map(DNAT.search, lines) if match}
    return sorted(found, key=lambda each: (each[0] or "", each[1]))


def commands(ports):
    """The same by conntrack(8), which fails where there is nothing to delete."""
    return [f"conntrack -D -f ipv4 -p udp{f' --orig-dst {address}' if address else ''} --orig-port-dst {port} || :"
            for address, port in ports]


def delete(ports):
    """Delete the entries. Raises ModuleError."""
    if not ports:
        return
    try:
        with NFCTSocket() as conntrack:
            for flow in list(_flows(conntrack, {port for unused, port in ports})):
                if (None, flow["dport"]) in ports or (flow["daddr"], flow["dport"]) in ports:
                    _delete(conntrack, flow)
    except (NetlinkError, OSError) as error:
        raise ModuleError(f"What the kernel remembers of UDP to published ports could not be deleted: {error}") from None


def _delete(conntrack, flow):
    try:
        conntrack.entry("del", tuple_orig=NFCTAttrTuple(**flow))
    except NetlinkError as error:
        if error.code != GONE:
            raise


def _flows(conntrack, ports):
    """The original direction of each entry of UDP over IPv4 to one of the ports."""
    for entry in conntrack.dump():
        origin = entry.get_attr("CTA_TUPLE_ORIG")
        address, protocol = origin.get_attr("CTA_TUPLE_IP"), origin.get_attr("CTA_TUPLE_PROTO")
        flow = {"saddr": address.get_attr("CTA_IP_V4_SRC"), "daddr": address.get_attr("CTA_IP_V4_DST"),
                "proto": protocol.get_attr("CTA_PROTO_NUM"), "sport": protocol.get_attr("CTA_PROTO_SRC_PORT"),
                "dport": protocol.get_attr("CTA_PROTO_DST_PORT")}
        if flow["proto"] == socket.IPPROTO_UDP and flow["saddr"] and flow["dport"] in ports:
            yield flow
