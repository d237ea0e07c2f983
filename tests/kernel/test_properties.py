# SPDX-License-Identifier: GPL-3.0-or-later
"""Any topology converges, check mode predicts it, its commands rebuild it elsewhere, and any drift is repaired.

A case is a host with bridges, cables and tunnels of every kind, on the real kernel. What is not ours stands beside it and
has to be untouched in the end.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .conftest import Scene, addresses, js, link, sh
from .faces import converge, different, lasting, same_by_commands
from .test_vxlan_link import host

CASES = int(os.environ.get("FROMSCRATCH_CASES", "40"))
KINDS = ("veth_pair", "linux_bridge", "vxlan_link")
SEEN = Counter()


def subset(values, most=None):
    return st.lists(st.sampled_from(values), unique=True, max_size=most)


def maybe(strategy):
    return st.none() | strategy


PEERS = {4: [f"192.0.2.{number}" for number in range(2, 7)], 6: [f"2001:db8::{number}" for number in range(2, 7)]}
MACS = [f"02:00:00:00:0f:{number:02x}" for number in range(4)]


@st.composite
def topologies(draw):
    """Options of M(topology); the namespaces of the host and of the cables' other ends are numbers."""
    bridges = draw(subset(["br1", "br2", "br3"]))
    on = maybe(st.sampled_from(bridges)) if bridges else st.none()
    numbers, wanted = iter(range(1, 200)), {kind: [] for kind in KINDS}

    def some_addresses(most):
        return [draw(st.sampled_from([f"10.{number}.0.1/24", f"fd00:{number}::1/64"]))
                for number in (next(numbers) for unused in range(draw(st.integers(0, most))))]

    for name in bridges:
        wanted["linux_bridge"].append(given_only(
            name=name, netns=0, addresses=some_addresses(2), stp=draw(st.booleans()),
            mtu=draw(maybe(st.integers(1280, 1450))), priority=draw(maybe(st.sampled_from([4096, 32768]))),
            ageing_time=draw(maybe(st.integers(10, 1000))), mac=draw(maybe(st.just(f"02:00:00:00:0b:0{name[-1]}"))),
            neighbours=[{"address": f"10.99.{name[-1]}.{at}", "mac": mac} for at, mac in enumerate(draw(subset(MACS)), 1)]))
    for number in range(1, 1 + draw(st.integers(0, 3))):
        inner = some_addresses(2)
        if bridges and draw(st.booleans()):  # a cable is set up before the bridge, which takes it as a port
            draw(st.sampled_from(wanted["linux_bridge"])).setdefault("ports", []).append(f"ve{number}")
        families = {6 if ":" in each else 4 for each in inner}
        routes = [{"dst": f"198.51.{number}.0/24"}] if 4 in families and draw(st.booleans()) else []
        wanted["veth_pair"].append(given_only(
            name=f"ve{number}", netns=0, namespace=number, addresses=inner, routes=routes,
            mtu=draw(maybe(st.integers(1280, 1450))), inner_name=draw(st.sampled_from(["eth0", "net1"])),
            inner_mac=draw(maybe(st.just(f"02:00:00:00:0e:0{number}")))))
    family, learning = draw(st.sampled_from([4, 6])), draw(st.booleans())
    for vni in draw(subset([1, 100, 16777215])):
        remotes = draw(subset(PEERS[family], 3))
        entries = [{"mac": mac, "dst": draw(st.sampled_from(PEERS[family]))} for mac in draw(subset(MACS))]
        wanted["vxlan_link"].append(given_only(
            name=f"vx{vni}"[:10], netns=0, vni=vni, local={4: "192.0.2.1", 6: "2001:db8::1"}[family], remotes=remotes,
            learning=learning, ttl=draw(maybe(st.integers(1, 255))), ageing=draw(maybe(st.integers(1, 1000))), fdb=entries,
            port=draw(st.sampled_from([4789, 8472])), bridge=draw(on), mtu=draw(maybe(st.integers(1280, 1400)))))
    return wanted


def given_only(**options):
    return {name: value for name, value in options.items() if value is not None}


def in_namespaces(wanted, names):
    return {kind: [{**item, **{key: names[item[key]] for key in ("netns", "namespace") if key in item}} for item in items]
            for kind, items in wanted.items()}


