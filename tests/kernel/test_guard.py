# SPDX-License-Identifier: GPL-3.0-or-later
"""Strangers and closed doors: what a host takes as a frame of its networks, and what it routes."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import nftables
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from ..overlay import part
from .support.egress import HERE, OUTSIDE, reaches
from .support.modules import run_module
from .support.namespaces import js, link, sh

pytestmark = pytest.mark.skipif(nftables.nft() is None, reason="nft is not installed")

# By family: the peer, another one, this host, a second address of it, a stranger, the bridge of another network.
PLACES = {
    4: SimpleNamespace(peer=OUTSIDE, beyond="198.51.100.3", here=HERE, second="203.0.113.5", stranger="198.51.100.7", bridge="10.2.0.1", bits=32),
    6: SimpleNamespace(peer="fd00::1", beyond="fd00::3", here="fd00::2", second="fd00:5::5", stranger="fd00::7", bridge="fd02::1", bits=128)}


# ip(7) and ipv6(7); names of Python's that came late.
TRANSPARENT = {socket.AF_INET: (socket.IPPROTO_IP, 19), socket.AF_INET6: (socket.IPPROTO_IPV6, 75)}


def frame(vni):
    """An Ethernet frame to all, in VXLAN."""
    return struct.pack("!II", 0x08000000, vni << 8) + bytes.fromhex("ffffffffffff 02aabbccddee 88b5") + bytes(46)


def send(netns, source, dest, vni=1, transparent=False):
    """Send a frame as any program can, from an address of the namespace; or, ``transparent``, of another, as root can."""
    family = socket.AF_INET6 if ":" in dest else socket.AF_INET
    with namespaces.entered(netns), socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if transparent:
            client.setsockopt(*TRANSPARENT[family], 1)
        client.bind((source, 0))
        client.sendto(frame(vni), (dest, 4789))


def counted(chain, verdict):
    """Packets that the rules of a chain with this verdict have counted."""
    found = (entry["rule"]["expr"] for entry in json.loads(sh(f"nft -j list chain inet fromscratch {chain}"))["nftables"] if "rule" in entry)
    return sum(part["counter"]["packets"] for rule in found if verdict in rule[-1] for part in rule if "counter" in part)


def received(vni=1):
    return js(f"ip -s -j link show vx{vni}")[0]["stats64"]["rx"]["packets"]


def gets_through(vni=1, **frame_options):
    """Wait until a frame is received."""
    before = received(vni)
    send(vni=vni, **frame_options)
    until(lambda: received(vni) > before)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def dropped(chain="fs_strangers", vni=1, **frame_options):
    """Whether a frame is dropped there, and not received."""
    before, taken = counted(chain, "drop"), received(vni)
    send(vni=vni, **frame_options)
    until(lambda: counted(chain, "drop") > before or received(vni) > taken)
    return received(vni) == taken


@pytest.fixture
def host(machine):
    """A host with two networks, one of them with a way out, whose peer is beyond its network card."""
    sh(f"ip -n {machine.outside} address add {PLACES[4].stranger}/24 dev out0",
       f"ip -n {machine.outside} -6 address add fd00::1/64 dev out0 nodad", f"ip -n {machine.outside} -6 address add fd00::7/64 dev out0 nodad",
       "ip address add 203.0.113.5/32 dev enX0", "ip -6 address add fd00::2/64 dev enX0 nodad", "ip -6 address add fd00:5::5/128 dev enX0 nodad",
       f"ip -n {machine.outside} route add 203.0.113.5 via {HERE}", f"ip -n {machine.outside} -6 route add fd00:5::5 via fd00::2",
       *(f"sysctl -qw net.ipv4.conf.{name}.rp_filter=0" for name in ("all", "default", "enX0")))

    def converge(family=4, forwarding="learning", out=False, publish=(), **more):
        networks = [
            {"name": "one", "vni": 1, "bridge": "br1", "vxlan": "vx1", "bridge_addresses": ["10.1.0.1/24", "fd01::1/64"],
             "forwarding": forwarding, "egress": out},
            {"name": "two", "vni": 2, "bridge": "br2", "vxlan": "vx2", "bridge_addresses": ["10.2.0.1/24", "fd02::1/64"], "egress": True}]
        there = [{**each, "bridge_addresses": [], "egress": False} for each in networks]
        containers = [{"name": f"c{at}", "address": f"10.{at}.0.11/24", "addresses": [f"fd0{at}::11/64"], "gateway": f"10.{at}.0.1",
                       "network": name} for at, name in enumerate(("one", "two"), 1)]
        containers[1]["publish"] = list(publish)
        own = {"overlay_underlay_ip": PLACES[family].here, "overlay_networks": networks, "overlay_containers": containers}
        # What a port of the bridge is held to would drop the frames of a stranger in a container before the guard sees them.
        play = {"overlay_rootfs": machine.rootfs, "overlay_antispoof": False, **more}
        everybody = {"here": own, "there": {"overlay_underlay_ip": PLACES[family].peer, "overlay_networks": there},
                     "beyond": {"overlay_underlay_ip": PLACES[family].beyond, "overlay_networks": there}}
        made = run_module("topology", prune=True, **part(everybody, "here", **play))
        assert not made.failed, made.msg
        assert not run_module("topology", prune=True, **part(everybody, "here", **play)).changed
        sh("sysctl -qw net.ipv4.conf.br1.rp_filter=0 net.ipv4.conf.br2.rp_filter=0",
           *(f"ip -n c{at} -6 route add default via fd0{at}::1" for at in (1, 2) if not sh(f"ip -n c{at} -6 route show default")))

    machine.converge = converge
    return machine


@pytest.mark.parametrize("family, forwarding", [(4, "learning"), (4, "static"), (6, "learning"), (6, "static")])
def test_a_frame_is_taken_from_a_peer_by_the_way_to_it_at_the_underlay_address_alone(host, family, forwarding):
    host.converge(family, forwarding)
    at = PLACES[family]
    # What a host has for its containers leads to no peer, whoever claims to be one there.
    for name in "c1", "c2":
        sh(f"ip -n {name} address add {at.peer}/{at.bits} dev eth0" + " nodad" * (family == 6))
    inside = {"c1": {4: "10.1.0.11", 6: "fd01::11"}[family], "c2": {4: "10.2.0.11", 6: "fd02::11"}[family]}
    refused = [
        {"netns": host.outside, "source": at.stranger, "dest": at.here},
        {"netns": host.outside, "source": at.stranger, "dest": at.here, "vni": 2},
        {"netns": host.outside, "source": at.peer, "dest": at.second},
        {"netns": host.outside, "source": at.stranger, "dest": at.second},
        {"netns": "c2", "source": inside["c2"], "dest": at.bridge},
        {"netns": "c2", "source": inside["c2"], "dest": at.here},
        {"netns": "c2", "source": at.peer, "dest": at.here},
        {"netns": "c1", "source": at.peer, "dest": at.here},
        {"netns": host.name, "source": at.here, "dest": at.here},
    ] + [{"netns": host.outside, "source": source, "dest": "198.51.100.255"} for source in (at.peer, at.stranger) if family == 4]
    for each in refused:
        assert dropped(**each), each
    gets_through(netns=host.outside, source=at.peer, dest=at.here)
    gets_through(netns=host.outside, source=at.peer, dest=at.here, vni=2)
    assert counted("fs_strangers", "accept") == 2
    # Without the guard, each of these is received: the cases are not refused by something else.
    sh("nft delete table inet fromscratch")
    for each in refused:
        if each["source"] != at.peer or each["netns"] == host.outside:  # else the kernel has an own reason: the way back
            gets_through(**each)


@pytest.mark.parametrize("family", [4, 6])
def test_two_ways_to_a_peer_are_both_taken(host, family):
    """As with a tunnel below the overlay, or several paths: what counts are the host's routes, not one device."""
    host.converge(family)
    at = PLACES[family]
    sh(f"ip -n {host.outside} link add out1 type veth peer name enX1 netns {host.name}", f"ip -n {host.outside} link set out1 up",
       "ip link set enX1 up", *(f"sysctl -qw net.ipv4.conf.{each}.rp_filter=0" for each in ("enX1",)))
    own = "192.0.2.9/24" if family == 4 else "fd00:9::9/64"
    sh(f"ip address add {own} dev enX1" + " nodad" * (family == 6),
       f"ip -n {host.outside} route replace {at.here}/{at.bits} dev out1 src {at.peer}")
    sh(f"ip neighbour replace {at.peer} lladdr {link(host.outside, 'out1')['address']} dev enX1",
       f"ip -n {host.outside} neighbour replace {at.here} lladdr {link(host.name, 'enX1')['address']} dev out1")
    assert dropped(netns=host.outside, source=at.peer, dest=at.here), "by a device that leads elsewhere"
    sh(f"ip route add {at.peer}/{at.bits} dev enX1 metric 5")
    gets_through(netns=host.outside, source=at.peer, dest=at.here)


