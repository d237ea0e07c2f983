# SPDX-License-Identifier: GPL-3.0-or-later
"""What links believe of strangers, and what the kernel has learnt of routers: the one is set, the other nobody's drift."""

from __future__ import annotations

import time

import pytest

from .support import frames
from .support.faces import converge, same_by_commands
from .support.modules import run_module
from .support.namespaces import addresses, js, settings, sh

PREFIX = "2001:db8:bad::"


def host(scene, **more):
    """A host with a bridge and a cable to a namespace each for a victim and a stranger, as options of M(topology)."""
    names = [scene.netns() for unused in range(3)]
    here, victim, stranger = names
    pairs = [{"name": f"ve{at}", "netns": here, "namespace": name, "addresses": [f"10.0.0.{at}/24", f"fd00::{at}/64"]}
             for at, name in ((2, victim), (3, stranger))]
    return names, {"veth_pair": pairs, "linux_bridge": [{"name": "br0", "netns": here, "addresses": ["10.0.0.1/24", "fd00::1/64"],
                                                         "ports": ["ve2", "ve3"], **more}]}


def learnt(netns, link):
    """Whether the link has got an address of the stranger's prefix, or a route to it."""
    return (any(each.startswith(PREFIX) for each in addresses(netns, link))
            or any("fe80::" in each.get("gateway", "") for each in js(f"ip -n {netns} -6 -j route show dev {link}")))


def advertise(stranger):
    with frames.Wire(stranger) as wire:
        own = js(f"ip -n {stranger} -j link show eth0")[0]["address"]
        message = frames.icmpv6("fe80::bad", frames.ALL_NODES, frames.ROUTER_ADVERTISEMENT, frames.router_advertisement(own, PREFIX))
        wire.send(frames.ether(own, frames.ALL_NODES_MAC, frames.IPV6, frames.ipv6(
            "fe80::bad", frames.ALL_NODES, frames.ICMPV6, message)))


