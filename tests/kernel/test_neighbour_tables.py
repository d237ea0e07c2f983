# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of the neighbour tables, many in one send, beside what ``bridge`` and ``ip`` show of them."""

from __future__ import annotations

import errno
import json
import socket

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError
from ansible_collections.fromscratch.containers.plugins.module_utils.network import neighbour_tables
from ansible_collections.fromscratch.containers.plugins.module_utils.network.changes import apply
from ansible_collections.fromscratch.containers.plugins.module_utils.network.links import FdbEntry
from ansible_collections.fromscratch.containers.plugins.module_utils.network.neighbour_tables import APPEND, REPLACE, Entry, Request
from ansible_collections.fromscratch.containers.plugins.module_utils.network.netlink import Links
from ansible_collections.fromscratch.containers.plugins.module_utils.network.operations import FdbReplace

from .support.namespaces import sh

PERMANENT, NOARP, SELF, MASTER = 0x80, 0x40, 2, 4
COUNT = 3 * neighbour_tables.AT_ONCE + 7
NOWHERE = 1 << 20  # the index of no link


@pytest.fixture(name="netns")
def _netns(scene):
    netns = scene.netns()
    sh(f"ip -n {netns} link add br0 up type bridge",
       f"ip -n {netns} link add vxlan0 up master br0 type vxlan id 100 dstport 4789 local 127.0.0.1 nolearning")
    return netns


def index(netns, name):
    return json.loads(sh(f"ip -n {netns} -j link show {name}"))[0]["ifindex"]


def entries(netns):
    """Of each kind, in turn."""
    bridge, tunnel = index(netns, "br0"), index(netns, "vxlan0")
    for number in range(COUNT):
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        yield (Entry(socket.AF_BRIDGE, tunnel, PERMANENT | NOARP, SELF, mac, "192.0.2.7"),
               Entry(socket.AF_BRIDGE, tunnel, NOARP, MASTER, mac),
               Entry(socket.AF_INET, bridge, PERMANENT, 0, mac, f"10.0.{number >> 8}.{number & 255}"),
               Entry(socket.AF_INET6, bridge, PERMANENT, 0, mac, f"2001:db8::{number + 1:x}"))[number % 4]


def found(netns):
    """What the tools show of them: tunnel, bridge port, IPv4 and IPv6."""
    fdb = json.loads(sh(f"bridge -n {netns} -j fdb show dev vxlan0"))
    neighbours = json.loads(sh(f"ip -n {netns} -j neighbour show dev br0 nud permanent"))
    return ({(entry["mac"], entry["dst"]) for entry in fdb if "dst" in entry},
            {entry["mac"] for entry in fdb if entry["state"] == "static"},
            *({(entry["dst"], entry["lladdr"]) for entry in neighbours if (":" in entry["dst"]) == ipv6} for ipv6 in (False, True)))


def wanted(given):
    kinds = [[entry for entry in given if entry.family == family and bool(entry.dst) == address] for family, address in (
        (socket.AF_BRIDGE, True), (socket.AF_BRIDGE, False), (socket.AF_INET, True), (socket.AF_INET6, True))]
    return ({(entry.mac, entry.dst) for entry in kinds[0]}, {entry.mac for entry in kinds[1]},
            *({(entry.dst, entry.mac) for entry in kind} for kind in kinds[2:]))


def test_they_come_are_read_and_go(netns):
    given, bridge = list(entries(netns)), index(netns, "br0")
    assert neighbour_tables.send(netns, [Request(entry, REPLACE) for entry in given]) == []
    assert found(netns) == wanted(given) and all(found(netns))
    for family in socket.AF_BRIDGE, socket.AF_INET, socket.AF_INET6:
        read = {entry[:3] + entry[4:6]: entry for of_link in neighbour_tables.dump(netns, family).values() for entry in of_link}
        for entry in given:
            if entry.family == family:
                assert read[entry[:3] + entry[4:6]].master == (bridge if entry.flags == MASTER else None)
    assert neighbour_tables.send(netns, [Request(entry, None) for entry in given]) == []
    assert not any(found(netns))


def test_those_that_are_refused_are_told_and_no_others(netns):
    given = list(entries(netns))
    wrong = {0, 5, neighbour_tables.AT_ONCE - 1, neighbour_tables.AT_ONCE, COUNT - 1}
    mixed = [entry._replace(link=NOWHERE) if number in wrong else entry for number, entry in enumerate(given)]
    assert neighbour_tables.send(netns, [Request(entry, REPLACE) for entry in mixed]) == [(number, errno.ENODEV) for number in sorted(wrong)]
    assert found(netns) == wanted([entry for number, entry in enumerate(given) if number not in wrong])


def test_all_are_refused(netns):
    nowhere = [Request(entry._replace(link=NOWHERE), REPLACE) for entry in entries(netns)]
    assert neighbour_tables.send(netns, nowhere) == [(number, errno.ENODEV) for number in range(COUNT)]


def test_one_more_destination_by_a_link(netns):
    zero, lo = "00:00:00:00:00:00", index(netns, "lo")
    entry = Entry(socket.AF_BRIDGE, index(netns, "vxlan0"), PERMANENT | NOARP, SELF, zero, "192.0.2.1")
    both = [entry, entry._replace(dst="192.0.2.2", via=lo)]
    assert neighbour_tables.send(netns, [Request(each, APPEND) for each in both]) == []
    assert [(each["dst"], each.get("viaIf")) for each in json.loads(sh(f"bridge -n {netns} -j fdb show dev vxlan0")) if each["mac"] == zero] == [
        ("192.0.2.1", None), ("192.0.2.2", "lo")]
    assert [(each.dst, each.via) for each in neighbour_tables.dump(netns, socket.AF_BRIDGE)[entry.link] if each.mac == zero] == [
        ("192.0.2.1", None), ("192.0.2.2", lo)]


def test_what_is_refused_is_named_as_its_command(netns):
    links = Links()
    steps = [FdbReplace(netns, "vxlan0", FdbEntry(f"02:00:00:00:00:{number:02x}", "192.0.2.7", "")) for number in range(9)]
    other = FdbReplace(netns, "vxlan0", FdbEntry("00:00:00:00:00:00", "192.0.2.8", ""))
    try:
        with pytest.raises(ModuleError) as refused:
            apply(links, [*steps, other])
    finally:
        links.close()
    assert str(refused.value) == (f"While doing what 'bridge -n {netns} fdb replace 00:00:00:00:00:00 dev vxlan0 dst 192.0.2.8' does: "
                                  "Operation not supported")


def test_no_such_namespace():
    with pytest.raises(FileNotFoundError):
        neighbour_tables.dump("no-such-namespace", socket.AF_INET)