@pytest.mark.parametrize("family", [4, 6])
def test_bridges_and_the_loopback_device_are_no_way_to_a_peer_whatever_the_routes_say(host, family):
    """As with a container that is a gateway of a VPN, which the host reaches peers by."""
    host.converge(family)
    at = PLACES[family]
    sh(*(f"ip -n {name} address add {at.peer}/{at.bits} dev eth0" + " nodad" * (family == 6) for name in ("c1", "c2")))

    def forged(receives):
        for device, options in ("br1", {"netns": "c1"}), ("br2", {"netns": "c2"}), ("lo", {"netns": host.name, "transparent": True}):
            sh(f"ip -{family} route replace {at.peer}/{at.bits} dev {device}")
            assert receives(source=at.peer, dest=at.here, **options) is not False, device
        sh(f"ip -{family} route delete {at.peer}/{at.bits}")

    forged(dropped)
    gets_through(netns=host.outside, source=at.peer, dest=at.here)
    sh("nft delete table inet fromscratch")
    forged(gets_through)


def test_no_frame_is_passed_on_in_the_name_of_the_host(host):
    """A container with a way out has the host's address outside, and the host is a peer."""
    host.converge()
    with namespaces.entered(host.outside):
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there:
        there.bind((OUTSIDE, 4789))
        there.settimeout(10)
        assert dropped("fs_forward", netns="c2", source="10.2.0.11", dest=OUTSIDE)
        send("c2", "10.2.0.11", OUTSIDE, vni=77)
        seen = list(iter(lambda: there.recv(100), frame(77)))  # what is no frame of ours is passed on
        assert frame(1) not in seen


