# SPDX-License-Identifier: GPL-3.0-or-later
"""What a whole host's result shows as commands, typed on an equal host, gives the same state: files, units, tables, other programs'
chains, settings and links, where systemd runs the host and where it does not.

A program that stands in for systemctl keeps which units are active, runs what they start, and records what it was asked.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import service
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import nftables
from ansible_collections.fromscratch.containers.plugins.module_utils.host import boot, managers, use
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from .support.equal_hosts import GUARD, HERE, ROOTFS, SYSTEMCTL, absent, wanted, with_containers
from .support.faces import different
from .support.modules import run_module
from .support.namespaces import js, sh

pytestmark = pytest.mark.skipif(nftables.nft() is None, reason="nft is not installed")


STEPS = (
    wanted(),
    wanted(names=[{"network": "front", "file": "hosts", "lines": ["10.0.0.12 box"]}],
           nftables=[{"name": "fromscratch", "rules": GUARD.format("{ 198.51.100.3, 198.51.100.4 }")}],
           vxlan_link=[{"name": "vxlan0", "vni": 100, "local": HERE, "remotes": ["198.51.100.3", "198.51.100.4"], "bridge": "br0"}]),
    wanted(forward=[{"bridge": "br0"}], sysctl=[], linux_bridge=[{"name": "br0", "addresses": ["10.0.0.2/24"], "underlay": HERE}]),
    wanted(),
    absent(wanted()))


def applied_on(machine, steps):
    """(the commands, what the machine is like then) of each step, which does what check mode predicts and leaves nothing to a
    second run."""
    applied = []
    for number, step in enumerate(steps):
        predicted, made = run_module("topology", check=True, **step), run_module("topology", **step)
        assert not made.failed, (number, made.msg)
        faces = [{face: getattr(each, face) for face in ("changes", "commands", "diff")} for each in (predicted, made)]
        assert made.changed and faces[0] == faces[1], (number, different(*faces))
        again = run_module("topology", **step)
        assert (again.changed, again.changes, again.commands) == (False, [], []), number
        applied.append((made.commands, machine.picture()))
    return applied


def follow(machine, applied):
    """Run the commands alone: the machine is like the other one after each step."""
    for number, (commands, expected) in enumerate(applied):
        for line in commands:
            done = subprocess.run(["sh", "-e"], input=line + "\n", capture_output=True, text=True, check=False)
            assert done.returncode == 0, (number, line, done.stderr)
        found = machine.picture()
        assert found == expected, (number, different(expected, found))


@pytest.mark.parametrize("systemd", [False, True], ids=["plain", "systemd"])
def test_the_commands_of_all_kinds_do_the_same(machines, systemd):
    machine = machines(systemd)
    with namespaces.entered(machine.name):
        machine.chain()
        before = machine.picture()
        applied = applied_on(machine, STEPS)
        after = applied[-1][1]
        assert {**after, "calls": ""} == before, different(before, after)
    machine = machines(systemd)
    with namespaces.entered(machine.name):
        machine.chain()
        follow(machine, applied)


NASTY = {"HERE": "EOF", "QUOTES": "it's \"$HOME\" `id` \\", "LINES": "a\nEOF\nb"}


@pytest.mark.parametrize("systemd", [False, True], ids=["plain", "systemd"])
def test_the_commands_of_containers_do_the_same_on_a_host_that_has_nothing(machines, tarball, monkeypatch, systemd):
    """No program, no bundle and no root filesystem is copied there beforehand: the tarball alone is on both."""
    monkeypatch.setattr(service, "runs_in_unit", lambda name, pid: systemd)  # a program stands in for systemd
    c1, c2 = {"name": "c1"}, {"name": "c2", "state": "stopped"}
    steps = (with_containers(tarball, c1, c2),
             with_containers(tarball, {**c1, "env": NASTY, "restart": "always" if systemd else "no", "hostname": "other"}, c2),
             with_containers(tarball, c1, {**c2, "state": "started", "userns": "host"}),
             with_containers(tarball, {**c1, "state": "stopped"}, ns_container=[
                 {"name": "c1", "rootfs": ROOTFS, "state": "stopped"}, {"name": "c2", "state": "absent"}]),
             absent(with_containers(tarball, c1)))
    machine = machines(systemd)
    with namespaces.entered(machine.name):
        before = machine.picture()
        applied = applied_on(machine, steps)
        assert {**applied[-1][1], "calls": ""} == {**before, "calls": ""}, different(before, applied[-1][1])
        calls = applied[-1][1]["calls"].splitlines()  # systemd remembers what is not there any more until it is told
        for each in "reset-failed ns-container@c1.service", "reset-failed ns-container@c2.service", f"stop {service.SLICE}":
            assert calls.count(each) == systemd, each
    machine = machines(systemd)
    with namespaces.entered(machine.name):
        follow(machine, applied)


def test_what_an_administrator_has_beside_the_unit_of_a_container_stays(machines, tarball, monkeypatch):
    monkeypatch.setattr(service, "runs_in_unit", lambda name, pid: True)
    with namespaces.entered(machines(True).name):
        options = {"name": "c1", "rootfs": ROOTFS, "restart": "always"}
        assert not run_module("topology", alpine_rootfs=[{"dest": ROOTFS, "src": tarball}], ns_container=[options]).failed
        ours = Path(service.drop_in("c1"))
        (ours.parent / "override.conf").touch()
        assert ours.exists() and run_module("ns_container", name="c1", state="absent").changed
        assert os.listdir(ours.parent) == ["override.conf"]


def test_one_script_of_all_commands(machines):
    """An administrator may paste them as one."""
    machine = machines(True)
    with namespaces.entered(machine.name):
        machine.chain()
        commands = run_module("topology", **STEPS[0]).commands
        expected = machine.picture()
    machine = machines(True)
    with namespaces.entered(machine.name):
        machine.chain()
        done = subprocess.run(["sh", "-e"], input="\n".join(commands), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = machine.picture()
        assert found == expected, different(expected, found)


class TestTwoUsesOfOneHost:
    """Each would take away what the host has of the other's, at every run."""

    def test_the_second_is_refused_before_anything_changes(self, machines):
        machine = machines(True)
        other = wanted(use="blue", names=[], linux_bridge=[{"name": "br1", "underlay": HERE}], sysctl=[])
        with namespaces.entered(machine.name):
            assert run_module("topology", **wanted()).changed
            before = machine.picture()
            assert stat.S_IMODE(os.stat(use.PATH).st_mode) == 0o600
            for options in other, absent(other):
                for check in True, False:
                    refused = run_module("topology", check=check, **options)
                    assert refused.failed and refused.msg.startswith("use: 'blue' is not valid: this host belongs to 'overlay'"), refused.msg
                    assert use.PATH in refused.msg and "overlay_networks" in refused.msg
            assert machine.picture() == before and not run_module("topology", **wanted()).changed

    def test_after_the_teardown_of_the_first_the_host_is_free(self, machines):
        machine = machines(False)
        with namespaces.entered(machine.name):
            run_module("topology", **wanted())
            gone = run_module("topology", **absent(wanted()))
            assert gone.changes[-1]["item"] == f"file {use.PATH}" and not Path(use.PATH).exists()
            assert run_module("topology", **wanted(use="blue")).changes[0]["item"] == f"file {use.PATH}"

    def test_a_renamed_one_is_told_by_the_removal_of_the_file(self, machines):
        machine = machines(False)
        with namespaces.entered(machine.name):
            run_module("topology", **wanted())
            os.unlink(use.PATH)
            assert [each["item"] for each in run_module("topology", **wanted(use="renamed")).changes] == [f"file {use.PATH}"]


