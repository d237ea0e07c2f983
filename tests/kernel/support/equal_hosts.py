# SPDX-License-Identifier: GPL-3.0-or-later
"""Equal hosts, of which one is converged and the other typed at, and what they are to be like.

A program that stands in for systemctl keeps which units are active, runs what they start, and records what it was asked.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ansible_collections.fromscratch.containers.plugins.module_utils.container import install
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import RUN, USERS, running

from .faces import lasting
from .namespaces import js, sh

HERE = "198.51.100.2"
TREES = ("/etc/systemd", "/etc/udev", "/etc/NetworkManager", "/var/lib/fromscratch", "/run/fromscratch", "/usr/local")
COVERED = ("/etc", "/usr/bin", "/usr/sbin", "/usr/local")
CALLS = Path("/run/systemd/calls")
SYSTEMCTL = """\
#!/bin/sh
# systemctl [--quiet] VERB [OPTION] [UNIT...]
[ "$1" != --quiet ] || shift
verb=$1
active=/run/systemd/active
failed=/run/systemd/failed
units=/etc/systemd/system
mkdir -p "$active"
case $verb in is-active|show) ;; *) echo "$*" >>/run/systemd/calls ;; esac
shift
says() {
    sed -n "s/^$1=//p" "$units/$template" | sed "s/%i/$instance/"
}
for unit; do
    case $unit in -*) continue ;; esac
    template=$(echo "$unit" | sed s/@.*service/@.service/)
    instance=${unit#*@}
    instance=${instance%.service}
    case $verb in
        is-active) test -e "$active/$unit" || exit ;;
        show) if [ -e "$active/$unit" ]; then echo ActiveState=active; elif [ -e "$failed/$unit" ]; then echo ActiveState=failed; fi ;;
        start)
            test -e "$active/$unit" || { sh -c "$(says ExecStart)" </dev/null >/dev/null 2>&1 && touch "$active/$unit" || exit; } ;;
        stop)
            case $unit in *@*) sh -c "$(says ExecStop)" ;; esac
            rm -f "$active/$unit" ;;
        reset-failed) rm -f "$failed/$unit" ;;
        enable) ln -s "$units/$template" "$units/multi-user.target.wants/$unit" ;;
        disable) rm "$units/multi-user.target.wants/$unit" ;;
    esac