def drifts(wanted):
    """What somebody may do by hand to one host: (what it is, shell commands), for the namespaces in braces."""
    ports = [port for each in wanted["linux_bridge"] for port in each.get("ports", ())]
    for kind, items in wanted.items():
        for each in items:
            name = each["name"]
            yield f"{kind} deleted", f"ip -n {{0}} link delete {name}"
            yield f"{kind} down", f"ip -n {{0}} link set {name} down"
            if kind == "vxlan_link" or "mtu" in each:
                yield f"{kind} another MTU", f"ip -n {{0}} link set {name} mtu 1290"
            if "bridge" in each or name in ports:
                yield f"{kind} in no bridge", f"ip -n {{0}} link set {name} nomaster"
                yield f"{kind} in another bridge", f"ip -n {{0}} link set {name} master br0"
            if each.get("addresses") and kind == "linux_bridge":
                yield "address deleted", f"ip -n {{0}} address delete {each['addresses'][0]} dev {name}"
            if kind == "linux_bridge":
                yield "address added", f"ip -n {{0}} address add 203.0.113.9/24 dev {name}"
                yield "spanning tree", f"ip -n {{0}} link set {name} type bridge stp_state {int(not each['stp'])}"
            if kind == "veth_pair":
                inner = each["inner_name"]
                yield "inner end down", f"ip -n {{{each['namespace']}}} link set {inner} down"
                yield "inner end renamed", (f"ip -n {{{each['namespace']}}} link set {inner} down && "
                                            f"ip -n {{{each['namespace']}}} link set {inner} name stray")
                yield "inner addresses flushed", f"ip -n {{{each['namespace']}}} address flush dev {inner} scope global"
            if kind == "vxlan_link":
                there = {4: "192.0.2.99", 6: "2001:db8::99"}[6 if ":" in each["local"] else 4]
                yield "FDB entry added", f"bridge -n {{0}} fdb append 02:00:00:00:0f:77 dev {name} dst {there} via enX0"
                yield "FDB entries flushed", (
                    f"bridge -n {{0}} fdb show dev {name} | grep -v master | grep 'dst' | "
                    f"sed 's/ dev / /; s/ self.*//' | while read -r mac rest; do bridge -n {{0}} fdb delete $mac dev {name} $rest; done")
                yield "learning", f"ip -n {{0}} link set {name} type vxlan {'nolearning' if each['learning'] else 'learning'}"


@st.composite
def cases(draw):
    wanted = draw(topologies())
    possible = list(drifts(wanted))
    return wanted, draw(subset(possible, 4)) if possible else []


# What is not ours: links, an address, a route and a neighbour, beside it and on the underlay device.
STRANGE = ("link add foreign0 address 02:00:00:00:0a:01 type bridge", "link set foreign0 up",
           "address add 203.0.113.1/24 dev foreign0", "route add 198.18.0.0/16 dev foreign0",
           "neighbour replace 192.0.2.50 lladdr 02:00:00:00:0a:02 dev enX0 nud permanent")


def foreign(netns):
    return ([addresses(netns, name) for name in ("foreign0", "enX0", "br0")]
            + [js(f"ip -n {netns} -j {view}") for view in ("route show dev foreign0", "neighbour show dev enX0 nud permanent")]
            + [link(netns, name)[field] for name in ("foreign0", "enX0", "br0") for field in ("address", "mtu")])


class Case:
    def __init__(self, scene):
        self.hosts = [[host(scene), *(scene.netns() for unused in range(3))] for unused in range(2)]
        for names in self.hosts:
            # A bridge whose MTU nobody has set takes that of its ports; one byte less makes it be set.
            sh(f"ip -n {names[0]} link set br0 mtu 1499", f"ip -n {names[0]} link set br0 mtu 1500")
            sh(*(f"ip -n {names[0]} {command}" for command in STRANGE))

    def check(self, wanted, drift):
        names, others = self.hosts
        before, strange = lasting(*names), foreign(names[0])
        here = in_namespaces(wanted, names)
        made = converge("topology", *names, **here)
        same_by_commands(made, names, others)
        right = lasting(*names)
        for unused, command in drift:
            sh(command.format(*names), check=False)  # what one has deleted, the next cannot change
        converge("topology", *names, **here)
        assert different(lasting(*names), right) == [], "drift is left"
        assert foreign(names[0]) == strange, "something of somebody else's was changed"
        converge("topology", *names, **{kind: [{**item, "state": "absent"} for item in items] for kind, items in here.items()})
        for name in names[1:]:
            sh(f"ip -n {name} link delete stray", check=False)
        assert different(lasting(*names), before) == [], "something is left after the removal"


@pytest.mark.slow
# Making a failing case smaller takes minutes: it is for the one who looks for the fault.
@settings(max_examples=CASES, deadline=None, database=None, derandomize=True, report_multiple_bugs=False,
          phases=[Phase.generate] + [Phase.shrink] * ("FROMSCRATCH_SHRINK" in os.environ),
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(cases())
def test_any_topology_and_any_drift(case):
    wanted, drift = case
    scene = Scene()
    try:
        Case(scene).check(wanted, drift)
    finally:
        scene.close()
    SEEN.update({"cases": 1, "drifts": len(drift), **{kind: len(items) for kind, items in wanted.items()}})


@pytest.mark.slow
def test_there_were_enough_cases():
    print(f"\nproperty-based: {dict(SEEN)}")
    assert SEEN["cases"] >= CASES and all(SEEN[kind] >= CASES / 4 for kind in KINDS) and SEEN["drifts"] >= CASES / 4
