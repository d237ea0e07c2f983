# SPDX-License-Identifier: GPL-3.0-or-later
"""What is renamed, or moved to another host, without prune: two with one address are refused, naming the one that is left."""

from __future__ import annotations

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from ..conftest import ROOT
from .support.faces import converge, lasting
from .support.modules import run_module
from .support.namespaces import addresses, host_netns, link
from .support.role import held

REMEDY = "have it removed by prune (overlay_prune: true), or by a task of its own with state: absent"


@pytest.fixture
def host(scene):
    """A host with two namespaces that stand for containers; one is that of ``whole``."""
    return host_netns(scene, mtu=1500), scene.netns(), scene.netns()


def whole(netns, inner, bridge="br7", vxlan="vxlan0", vni=100, **pair):
    """The article's host, in a namespace of its own."""
    return {"veth_pair": [{"name": f"ve-{inner}"[:15], "namespace": inner, "netns": netns, "addresses": ["10.0.0.100/24"], **pair}],
            "linux_bridge": [{"name": bridge, "netns": netns, "addresses": ["10.0.0.1/24"], "ports": [f"ve-{inner}"[:15]]}],
            "vxlan_link": [{"name": vxlan, "netns": netns, "vni": vni, "local": "192.0.2.1", "remotes": ["192.0.2.2"], "bridge": bridge}]}


def refused(host, wanted, *said):
    """Check mode and the real run say the same, and change nothing; what they return beside the message."""
    before = lasting(*host)
    for check in True, False:
        found = run_module("topology", check=check, **wanted)
        assert found.failed and REMEDY in found.msg, vars(found)
        for each in said:
            assert each in found.msg, found.msg
    assert lasting(*host) == before
    return found


def test_a_container_that_is_renamed(host):
    netns, former, latter = host
    converge("topology", netns, former, **whole(netns, former))
    found = refused(host, whole(netns, latter), "veth_pair.addresses: '10.0.0.100/24' is not valid: veth_pair ve-",
                    f"veth_pair ve-{former} in netns {netns} of {former} has it, which is left of an earlier run")
    assert found.left_behind == [{"item": f"veth_pair ve-{former} in netns {netns} of {former}"}]
    converge("topology", *host, prune=True, **whole(netns, latter))
    assert link(netns, f"ve-{former}") is None and addresses(latter, "eth0") == {"10.0.0.100/24"}


def test_that_is_refused_at_another_bridge_only_where_that_is_in_the_way_itself(host):
    """Its bridge has the address of the other; without one, two networks may use the same addresses."""
    netns, former, latter = host
    converge("topology", netns, former, **whole(netns, former))
    refused(host, whole(netns, latter, bridge="br8"), "linux_bridge.addresses: '10.0.0.1/24' is not valid: bridge br8",
            f"and bridge br7 in netns {netns} has it, which is left of an earlier run")
    converge("topology", netns, linux_bridge=[{"name": "br7", "netns": netns, "addresses": []}])
    made = converge("topology", *host, **whole(netns, latter, bridge="br8"))
    assert made.warnings == []


def test_one_that_is_named_as_absent_is_not_left(host):
    netns, former, latter = host
    converge("topology", netns, former, **whole(netns, former))
    wanted = whole(netns, latter)
    wanted["veth_pair"].append({**whole(netns, former)["veth_pair"][0], "state": "absent"})
    converge("topology", *host, **wanted)
    assert link(netns, f"ve-{former}") is None


def test_the_same_mac(host):
    netns, former, latter = host
    mac = "02:00:00:00:00:07"
    converge("topology", netns, former, **whole(netns, former, inner_mac=mac))
    refused(host, whole(netns, latter, inner_mac=mac, addresses=["10.0.0.101/24"]), f"veth_pair.inner_mac: '{mac}' is not valid")


def test_one_container_with_two_ends(host):
    netns, former, unused = host
    converge("topology", netns, former, **whole(netns, former))
    wanted = whole(netns, former)
    wanted["veth_pair"][0].update(name="ve-other", inner_name="eth1")
    wanted["linux_bridge"][0]["ports"] = ["ve-other"]
    refused(host, wanted, "veth_pair.addresses: '10.0.0.100/24' is not valid")
    wanted["veth_pair"][0]["inner_name"] = "eth0"  # it takes the place of the former, which goes
    assert not run_module("topology", check=True, **wanted).failed


def test_a_bridge_that_is_renamed(host):
    netns, inner, unused = host
    converge("topology", netns, inner, **whole(netns, inner))
    refused(host, whole(netns, inner, bridge="br8"), "linux_bridge.addresses: '10.0.0.1/24' is not valid: bridge br8",
            f"bridge br7 in netns {netns} has it, which is left of an earlier run")
    converge("topology", netns, inner, prune=True, **whole(netns, inner, bridge="br8"))
    assert link(netns, "br7") is None and addresses(netns, "br8") == {"10.0.0.1/24"}


