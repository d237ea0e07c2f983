# SPDX-License-Identifier: GPL-3.0-or-later
"""Which limits this host's cgroups can hold."""

from __future__ import annotations

from pathlib import Path

from ._service import manages_host

CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}  # by option


def without(options):
    """Those of the options whose controller cgroup v2 does not have here."""
    controllers = set()
    for line in Path("/proc/thread-self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        unused, point, kind, *unused = line.split()
        if kind == "cgroup2":
            controllers.update(Path(point, "cgroup.controllers").read_text(encoding="ascii").split())
    return [option for option in options if CONTROLLERS[option] not in controllers]


def systemd_cannot(options):
    """Those that systemd sets in vain: it also knows the cgroups of before, each controller with a mount of its own."""
    return [option for option in without(options) if not Path("/sys/fs/cgroup", CONTROLLERS[option]).is_dir()] if (
        manages_host()) else []
