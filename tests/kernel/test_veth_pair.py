# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import resource
import subprocess

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces, netlink

from .support.faces import converge, lasting, same_by_commands
from .support.modules import run_module
from .support.namespaces import addresses, js, link, sh

OWNER = "fromscratch.containers"


def host(scene):
    """A host with a bridge; two of them are equal."""
    netns = scene.netns()
    sh(f"ip -n {netns} link add br0 address 02:00:00:00:01:02 type bridge", f"ip -n {netns} link set br0 up")
    return netns


def item(netns, inner, **options):
    return {"netns": netns, "namespace": inner, "name": "ve-a", "addresses": ["10.0.0.100/24", "fd00::100/64"],
            "gateway": "10.0.0.1", "routes": [{"dst": "default", "via": "fd00::1"}, {"dst": "10.1.0.0/16", "via": "10.0.0.9"},
                                              {"dst": "10.2.0.0/16"}],
            "mtu": 1450, "bridge": "br0", **options}


def act(netns, inner, **options):
    return converge("veth_pair", netns, inner, **item(netns, inner, **options))


def routes(netns):
    return {f"{each['dst']} via {each['gateway']}" if "gateway" in each else each["dst"]
            for family in ("-4", "-6") for each in js(f"ip -n {netns} {family} -j route show dev eth0 proto static")}


ROUTES = {"default via 10.0.0.1", "default via fd00::1", "10.1.0.0/16 via 10.0.0.9", "10.2.0.0/16"}


def test_act_again_check_change_absent(scene):
    netns, inner = host(scene), scene.netns()
    twins = [host(scene), scene.netns()]
    made = act(netns, inner)
    assert [each["action"] for each in made.changes] == ["create"]
    outer, eth0 = link(netns, "ve-a"), link(inner, "eth0")
    assert (outer["mtu"], outer["master"], outer["ifalias"]) == (1450, "br0", OWNER)
    assert (eth0["mtu"], eth0["ifalias"]) == (1450, OWNER + ":inner")
    assert "UP" in outer["flags"] and "UP" in eth0["flags"]
    assert addresses(inner, "eth0") == {"10.0.0.100/24", "fd00::100/64"} and routes(inner) == ROUTES
    assert (made.observed[0]["mac"], made.observed[0]["inner_mac"]) == (outer["address"], eth0["address"])
    same_by_commands(made, [netns, inner], twins)

    changed = act(netns, inner, addresses=["10.0.0.101/24"], routes=[], mtu=1400)
    assert changed.changes[0]["action"] == "update"
    assert addresses(inner, "eth0") == {"10.0.0.101/24"} and routes(inner) == {"default via 10.0.0.1"}
    same_by_commands(changed, [netns, inner], twins)

    gone = converge("veth_pair", netns, inner, name="ve-a", netns=netns, state="absent")
    assert gone.commands == [f"ip -n {netns} link delete ve-a"]
    assert link(netns, "ve-a") is None and link(inner, "eth0") is None


def test_the_host_end_is_named_after_the_container(scene):
    netns, inner = host(scene), scene.netns()
    made = converge("veth_pair", netns, inner, netns=netns, container=inner, addresses=["10.0.0.100/24"])
    name = made.observed[0]["name"]
    assert name.startswith("ve-test") and len(name) <= 15 and link(netns, name)
    assert converge("veth_pair", netns, inner, netns=netns, container=inner, state="absent").changed


def test_macs_are_the_same_at_every_creation(scene):
    netns, inner = host(scene), scene.netns()
    first = act(netns, inner).observed[0]
    sh(f"ip -n {netns} link delete ve-a")
    again = act(netns, inner).observed[0]
    assert (first["mac"], first["inner_mac"]) == (again["mac"], again["inner_mac"]) and first["mac"] != first["inner_mac"]


