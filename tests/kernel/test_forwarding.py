# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts on one underlay, by the role's own reckoning: what goes over the wire when frames are learnt, and when not."""

from __future__ import annotations

import collections
import os
import shutil
import socket
import struct
import subprocess

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.network import iproute2, namespaces, operations

from ..overlay import part
from .support.faces import lasting
from .support.modules import run_module
from .support.namespaces import Scene, js, sh


class Mesh:
    """Hosts and one inner namespace each, which plays the container."""

    def __init__(self, scene, *underlays):
        self.hosts = scene.underlay(*(f"{each}/64" if ":" in each else f"{each}/24" for each in underlays))
        self.boxes = [scene.netns() for unused in self.hosts]
        self.variables = {host: {
            "overlay_underlay_ip": underlay, "overlay_bridge_address": f"10.0.0.{at}/24", "overlay_bridge_addresses": [f"fd00::{at}/64"],
            "overlay_containers": [{"name": box, "address": f"10.0.0.{at}0/24", "addresses": [f"fd00::{at}0/64"]}],
        } for at, (host, box, underlay) in enumerate(zip(self.hosts, self.boxes, underlays), 1)}

    def converge(self, forwarding):
        """What each host's run changed, after check mode said the same."""
        return {host: self._converge(host, forwarding) for host in self.hosts}

    def settle(self, forwarding):
        """One run on each host, whatever it may change."""
        for host in self.hosts:
            made = run_module("topology", **self._links(host, forwarding))
            assert not made.failed, made.msg

    def repair(self, forwarding):
        """What the first host's run changed, where those of the others have nothing to do."""
        assert not any(run_module("topology", check=True, **self._links(host, forwarding)).changed for host in self.hosts[1:])
        return self._converge(self.hosts[0], forwarding)

    def _links(self, host, forwarding):
        found = part(self.variables, host, overlay_forwarding=forwarding, overlay_guard=False)
        links = {kind: [{**each, "netns": host} for each in found[kind]] for kind in ("veth_pair", "linux_bridge", "vxlan_link")}
        for pair in links["veth_pair"]:
            pair["namespace"] = pair.pop("container")
        return links

    def _converge(self, host, forwarding):
        links = self._links(host, forwarding)
        predicted = run_module("topology", check=True, **links)
        made = run_module("topology", **links)
        assert not made.failed, made.msg
        assert (made.changes, made.commands, made.diff) == (predicted.changes, predicted.commands, predicted.diff)
        assert not run_module("topology", **links).changed
        return made.changes

    def wire(self, command):
        """(destination host, ethertype of the inner frame) of each frame that a command in the first box causes on the first host's
        underlay device."""
        box = self.boxes[0]
        with namespaces.entered(self.hosts[0]):
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with tap:
            tap.bind(("enX0", 0))
            tap.setblocking(False)
            subprocess.run(["ip", "netns", "exec", box, "sh", "-c", command], capture_output=True, check=False)
            seen = collections.Counter()
            while True:
                try:
                    frame = tap.recv(65535)
                except BlockingIOError:
                    return dict(seen)
                if frame[12:14] == b"\x08\x00" and frame[23] == 17 and struct.unpack("!H", frame[36:38])[0] == 4789:
                    seen[int(frame[33]), struct.unpack("!H", frame[62:64])[0]] += 1

    def reach(self):
        """All reach each other; and know each other from then on, or a question would be counted on the wire."""
        for at, sources in enumerate(zip(self.hosts, self.boxes), 1):
            targets = [target for other in range(1, len(self.hosts) + 1) if other != at
                       for target in (f"10.0.0.{other}0", f"fd00::{other}0", f"10.0.0.{other}")]
            for source, dev in zip(sources, ("br0", "eth0")):
                lasting_entries = [f"net.{family}.neigh.{dev}.base_reachable_time_ms=3600000" for family in ("ipv4", "ipv6")]
                commands = [f"sysctl -qw {' '.join(lasting_entries)}", *(f"ping -q -c1 -W3 {target}" for target in targets)]
                sh(f"ip netns exec {source} sh -ec '{'; '.join(commands)}'")


IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86dd


@pytest.fixture(scope="module")
def mesh():
    """One for all tests: each begins by converging it, from whatever the one before has left."""
    scene = Scene()
    made = Mesh(scene, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    for box in made.boxes:
        sh(f"ip netns exec {box} sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0")
    yield made
    scene.close()


UNKNOWN = "ip neighbour replace 10.0.0.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent; ping -q -c2 -i 0.2 -W1 10.0.0.99"
BROADCAST = "ping -q -b -c2 -i 0.2 -W1 10.0.0.255"
NOBODY = "ping -q -c1 -W1 10.0.0.77"
ASK = "ip neighbour flush dev eth0; ping -q -c1 -W2 10.0.0.20"
ASK6 = "ip -6 neighbour flush dev eth0; ping -q -c1 -W2 fd00::20"


def test_static_forwarding_sends_nothing_but_what_is_for_somebody(mesh):
    mesh.converge("static")
    mesh.reach()
    for command in UNKNOWN, BROADCAST, NOBODY:
        assert mesh.wire(command) == {}, command
    # An echo and its reply, between two hosts, and no question before.
    assert mesh.wire(ASK) == {(2, IPV4): 1, (1, IPV4): 1}
    assert mesh.wire(ASK6) == {(2, IPV6): 1, (1, IPV6): 1}


def test_learning_copies_what_it_does_not_know(mesh):
    """The same, so that the one above is not about a wire that nothing is seen on."""
    mesh.converge("learning")
    mesh.reach()
    for command, kind in ((UNKNOWN, IPV4), (BROADCAST, IPV4), (NOBODY, ARP)):
        seen = mesh.wire(command)
        assert seen[2, kind] and seen[3, kind] == seen[2, kind], command
    seen = mesh.wire(ASK)
    assert seen[2, ARP] == seen[3, ARP] >= 1 and (3, IPV4) not in seen  # it is asked again where the answer takes its time


def test_from_one_to_the_other_and_back(mesh):
    mesh.converge("learning")
    before = lasting(*mesh.hosts)
    for host, changes in mesh.converge("static").items():
        assert [each["item"] for each in changes] == [f"bridge br0 in netns {host}", f"vxlan vxlan0 in netns {host}"]
        assert [field.split()[0] for field in changes[1]["fields"]] == [
            "remotes", "learning", "flood", "port_fdb", "fdb"]
    mesh.reach()
    host = mesh.hosts[0]
    assert {(each["dst"], each["lladdr"]) for each in js(f"ip -n {host} -j neighbour show dev br0 nud permanent")} == {
        (address, mac) for mac, *unused, addresses in macs(mesh)[1:] for address in addresses}
    mesh.converge("learning")
    assert lasting(*mesh.hosts) == before
    assert js(f"ip -n {host} -j neighbour show dev br0 nud permanent") == []
    mesh.reach()


def macs(mesh):
    """(MAC, addresses) of what is in each host's tables about host 1, 2 and 3."""
    found = []
    for at, (host, box) in enumerate(zip(mesh.hosts, mesh.boxes), 1):
        for netns, dev, addresses in (host, "br0", (f"10.0.0.{at}", f"fd00::{at}")), (box, "eth0", (f"10.0.0.{at}0", f"fd00::{at}0")):
            found.append((js(f"ip -n {netns} -j link show {dev}")[0]["address"], addresses))
    return found[:1] + found[2:]


@pytest.mark.parametrize("command, fields", [
    ("ip -n {0} neighbour delete 10.0.0.20 dev br0", ["neighbours"]),
    ("ip -n {0} neighbour replace 10.0.0.20 lladdr 02:00:00:00:00:66 dev br0 nud permanent", ["neighbours"]),
    ("ip -n {0} neighbour replace 10.0.0.66 lladdr 02:00:00:00:00:66 dev br0 nud permanent", ["neighbours"]),
    ("ip -n {0} link set br0 down", ["addresses", "neighbours", "up"]),
    ("ip -n {0} link set br0 address 02:00:00:00:00:55", ["mac", "neighbours"]),
    ("bridge -n {0} link set dev vxlan0 flood on", ["flood"]),
    ("bridge -n {0} link set dev vxlan0 neigh_suppress off learning on", ["flood"]),
    ("bridge -n {0} fdb add 02:00:00:00:00:66 dev vxlan0 master static", ["port_fdb"]),
    ("bridge -n {0} fdb delete $(bridge -n {0} fdb show dev vxlan0 | awk '/static/ {{print $1; exit}}') dev vxlan0 master", ["port_fdb"]),
    ("ip -n {0} link set vxlan0 nomaster", ["bridge", "flood", "port_fdb"]),
    ("ip -n {0} link delete vxlan0", []),
])
def test_drift_of_static_forwarding_is_repaired(mesh, command, fields):
    mesh.settle("static")
    before = lasting(*mesh.hosts), js(f"ip -n {mesh.hosts[0]} -j neighbour show dev br0 nud permanent")
    sh(command.format(mesh.hosts[0]))
    (change,) = mesh.repair("static")
    assert sorted(field.split()[0] for field in change["fields"]) == sorted(fields)
    after = js(f"ip -n {mesh.hosts[0]} -j neighbour show dev br0 nud permanent")
    assert lasting(*mesh.hosts) == before[0] and sorted(map(str, after)) == sorted(map(str, before[1]))
    mesh.reach()


def test_a_bridge_that_gets_another_mac_keeps_its_neighbours(mesh, monkeypatch):
    """The MAC follows the address; with the old one, the kernel forgets all neighbours."""
    mesh.settle("static")
    before = js(f"ip -n {mesh.hosts[0]} -j neighbour show dev br0 nud permanent")
    monkeypatch.setitem(mesh.variables[mesh.hosts[0]], "overlay_bridge_address", "10.0.0.7/24")
    found = mesh.converge("static")
    (change,) = found.pop(mesh.hosts[0])
    assert [field.split()[0] for field in change["fields"]] == ["mac", "addresses"]
    after = js(f"ip -n {mesh.hosts[0]} -j neighbour show dev br0 nud permanent")
    assert sorted(map(str, after)) == sorted(map(str, before)) and len(after) == 8
    sh(f"ip netns exec {mesh.boxes[1]} ping -q -c1 -W3 10.0.0.7", f"ip netns exec {mesh.hosts[0]} ping -q -c1 -W3 10.0.0.20")


@pytest.mark.parametrize("flood", [False, True])
@pytest.mark.skipif(not os.access("/sys", os.W_OK), reason="/sys is read-only here")
def test_what_is_shown_works_where_the_bridge_command_cannot_set_broadcasts(scene, tmp_path, flood):
    """That of iproute2 5.10, in Debian 11."""
    (tmp_path / "bridge").write_text(f'#!/bin/sh\ncase "$*" in *bcast_flood*) exit 255 ;; esac\nexec {shutil.which("bridge")} "$@"\n')
    (tmp_path / "bridge").chmod(0o755)
    netns = scene.netns()
    sh(f"ip -n {netns} link add br0 type bridge", f"ip -n {netns} link add port0 master br0 type veth peer name end0")
    sh(f"echo {int(not flood)} >/sys/class/net/port0/brport/broadcast_flood".join((f"ip netns exec {netns} sh -c '", "'")))
    for line in iproute2.commands([operations.PortSet(netns, "port0", flood)]):
        sh(f"PATH={tmp_path}:$PATH; {line}")
    (port,) = js(f"bridge -n {netns} -d -j link show dev port0")
    assert {port[name] for name in ("bcast_flood", "flood", "mcast_flood", "learning")} == {flood}
    assert port["neigh_suppress"] is not flood
