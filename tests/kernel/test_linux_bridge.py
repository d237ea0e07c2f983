# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.network import neighbour_tables, netlink

from ..conftest import ROOT
from .support.faces import converge, same_by_commands
from .support.modules import run_module
from .support.namespaces import addresses, js, link, sh, state


def test_act_again_check_change_absent(scene):
    netns = scene.netns()
    wanted = {"name": "br0", "netns": netns, "addresses": ["10.0.0.1/24", "fd00::1/64"], "forward_delay": 4}
    before = state(netns)
    predicted = run_module("linux_bridge", check=True, **wanted)
    assert state(netns) == before
    made = run_module("linux_bridge", **wanted)
    assert (made.changed, made.changes, made.commands, made.diff) == (
        True, predicted.changes, predicted.commands, predicted.diff)
    shown = link(netns, "br0")
    assert "UP" in shown["flags"] and shown["linkinfo"]["info_data"]["forward_delay"] == 400
    assert shown["ifalias"] == "fromscratch.containers"
    assert addresses(netns, "br0") == {"10.0.0.1/24", "fd00::1/64"}

    again = run_module("linux_bridge", **wanted)
    assert not again.changed and again.changes == [] and again.commands == []

    sh(f"ip -n {netns} address delete 10.0.0.1/24 dev br0")
    repaired = run_module("linux_bridge", **wanted)
    assert repaired.commands == [f"ip -n {netns} address replace 10.0.0.1/24 dev br0"]

    gone = run_module("linux_bridge", name="br0", netns=netns, state="absent")
    assert gone.changed and link(netns, "br0") is None
    assert not run_module("linux_bridge", name="br0", netns=netns, state="absent").changed


@pytest.mark.parametrize("module, name, interruption", [
    (netlink, "_link", netlink.NetlinkDumpInterrupted), (neighbour_tables, "_unpacked", neighbour_tables.DumpInterrupted)])
def test_a_list_that_others_change_while_it_is_read_is_read_again(scene, monkeypatch, module, name, interruption):
    netns, read, interrupted = scene.netns(), getattr(module, name), []
    neighbours = [{"address": "10.0.0.2", "mac": "02:00:00:00:00:02"}]
    wanted = {"name": "br0", "netns": netns, "addresses": ["10.0.0.1/24"], "neighbours": neighbours}
    assert run_module("linux_bridge", **wanted).changed

    def thrice(message):
        if len(interrupted) < 3:
            interrupted.append(message)
            raise interruption()
        return read(message)

    monkeypatch.setattr(module, name, thrice)
    again = run_module("linux_bridge", **wanted)
    assert not again.failed and not again.changed and len(interrupted) == 3


def test_a_bridge_of_somebody_else_is_left_alone(scene):
    netns = scene.netns()
    sh(f"ip -n {netns} link add br0 type bridge")
    before = state(netns)
    for wanted in "present", "absent":
        result = run_module("linux_bridge", name="br0", netns=netns, state=wanted)
        assert result.failed and "br0" in result.msg and "not made by this collection" in result.msg
    assert state(netns) == before


def test_what_the_kernel_refuses_is_said_with_the_command(scene):
    netns = scene.netns()
    refused = run_module("linux_bridge", name="br0", netns=netns, addresses=["fd00::1/64"], ports=["lo"])
    assert refused.failed and refused.msg == (f"While doing what 'ip -n {netns} link set lo master br0' does: "
                                              "Invalid argument"), refused.msg
    assert run_module("linux_bridge", name="br0", netns=netns, addresses=["fd00::1/64"]).changed
    assert addresses(netns, "br0") == {"fd00::1/64"} and "UP" in link(netns, "br0")["flags"]


def test_a_host_without_pyroute2(scene):
    """What the role installs it by, from a process that cannot import it."""
    netns = scene.netns()
    script = ("import json, sys; sys.modules['pyroute2'] = None; import tests.conftest; from tests.kernel.support.modules import run_module;"
              f"print(json.dumps(vars(run_module('linux_bridge', name='br0', netns='{netns}'))))")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["failed"] and found["missing"][0]["name"] == "pyroute2" and "pyroute2 0.7.2 or newer" in found["msg"]
    assert link(netns, "br0") is None


def test_a_bridge_keeps_the_mtu_that_the_kernel_gives_to_links(scene):
    netns = scene.netns()
    sh(f"ip -n {netns} link add p0 mtu 1400 type veth peer name p1", f"ip -n {netns} link add p2 mtu 1300 type veth peer name p3")
    wanted = {"name": "br0", "netns": netns, "mtu": 1500, "ports": ["p0"]}
    assert run_module("linux_bridge", **wanted).changed and link(netns, "br0")["mtu"] == 1500
    sh(f"ip -n {netns} link set p2 master br0")
    assert link(netns, "br0")["mtu"] == 1500 and not run_module("linux_bridge", **wanted).changed


def hairpins(netns):
    return {each["ifname"] for each in js(f"bridge -n {netns} -d -j link show") if each["hairpin"]}


def test_ports_that_get_their_own_frames_back(scene):
    netns, other = scene.netns(), scene.netns()
    for each in netns, other:
        sh(*(f"ip -n {each} link add p{at} address 02:00:00:00:00:0{at} type veth peer name q{at} address 02:00:00:00:01:0{at}" for at in (1, 2, 3)))
    wanted = {"name": "br0", "netns": netns, "addresses": [], "ports": ["p1", "p2"]}
    converge("linux_bridge", netns, **wanted)
    sh(f"ip -n {netns} link set p3 master br0", f"bridge -n {netns} link set dev p3 hairpin on")
    made = converge("linux_bridge", netns, **wanted, hairpin_ports=["p1"])
    assert made.commands == [f"bridge -n {netns} link set dev p1 hairpin on"] and hairpins(netns) == {"p1", "p3"}
    sh(f"ip -n {netns} link set p1 nomaster")
    converge("linux_bridge", netns, **wanted, hairpin_ports=["p1"])
    assert hairpins(netns) == {"p1", "p3"}, "with the bridge, it had lost that"
    converge("linux_bridge", netns, **wanted, hairpin_ports=["p2"])
    assert hairpins(netns) == {"p2", "p3"}, "that of somebody else's port stays"
    assert not run_module("linux_bridge", **wanted).changed, "without the option, it is not managed"
    converge("linux_bridge", netns, **wanted, hairpin_ports=[])
    assert hairpins(netns) == {"p3"}
    sh(f"ip -n {netns} link delete br0")
    same_by_commands(converge("linux_bridge", netns, **wanted, hairpin_ports=["p2"]), [netns], [other])
    assert hairpins(netns) == hairpins(other) == {"p2"}
    refused = run_module("linux_bridge", **wanted, hairpin_ports=["p3"])
    assert refused.failed and "hairpin_ports: 'p3' is not valid: it is not one of ports" in refused.msg