class TestTheUnitOfTheNetwork:
    def test_it_is_active_after_the_first_run_and_gone_after_the_last(self, machines):
        machine = machines(True)
        with namespaces.entered(machine.name):
            made = run_module("topology", **wanted())
            assert made.changes[-1] == {"item": f"unit {boot.NAME}", "action": "create", "fields": []}
            assert made.commands[-1] == f"systemctl start {boot.NAME}"
            sh(f"systemctl stop {boot.NAME}")
            again = run_module("topology", **wanted())
            assert [change["item"] for change in again.changes] == [f"unit {boot.NAME}"]
            gone = run_module("topology", **absent(wanted()))
            assert gone.commands[0] == f"systemctl stop {boot.NAME}" and not Path(boot.UNIT).exists()

    def test_a_script_that_would_fail_at_boot_fails_today(self, machines):
        machine = machines(True)
        with namespaces.entered(machine.name):
            machine.program("/usr/bin/systemctl", SYSTEMCTL.replace("    start)\n", "    start) exit 7\n"))
            failed = run_module("topology", **wanted())
            assert failed.failed and f"systemctl start {boot.NAME} failed" in failed.msg

    def test_the_chains_of_others_get_their_rules_again_once_each_and_what_cannot_be_is_said(self, machines):
        machine = machines(True)
        with namespaces.entered(machine.name):
            machine.chain()
            run_module("topology", **wanted())
            rules = sh("nft -s list ruleset")
            inserted = rules.count('comment "fromscratch.containers"')
            assert inserted >= 2
            script = [boot.SCRIPT]
            assert subprocess.run(script, capture_output=True, check=True).stderr == b""
            assert sh("nft -s list ruleset") == rules, "it is there once"
            sh("nft flush chain ip filter FORWARD", "nft add rule ip filter FORWARD iifname docker0 accept")
            subprocess.run(script, check=True)
            assert sorted(sh("nft -s list ruleset").splitlines()) == sorted(rules.splitlines())
            sh("nft delete table ip filter", "ip link delete vxlan0")
            said = subprocess.run(script, capture_output=True, text=True, check=True).stderr
            assert said.count("No rule for br0 was inserted into the chain ip filter FORWARD") == inserted, said
            assert js("ip -j link show vxlan0"), "the rest is done"