def test_a_tunnel_that_is_renamed(host):
    netns, inner, unused = host
    converge("topology", netns, inner, **whole(netns, inner))
    refused(host, whole(netns, inner, vxlan="vxlan9"), f"vxlan vxlan0 in netns {netns} already receives VNI 100 on UDP port 4789")
    # With another VNI, each works. One's own tasks may join two networks so; hosts that both do it make a loop.
    for prune in False, True:
        made = converge("topology", netns, inner, prune=prune, **whole(netns, inner, vxlan="vxlan9", vni=9))
        again = run_module("topology", prune=prune, **whole(netns, inner, vxlan="vxlan9", vni=9))
        expected = ["The tunnel vxlan0 with the VNI 100 is left of an earlier run as a port of br7, and joins"] * (not prune)
        for found in made, again:
            assert [each[:len(expected[0])] for each in found.warnings] == expected[:1] if expected else found.warnings == []
    assert link(netns, "vxlan0") is None


def test_what_is_left_and_in_nobodys_way_is_told_to_those_who_know_other_hosts(host):
    netns, former, latter = host
    converge("topology", netns, former, **whole(netns, former))
    wanted = whole(netns, latter, addresses=["10.0.0.101/24"])
    assert run_module("topology", check=True, **wanted).left_behind == [
        {"item": f"veth_pair ve-{former} in netns {netns} of {former}", "addresses": ["10.0.0.100"], "vnis": [100]}]
    made = converge("topology", *host, **wanted)
    assert made.warnings == []
    assert not hasattr(run_module("topology", check=True, prune=True, **wanted), "left_behind")


@pytest.mark.parametrize("other, warned", [("10.0.0.2/24", True), ("10.0.0.2/25", True), ("10.0.1.1/24", False), ("10.0.0.50/32", False)])
def test_two_bridges_in_one_subnet(host, other, warned):
    netns, said = host[0], "this host itself reaches what is behind one of them only"
    bridges = [{"name": "br7", "netns": netns, "addresses": ["10.0.0.1/24"]}, {"name": "br8", "netns": netns, "addresses": [other]}]
    for check in True, False:
        for found in run_module("topology", check=check, linux_bridge=bridges), run_module("linux_bridge", check=check, config=bridges):
            assert not found.failed and [said in each for each in found.warnings] == [True] * warned, vars(found)
    left = run_module("topology", linux_bridge=bridges[1:]).warnings
    assert [said in each and "bridge br7" in each and REMEDY in each for each in left] == [True] * warned
    apart = [{**bridges[0], "netns": host[1]}, bridges[1]]
    assert run_module("topology", check=True, prune=True, linux_bridge=apart).warnings == []


def test_a_container_that_is_left_is_not_held_to_itself(run_role, scene):
    inner, other = scene.netns(), scene.netns()
    rules = [{"name": "fromscratch_test", "family": "bridge", "rules": "chain fs_test { counter drop; }"}]
    with namespaces.entered(run_role.netns):
        run_module("topology", **{**whole(None, inner), "vxlan_link": []})
        for given, said in ((rules, 1), ([], 0)):
            found = run_module("topology", check=True, nftables=given, **whole(None, other, addresses=["10.0.0.101/24"]))
            assert len(found.warnings) == said, vars(found)
            assert all("no rule of this task holds it to its own addresses" in each for each in found.warnings)


def test_a_container_that_is_moved_to_another_host(run_role, scene):
    """A real run, for which its new host need not be in the run; but its former."""
    former = scene.netns()
    own = {2: {"overlay_containers": [{"name": "web", "address": "10.0.0.100/24"}]},
           1: {"overlay_bridge": "br7", "overlay_bridge_address": "10.0.0.1/24"}}
    settings = {"own": own, "overlay_mtu": 1350}
    with namespaces.entered(run_role.netns):
        made = run_module("topology", **whole(None, former))
    assert not made.failed, made.msg
    before = held(run_role.netns)
    for arguments in ("--check", "--limit", "h1"), ("--limit", "h1"):
        succeeded, said = run_role(*arguments, **settings)
        said = " ".join(said.split())
        assert not succeeded and "overlay_bridge_address or overlay_containers.address: 10.0.0.100, which is that of container web on h2, " \
            f"veth_pair ve-{former} of {former} still has on h1 (VNI 100)" in said, said
        assert REMEDY in said
    assert held(run_role.netns) == before
    succeeded, said = run_role("--check", "--limit", "h1", overlay_prune=True, **settings)
    assert succeeded, said
    succeeded, said = run_role("--check", "--limit", "h1", overlay_vni=7, **settings)  # another network
    assert not succeeded and "already receives" not in said, said
    succeeded, said = run_role("--limit", "h1", playbook=ROOT / "playbooks/verify.yml", **settings)
    assert not succeeded and f"veth_pair ve-{former} of {former} still has on h1" in " ".join(said.split()), said
