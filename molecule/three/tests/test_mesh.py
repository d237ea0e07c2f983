# SPDX-License-Identifier: GPL-3.0-or-later
"""Three hosts form a full mesh."""

from __future__ import annotations

import json


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


def test_a_container_that_moves_is_refused_as_long_as_it_is_on_its_former_host(overlay):
    """Its new host has none of that name as yet, so that nobody but the run, which knows both, could tell."""
    moved = {name: list(each["overlay_containers"]) for name, each in overlay.variables.items()}
    moved["two"].append(moved["one"].pop())
    options = "-e", json.dumps({"moved": moved, "overlay_containers": "{{ moved[inventory_hostname] }}"})
    for playbook, *more in ("site.yml", "--check"), ("site.yml",), ("playbooks/verify.yml",):
        said = overlay.refused(playbook, *options, *more)
        assert "10.0.0.12, which is that of container one-b on two, veth_pair ve-one-b of one-b still has on one" in said, said
    assert overlay.hosts["two"].run("test -e /run/netns/one-b").rc != 0, "nothing was changed"
    removed = [change["item"] for each in overlay.play("site.yml", *options, "--check", "-e", "overlay_prune=true")
               for change in each.get("changes", ()) if change["action"] == "delete"]
    assert removed == ["veth_pair ve-one-b", "container one-b"]