class TestManagers:
    """Of each it is asked whether it runs: what one that was stopped has left in /run is no sign."""

    NMCLI = """\
#!/bin/sh
if [ "$*" = "--terse --fields RUNNING general" ]; then cat /run/NetworkManager/says; exit; fi
echo "$*" >>/run/NetworkManager/calls
grep -qx running /run/NetworkManager/says || { echo "Error: NetworkManager is not running." >&2; exit 8; }
"""

    @pytest.fixture
    def machine(self, machines):
        machine = machines(True)
        machine.program("/usr/bin/nmcli", self.NMCLI)
        machine.program("/usr/bin/udevadm", "#!/bin/sh\necho udevadm $* >>/run/systemd/calls\ntest -e /run/systemd/active/systemd-udevd.service\n")
        for path in "/usr/sbin/NetworkManager", "/usr/bin/systemd-networkd", "/usr/bin/systemd-udevd":
            machine.program(path, "#!/bin/sh\n")
        sh("mkdir -p /run/NetworkManager/system-connections /run/udev /run/systemd/netif /run/systemd/active", "touch /run/udev/control")
        with namespaces.entered(machine.name):
            yield machine

    @pytest.mark.parametrize("running", [False, True])
    def test_who_does_not_run_is_not_told_to_read_files_again(self, machine, running):
        Path("/run/NetworkManager/says").write_text("running\n" if running else "not running\n", encoding="ascii")
        units = "systemd-networkd.service", "systemd-udevd.service"
        for unit in units if running else ():
            Path("/run/systemd/active", unit).touch()
        expected = ["systemctl reload-or-restart systemd-networkd.service", "udevadm control --reload", "nmcli general reload conf"]
        for step in wanted(), absent(wanted()):
            made = run_module("topology", **step)
            assert not made.failed, made.msg
            assert [line for line in made.commands if line in expected] == (expected if running else [])
            there = [os.path.exists(path) for path in (managers.NETWORKD, managers.UDEV, managers.NETWORK_MANAGER)]
            assert there == [step["names"] != []] * 3, "it reads them when it starts"
            if there[2]:
                told = Path(managers.NETWORK_MANAGER).read_text(encoding="ascii")
                assert "\nunmanaged-devices+=interface-name:" in told, "what others have told it stays"
        calls = Path("/run/NetworkManager/calls")
        assert (calls.read_text(encoding="ascii").splitlines() if calls.exists() else []) == ["general reload conf"] * 2 * running
