# SPDX-License-Identifier: GPL-3.0-or-later
"""Throwaway network namespaces, and what an administrator sees of them by ``ip -j``."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
from pathlib import Path

from .modules import utils


class Scene:
    """A test's namespaces. ``scene.netns()`` makes one; everything is gone when the test ends."""

    counter = itertools.count()

    def __init__(self):
        self.names = []

    def netns(self, lo=True):
        name = f"test{os.getpid()}-{next(self.counter)}"
        sh(f"ip netns add {name}")
        self.names.append(name)
        if lo:
            sh(f"ip -n {name} link set lo up")
        return name

    def underlay(self, *addresses, mtu=1500):
        """Namespaces, one for each address, on one Ethernet; the device in each is ``enX0``."""
        switch, hosts = self.netns(), []
        sh(f"ip -n {switch} link add lan mtu {mtu} type bridge", f"ip -n {switch} link set lan up")
        for number, address in enumerate(addresses):
            host = self.netns()
            sh(f"ip -n {switch} link add port{number} mtu {mtu} type veth peer name enX0 mtu {mtu} netns {host}",
               f"ip -n {switch} link set port{number} master lan up",
               f"ip -n {host} address add {address} dev enX0 nodad" if ":" in address
               else f"ip -n {host} address add {address} dev enX0",
               f"ip -n {host} link set enX0 up")
            hosts.append(host)
        return hosts

    def close(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def sh(*commands, check=True):
    """Run shell commands; the standard output of the last."""
    for command in commands:
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def js(command):
    """The JSON that ``ip -j`` or ``bridge -j`` prints."""
    return json.loads(sh(command) or "[]")


def link(netns, name):
    """``ip -d -j link show`` of one link, or None where it is not there."""
    found = [each for each in js(f"ip -n {netns} -d -j link show") if each.get("ifname") == name]
    return found[0] if found else None


def addresses(netns, name):
    """The addresses of a link in CIDR form, without the kernel's own link-local one."""
    return {f"{each['local']}/{each['prefixlen']}" for entry in js(f"ip -n {netns} -j address show dev {name}")
            for each in entry.get("addr_info", []) if each["scope"] != "link"}


def state(*names):
    """All that an administrator sees of namespaces, without what changes by itself; to compare before and after."""
    volatile = ("ifindex", "link_index", "bridge_id", "root_id", "hello_timer", "gc_timer", "valid_life_time",
                "preferred_life_time", "tcn_timer", "topology_change_timer", "operstate", "link_netnsid", "txqlen",
                "stats64", "stats", "expires")

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(each) for key, each in value.items() if key not in volatile}
        return [clean(each) for each in value] if isinstance(value, list) else value

    views = {"links": "ip -n {} -d -j link show", "addresses": "ip -n {} -j address show",
             "routes": "ip -n {} -j route show", "routes6": "ip -n {} -6 -j route show", "fdb": "bridge -n {} -j fdb show"}
    together = " && echo '|' && ".join(views.values())  # one shell for all

    def look(name):
        return zip(views, (json.loads(each.strip() or "[]") for each in sh(together.replace("{}", shlex.quote(name))).split("|\n")))

    return {name: {**{what: sorted(map(clean, found), key=json.dumps) for what, found in look(name)}, "settings": settings(name)}
            for name in names}


BELIEFS = ("ipv4/conf/*/accept_redirects", "ipv6/conf/*/accept_ra", "ipv6/conf/*/accept_redirects", "ipv6/conf/*/disable_ipv6")


def settings(netns):
    """What the links of a namespace take from strangers, by the name of the file below /proc/sys/net."""
    with utils("network.namespaces").entered(netns):
        return {str(path.relative_to("/proc/sys/net")): path.read_text(encoding="ascii").strip()
                for pattern in BELIEFS for path in sorted(Path("/proc/sys/net").glob(pattern))}


def host_netns(scene, mtu=1500):
    """A host with an underlay device, and a bridge; two of them are equal."""
    netns = scene.netns()
    sh(f"ip -n {netns} link add enX0 address 02:00:00:00:01:01 mtu {mtu} type veth peer name wire"
       f" address 02:00:00:00:01:03 mtu {mtu}",
       f"ip -n {netns} link set wire up",
       f"ip -n {netns} address add 192.0.2.1/24 dev enX0",
       f"ip -n {netns} address add 2001:db8::1/64 dev enX0 nodad",
       f"ip -n {netns} link set enX0 up",
       f"ip -n {netns} link add br0 address 02:00:00:00:01:02 type bridge",
       f"ip -n {netns} link set br0 up")
    return netns