done
"""


class Machine:
    """A host in a namespace of its own, which this thread is in, with an /etc and programs of its own."""

    def __init__(self, scene, systemd):
        self.name, self.outside = scene.netns(), scene.netns()
        for tree in COVERED:
            upper, work = f"/run/layers{tree}/upper", f"/run/layers{tree}/work"
            sh(f"mkdir -p {upper} {work}", f"mount -t overlay -o lowerdir={tree},upperdir={upper},workdir={work} none {tree}")
        sh("mkdir -p /etc/systemd/network /etc/systemd/system/multi-user.target.wants /etc/udev/rules.d /etc/NetworkManager/conf.d",
           f"rm -rf {install.HOME}")  # a mount point of scripts/apart
        if systemd:
            Path("/run/systemd/system").mkdir(parents=True)
            self.program("/usr/bin/systemctl", SYSTEMCTL)
        sh(f"ip -n {self.outside} link add out0 type veth peer name enX0 address 02:00:00:00:00:02 netns {self.name}",
           f"ip -n {self.outside} link set out0 up", f"ip -n {self.name} address add {HERE}/24 dev enX0",
           f"ip -n {self.name} link set enX0 up", f"ip -n {self.name} route add default via 198.51.100.1",
           "ip netns add box", "ip -n box link set lo up")

    @staticmethod
    def program(path, text):
        """Put a program that stands in for another into its place."""
        Path(path).unlink(missing_ok=True)
        Path(path).write_text(text, encoding="ascii")
        os.chmod(path, 0o755)

    @staticmethod
    def chain():
        """What Docker does."""
        sh("nft add table ip filter", "nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
           "nft add rule ip filter FORWARD iifname docker0 accept")

    @staticmethod
    def close():
        sh(*(f"umount --lazy {tree}" for tree in COVERED))  # umount itself is in one

    def picture(self):
        """All that the collection may change."""
        def content(path, status):
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(path)
            if path.parent == Path(RUN):  # the process, its start and its tree
                return running(path.name) is not None, path.read_text(encoding="ascii").splitlines()[3]
            silent = path.parent == Path(USERS) or path.name == "log"  # whose shell may or may not say that it was terminated
            return path.read_bytes() if stat.S_ISREG(status.st_mode) and not silent else None

        # A mount's name has a number of its own in the record of what was mounted.
        found = {str(path): (oct(os.lstat(path).st_mode), content(path, os.lstat(path)))
                 for tree in TREES for path in sorted([Path(tree), *Path(tree).rglob("*")])
                 if os.path.lexists(path) and "__pycache__" not in path.parts}
        settings = {str(path): path.read_text(encoding="ascii") for path in sorted(Path("/proc/sys/net/ipv4/conf").glob("*/*"))
                    if path.name in ("forwarding", "arp_ignore", "rp_filter")}
        links = {("here" if name == self.name else name): value for name, value in lasting(self.name, "box", "c1", "c2").items()}
        return {"files": found, "settings": settings, "links": links, "rules": sh("nft -s list ruleset"),
                "active": sh("ls /run/systemd/active", check=False), "calls": CALLS.read_text(encoding="ascii") if CALLS.exists() else "",
                "neighbours": js("ip -j neighbour show nud permanent")}


GUARD = 'chain filter_in {{\ntype filter hook input priority -10; policy accept;\nudp dport 4789 ip saddr {} counter accept comment "EOF"\n}}'


def wanted(**changes):
    """All kinds of a host, but containers and their root filesystems, and published ports, which are looked at only."""
    return {
        "persist": True,
        "use": "overlay",
        "names": [{"network": "front", "file": "hosts", "lines": ["10.0.0.11 box", "EOF", "it's $HOME"]},
                  {"network": "front", "file": "resolv.conf", "lines": ["nameserver 192.0.2.53"]}],
        "nftables": [{"name": "fromscratch", "rules": GUARD.format("198.51.100.3")}],
        "forward": [{"bridge": "br0", "accept": True, "routed": True}],
        "veth_pair": [{"namespace": "box", "name": "ve-box", "addresses": ["10.0.0.11/24"], "underlay": HERE, "bridge": "br0"}],
        "linux_bridge": [{"name": "br0", "addresses": ["10.0.0.1/24"], "underlay": HERE}],
        "vxlan_link": [{"name": "vxlan0", "vni": 100, "local": HERE, "remotes": ["198.51.100.3"], "bridge": "br0"}],
        "sysctl": [{"device": "br0", "name": "forwarding"}, {"name": "forwarding"}],
        **changes}


def absent(options):
    whole = ("names", "forward", "sysctl")
    return {kind: value if kind in ("persist", "use") else [] if kind in whole else [{**item, "state": "absent"} for item in value]
            for kind, value in options.items()}


ROOTFS = "/var/lib/fromscratch/rootfs/alpine"


def with_containers(tarball, *containers, **changes):
    """The article's host: a root filesystem, containers on it, and their links."""
    return {
        "persist": True, "use": "overlay",
        "alpine_rootfs": [{"dest": ROOTFS, "src": tarball}],
        "ns_container": [{"rootfs": ROOTFS, **each} for each in containers],
        "veth_pair": [{"container": each["name"], "addresses": [f"10.0.0.{at}/24"], "underlay": HERE, "bridge": "br0"}
                      for at, each in enumerate(containers, 100)],
        "linux_bridge": [{"name": "br0", "addresses": ["10.0.0.1/24"], "underlay": HERE}], **changes}
