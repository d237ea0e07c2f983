# SPDX-License-Identifier: GPL-3.0-or-later
"""Limit the resources of a container with cgroups(7) version 2, where no systemd unit does."""

from __future__ import annotations

import os

PARENT = "fromscratch"


def mount_point():
    """Return the mount point of cgroup v2, or None; some hosts mount it more than once, others not at all."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point, kind = line.split()[1:3]
            if kind == "cgroup2":
                return point
    return None


def files(resources):
    """Return the limits as (file name, value) pairs of a cgroup, in a list by controller."""
    found = {}
    memory, cpu, pids = (resources.get(each, {}) for each in ("memory", "cpu", "pids"))
    if "limit" in memory:
        found["memory"] = [("memory.max", memory["limit"])]
        if "swap" in memory:  # of both together in the specification
            found["memory"].append(("memory.swap.max", memory["swap"] - memory["limit"]))
    if "quota" in cpu:
        found["cpu"] = [("cpu.max", f"{cpu['quota']} {cpu['period']}")]
    if "limit" in pids:
        found["pids"] = [("pids.max", pids["limit"])]
    return found


def confine(name, resources):
    """Move this process, and so its children, into a new cgroup with the limits. Raise OSError where cgroup v2 is not mounted."""
    wanted = files(resources)
    if not wanted:
        return
    point = mount_point()
    if point is None:
        raise OSError(f"{', '.join(sorted(wanted))}: limits need cgroup v2, which is not mounted here: mount it, as systemd does, "
                      "or leave the limits out")
    group = f"{point}/{PARENT}/{name}"
    remove(name)  # with the limits of one that ended by itself
    os.makedirs(group, exist_ok=True)
    for controller in wanted:
        for above in point, f"{point}/{PARENT}":
            _write(f"{above}/cgroup.subtree_control", f"+{controller}")
    for settings in wanted.values():
        for file, value in settings:
            if file != "memory.swap.max" or os.path.exists(f"{group}/{file}"):
                _write(f"{group}/{file}", str(value))
    _write(f"{group}/cgroup.procs", "0")


def own(pid="self"):
    """Return the cgroup of a process as a path below the mount point, without a trailing slash."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        return next((line.split(":", 2)[2].rstrip("/\n") for line in file if line.startswith("0:")), "")


def join(pid):
    """Move this process into the cgroup of another."""
    point, group = mount_point(), own(pid)
    if point and not group.startswith("/.."):
        try:
            _write(f"{point}{group}/cgroup.procs", "0")
        except OSError:
            if not group.endswith("/init.scope"):  # a systemd inside has made groups below
                raise


def remove(name):
    """Remove the cgroup of a container that has ended; do nothing where there is none."""
    point = mount_point()
    for group in [f"{point}/{PARENT}/{name}", f"{point}/{PARENT}"] if point else ():
        try:
            os.rmdir(group)
        except OSError:
            pass


def _write(path, text):
    try:
        with open(path, "r+b", buffering=0) as file:
            file.write(text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text} to {path}: {error.strerror}") from None
