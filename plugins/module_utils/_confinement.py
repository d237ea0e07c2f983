# SPDX-License-Identifier: GPL-3.0-or-later
"""How far this host can keep a container apart from itself: by user ids, by system calls, by limits."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from . import _idmap, _seccomp, _service
from ._container import AUTO, HOST, OFF, from_json
from ._errors import Invalid
from ._paths import STATE
from ._process import read

CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}  # by option


class Confinement:
    """Asks the host only what a container needs to know, and once."""

    def __init__(self):
        self._first_ids = self._taken = None  # where the user ids of each container begin, by name; and the slots of all these
        self._tools = {}  # what the host's util-linux can

    def of(self, item, service):
        """The item's fields that depend on the host. Raises Invalid."""
        userns = self._userns(item)
        return {"userns": userns, "seccomp": self._seccomp(item, service),
                "mapped_by": self._told("mount", _idmap.mapped_by) if userns.isdigit() else ""}

    def _told(self, tool, ask):
        if tool not in self._tools:
            self._tools[tool] = ask()
        return self._tools[tool]

    def _userns(self, item):
        """Where its range of user ids begins, or why it has none."""
        if item.userns == HOST:
            return OFF
        why = _without_userns(item)
        first = None if why else self._first_id(item.name)
        if first is None:
            why = why or "all user ids that there are for containers are taken, by others or in /etc/subuid or /etc/subgid"
        if why and item.userns == AUTO:
            raise Invalid("userns", AUTO, f"{why}; leave it out, or set it to {HOST}")
        return f"{OFF}: {why}" if why else str(first)

    def _first_id(self, name):
        if self._first_ids is None:
            self._first_ids = dict(_first_ids())
            self._taken = _idmap.slots([*_idmap.delegated(), *((each, each + _idmap.RANGE) for each in self._first_ids.values())])
        if name not in self._first_ids:
            first = _idmap.first_id(name, self._taken)
            if first is None:
                return None
            self._first_ids[name] = first
            self._taken |= _idmap.slots([(first, first + _idmap.RANGE)])
        return self._first_ids[name]

    def _seccomp(self, item, service):
        """What filters its system calls, or why nothing does."""
        if item.seccomp == OFF:
            return OFF
        by = ["setpriv"] if _seccomp.known_here() and self._told("setpriv", _setpriv_filters) else []
        by += ["unit"] if service else []
        return ", ".join(by) or f"{OFF}: it needs systemd, or setpriv of util-linux 2.41"


def _without_userns(item):
    """Why root inside is root outside as well; None where it need not be."""
    if item.privileged:
        return "the container is privileged"
    if item.layer == "none":
        return "it writes to the root filesystem itself"
    if any(not each.read_only for each in item.binds):
        return "it writes to files of the host"
    return _idmap.refusal(item.rootfs)


def _first_ids():
    """(name, first user id) of all containers that have some of their own."""
    for name in os.listdir(STATE) if os.path.isdir(STATE) else ():
        text = read(f"{STATE}/{name}/container.json")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            first = from_json(text or "").first_id
            if first:
                yield name, first


def _setpriv_filters():
    return "--seccomp-filter" in subprocess.run(["setpriv", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                                check=False).stdout


def refuse_limits(item, service):
    """Raises Invalid for a limit that nothing here would hold; what systemd sets in vain is told in words."""
    limits = [option for option in CONTROLLERS if getattr(item, option)]
    lacking = without_controller(limits) if limits else []
    if service:
        # Systemd also knows the cgroups of before, each controller with a mount of its own.
        return [f"{item.key}: the kernel has no controller {CONTROLLERS[option]} in its cgroups: {option} does not hold"
                for option in lacking if not Path("/sys/fs/cgroup", CONTROLLERS[option]).is_dir()]
    for option in lacking:
        raise Invalid(option, getattr(item, option), "it needs systemd, or cgroup v2 with the controller "
                      f"{CONTROLLERS[option]}, and this host has neither; leave it out")
    if item.restart not in (None, _service.NO):
        raise Invalid("restart", item.restart, "it needs systemd, which does not run this host; leave it out, or set it to no")
    return []


def without_controller(options):
    """Those of the options whose controller cgroup v2 does not have here."""
    controllers = set()
    for line in Path("/proc/thread-self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        unused, point, kind, *unused = line.split()
        if kind == "cgroup2":
            controllers.update(Path(point, "cgroup.controllers").read_text(encoding="ascii").split())
    return [option for option in options if CONTROLLERS[option] not in controllers]