@pytest.mark.parametrize("family", [4, 6])
def test_no_frame_is_passed_on_in_the_name_of_a_peer(host, scene, family):
    """From whatever else the host routes for, such as a virtual machine: the peer that gets it could not tell."""
    host.converge(family)
    forwards()
    at, guest = PLACES[family], scene.netns()
    sh(f"ip -n {guest} link add eth0 type veth peer name vm0 netns {host.name}", f"ip -n {guest} link set eth0 up", "ip link set vm0 up",
       "ip address add 10.77.0.1/24 dev vm0", "ip -6 address add fd77::1/64 dev vm0 nodad",
       f"ip -n {guest} address add 10.77.0.2/24 dev eth0", f"ip -n {guest} -6 address add fd77::2/64 dev eth0 nodad",
       f"ip -n {guest} address add {at.beyond}/{at.bits} dev lo",
       f"ip -n {guest} -{family} route add default via {'10.77.0.1' if family == 4 else 'fd77::1'}")
    with namespaces.entered(host.outside):
        there = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with there:
        there.bind((at.peer, 4789))
        there.settimeout(10)
        for source in at.beyond, "10.77.0.2" if family == 4 else "fd77::2":
            assert dropped("fs_forward", netns=guest, source=source, dest=at.peer), source
        send(guest, at.beyond, at.peer, vni=77)
        seen = list(iter(lambda: there.recv(100), frame(77)))
        assert frame(1) not in seen