def test_the_namespace_of_a_process(scene):
    netns, inner = host(scene), scene.netns()
    with subprocess.Popen(["ip", "netns", "exec", inner, "sleep", "60"]) as process:
        try:
            wait_for = f"readlink /proc/{process.pid}/ns/net"
            other = sh(f"ip netns exec {inner} readlink /proc/self/ns/net")
            while sh(wait_for) != other:
                pass
            made = converge("veth_pair", netns, inner, netns=netns, name="ve-a", pid=process.pid,
                            addresses=["10.0.0.100/24"])
            assert addresses(inner, "eth0") == {"10.0.0.100/24"}
            sh(f"ip -n {netns} link delete ve-a", *made.commands)
            assert not run_module("veth_pair", netns=netns, name="ve-a", pid=process.pid,
                                  addresses=["10.0.0.100/24"]).changed
        finally:
            process.kill()


@pytest.mark.parametrize("dst, family", [("default", "-4"), ("0.0.0.0/0", "-4"), ("::/0", "-6")])
def test_a_default_route_on_the_link_itself(scene, dst, family):
    netns, inner = host(scene), scene.netns()
    act(netns, inner, gateway=None, routes=[{"dst": dst}])
    for each in "-4", "-6":
        found = js(f"ip -n {inner} {each} -j route show default dev eth0 proto static")
        assert [route.get("gateway") for route in found] == [None] * (each == family)


def test_descriptors_do_not_grow_with_the_namespaces(scene, monkeypatch):
    monkeypatch.setattr(netlink.Sockets, "MOST", 3)
    netns, many = host(scene), [scene.netns() for unused in range(20)]
    config = [item(netns, inner, name=f"ve-{at}", addresses=[f"10.0.0.{at}/24"], routes=[], gateway=None)
              for at, inner in enumerate(many, 1)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 40, hard))
    try:
        made, again = (run_module("veth_pair", config=config) for unused in range(2))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not made.failed and len(made.changes) == 20, made
    assert not again.failed and not again.changed, again


