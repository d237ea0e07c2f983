# SPDX-License-Identifier: GPL-3.0-or-later
"""A stranger with raw sockets inside of a container, by the role's own reckoning: what it sends as somebody else arrives nowhere."""

from __future__ import annotations

import json
import time

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import nftables
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from ..overlay import part
from .support import frames
from .support.frames import (
    ADVERTISEMENT,
    ALL_NODES,
    ALL_NODES_MAC,
    ARP,
    BROADCAST,
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    QINQ,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    SOLICITATION,
    UDP,
    VLAN,
    arp,
    echo,
    ether,
    ipv4,
    ipv6,
)
from .support.modules import run_module
from .support.namespaces import Scene, js, sh

pytestmark = pytest.mark.skipif(nftables.nft() is None, reason="nft is not installed")

SETTINGS = {"overlay_mtu": 1500, "overlay_rootfs": "/", "overlay_guard": False, "overlay_underlay_ip": "192.0.2.1",
            "overlay_bridge_address": "10.0.0.1/24", "overlay_bridge_addresses": ["fd00::1/64"]}
ALLOWED = ["10.0.0.50", "fd00::50", "192.168.0.0/24", "192.168.1.0/24", "fd01::/16", "fd01:1::/32"]
OTHER_MAC = "02:00:00:00:00:99"


class Party:
    """A container and its addresses; those of one that is somebody else's are just these."""

    def __init__(self, at, netns):
        self.netns, self.ip, self.ip6 = netns, f"10.0.0.{at}", f"fd00::{at}"
        shown, = js(f"ip -n {netns} -j address show dev eth0")
        self.mac = shown["address"]
        self.local = next(each["local"] for each in shown["addr_info"] if each["scope"] == "link")


class Host:
    """A host in a namespace, with three containers that namespaces play; the last one is a router with a VIP."""

    def __init__(self):
        self.scene = Scene()
        self.netns, *boxes = (self.scene.netns() for unused in range(4))
        for box in boxes:
            sh(f"ip netns exec {box} sysctl -qw net.ipv6.conf.default.accept_dad=0")
        containers = [{"name": box, "address": f"10.0.0.{at}/24", "addresses": [f"fd00::{at}/64"],
                       **({"allowed_addresses": ALLOWED} if at == 30 else {})} for at, box in zip((10, 20, 30), boxes)]
        settings = {**SETTINGS, "overlay_containers": containers}
        found = part({"here": settings}, "here")
        pairs = [{**each, "namespace": each["container"], "container": None} for each in found["veth_pair"]]
        self.options = {"veth_pair": pairs, "linux_bridge": found["linux_bridge"], "nftables": found["nftables"]}
        made = self.run()
        assert not made.failed, made.msg
        self.stranger, self.victim, self.router = (Party(at, box) for at, box in zip((10, 20, 30), boxes))

    def run(self, **more):
        with namespaces.entered(self.netns):
            return run_module("topology", **{**self.options, **more})

    def within(self, command):
        with namespaces.entered(self.netns):
            return sh(command)

    def dropped(self):
        """The frames that the table has counted as dropped."""
        total = 0
        for each in json.loads(self.within("nft -j list table bridge fromscratch"))["nftables"]:
            words = each.get("rule", {}).get("expr", [])
            if any("drop" in word for word in words):
                total += sum(word["counter"]["packets"] for word in words if "counter" in word)
        return total


@pytest.fixture(scope="module")
def host():
    made = Host()
    yield made
    made.scene.close()


@pytest.fixture
def guarded(host):
    """With the table as the role makes it, whatever the last test has done to it."""
    assert not host.run().failed
    return host


def nd(source_mac, source, target, kind, body, to=ALL_NODES_MAC):
    return ether(source_mac, to, IPV6, ipv6(source, target, ICMPV6, frames.icmpv6(source, target, kind, body)))


def behind(wrapped, next_header):
    """A message of neighbour discovery behind a header, as RFC 7113 has them go past a guard."""
    def frame(me, other):
        body = frames.router_advertisement(me.mac, "2001:db8:bad::")
        message = frames.icmpv6(me.local, ALL_NODES, ROUTER_ADVERTISEMENT, body)
        return [ether(me.mac, ALL_NODES_MAC, IPV6, ipv6(me.local, ALL_NODES, next_header, wrapped(ICMPV6, message)))]
    return frame


