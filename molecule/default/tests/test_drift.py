# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody breaks by hand, the next run repairs, and exactly that; check mode tells beforehand."""

from __future__ import annotations

import pytest

STATUS = "/usr/local/lib/fromscratch/ns-container status container-a"
# Of each kind, as one lot; that each field of each thing is repaired by itself is tested on the modules.
DRIFTS = {
    "details": (
        ("bridge fdb delete 00:00:00:00:00:00 dev vxlan0 dst 172.31.94.69 via enX0", "ip address delete 10.0.0.1/24 dev br0",
         "ip netns delete container-a"),
        ["bridge br0", "container container-a", "vxlan vxlan0"]),
    "whole things": (
        ("ip link delete vxlan0", "ip link delete ve-container-a",
         f"kill -9 $({STATUS} | sed 's/.* //'); while {STATUS}; do :; done"),
        ["bridge br0", "container container-a", "veth_pair ve-container-a", "vxlan vxlan0"]),
    "the bridge": (("ip link delete br0",), ["bridge br0", "vxlan vxlan0"]),
}


def changes(results):
    return [(each["host"], each["changes"], each["commands"], each["diff"]) for each in results if each["changes"]]


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_predicted_and_repaired(overlay, drift):
    commands, items = DRIFTS[drift]
    for command in commands:
        overlay.hosts["debian"].run(command)
    predicted = changes(overlay.play("site.yml", "--check", "--diff"))
    repaired = changes(overlay.play("site.yml", "--diff"))
    assert sorted(change["item"] for host, each, *unused in repaired for change in each) == items
    assert {host for host, *unused in repaired} == {"debian"}
    assert predicted == repaired
    assert overlay.hosts["debian"].run("nsenter --net=/run/netns/container-a ping -c 3 -i 0.3 -W 2 10.0.0.200").rc == 0


def test_nothing_is_left_to_do(overlay):
    assert changes(overlay.play("site.yml")) == []


def test_check_mode_predicts_an_empty_host_and_teardown_empties_it(overlay):
    commands = ["ip -j link show", "ip -j address show", "ip -j route show", "cat /proc/self/mountinfo", "ip netns list",
                "find /var/lib /run /etc /usr/local /var/lib/fromscratch -xdev -mindepth 1 | sort"]
    overlay.play("playbooks/teardown.yml")
    empty = {name: [host.check_output(command) for command in commands] for name, host in overlay.hosts.items()}
    predicted = changes(overlay.play("site.yml", "--check", "--diff"))
    assert empty == {name: [host.check_output(command) for command in commands] for name, host in overlay.hosts.items()}
    made = changes(overlay.play("site.yml", "--diff"))
    assert predicted == made
    for unused, items, *unused in made:  # beside the files for those network managers that this machine has
        assert [each["item"].split()[0] for each in items if not each["item"].startswith("file ")] == [
            "rootfs", "container", "nftables", "nftables", "veth_pair", "bridge", "vxlan"]
    overlay.play("playbooks/teardown.yml")
    assert empty == {name: [host.check_output(command) for command in commands] for name, host in overlay.hosts.items()}
    overlay.play("site.yml")
