# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore the network of a host at boot: the plan from an empty host as a shell script, and the unit that runs it.

The script needs neither Ansible nor pyroute2. It is idempotent, so it also restores what was lost with an underlay device that has
come back.
"""

from __future__ import annotations

import shlex

from ..container.service import UNITS, manages_host
from .files import MADE

SCRIPT = "/var/lib/fromscratch/network"
NAME = "fromscratch-network.service"
UNIT = f"{UNITS}/{NAME}"
ENABLED = f"{UNITS}/multi-user.target.wants/{NAME}"
RULES = "/etc/udev/rules.d/90-fromscratch.rules"

TABLES = "/var/lib/fromscratch/nftables"
HOOK = f"{UNITS}/nftables.service.d/fromscratch.conf"

# nftables.service flushes all rules of the host when it starts, reloads and stops, ours among them. A unit of our own that is
# PartOf= it would be stopped with it and not be told of a reload; a directory whose files nft includes is none that Debian has,
# and a line in /etc/nftables.conf would be in a file of the administrator's. So that service itself loads our tables last. They
# are missing no longer than it takes, and should that fail, the service has done its own part all the same.
HOOK_TEXT = f"""\
{MADE}: what flushes all rules brings those of the containers' networks back.
[Service]
ExecStartPost=-/usr/sbin/nft -f {TABLES}
ExecReload=-/usr/sbin/nft -f {TABLES}
ExecStopPost=-/usr/sbin/nft -f {TABLES}
"""

# What makes or flushes chains that stand in the way of bridges: our rules come after. Those that are not installed are no matter.
FILTERS = ("nftables.service", "netfilter-persistent.service", "iptables.service", "ip6tables.service", "firewalld.service",
           "ufw.service", "shorewall.service", "shorewall6.service", "ferm.service", "docker.service",
           "snap.docker.dockerd.service", "libvirtd.service", "virtnetworkd.service")

UNIT_TEXT = f"""\
{MADE}: links, network namespaces and packet filter, before the containers.
[Unit]
Description=Network of the containers
Wants=network-online.target
After=network-online.target {" ".join(FILTERS)}

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=900
ExecStart={SCRIPT}

[Install]
WantedBy=multi-user.target
"""

WAIT = """\
# An address of the underlay comes a while after boot.
for address in {addresses}; do
    left=1200
    until ip -o address show to "$address" | grep -q .; do
        [ "$left" -gt 0 ] || {{ echo "no link of this host has $address" >&2; exit 1; }}
        left=$((left - 1))
        sleep 0.1
    done
done
"""


def units(commands):
    """Return the options of ``Units``. The unit runs at once: that changes nothing, and what would fail at boot fails today."""
    return [{"name": NAME, "state": "present" if commands else "absent"}] if manages_host() else []


def files(commands, underlays, devices, tables):
    """Return the options of ``Files``.

    They are made of the plan's commands, the addresses and devices of the underlay that these need, and a script that loads the
    tables of nftables.
    """
    wanted = "present" if commands and manages_host() else "absent"
    reload = [["systemctl", "daemon-reload"]] if manages_host() else []
    wait = WAIT.format(addresses=" ".join(map(shlex.quote, underlays))) if underlays else ""
    script = f"#!/bin/sh\n{MADE}: the network of this host's containers, from nothing or from what is there.\nset -eu\n"
    # A device gets its name after it was added, which udev tells as a move.
    restart = f'RUN+="/usr/bin/systemctl --no-block restart {NAME}"'
    again = "".join(f'ACTION=="add|move", SUBSYSTEM=="net", KERNEL=="{device}", {restart}\n' for device in devices)
    return [
        {"path": SCRIPT, "mode": 0o700, "state": wanted, "text": script + wait + "".join(f"{line}\n" for line in commands)},
        {"path": UNIT, "state": wanted, "text": UNIT_TEXT, "reload": reload},
        {"path": ENABLED, "state": wanted, "target": UNIT, "reload": reload},
        {"path": RULES, "state": wanted if devices else "absent",
         "text": f"{MADE}: an underlay device that comes back gets its VXLAN links back.\n{again}"},
        {"path": TABLES, "mode": 0o600, "state": wanted if tables else "absent",
         "text": f"{MADE}: the packet filter of this host's networks.\n{tables}"},
        {"path": HOOK, "state": wanted if tables else "absent", "text": HOOK_TEXT, "reload": reload},
    ]