def in_two(kind, message):
    """The header of the message itself stands in the second fragment, behind the options of the first."""
    def frame(me, other):
        whole = bytes([kind, 1]) + b"\x01\x0c" + bytes(12) + message(me)  # destination options of 16 bytes
        return [ether(me.mac, ALL_NODES_MAC, IPV6, ipv6(me.local, ALL_NODES, 44, piece)) for piece in (
            frames.fragment_header(60, whole[:8], more=True), frames.fragment_header(kind, whole[8:], 1))]
    return frame


def tagged(*kinds):
    return lambda me, other: [ether(me.mac, other.mac, IPV4, ipv4(other.ip, other.ip, ICMP, echo()), *((kind, 1) for kind in kinds))]


def from_other_ip(me, other):
    """In fragments, of which the second has no ICMP header."""
    payload = echo(bytes(24))
    return [ether(me.mac, other.mac, IPV4, ipv4("10.0.0.1", other.ip, ICMP, piece, field))
            for piece, field in ((payload[:16], 0x2000), (payload[16:], 2))]


# What it is, and the frames of a stranger that knows a victim; all are dropped.
ATTACKS = {
    "another MAC": lambda me, other: [ether(OTHER_MAC, other.mac, IPV4, ipv4(me.ip, other.ip, ICMP, echo()))],
    "the victim's MAC": lambda me, other: [ether(other.mac, BROADCAST, IPV4, ipv4(me.ip, other.ip, ICMP, echo()))],
    "gratuitous ARP": lambda me, other: [ether(me.mac, BROADCAST, ARP, arp(2, me.mac, other.ip, BROADCAST, other.ip))],
    "ARP request as another": lambda me, other: [ether(me.mac, BROADCAST, ARP, arp(1, me.mac, "10.0.0.1", "00:00:00:00:00:00", other.ip))],
    "ARP with another MAC": lambda me, other: [ether(me.mac, BROADCAST, ARP, arp(2, OTHER_MAC, me.ip, other.mac, other.ip))],
    "ARP of another length": lambda me, other: [ether(me.mac, BROADCAST, ARP, b"\0\1\x08\0\x08\4\0\2" + arp(2, me.mac, other.ip, other.mac, other.ip)[8:])],
    "reverse ARP": lambda me, other: [ether(me.mac, BROADCAST, 0x8035, arp(4, me.mac, me.ip, other.mac, other.ip))],
    "another IPv4 source": lambda me, other: [ether(me.mac, other.mac, IPV4, ipv4("10.0.0.1", other.ip, ICMP, echo()))],
    "an IPv4 source outside": lambda me, other: [ether(me.mac, other.mac, IPV4, ipv4("198.51.100.7", other.ip, ICMP, echo()))],
    "no IPv4 source": lambda me, other: [ether(me.mac, BROADCAST, IPV4, ipv4("0.0.0.0", "255.255.255.255", UDP, frames.udp(68, 67, b"?")))],
    "another IPv4 source in fragments": from_other_ip,
    "another IPv6 source": lambda me, other: [ether(me.mac, other.mac, IPV6, ipv6("fd00::1", other.ip6, UDP, frames.udp(9, 9, b"x")))],
    "another link-local source": lambda me, other: [ether(me.mac, other.mac, IPV6, ipv6(other.local, other.ip6, UDP, frames.udp(9, 9, b"x")))],
    "a DHCP offer": lambda me, other: [ether(me.mac, BROADCAST, IPV4, ipv4(me.ip, "255.255.255.255", UDP, frames.udp(67, 68, b"offer")))],
    "a DHCP offer with IP options": lambda me, other: [ether(me.mac, BROADCAST, IPV4, with_options(ipv4(
        me.ip, "255.255.255.255", UDP, frames.udp(67, 68, b"offer"))))],
    "a DHCPv6 answer": lambda me, other: [ether(me.mac, other.mac, IPV6, ipv6(me.local, other.local, UDP, frames.udp(547, 546, b"reply")))],
    "a DHCPv6 answer behind options": lambda me, other: [ether(me.mac, other.mac, IPV6, ipv6(me.local, other.local, 60, frames.hop_by_hop(
        UDP, frames.udp(547, 546, b"reply"))))],
    "an ICMP redirect": lambda me, other: [ether(me.mac, other.mac, IPV4, ipv4(me.ip, other.ip, ICMP, frames.icmp_redirect(
        me.ip, ipv4(other.ip, "198.51.100.7", ICMP, echo()))))],
    "a router advertisement": lambda me, other: [nd(
        me.mac, me.local, ALL_NODES, ROUTER_ADVERTISEMENT, frames.router_advertisement(me.mac, "2001:db8:bad::"))],
    "a redirect": lambda me, other: [nd(me.mac, me.local, other.ip6, REDIRECT, bytes(4) + frames.ip(me.local) + frames.ip("fd00::1"), other.mac)],
    "a neighbour that is another": lambda me, other: [nd(me.mac, me.ip6, ALL_NODES, ADVERTISEMENT, frames.advertisement("fd00::1", me.mac))],
    "a neighbour that is another, from it": lambda me, other: [nd(
        me.mac, "fd00::1", other.ip6, ADVERTISEMENT, frames.advertisement("fd00::1", me.mac), other.mac)],
    "a neighbour with another MAC": lambda me, other: [nd(me.mac, me.ip6, other.ip6, ADVERTISEMENT, frames.advertisement(me.ip6, OTHER_MAC), other.mac)],
    "a neighbour with two MACs": lambda me, other: [nd(me.mac, me.ip6, other.ip6, ADVERTISEMENT, frames.advertisement(
        me.ip6, me.mac) + frames.option(frames.TARGET_MAC, OTHER_MAC), other.mac)],
    "a question as another": lambda me, other: [nd(me.mac, "fd00::1", other.ip6, SOLICITATION, frames.solicitation(other.ip6, me.mac), other.mac)],
    "a question with another MAC": lambda me, other: [nd(me.mac, me.ip6, other.ip6, SOLICITATION, frames.solicitation(other.ip6, OTHER_MAC), other.mac)],
    "another's address is taken": lambda me, other: [nd(me.mac, "::", ALL_NODES, SOLICITATION, bytes(4) + frames.ip(other.ip6))],
    "an advertisement behind hop-by-hop options": behind(frames.hop_by_hop, 0),
    "an advertisement behind destination options": behind(frames.hop_by_hop, 60),
    "an advertisement in one fragment": behind(frames.fragment_header, 44),
    "a VLAN": tagged(VLAN),
    "a VLAN of a provider": tagged(QINQ),
    "a VLAN in a VLAN": tagged(QINQ, VLAN),
    "a frame of a spanning tree": lambda me, other: [mac_and_length(me, b"\x42\x42\x03" + bytes(35))],
    "discovery of switches": lambda me, other: [ether(me.mac, other.mac, 0x88cc, bytes(46))],
}


