# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with a way out, in a namespace that plays it, and a namespace beyond its network card."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ...overlay import part
from .modules import run_module
from .namespaces import sh

OUTSIDE = "198.51.100.1"
HERE = "198.51.100.2"
SENT_TO_IPTABLES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


class Machine:
    """A host in a namespace of its own, which this thread is in, and a namespace beyond its network card."""

    def __init__(self, scene, rootfs):
        self.name, self.outside, self.rootfs = scene.netns(), scene.netns(), rootfs
        sh(f"ip -n {self.outside} link add out0 type veth peer name enX0 netns {self.name}",
           f"ip -n {self.outside} address add {OUTSIDE}/24 dev out0", f"ip -n {self.outside} link set out0 up",
           f"ip -n {self.name} address add {HERE}/24 dev enX0", f"ip -n {self.name} link set enX0 up",
           f"ip -n {self.name} route add default via {OUTSIDE}")

    def part(self, *containers, **variables):
        """What the role would pass on."""
        own = {"overlay_underlay_ip": HERE, "overlay_bridge_address": "10.0.0.1/24", "overlay_containers": [
            {"name": name, "address": f"10.0.0.{at}/24", **more} for at, (name, more) in enumerate(containers, 11)],
            **{f"overlay_{key}": value for key, value in variables.items()}}
        return part({"here": own}, "here", overlay_rootfs=self.rootfs)

    def run(self, *containers, check=False, **variables):
        return run_module("topology", check=check, prune=True, **self.part(*containers, **variables))

    def converge(self, *containers, **variables):
        """A real run, as check mode predicts it, and nothing left for a second one."""
        predicted = self.run(*containers, check=True, **variables)
        made = self.run(*containers, **variables)
        assert not made.failed, made.msg
        assert (made.changes, made.commands, made.diff) == (predicted.changes, predicted.commands, predicted.diff)
        assert self.run(*containers, **variables).changes == []
        return made


def reaches(netns, address):
    return subprocess.run(["ip", "netns", "exec", netns, "ping", "-q", "-c1", "-W1", address], check=False,
                          stdout=subprocess.DEVNULL).returncode == 0
