# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of packets between containers of two hosts, beside the same by hand and beside the bare underlay, in one run.

Usage: python -m tests.bench.dataplane [ROUNDS]. Each way has two hosts of its own, which namespaces play, and all take turns in
each round, so that what else the machine does meets all of them. Throughput is that of one TCP connection by iperf3, requests
are echoes by ping, one after the other. Figures are medians; read the ratios.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys

from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from ..kernel.support.modules import run_module
from ..kernel.support.namespaces import Scene, sh
from ..overlay import part

ROUNDS = 15
SECONDS = 1
ECHOES = 2000
TARGETS = {"ours, open": 0.98, "ours": 0.95}  # of what is made by hand
ANTISPOOF = 0.97  # with it, of what is without


class Way:
    """Two ends that reach each other. ``ends``: the namespace of each; ``address``: that of the second."""

    def __init__(self, scene):
        self.scene = scene
        self.hosts = scene.underlay("192.0.2.1/24", "192.0.2.2/24")
        self.ends, self.address = self.hosts, "192.0.2.2"
        self.throughput, self.echoes = [], []

    def start(self):
        self.server = subprocess.Popen(["ip", "netns", "exec", self.ends[1], "iperf3", "--server"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sh(f"ip netns exec {self.ends[0]} ping -q -c1 -W2 {self.address}")

    def measure(self):
        """GBit/s in one connection, and echoes in a second."""
        enter = ["ip", "netns", "exec", self.ends[0]]
        done = json.loads(subprocess.run([*enter, "iperf3", "--json", "--time", str(SECONDS), "--client", self.address],
                                         capture_output=True, text=True, check=True).stdout)
        self.throughput.append(done["end"]["sum_received"]["bits_per_second"] / 1e9)
        done = subprocess.run([*enter, "ping", "-q", "-f", "-c", str(ECHOES), self.address], capture_output=True, text=True,
                              check=True).stdout
        self.echoes.append(ECHOES * 1000 / int(re.search(r"(\d+)ms$", done, re.M)[1]))


class ByHand(Way):
    """Bridge and tunnel by the article's commands."""

    def __init__(self, scene):
        super().__init__(scene)
        self.ends, self.address = [scene.netns(), scene.netns()], "10.0.0.2"
        for number, (host, end) in enumerate(zip(self.hosts, self.ends), 1):
            sh(f"ip -n {host} link add br0 mtu 1450 type bridge", f"ip -n {host} link set br0 up",
               f"ip -n {host} link add ve0 mtu 1450 master br0 type veth peer name eth0 mtu 1450 netns {end}",
               f"ip -n {host} link set ve0 up",
               f"ip -n {end} address add 10.0.0.{number}/24 dev eth0", f"ip -n {end} link set eth0 up",
               f"ip -n {host} link add vxlan0 master br0 type vxlan id 100 dstport 4789 local 192.0.2.{number} "
               f"remote 192.0.2.{3 - number} dev enX0", f"ip -n {host} link set vxlan0 up")


class Ours(Way):
    """The same by the role's own reckoning and the module ``topology``."""

    def __init__(self, scene, **settings):
        super().__init__(scene)
        self.ends, self.address = [scene.netns(), scene.netns()], "10.0.0.2"
        variables = {f"host{number}": {
            "overlay_underlay_ip": f"192.0.2.{number}", "overlay_rootfs": "/", "overlay_bridge_address": f"10.0.0.{100 + number}/24",
            "overlay_containers": [{"name": end, "address": f"10.0.0.{number}/24"}], **settings,
        } for number, end in enumerate(self.ends, 1)}
        for host, name in zip(self.hosts, variables):
            found = part(variables, name)
            pairs = [{**pair, "namespace": pair["container"], "container": None} for pair in found["veth_pair"]]
            with namespaces.entered(host):
                made = run_module("topology", veth_pair=pairs, linux_bridge=found["linux_bridge"],
                                  vxlan_link=found["vxlan_link"], nftables=found["nftables"])
            if made.failed:
                raise SystemExit(made.msg)


def main():
    rounds = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    scene = Scene()
    ways = {}
    try:
        ways = {"underlay": Way(scene), "by hand": ByHand(scene),
                "ours, open": Ours(scene, overlay_guard=False, overlay_antispoof=False),
                "ours, guard": Ours(scene, overlay_antispoof=False), "ours": Ours(scene)}
        for way in ways.values():
            way.start()
        for turn in range(rounds):
            for name in sorted(ways, key=lambda name: (list(ways).index(name) + turn) % len(ways)):
                ways[name].measure()
    finally:
        for way in ways.values():
            way.server.terminate()
            way.server.wait()
        scene.close()
    report(ways)


def report(ways):
    """A line for each way: medians, and ratios to what is made by hand in the same round."""
    def ratio(one, other, what):
        return statistics.median(a / b for a, b in zip(getattr(ways[one], what), getattr(ways[other], what)))

    print(f"{'':>12} {'GBit/s':>7} {'of hand-made':>13} {'echoes/s':>9} {'of hand-made':>13}")
    for name, way in ways.items():
        ratios = [ratio(name, "by hand", what) for what in ("throughput", "echoes")]
        target = TARGETS.get(name, 0)
        missed = [f"  MISSED: {target} is the target"] * (min(ratios) < target)
        print(f"{name:>12} {statistics.median(way.throughput):>7.2f} {ratios[0]:>13.2f} {statistics.median(way.echoes):>9.0f} "
              f"{ratios[1]:>13.2f}", *missed)
    found = ratio("ours", "ours, guard", "throughput")
    print(f"antispoofing: {found:.2f} of the throughput without it", *[f"  MISSED: {ANTISPOOF} is the target"] * (found < ANTISPOOF))


if __name__ == "__main__":
    if os.geteuid() != 0 or not shutil.which("iperf3"):
        raise SystemExit("This makes namespaces and sends by iperf3: it needs root and iperf3 (apt install iperf3)")
    main()