def with_options(packet):
    """The IPv4 packet with four bytes of options, behind which the ports stand elsewhere."""
    head = b"\x46" + packet[1:2] + (len(packet) + 4).to_bytes(2, "big") + packet[4:10] + bytes(2) + packet[12:20] + b"\1\1\1\0"
    return head[:10] + frames.checksum(head).to_bytes(2, "big") + head[12:] + packet[20:]


def mac_and_length(me, payload):
    """An IEEE 802.3 frame, which has its length where others have a type."""
    return ether(me.mac, BROADCAST, len(payload), payload)


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


class Wires:
    """The stranger's link, and those at which a frame could arrive: the victim's and the host's own end of the bridge."""

    def __init__(self, host):
        self.out = frames.Wire(host.stranger.netns)
        self.into = frames.Wire(host.victim.netns), frames.Wire(host.netns, "br0")
        self.got = []

    def collect(self):
        """What has come in by now."""
        self.got += [frame for wire in self.into for frame in wire.seen()]
        return self.got

    def arrived(self, sent):
        """Which of those sent have come in. The kernel takes a tag off, so that addresses and payload are what tells them."""
        got = self.collect()
        return [frame for frame in sent if any(seen[:12] == frame[:12] and seen.endswith(frames.payload(frame)) for seen in got)]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for wire in (self.out, *self.into):
            wire.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stranger_is_stopped_at_its_port(guarded, attack):
    host, sent = guarded, ATTACKS[attack](guarded.stranger, guarded.victim)
    before = host.dropped()
    with Wires(host) as wires:
        wires.out.send(*sent)
        assert until(lambda: host.dropped() - before == len(sent)), host.within("nft list table bridge fromscratch")
        assert wires.arrived(sent) == []
        # The same, where nobody stops it: so that the above is not about frames which go nowhere anyway.
        host.within("nft delete table bridge fromscratch")
        wires.out.send(*sent)
        assert until(lambda: wires.arrived(sent) == sent), "it does not arrive without the table, either"