def eventually(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_no_router_advertisement_is_taken(scene):
    names, wanted = host(scene)
    here, victim, stranger = names
    converge("topology", *names, **wanted)
    seen = "cat /proc/net/snmp6 | awk '/Icmp6InRouterAdvertisements/ {print $2}'"
    before = int(sh(f"ip netns exec {victim} sh -c \"{seen.replace('$', chr(92) + '$')}\""))
    advertise(stranger)
    # It has arrived: where it is taken, the route is there by the time that the message is counted.
    assert eventually(lambda: int(sh(f"ip netns exec {victim} sh -c \"{seen.replace('$', chr(92) + '$')}\"")) > before)
    assert not learnt(here, "br0") and not learnt(victim, "eth0")
    sh(f"ip netns exec {victim} sysctl -qw net/ipv6/conf/eth0/accept_ra=1", f"ip netns exec {here} sysctl -qw net/ipv6/conf/br0/accept_ra=1")
    advertise(stranger)
    assert eventually(lambda: learnt(here, "br0") and learnt(victim, "eth0")), "where the setting is another, both take it"


def test_what_the_kernel_has_learnt_is_no_drift(scene):
    names, wanted = host(scene)
    here, victim, unused = names
    converge("topology", *names, **wanted)
    for at, netns, link in (7, here, "br0"), (8, victim, "eth0"):
        sh(f"ip -n {netns} address add 2001:db8::{at}/64 dev {link} mngtmpaddr nodad",
           f"ip -n {netns} address add 2001:db8:1::{at}/64 dev {link} valid_lft 600 preferred_lft 600 nodad",
           f"ip -n {netns} address add 10.0.0.7{at}/24 dev {link} valid_lft 600 preferred_lft 600",
           f"ip -n {netns} -6 route add default via fe80::9 dev {link} proto ra")
    assert run_module("topology", **wanted).changes == []
    sh(f"ip -n {victim} address add 2001:db8::9/64 dev eth0", f"ip -n {here} address add 10.9.9.9/24 dev br0")
    found = run_module("topology", check=True, **wanted)
    assert [each["item"].split()[0] for each in found.changes] == ["veth_pair", "bridge"], "what somebody has set is"
    sh(f"ip -n {here} address change 10.0.0.1/24 dev br0 valid_lft 600 preferred_lft 600")
    converge("topology", here, **wanted)
    assert js(f"ip -n {here} -j address show dev br0")[0]["addr_info"][0]["valid_life_time"] == 4294967295, "a wanted one stays for ever"


@pytest.mark.parametrize("link, field", [
    ("br0", "accept_ra"), ("br0", "accept_redirects"), ("ve2", "accept_ra"), ("ve2", "accept_redirects"), ("vxlan0", "accept_ra"),
    ("vxlan0", "accept_redirects"), ("eth0", "inner_accept_ra"), ("eth0", "inner_accept_redirects")])
def test_drift_is_repaired(scene, link, field):
    names, wanted = host(scene)
    others, unused = host(scene)
    for name in names[0], others[0]:
        sh(f"ip -n {name} link add under0 address 02:00:00:00:00:01 type bridge", f"ip -n {name} address add 198.51.100.1/24 dev under0")
    wanted["vxlan_link"] = [{"name": "vxlan0", "netns": names[0], "vni": 100, "local": "198.51.100.1", "bridge": "br0"}]
    same_by_commands(converge("topology", *names, **wanted), names, others)
    right = settings(names[0]), settings(names[1])
    for hosts in names, others:
        path = f"conf/{link}/{field.replace('inner_', '')}"
        sh(f"ip netns exec {hosts[link == 'eth0']} sysctl -qew net/ipv6/{path}=1 net/ipv4/{path}=1")
    repaired = converge("topology", *names, **wanted)
    assert [each["fields"] for each in repaired.changes] == [[f"{field} on -> off"]] and len(repaired.commands) == 1
    assert (settings(names[0]), settings(names[1])) == right
    same_by_commands(repaired, names, others)
    for family in ("ipv4", "ipv6") if "redirects" in field else ():
        sh(f"ip netns exec {names[link == 'eth0']} sysctl -qw net/{family}/{path}=1")
        assert run_module("topology", **wanted).changes == repaired.changes and (settings(names[0]), settings(names[1])) == right, family


def test_ipv6_for_its_own_links_where_the_host_gives_none(scene):
    names, wanted = host(scene)
    others, unused = host(scene)
    for name in names[:2] + others[:2]:
        sh(f"ip netns exec {name} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    made = converge("topology", *names, **wanted)
    assert any(each.endswith("net/ipv6/conf/br0/disable_ipv6=0") for each in made.commands)
    sh(f"ip netns exec {names[0]} ping -q -c1 -W3 fd00::2")
    same_by_commands(made, names, others)
    assert settings(names[0])["ipv6/conf/default/disable_ipv6"] == "1", "what the host gives to others is its own"
    for name, link in (names[0], "br0"), (names[1], "eth0"):
        sh(f"ip netns exec {name} sysctl -qw net/ipv6/conf/{link}/disable_ipv6=1")
    repaired = converge("topology", *names, **wanted)
    assert [each["fields"][0] for each in repaired.changes] == [
        "addresses 10.0.0.2/24 -> 10.0.0.2/24, fd00::2/64", "addresses 10.0.0.1/24 -> 10.0.0.1/24, fd00::1/64"]
    assert addresses(names[0], "br0") == {"10.0.0.1/24", "fd00::1/64"}


def test_an_ipv4_link_stays_without_ipv6(scene):
    here = scene.netns()
    sh(f"ip netns exec {here} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    converge("linux_bridge", here, name="br0", netns=here, addresses=["10.0.0.1/24"])
    assert settings(here)["ipv6/conf/br0/disable_ipv6"] == "1"


def test_a_link_that_is_too_small_for_ipv6(scene):
    names, wanted = host(scene, mtu=1000)
    here, inner, unused = names
    wanted["linux_bridge"][0]["addresses"] = ["10.0.0.1/24"]
    for pair in wanted["veth_pair"]:
        pair.update(addresses=pair["addresses"][:1], mtu=1000)
    converge("topology", *names, **wanted)
    assert "ipv6/conf/br0/accept_ra" not in settings(here) and "ipv6/conf/eth0/accept_ra" not in settings(inner)
    for each in wanted["veth_pair"] + wanted["linux_bridge"]:
        each["mtu"] = 1500
    converge("topology", *names, **wanted)
    for netns, link in (here, "br0"), (here, "ve2"), (inner, "eth0"):
        assert settings(netns)[f"ipv6/conf/{link}/accept_ra"] == "0", link
