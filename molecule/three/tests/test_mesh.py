# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts form a full mesh."""

from __future__ import annotations


def test_each_host_floods_to_all_others(overlay, name):
    entries = overlay.js(name, "bridge -j fdb show dev vxlan0")
    flood = {each["dst"] for each in entries if each["mac"] == "00:00:00:00:00:00"}
    assert flood == {each["overlay_underlay_ip"] for other, each in overlay.variables.items() if other != name}
    found, = overlay.js(name, "ip -d -j link show vxlan0")
    assert "remote" not in found["linkinfo"]["info_data"]


def test_everybody_reaches_everybody(overlay, host, name):
    targets = [each["address"].split("/")[0] for variables in overlay.variables.values()
               for each in variables["overlay_containers"]]
    for target in targets:
        assert host.run(f"ping -c 1 -W 2 {target}").rc == 0, f"{name} does not reach {target}"
        for each in overlay.variables[name]["overlay_containers"]:
            assert host.run(f"nsenter --net=/run/netns/{each['name']} ping -c 1 -W 2 {target}").rc == 0, (
                f"{each['name']} does not reach {target}")


def test_tcp_carries_a_file_whole(overlay, name):
    """Bad offloading and a wrong MTU let pings pass and stall TCP."""
    digest = overlay.hosts["three"].check_output(
        "/usr/local/lib/fromscratch/ns-container exec three-a md5sum /bin/busybox").split()[0]
    for each in overlay.variables[name]["overlay_containers"]:
        inside = f"/usr/local/lib/fromscratch/ns-container exec {each['name']}"
        received = overlay.hosts[name].check_output(f"timeout 20 {inside} sh -c 'nc 10.0.0.31 8080 </dev/null | md5sum'")
        assert received.split()[0] == digest, each["name"]