@pytest.mark.parametrize("attack", [
    in_two(ICMPV6, lambda me: frames.icmpv6(me.local, ALL_NODES, ROUTER_ADVERTISEMENT, frames.router_advertisement(me.mac, "2001:db8:bad::"))),
    in_two(UDP, lambda me: frames.udp(547, 546, b"reply"))], ids=["a router advertisement", "a DHCPv6 answer"])
def test_a_first_fragment_says_what_it_is(guarded, attack):
    """The second passes, and is nothing by itself: it is the first that the receiver has its kind from."""
    sent, before = attack(guarded.stranger, guarded.victim), guarded.dropped()
    with Wires(guarded) as wires:
        wires.out.send(*sent)
        assert until(lambda: wires.arrived(sent) == sent[1:] and guarded.dropped() == before + 1)


HONEST = {
    "a ping": lambda me, other: [ether(me.mac, other.mac, IPV4, ipv4(me.ip, other.ip, ICMP, echo()))],
    "fragments": lambda me, other: [ether(me.mac, other.mac, IPV4, ipv4(me.ip, other.ip, ICMP, piece, field, 9))
                                    for piece, field in ((echo(bytes(24))[:16], 0x2000), (echo(bytes(24))[16:], 2))],
    "ARP": lambda me, other: [ether(me.mac, BROADCAST, ARP, arp(1, me.mac, me.ip, "00:00:00:00:00:00", other.ip))],
    "gratuitous ARP": lambda me, other: [ether(me.mac, BROADCAST, ARP, arp(2, me.mac, me.ip, BROADCAST, me.ip))],
    "an ARP probe": lambda me, other: [ether(me.mac, BROADCAST, ARP, arp(1, me.mac, "0.0.0.0", "00:00:00:00:00:00", "10.0.0.88"))],
    "IPv6": lambda me, other: [ether(me.mac, other.mac, IPV6, ipv6(me.ip6, other.ip6, UDP, frames.udp(9, 9, b"honest")))],
    "IPv6 behind options": lambda me, other: [ether(me.mac, other.mac, IPV6, ipv6(me.ip6, other.ip6, 60, frames.hop_by_hop(
        UDP, frames.udp(9, 9, b"honest"))))],
    "an IPv6 fragment": lambda me, other: [ether(me.mac, other.mac, IPV6, ipv6(me.ip6, other.ip6, 44, frames.fragment_header(
        UDP, frames.udp(9, 9, b"honest"), more=True)))],
    "a neighbour": lambda me, other: [nd(me.mac, me.ip6, ALL_NODES, ADVERTISEMENT, frames.advertisement(me.ip6, me.mac))],
    "a neighbour by its link-local address": lambda me, other: [nd(me.mac, me.local, ALL_NODES, ADVERTISEMENT, frames.advertisement(me.local, me.mac))],
    "a question": lambda me, other: [nd(me.mac, me.local, other.ip6, SOLICITATION, frames.solicitation(other.ip6, me.mac), other.mac)],
    "is my address free?": lambda me, other: [nd(me.mac, "::", ALL_NODES, SOLICITATION, bytes(4) + frames.ip(me.ip6))],
    "is it free? by a number used once": lambda me, other: [nd(
        me.mac, "::", ALL_NODES, SOLICITATION, bytes(4) + frames.ip(me.ip6) + b"\x0e\x01nonce!")],
    "is there a router?": lambda me, other: [nd(me.mac, me.local, ALL_NODES, 133, bytes(4) + frames.option(frames.SOURCE_MAC, me.mac))],
    "a member of a group": lambda me, other: [ether(me.mac, ALL_NODES_MAC, IPV6, ipv6("::", ALL_NODES, 0, frames.hop_by_hop(
        ICMPV6, frames.icmpv6("::", ALL_NODES, 143, bytes(4)))))],
}


@pytest.mark.parametrize("what", HONEST)
def test_what_is_its_own_passes(guarded, what):
    sent, before = HONEST[what](guarded.stranger, guarded.victim), guarded.dropped()
    with Wires(guarded) as wires:
        wires.out.send(*sent)
        assert until(lambda: wires.arrived(sent) == sent), guarded.within("nft list table bridge fromscratch")
    assert guarded.dropped() == before


