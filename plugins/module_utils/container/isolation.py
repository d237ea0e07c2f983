# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide how far this host can isolate a container from itself: user namespace, seccomp filter, resource limits.

An idmapped mount shows files of the host with other owners to one container, and changes none of them; an overlay accepts such a
mount as its lower layer since Linux 5.19.
"""

from __future__ import annotations

import os
import re
import zlib
from contextlib import suppress
from pathlib import Path

from ..core.errors import OptionError
from ..core.files import mounts_below, number
from . import service
from .launcher import cgroups
from .launcher.record import STATE
from .launcher.runtime import is_crun
from .launcher.seccomp import known_here
from .recorded import read, recorded
from .spec import RANGE

# As systemd-nspawn picks them, far from those of people and of /etc/subuid.
LOWEST, HIGHEST = 524288, 1878982656
SLOTS = (HIGHEST - LOWEST) // RANGE
OVERLAY_ON_IDMAPPED = (5, 19)
# Since which Linux a file system can be mounted so, by its name in /proc/filesystems.
SINCE = {"ext4": (5, 12), "xfs": (5, 12), "btrfs": (5, 15), "f2fs": (5, 18), "erofs": (5, 19), "tmpfs": (6, 3)}
CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}  # by option


class Isolation:
    """Query the host for what the containers of one run need, each thing once."""

    def __init__(self):
        self._first_ids = self._taken = None  # where the user ids of each container begin, by name; and the slots of all these

    def of(self, item):
        """Return (the container's fields that depend on the host, warnings for the administrator). Raise OptionError."""
        first, why = self._userns(item)
        seccomp = item.seccomp and known_here()
        found = {"userns": first is not None, "first_uid": first or 0, "userns_reason": why, "seccomp": seccomp,
                 "seccomp_reason": None if seccomp else _without_seccomp(item)}
        warnings = [] if first is not None or item.userns is False or item.privileged else [
            f"{item.key}: root inside is root of the host, with fewer rights: {why}"]
        return found, warnings

    def _userns(self, item):
        """Return (first host uid, None), or (None, reason) for a container without a user namespace. Raise OptionError."""
        if item.userns is False:
            return None, "the option says so"
        why = without_userns(item)
        first = None if why else self._first_id(item.name)
        if first is None:
            why = why or "all user ids that there are for containers are taken, by others or in /etc/subuid or /etc/subgid"
        if why and item.userns:
            raise OptionError("userns", "auto", f"{why}; leave it out, or set it to host")
        return first, why

    def _first_id(self, name):
        if self._first_ids is None:
            self._first_ids = dict(_first_ids())
            self._taken = slots([*delegated(), *((first, first + RANGE) for first in self._first_ids.values())])
        if name not in self._first_ids:
            first = first_id(name, self._taken)
            if first is None:
                return None
            self._first_ids[name] = first
            self._taken |= slots([(first, first + RANGE)])
        return self._first_ids[name]


def _without_seccomp(item):
    if item.privileged:
        return "the container is privileged"
    return f"there is no table of the system calls of {os.uname().machine}" if item.seccomp else "the option says so"


def without_userns(item):
    """Return why root in the container is root on the host as well, or None."""
    if item.privileged:
        return "the container is privileged"
    if item.layer == "none":
        return "it writes to the root filesystem itself"
    for bind in item.binds:
        why = None if bind.read_only else cannot_be_mapped(bind.source)
        if why:
            return f"it writes to files of the host in {bind.source}, where {why}"
    return refusal(item.rootfs)


def refusal(directory):
    """Return why files of a directory, which need not exist yet, cannot be shown with other owners, or None."""
    if not os.path.exists("/proc/self/ns/user") or number("/proc/sys/user/max_user_namespaces") == 0:
        return "the kernel makes no user namespaces"
    if directory == "/":
        return "the root filesystem is the host's own"
    return _too_old(_file_system(directory), OVERLAY_ON_IDMAPPED)


def cannot_be_mapped(source):
    """Return why a path, with all that is mounted below it, cannot be shown with other owners, or None."""
    top = os.path.realpath(source)
    below = [kind for point, kind, _device in _mounts() if point.startswith(top.rstrip("/") + "/")]
    return next(filter(None, (_too_old(kind, (5, 12)) for kind in [_file_system(top), *below])), None)


def linux_version(release):
    """Return (major, minor) of a kernel release as uname(2) reports it."""
    return tuple(map(int, re.findall(r"\d+", release)[:2]))


def _too_old(kind, least):
    release = linux_version(os.uname().release)
    needed = max(SINCE.get(kind, (99, 0)), least)
    if kind not in SINCE:
        return f"it lies on {kind}, whose files cannot be shown with other owners"
    if release < needed:
        return f"files on {kind} can be shown with other owners since Linux {needed[0]}.{needed[1]}"
    return None


def slots(ranges):
    """Return the set of slots that ranges of ids overlap, given as (first, last + 1)."""
    return {slot for begin, end in ranges
            for slot in range(max(begin - LOWEST, 0) // RANGE, (min(end, HIGHEST) - LOWEST + RANGE - 1) // RANGE)}


def first_id(name, taken):
    """Return the first id of a container's range, or None where all are taken.

    It depends on the name alone, unless that slot is among those ``taken``.
    """
    preferred = zlib.crc32(name.encode())
    free = ((preferred + step) % SLOTS for step in range(SLOTS))
    return next((LOWEST + slot * RANGE for slot in free if slot not in taken), None)


def delegated():
    """Return the ranges of /etc/subuid and /etc/subgid, as (first, last + 1)."""
    rows = [line.split(":") for path in ("/etc/subuid", "/etc/subgid") for line in (read(path) or "").splitlines()]
    return [(int(row[1]), int(row[1]) + int(row[2])) for row in rows
            if len(row) == 3 and row[1].strip().isdigit() and row[2].strip().isdigit()]


def _mounts():
    """Yield (mount point, file system type, "major:minor") of each mount."""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            yield words[4], line.rpartition(" - ")[2].split()[0], words[2]


def _file_system(directory):
    """Return the type of the file system that a directory is on, or will be."""
    while directory not in ("", "/") and not os.path.exists(directory):
        directory = os.path.dirname(directory)
    device = os.stat(directory or "/").st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    return next((kind for _point, kind, device in _mounts() if device == numbers), "an unknown file system")


def _first_ids():
    """Yield (name, first host uid) of each container with a user namespace."""
    for name in os.listdir(STATE) if os.path.isdir(STATE) else ():
        with suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
            first = recorded(name)[0].first_uid
            if first:
                yield name, first


def refuse_binds(item, userns):
    """Raise OptionError for a bind that the runtime would silently leave out, as crun before 1.9 does in a user namespace."""
    for bind in item.binds if userns and is_crun(item.runtime) else ():
        below = [each for each in mounts_below(bind.source) if each != os.path.realpath(bind.source)]
        if below and not bind.read_only:
            raise OptionError("binds.source", bind.source, f"{below[0]} is mounted below it, and crun may leave that out in a user "
                              "namespace: set userns to host, or another runtime")


def refuse_limits(item, by_systemd):
    """Return warnings for limits that systemd sets in vain. Raise OptionError for one that nothing here would enforce."""
    limits = [option for option in CONTROLLERS if getattr(item, option)]
    lacking = without_controller(limits) if limits else []
    if by_systemd:
        # Systemd also knows the cgroups of before, each controller with a mount of its own.
        return [f"{item.key}: the kernel has no controller {CONTROLLERS[option]} in its cgroups: {option} does not hold"
                for option in lacking if not Path("/sys/fs/cgroup", CONTROLLERS[option]).is_dir()]
    for option in lacking:
        raise OptionError(option, getattr(item, option), "it needs systemd, or cgroup v2 with the controller "
                          f"{CONTROLLERS[option]}, and this host has neither; leave it out")
    if item.restart not in (None, service.NO):
        raise OptionError("restart", item.restart, "it needs systemd, which does not run this host; leave it out, or set it to no")
    return []


def without_controller(options):
    """Return the options whose controller this host's cgroup v2 lacks."""
    point = cgroups.mount_point()
    controllers = Path(point, "cgroup.controllers").read_text(encoding="ascii").split() if point else []
    return [option for option in options if CONTROLLERS[option] not in controllers]
