# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh of one host of each release of Debian that is supported, as minimal as its image, from the first run to the teardown.

The tests are the steps of an administrator, in that order. A release that scripts/userland could not make is skipped by name.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile

import pytest
import yaml

from ..conftest import ROOT
from .lab import eventually, first_process, packages, play, require_mirror, sh

INVENTORY = ROOT / "tests/distributions/inventory/hosts.yml"
NUMBERS = {"bullseye": "11", "bookworm": "12", "trixie": "13"}
CONTAINERS = {"bullseye": ("eleven", "10.0.0.111"), "bookworm": ("twelve", "10.0.0.112"), "trixie": ("thirteen", "10.0.0.113")}
MADE = [name for name in NUMBERS if (ROOT / ".cache/userland" / name / "etc").is_dir()]


def run(playbook, *words, **options):
    """A playbook on those hosts whose release is there."""
    inventory = yaml.safe_load(INVENTORY.read_text(encoding="utf-8"))
    hosts = inventory["overlay"]["hosts"]
    inventory["overlay"]["hosts"] = {name: hosts[name] for name in MADE}
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as fewer:
        yaml.safe_dump(inventory, fewer)
        fewer.flush()
        return play("-i", fewer.name, ROOT / playbook, *words, **options)


def changes(results):
    return [(each["host"], change["item"], change["action"]) for each in results for change in each.get("changes", ())]


def lab(state="present"):
    run("playbooks/lab.yml", "-e", f"lab_state={state}")
    if state == "present":
        for name in MADE:
            eventually(lambda name=name: booted(name), f"{name} has booted")


def booted(name):
    """It is degraded where a service of its own fails on this kernel, such as that of its sysctls; none of ours does."""
    failed = sh(name, "systemctl list-units --failed --plain --no-legend --no-pager", check=False).stdout
    assert not any(each in failed for each in ("fromscratch", "ns-container")), (
        failed + sh(name, "journalctl --no-pager --unit 'fromscratch*' --unit 'ns-container@*' --lines 40").stdout)
    return sh(name, "systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded")


@pytest.fixture(scope="module")
def mesh():
    """The hosts of those releases that are there, booted."""
    if len(MADE) < 2:
        pytest.skip("NOT RUN: no two releases of Debian are in .cache/userland: run scripts/userland")
    require_mirror(*MADE)
    lab()
    yield MADE
    lab("absent")


def test_the_hosts_are_what_they_are_said_to_be(mesh):
    for name in mesh:
        assert f'VERSION_ID="{NUMBERS[name]}"' in sh(name, "cat /etc/os-release").stdout
        assert sh(name, "command -v nft || python3 -c 'import pyroute2'", check=False).returncode != 0


def test_a_check_names_all_that_is_missing_with_its_package_and_changes_nothing(mesh):
    before = {name: picture(name) for name in mesh}
    done, results = run("site.yml", "--check", check=False)
    assert done.returncode != 0 and changes(results) == []
    for name in mesh:
        said, = [line for line in done.stdout.splitlines() if line.startswith(f"fatal: [{name}]")]
        assert "This host lacks what the task needs: the program nft (the package nftables); the Python library pyroute2" in said, said
    assert "python3-apt" not in done.stdout and "Errno" not in done.stdout
    assert {name: picture(name) for name in mesh} == before


def test_without_a_mirror_one_sentence_says_what_is_missing_and_nothing_is_changed(mesh):
    before = {name: picture(name) for name in mesh}
    for name in mesh:
        sh(name, "ip route delete default")  # else each name is looked up for some seconds
    done, results = run("site.yml", check=False)
    for name in mesh:
        sh(name, "ip route add default via 172.31.0.1")
    assert done.returncode != 0 and changes(results) == []
    for name in mesh:
        said, = [line for line in done.stdout.splitlines() if line.startswith(f"fatal: [{name}]") and "lacks" in line]
        assert "the package nftables" in said and "It could not be installed" in said and "install it by hand" in said, said
    assert {name: picture(name) for name in mesh} == before


def picture(name):
    return sh(name, "ip -j link; ip netns; find /etc /var/lib/fromscratch /usr/sbin -xdev | sort").stdout


def test_the_role_installs_what_is_missing_and_sets_the_hosts_up(mesh):
    with contextlib.ExitStack() as ways:
        for name in mesh:
            ways.enter_context(packages(name))
        run("site.yml")
    for name in mesh:
        assert sh(name, "command -v nft && python3 -c 'import pyroute2'").stdout
    reached(mesh)


def reached(mesh):
    """Each host and each container reaches each container; verify.yml says the same."""
    for one, other in itertools.product(mesh, mesh):
        address = CONTAINERS[other][1]
        sh(one, f"ping -q -c1 -W1 {address} || ping -q -c3 -W2 {address}")
        sh(one, f"ip netns exec {CONTAINERS[one][0]} ping -q -c1 -W2 {address}")
    done, unused = run("playbooks/verify.yml")
    assert "DOES NOT REACH" not in done.stdout and "reaches" in done.stdout


def test_the_second_run_changes_nothing_nor_does_a_check_predict_anything(mesh):
    done, results = run("site.yml")
    assert changes(results) == [] and "changed=0" in done.stdout and "changed=1" not in done.stdout
    assert len(results) == len(mesh)