def test_honest_traffic(guarded):
    """The kernel's own, with large packets in fragments, between containers and with the host; and nothing is dropped by then."""
    me, other = guarded.stranger, guarded.victim
    for netns in me.netns, other.netns:
        sh(f"ip -n {netns} neighbour flush dev eth0", f"ip -n {netns} -6 neighbour flush dev eth0")
    before = guarded.dropped()
    for target in other.ip, other.ip6, f"{other.local}%eth0", "10.0.0.1", "fd00::1":
        sh(f"ip netns exec {me.netns} ping -q -c1 -W3 -s 4000 {target}")
    sh(f"ip netns exec {guarded.netns} ping -q -c1 -W3 {me.ip}", f"ip netns exec {guarded.netns} ping -q -c1 -W3 {me.ip6}")
    assert guarded.dropped() == before


def test_allowed_addresses(guarded):
    """A VIP is announced and used; of networks it forwards packets, and announces none of their addresses."""
    me, other = guarded.router, guarded.victim
    honest = [ether(me.mac, BROADCAST, ARP, arp(2, me.mac, "10.0.0.50", BROADCAST, "10.0.0.50")),
              nd(me.mac, "fd00::50", ALL_NODES, ADVERTISEMENT, frames.advertisement("fd00::50", me.mac)),
              *(ether(me.mac, other.mac, IPV4, ipv4(source, other.ip, ICMP, echo())) for source in ("10.0.0.50", "192.168.0.7", "192.168.1.7")),
              *(ether(me.mac, other.mac, IPV6, ipv6(source, other.ip6, UDP, frames.udp(9, 9, b"routed")))
                for source in ("fd00::50", "fd01::7", "fd01:1::7"))]
    wrong = [ether(me.mac, BROADCAST, ARP, arp(2, me.mac, "192.168.0.7", BROADCAST, "192.168.0.7")),
             nd(me.mac, me.ip6, ALL_NODES, ADVERTISEMENT, frames.advertisement("fd01::7", me.mac)),
             ether(me.mac, other.mac, IPV4, ipv4("192.168.2.7", other.ip, ICMP, echo())),
             ether(me.mac, other.mac, IPV6, ipv6("fd02::7", other.ip6, UDP, frames.udp(9, 9, b"routed"))),
             ether(me.mac, other.mac, IPV4, ipv4("192.168.0.7", "255.255.255.255", UDP, frames.udp(67, 68, b"offer"))),
             # The MAC of VRRP, by which keepalived can take its VIP along, is none of its own.
             ether("00:00:5e:00:01:01", BROADCAST, ARP, arp(2, "00:00:5e:00:01:01", "10.0.0.50", BROADCAST, "10.0.0.50"))]
    before = guarded.dropped()
    with Wires(guarded) as wires, frames.Wire(me.netns) as out:
        out.send(*honest, *wrong)
        assert until(lambda: wires.arrived(honest) == honest and guarded.dropped() == before + len(wrong))
        assert wires.arrived(wrong) == []


def test_the_table_is_kept(guarded):
    """A second run changes nothing, what somebody has done to it is repaired, and switched off it goes."""
    assert guarded.run().changes == []
    guarded.within("nft insert rule bridge fromscratch fs_prerouting accept")
    repaired = guarded.run()
    assert [each["item"] for each in repaired.changes] == ["nftables table bridge fromscratch"] and guarded.run().changes == []
    guarded.within("nft delete table bridge fromscratch")
    guarded.within("\n".join(guarded.run(check=True).commands))
    assert guarded.run().changes == []
    gone = guarded.run(nftables=[{"name": "fromscratch", "family": "bridge", "state": "absent"}])
    assert [each["action"] for each in gone.changes] == ["delete"] and "bridge" not in guarded.within("nft list tables")


def test_a_kernel_without_such_tables_is_said(guarded, tmp_path, monkeypatch):
    """An nft that is told by its kernel what one without CONFIG_NF_TABLES_BRIDGE says plays it."""
    wrapper = tmp_path / "nft"
    wrapper.write_text(f"""#!/bin/sh
text=$(cat)
case "$* $text" in *bridge*) echo "Error: Could not process rule: Operation not supported" >&2; exit 1;; esac
printf '%s\\n' "$text" | {nftables.nft()} "$@"
""", encoding="utf-8")
    wrapper.chmod(0o755)
    guarded.within("nft delete table bridge fromscratch")
    monkeypatch.setattr(nftables, "PATH", f"{tmp_path}:{nftables.PATH}")
    found = guarded.run()
    assert not found.failed and found.changes == [] and len(found.warnings) == 1, found
    assert "bridge fromscratch is left out" in found.warnings[0] and "overlay_antispoof" in found.warnings[0]
