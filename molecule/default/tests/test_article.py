# SPDX-License-Identifier: GPL-3.0-or-later
"""The article's values, as an administrator finds them on its two hosts."""

from __future__ import annotations

import pytest

PEERS = {"debian": ("172.31.89.40", "172.31.94.69", "10.0.0.1"), "amazon": ("172.31.94.69", "172.31.89.40", "10.0.0.2")}
CONTAINERS = {"debian": ("container-a", "10.0.0.100"), "amazon": ("container-b", "10.0.0.200")}


def test_vxlan(overlay, name):
    local, remote, unused = PEERS[name]
    found, = overlay.js(name, "ip -d -j link show vxlan0")
    data = found["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data["local"], data["remote"], data["link"]) == (100, 4789, local, remote, "enX0")
    assert (found["master"], found["mtu"], found["ifalias"]) == ("br0", 1450, "fromscratch.containers")
    assert "UP" in found["flags"]


def test_forwarding_entries(overlay, name):
    entries = overlay.js(name, "bridge -j fdb show dev vxlan0")
    flood = [each["dst"] for each in entries if each["mac"] == "00:00:00:00:00:00"]
    assert flood == [PEERS[name][1]]


def test_bridge(overlay, name):
    found, = overlay.js(name, "ip -j address show br0")
    assert [each["local"] for each in found["addr_info"] if each["family"] == "inet"] == [PEERS[name][2]]
    ports = {each["ifname"] for each in overlay.js(name, "bridge -j link show") if each.get("master") == "br0"}
    assert ports == {"vxlan0", f"ve-{CONTAINERS[name][0]}"}


def test_container(overlay, host, name):
    container, address = CONTAINERS[name]
    found, = overlay.js(name, f"ip -n {container} -j address show eth0")
    assert [(each["local"], each["prefixlen"]) for each in found["addr_info"] if each["family"] == "inet"] == [(address, 24)]
    assert found["mtu"] == 1450
    launcher, inside = "/usr/local/lib/fromscratch/ns-container", f"/usr/local/lib/fromscratch/ns-container exec {container}"
    assert host.run(f"{launcher} status {container}").rc == 0
    assert host.check_output(f"{inside} hostname") == container
    assert "Alpine" in host.run(f"{inside} cat /etc/os-release").stdout or host.run(
        f"{inside} test -x /bin/busybox").rc == 0
    assert host.check_output(f"{inside} sh -c 'echo $$'").isdigit()
    # Process 1 of the container is its own, and it sees nobody else's.
    assert int(host.check_output(f"{inside} sh -c 'ls -d /proc/[0-9]* | wc -l'")) < 8


@pytest.mark.parametrize("target", ["10.0.0.100", "10.0.0.200"])
def test_reach(host, name, target):
    container = CONTAINERS[name][0]
    inside = f"/usr/local/lib/fromscratch/ns-container exec {container}"
    # Debian's busybox, of which the stand-in for Alpine is made, pings by raw sockets, which containers are not granted.
    if host.run(f"{inside} test -e /etc/alpine-release").rc:
        inside = f"nsenter --net=/run/netns/{container}"
    assert host.run(f"ping -c 2 -i 0.2 -W 2 {target}").rc == 0
    assert host.run(f"{inside} ping -c 2 -W 2 {target}").rc == 0


def test_full_packets_pass(host, name):
    """The largest packet of the overlay's MTU is carried whole, and one byte more is refused at home."""
    container = CONTAINERS[name][0]
    target = next(address for other, address in CONTAINERS.values() if other != container)
    ping = f"nsenter --net=/run/netns/{container} ping -c 1 -W 2 -M do"
    assert host.run(f"{ping} -s {1450 - 28} {target}").rc == 0
    assert host.run(f"{ping} -s {1450 - 27} {target}").rc != 0


def test_files_belong_to_root_alone(host, name):
    container = CONTAINERS[name][0]
    # The log is that of the root inside, which may open it as /dev/stdout.
    for path in "", "/config.json", "/layer", "/log":
        file = host.file(f"/var/lib/fromscratch/containers/{container}{path}")
        assert file.mode & 0o077 == 0 and (file.uid == 0 or path == "/log"), file
