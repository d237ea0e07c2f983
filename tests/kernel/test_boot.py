# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps beyond a run: the unit of its network, what flushes its rules, services of containers, and network managers."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import service
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import nftables
from ansible_collections.fromscratch.containers.plugins.module_utils.host import boot, managers
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from .support.equal_hosts import HERE, absent, wanted, with_containers
from .support.faces import different
from .support.modules import run_module
from .support.namespaces import js, sh

pytestmark = pytest.mark.skipif(nftables.nft() is None, reason="nft is not installed")


def test_one_that_has_failed_is_forgotten_as_well(machines):
    machine, failed = machines(True), Path("/run/systemd/failed", boot.NAME)
    with namespaces.entered(machine.name):
        run_module("topology", **wanted())
        failed.parent.mkdir()
        for step, commands in ((wanted(), [f"systemctl start {boot.NAME}"]), (absent(wanted()), [f"systemctl reset-failed {boot.NAME}"])):
            sh(f"systemctl stop {boot.NAME}")
            failed.touch()
            assert run_module("topology", check=True, **step).commands[:1] == commands
            assert not run_module("topology", **step).failed
        assert not failed.exists()


def test_it_comes_after_what_makes_or_flushes_chains_and_before_the_containers(machines, tarball):
    with namespaces.entered(machines(True).name):
        run_module("topology", **with_containers(tarball, {"name": "c1", "state": "stopped"}))
        after = {path: [each for line in Path(path).read_text(encoding="utf-8").splitlines() if line.startswith("After=")
                        for each in line[len("After="):].split()] for path in (boot.UNIT, service.TEMPLATE)}
    assert {f"{each}.service" for each in ("nftables", "netfilter-persistent", "iptables", "firewalld", "ufw", "docker", "libvirtd")} | {
        "network-online.target"} <= set(after[boot.UNIT])
    assert boot.NAME in after[service.TEMPLATE]


def test_the_script_makes_all_of_the_network_from_nothing(machines):
    machine = machines(True)

    def picture():
        machine.chain()  # as Docker does, at every boot
        assert subprocess.run([boot.SCRIPT], capture_output=True, check=True).stderr == b""
        found = machine.picture()
        return {**found, "rules": sorted(found["rules"].splitlines())}  # tables are listed in the order of their making

    with namespaces.entered(machine.name):
        machine.chain()
        run_module("topology", **wanted())
        sh("nft delete table ip filter")
        before = picture()
        sh(*(f"ip link delete {each}" for each in ("vxlan0", "br0", "ve-box")), "nft flush ruleset", "sysctl -qw net.ipv4.conf.enX0.forwarding=0")
        after = picture()
        assert after == before, different(before, after)


def test_the_script_waits_for_the_address_of_the_underlay(machines):
    machine = machines(True)
    with namespaces.entered(machine.name):
        run_module("topology", **wanted())
        sh("ip link delete vxlan0", f"ip address delete {HERE}/24 dev enX0")
        # Without the address: three turns of the script's patience.
        impatient = Path(boot.SCRIPT).read_text(encoding="ascii").replace("left=1200", "left=3")
        machine.program("/usr/bin/sleep", "#!/bin/sh\n")
        done = subprocess.run(["sh", "-c", impatient], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, f"no link of this host has {HERE}\n") and js("ip -j link show type vxlan") == []
        # It comes while the script sleeps.
        machine.program("/usr/bin/sleep", f"#!/bin/sh\nip address add {HERE}/24 dev enX0\n")
        assert subprocess.run([boot.SCRIPT], check=True).returncode == 0
        assert js("ip -j link show type vxlan") and HERE in sh("ip address show dev enX0")


@pytest.mark.parametrize("when", ["ExecStartPost", "ExecReload", "ExecStopPost"])
def test_what_flushes_all_rules_brings_ours_back(machines, when):
    with namespaces.entered(machines(True).name):
        run_module("topology", **wanted(forward=[]))
        rules = sh("nft -s list ruleset")
        sh("nft flush ruleset")
        lines = [line.partition("=-")[2] for line in Path(boot.HOOK).read_text(encoding="ascii").splitlines() if line.startswith(f"{when}=-")]
        sh(*lines)
        assert len(lines) == 1 and sh("nft -s list ruleset") == rules != ""


def test_a_container_that_was_started_by_hand_gets_into_its_unit_which_is_said(machines, tarball, monkeypatch):
    """What the program that stands in for systemd has started is in a unit."""
    unit, program = service.unit("c1"), f"setsid {PROGRAM} start --unit c1 </dev/null >/dev/null 2>&1"
    monkeypatch.setattr(service, "runs_in_unit", lambda name, pid: Path(f"/run/systemd/active/{service.unit(name)}").exists())
    with namespaces.entered(machines(True).name):
        options = with_containers(tarball, {"name": "c1"})
        made = run_module("topology", **options)
        assert not made.failed and made.warnings == [], vars(made)
        sh(f"systemctl stop {unit}", program)
        first, said = running("c1"), f"container c1 runs, but was not started by {unit}: it is stopped, and started anew by that"
        for check in True, False:
            found = run_module("topology", check=check, **options)
            assert [each["item"] for each in found.changes] == ["container c1"] and any(said in each for each in found.warnings), vars(found)
        assert first and running("c1") not in (None, first) and Path("/run/systemd/active", unit).exists()
        again = run_module("topology", **options)
        assert not again.changed and again.warnings == [], vars(again)


@pytest.mark.parametrize("listens", [False, True])
def test_of_udev_without_systemd_its_socket_is_asked(machines, listens):
    """The file of a socket outlives who has listened on it."""
    machine = machines(False)
    for path in "/usr/bin/udevadm", "/usr/bin/systemd-udevd":
        machine.program(path, "#!/bin/sh\n")
    sh("mkdir -p /run/udev")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server, namespaces.entered(machine.name):
        server.bind("/run/udev/control")
        if listens:
            server.listen()
        made = run_module("topology", **wanted())
        assert not made.failed and made.commands.count("udevadm control --reload") == listens
        assert os.path.exists(managers.UDEV)