def forwards():
    """As Docker, Kubernetes or a VPN gateway have it."""
    for each in "/proc/sys/net/ipv4/conf/all/forwarding", "/proc/sys/net/ipv6/conf/all/forwarding":
        Path(each).write_text("1", encoding="ascii")


def passes(origin, target, dest, sent_to=None):
    """Whether a packet is passed on, or dropped. One is enough: who wants to tell something needs no answer."""
    family, arrived, before = socket.AF_INET6 if ":" in dest else socket.AF_INET, [], counted("fs_forward", "drop")
    with namespaces.entered(target):
        server = socket.socket(family, socket.SOCK_DGRAM)
    with server:
        server.bind((dest, 9))
        with namespaces.entered(origin), socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"told", (sent_to or dest, 9))

        def known():
            with contextlib.suppress(BlockingIOError):
                arrived.append(server.recv(100, socket.MSG_DONTWAIT))
            return arrived or counted("fs_forward", "drop") > before

        until(known)
    return bool(arrived)


def test_a_network_without_a_way_out_has_none_where_the_host_routes(host):
    host.converge()
    forwards()
    sh(f"ip -n {host.outside} route add 10.0.0.0/8 via {HERE}", f"ip -n {host.outside} -6 route add fd00::/8 via fd00::2")
    ways = [("c1", OUTSIDE), ("c1", "fd00::1"), (host.outside, "10.1.0.11"), (host.outside, "fd01::11"), ("c1", "10.2.0.11"),
            ("c1", "fd02::11"), ("c2", "10.1.0.11"), ("c2", "fd01::11"), ("c2", "fd00::1"), (host.outside, "fd02::11"), (host.outside, "10.2.0.11")]
    places = {address: name for name in ("c1", "c2") for address in (f"10.{name[1]}.0.11", f"fd0{name[1]}::11")}
    for origin, dest in ways:
        assert not passes(origin, places.get(dest, host.outside), dest), (origin, dest)
    until(lambda: reaches("c2", OUTSIDE))  # that has one
    sh("ip -n c2 address add 10.77.0.1/32 dev eth0", "ip route add 10.77.0.1 via 10.2.0.11")
    before = counted("fs_forward", "drop")
    with namespaces.entered("c2"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("10.77.0.1", 0))
        client.sendto(b"", (OUTSIDE, 9))
    until(lambda: counted("fs_forward", "drop") == before + 1)
    sh("nft delete table inet fromscratch")
    for each in ways:
        until(lambda way=each: reaches(*way))


def test_of_two_networks_with_a_way_out_neither_reaches_what_the_other_publishes(host):
    host.converge(out=True, publish=["9:9/udp"])
    assert not passes("c1", "c2", "10.2.0.11", HERE)
    assert passes(host.outside, "c2", "10.2.0.11", HERE), "everybody else does"
    assert not passes("c1", "c2", "10.2.0.11")


def test_the_credentials_of_the_host_are_not_handed_to_containers(host):
    """As EC2 and others have them, at a link-local address that the host reaches."""
    sh(f"ip -n {host.outside} address add 169.254.169.254/32 dev lo", f"ip -n {host.outside} address add fd00:ec2::254/128 dev lo",
       "ip route add default via fd00::1")
    host.converge()
    forwards()
    sh(f"ip -n {host.outside} -6 route add fd02::/64 via fd00::2")
    until(lambda: reaches(host.name, "169.254.169.254") and reaches("c2", OUTSIDE))
    for address in "169.254.169.254", "fd00:ec2::254":
        before = counted("fs_forward", "reject")
        assert not reaches("c2", address)
        until(lambda seen=before: counted("fs_forward", "reject") > seen)
    host.converge(overlay_metadata="true")
    until(lambda: reaches("c2", "169.254.169.254"))
    assert not reaches("c1", "169.254.169.254")