DRIFTS = {
    "address gone": ("ip -n {1} address delete 10.0.0.100/24 dev eth0", None),
    "address extra": ("ip -n {1} address add 10.0.0.7/24 dev eth0", ["addresses"]),
    "address first": ("ip -n {1} address flush dev eth0; ip -n {1} address add 10.0.0.7/24 dev eth0;"
                      "ip -n {1} address add 10.0.0.100/24 dev eth0", None),
    "addresses extra": ("ip -n {1} address flush dev eth0; for n in 7 8 9; do ip -n {1} address add 10.0.0.$n/24 dev eth0;"
                        "done", None),
    "IPv6 address gone": ("ip -n {1} address delete fd00::100/64 dev eth0", None),
    "IPv6 address extra": ("ip -n {1} address add fd00::7/64 dev eth0 nodad", ["addresses"]),
    "route gone": ("ip -n {1} route delete 10.1.0.0/16", ["routes"]),
    "default gone": ("ip -n {1} route delete default", ["routes"]),
    "IPv6 default gone": ("ip -n {1} -6 route delete default", ["routes"]),
    "route extra": ("ip -n {1} route add 10.3.0.0/16 via 10.0.0.3", ["routes"]),
    "routes extra": ("ip -n {1} route add 10.3.0.0/16 dev eth0; ip -n {1} -6 route add fd03::/64 dev eth0;"
                     "ip -n {1} -6 route add fd04::/64 via fd00::4 metric 5; ip -n {1} route add 10.4.0.0/16 via 10.0.0.3"
                     " metric 7 proto bird", ["routes"]),
    "default of the link extra": ("ip -n {1} route add default dev eth0 metric 7", ["routes"]),
    "IPv6 default of the link first": ("ip -n {1} -6 route add default dev eth0 metric 7", ["routes"]),
    "IPv6 default of the link extra": ("ip -n {1} -6 route add default dev eth0 metric 3000", ["routes"]),
    "default elsewhere": ("ip -n {1} route replace default via 10.0.0.3 proto static", ["routes"]),
    "host end down": ("ip -n {0} link set ve-a down", ["up"]),
    "inner end down": ("ip -n {1} link set eth0 down", None),
    "host end's mtu": ("ip -n {0} link set ve-a mtu 1500", ["mtu"]),
    "inner end's mtu": ("ip -n {1} link set eth0 mtu 1500", ["inner_mtu"]),
    "host end's mac": ("ip -n {0} link set ve-a address 02:00:00:00:00:77", ["mac"]),
    "inner end's mac": ("ip -n {1} link set eth0 address 02:00:00:00:00:77", ["inner_mac"]),
    "out of the bridge": ("ip -n {0} link set ve-a nomaster", ["bridge"]),
    "host end gone": ("ip -n {0} link delete ve-a", []),
    "inner end gone": ("ip -n {1} link delete eth0", []),
    "inner end renamed": ("ip -n {1} link set eth0 down; ip -n {1} link set eth0 name eth7", ["joined"]),
    # The kernel takes a while to take a namespace apart.
    "namespace made anew": ("ip netns delete {1}; while ip -n {0} link show ve-a >/dev/null 2>&1; do sleep 0.05; done;"
                            "ip netns add {1}; ip -n {1} link set lo up", []),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_repaired_and_only_it(scene, drift):
    names, twins = [host(scene), scene.netns()], [host(scene), scene.netns()]
    same_by_commands(act(*names), names, twins)
    right = lasting(*names)
    command, fields = DRIFTS[drift]
    for each in names, twins:
        sh(command.format(*each))
    repaired = act(*names)
    if fields is not None:
        found = [field.split()[0] for change in repaired.changes for field in change["fields"]]
        assert (found[:1] if "joined" in found else found) == fields
    assert lasting(*names) == right and routes(names[1]) == ROUTES
    same_by_commands(repaired, names, twins)


@pytest.mark.parametrize("end", [0, 1])
def test_a_link_of_somebody_else_is_left_alone(scene, end):
    names = [host(scene), scene.netns()]
    sh(f"ip -n {names[end]} link add {('ve-a', 'eth0')[end]} type veth peer name other")
    before = lasting(*names)
    for check in True, False:
        result = run_module("veth_pair", check=check, **item(*names))
        assert result.failed and "not made by this collection" in result.msg and "ve-a" in result.msg
    absent = run_module("veth_pair", **item(*names, state="absent"))
    assert absent.failed if end == 0 else not absent.changed
    assert lasting(*names) == before


def test_absent_when_the_namespace_is_gone(scene):
    netns, inner = host(scene), scene.netns()
    act(netns, inner)
    sh(f"ip netns delete {inner}")
    for each in ({"namespace": inner, "name": "ve-a"}, {"name": "ve-a"}, {"name": "ve-a", "pid": 4194304}):
        assert not run_module("veth_pair", netns=netns, state="absent", **each).failed
    assert not run_module("veth_pair", netns="test-no-such", name="ve-a", state="absent").changed
    assert "test-no-such" not in sh("ip netns list")


def test_a_pair_of_another_name_gives_up_its_inner_end(scene):
    netns, inner = host(scene), scene.netns()
    act(netns, inner)
    renamed = act(netns, inner, name="ve-b")
    assert renamed.changes[0]["action"] == "recreate" and "joined off -> on" in renamed.changes[0]["fields"]
    assert link(netns, "ve-a") is None and link(netns, "ve-b") and routes(inner) == ROUTES


def test_equal_indices_of_two_hosts_are_not_mistaken(scene):
    hosts, inners = [host(scene), host(scene)], [scene.netns(), scene.netns()]
    for names in zip(hosts, inners):
        act(*names)
    assert link(hosts[0], "ve-a")["ifindex"] == link(hosts[1], "ve-a")["ifindex"]
    crossed = act(hosts[0], inners[1])
    assert "joined off -> on" in crossed.changes[0]["fields"]
    assert link(inners[0], "eth0") is None and link(hosts[1], "ve-a") is None


def test_prune_spares_inner_ends_and_strangers(scene):
    names = [host(scene), scene.netns(), scene.netns()]
    sh(f"ip -n {names[0]} link add foreign type veth peer name foreign2")
    one, two = item(None, names[1]), item(None, names[2], name="ve-b", addresses=["10.0.0.101/24"], routes=[])
    nested = {"netns": names[1], "namespace": names[2], "name": "ve-c", "inner_name": "eth1"}
    with namespaces.entered(names[0]):  # pruning looks into the host's own namespace, too
        converge("veth_pair", *names, config=[one, two, nested])
        pruned = converge("veth_pair", *names, config=[one, nested], prune=True)
    assert [(each["item"], each["action"]) for each in pruned.changes] == [("veth_pair ve-b", "delete")]
    assert link(names[0], "foreign") and link(names[1], "eth0") and link(names[2], "eth0") is None
    assert link(names[2], "eth1")


@pytest.mark.parametrize("marks", [0, 1])
def test_what_a_killed_run_left_is_ours(scene, marks):
    netns, inner = host(scene), scene.netns()
    made = act(netns, inner)
    sh(f"ip -n {netns} link delete ve-a", *made.commands[:1 + marks])
    repaired = act(netns, inner)
    assert repaired.changes[0]["fields"][0] == f"owner none -> {OWNER}" and repaired.changes[0]["action"] == "update"
    assert (link(netns, "ve-a")["ifalias"], link(inner, "eth0")["ifalias"]) == (OWNER, OWNER + ":inner")
    assert routes(inner) == ROUTES


def test_an_address_may_stand_once_on_a_bridge_and_again_on_another(scene):
    netns, one, two = host(scene), scene.netns(), scene.netns()
    sh(f"ip -n {netns} link add br1 type bridge")
    pairs = [item(netns, one), item(netns, two, name="ve-b")]
    twice = run_module("veth_pair", check=True, config=pairs)
    assert twice.failed and "addresses: '10.0.0.100/24' is not valid" in twice.msg
    assert not run_module("veth_pair", check=True, config=[pairs[0], {**pairs[1], "bridge": "br1"}]).failed


def test_both_ends_in_one_namespace_are_refused(scene):
    netns = host(scene)
    before = lasting(netns)
    result = run_module("veth_pair", **item(netns, netns))
    assert result.failed and "is the network namespace of its host end" in result.msg and lasting(netns) == before


def test_two_pairs_cannot_share_an_inner_end(scene):
    netns, inner = host(scene), scene.netns()
    twin = item(netns, inner, name="ve-b", addresses=[], gateway=None, routes=[])
    result = run_module("veth_pair", config=[item(netns, inner), twin])
    assert result.failed and "ve-a" in result.msg and "ve-b" in result.msg and link(inner, "eth0") is None


@pytest.mark.parametrize("options, what", [
    ({"namespace": "test-no-such"}, "there is no network namespace test-no-such"),
    ({"bridge": "br9"}, "there is no link br9"),
    ({"namespace": None, "pid": 4194304}, "there is no network namespace /proc/4194304/ns/net"),
])
def test_what_is_not_there_yet_is_an_error_in_a_real_run(scene, options, what):
    names = [host(scene), scene.netns()]
    before = lasting(*names)
    wanted = {**item(*names), **options}
    assert run_module("veth_pair", check=True, **wanted).changed
    result = run_module("veth_pair", **wanted)
    assert result.failed and what in result.msg
    assert lasting(*names) == before and "test-no-such" not in sh("ip netns list")


def test_many_in_one_call(scene):
    netns, inners = host(scene), [scene.netns() for unused in range(20)]
    config = [item(netns, inner, name=f"ve-{number}", addresses=[f"10.0.0.{number}/24"], routes=[], gateway=None)
              for number, inner in enumerate(inners, 1)]
    assert len(converge("veth_pair", netns, *inners, config=config).changes) == 20
    assert {each["ifname"] for each in js(f"ip -n {netns} -j link show master br0")} == {f"ve-{n}" for n in range(1, 21)}
