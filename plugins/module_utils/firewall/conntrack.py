# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete connection tracking entries of UDP to published ports.

Only the first packet of a flow passes the nat rules; the others follow its entry. UDP has no end that the kernel sees: a client
that keeps sending from its port would reach a former container for ever, or none where it began before the rule. So the entries of
a port are deleted when its rules change, and the next packet is a first one again.
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
    """Return the published UDP ports whose rules differ, (address or None, port), from the table's text before and after."""
    lines = {line.strip() for line in (before or "").splitlines()} ^ {line.strip() for line in (after or "").splitlines()}
    found = {(match["address"], int(match["port"])) for match in map(DNAT.search, lines) if match}
    return sorted(found, key=lambda each: (each[0] or "", each[1]))


def commands(ports):
    """Return the conntrack(8) commands that do the same; they fail where there is nothing to delete."""
    return [f"conntrack -D -f ipv4 -p udp{f' --orig-dst {address}' if address else ''} --orig-port-dst {port} || :"
            for address, port in ports]


def delete(ports):
    """Delete the entries of the ports. Raise ModuleError."""
    if not ports:
        return
    try:
        with NFCTSocket() as conntrack:
            for flow in list(_flows(conntrack, {port for _address, port in ports})):
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
    """Yield the original direction of each entry of UDP over IPv4 to one of the ports."""
    for entry in conntrack.dump():
        origin = entry.get_attr("CTA_TUPLE_ORIG")
        address, protocol = origin.get_attr("CTA_TUPLE_IP"), origin.get_attr("CTA_TUPLE_PROTO")
        flow = {"saddr": address.get_attr("CTA_IP_V4_SRC"), "daddr": address.get_attr("CTA_IP_V4_DST"),
                "proto": protocol.get_attr("CTA_PROTO_NUM"), "sport": protocol.get_attr("CTA_PROTO_SRC_PORT"),
                "dport": protocol.get_attr("CTA_PROTO_DST_PORT")}
        if flow["proto"] == socket.IPPROTO_UDP and flow["saddr"] and flow["dport"] in ports:
            yield flow