@pytest.fixture
def managed(mesh):
    """A host that Docker and NetworkManager share with the overlay: the distribution's own packages."""
    if "bookworm" not in mesh:
        pytest.skip("NOT RUN: Debian 12, on which they would be installed, is not in .cache/userland")
    if not online("bookworm"):
        pytest.skip("NOT RUN: no mirror has the packages docker.io and network-manager")
    return "bookworm"


def online(name):
    """Have a host know its distribution's packages, where a mirror has them."""
    with packages(name):
        return sh(name, "apt-get update --error-on=any", check=False).returncode == 0


def test_docker_and_networkmanager_come_to_a_host_of_the_overlay(mesh, managed):
    # The lab has given the host its card, with an address that NetworkManager would take away at boot.
    sh(managed, "mkdir -p /etc/NetworkManager/conf.d; cat >/etc/NetworkManager/conf.d/lab.conf",
       input="[keyfile]\nunmanaged-devices=interface-name:enX0\n")
    with packages(managed):
        sh(managed, "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends docker.io network-manager")
    sh(managed, "sysctl -w net.bridge.bridge-nf-call-iptables=1")  # as Kubernetes and Docker's icc=false have it
    assert "policy drop" in sh(managed, "nft list chain ip filter FORWARD").stdout
    ping = f"ip netns exec {CONTAINERS[managed][0]} ping -q -c1 -W2 {CONTAINERS[mesh[-1]][1]}"
    assert sh(managed, ping, check=False).returncode != 0, "Docker drops what is bridged"
    predicted = changes(run("site.yml", "--check")[1])
    assert changes(run("site.yml")[1]) == predicted
    assert {item for host, item, unused in predicted} == {
        "passage of br0", "file /etc/NetworkManager/conf.d/zz-fromscratch.conf", "file /var/lib/fromscratch/network"}
    assert changes(run("site.yml")[1]) == []
    states = dict(line.split(":") for line in sh(managed, "nmcli --terse --fields DEVICE,STATE device").stdout.splitlines())
    assert (states["br0"], states["vxlan0"]) == ("unmanaged", "unmanaged")
    reached(mesh)


def test_restarts_of_docker_and_networkmanager_take_nothing_away(mesh, managed):
    before = lasting(managed)
    sh(managed, "systemctl restart docker.service NetworkManager.service")
    assert lasting(managed) == before and changes(run("site.yml")[1]) == []
    reached(mesh)


def test_drift_is_predicted_and_repaired(mesh):
    for name in mesh:
        sh(name, "ip link delete vxlan0 && nft delete table inet fromscratch")
    predicted = changes(run("site.yml", "--check", "--diff")[1])
    repaired = changes(run("site.yml", "--diff")[1])
    assert sorted(predicted) == sorted(repaired)
    assert {(host, item) for host, item, unused in repaired} >= {(name, "vxlan vxlan0") for name in mesh}
    assert {host for host, item, unused in repaired if item.startswith("nftables")} == set(mesh)


# Other than a host's, the /sys of a container is read-only, and only there can broadcasts be set with iproute2 5.10. Late, as udev
# would serve all devices of this machine.
WRITABLE = """\
[Unit]
After=systemd-udevd.service systemd-udev-trigger.service
Before=fromscratch-network.service
[Service]
Type=oneshot
ExecStart=/bin/mount -o remount,rw /sys
"""


def test_a_reboot_brings_all_back_by_the_hosts_own_means(mesh):
    if "bullseye" in mesh:
        sh("bullseye", "cat >/etc/systemd/system/lab-sys.service; ln -s ../lab-sys.service /etc/systemd/system/multi-user.target.wants/",
           input=WRITABLE)
    before = {name: lasting(name) for name in mesh}
    for name in mesh:
        os.kill(first_process(name), signal.SIGKILL)
    for name in mesh:
        eventually(lambda name=name: not subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, check=True).stdout.split(), f"{name} is down")
        subprocess.run(["ip", "netns", "delete", name], check=True)  # and all links that were in it
    lab()
    for name in mesh:
        assert sh(name, "systemctl is-active fromscratch-network ns-container@*").stdout.split() == ["active", "active"]
    assert {name: lasting(name) for name in mesh} == before
    assert changes(run("site.yml")[1]) == []
    reached(mesh)


def lasting(name):
    """What has to be the same after a reboot."""
    return (sh(name, "nft -s list table inet fromscratch").stdout,
            sorted(each["ifname"] for each in json.loads(sh(name, "ip -j link").stdout)),
            sorted(each["mac"] + each.get("dst", "") for each in json.loads(sh(name, "bridge -j fdb show dev vxlan0").stdout)
                   if each.get("state") == "permanent"))


def test_teardown_leaves_nothing(mesh):
    if "bookworm" in mesh:
        sh("bookworm", "systemctl stop NetworkManager.service", check=False)  # which keeps its traces in /run
    run("playbooks/teardown.yml")
    for name in mesh:
        assert {each["ifname"] for each in json.loads(sh(name, "ip -j link").stdout)} - {"docker0"} == {"enX0", "lo"}
        assert "fromscratch" not in sh(name, "nft list ruleset; ls /etc/systemd/system /etc/udev/rules.d; ls /var/lib/fromscratch").stdout
