# SPDX-License-Identifier: GPL-3.0-or-later
"""Set IPv4 sysctls of single links, below /proc/sys/net/ipv4/conf, and restore their former values.

None of them is the whole host's. A link's former value is kept in a file, and restored when the setting is no longer desired,
unless another program has changed it meanwhile: for this link, or for all links by ``conf/all``, as Docker does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Optional

from ..core import validate
from ..core.errors import OptionError
from ..core.files import begun, number, numbers
from ..core.kind import Kind
from ..core.operations import RemoveFile, WriteFile
from ..core.resource import Item, identity, observed_only, settable
from ..network import addressing

FORMER = "/var/lib/fromscratch/sysctl"
CONF = "/proc/sys/net/ipv4/conf"
SETTINGS = {"forwarding": 1, "arp_ignore": 8}  # and the largest value of each


class Record(NamedTuple):
    """Hold the record of a setting: the link's former value, the one that it was given, and that of ``conf/all`` then.

    The record of an earlier release has the first alone.
    """

    former: int
    given: Optional[int] = None
    overall: Optional[int] = None


@dataclass(frozen=True)
class Sysctl(Item):
    word = "sysctl"

    name: str = identity()  # such as "br0/forwarding"
    value: Optional[int] = settable()
    restored: Optional[int] = observed_only()  # what it gets when it is not wanted any more; None where it stays as it is
    former: Optional[int] = observed_only()  # what it had before it was set here; None where that is what it has now

    @property
    def key(self):
        return f"{self.word} net/ipv4/conf/{self.name}"


@dataclass(frozen=True)
class SetSysctl:
    """Set a link's sysctl."""

    name: str
    value: int

    def apply(self):
        Path(CONF, self.name).write_text(str(self.value), encoding="ascii")

    def commands(self):
        return [f"sysctl -qw net/ipv4/conf/{self.name}={self.value}"]


@dataclass(frozen=True)
class KeepSysctl:
    """Record the value that a link has, or the ``former`` one that is known, before it is ``given`` another."""

    name: str
    given: int
    former: Optional[int] = None

    @property
    def path(self):
        return f"{FORMER}/{self.name}"

    def apply(self):
        former = number(f"{CONF}/{self.name}") if self.former is None else self.former
        WriteFile(self.path, f"{former} {self.given} {number(_overall(self.name))}\n".encode(), 0o600).apply()

    def commands(self):
        former = f"$(cat {CONF}/{self.name})" if self.former is None else self.former
        return [f'echo "{former} {self.given} $(cat {_overall(self.name)})" | install -D -m 0600 /dev/stdin {begun(self.path)}',
                f"mv -T {begun(self.path)} {self.path}"]


class Sysctls(Kind):
    """The list is all that there is to be: what it does not name, and was set here, gets its former value."""

    tools = ("sysctl",)  # in what is shown, and at boot
    options = {
        "device": {"type": "str"},
        "name": {"type": "str", "choices": sorted(SETTINGS), "required": True},
        "value": {"type": "int", "default": 1},
    }

    def parse(self, options):
        device = addressing.plain_interface_name("device", options["device"] or default_device())
        if device is None:
            raise OptionError("device", None,
                              "this host has no default route, whose device it would be: name one, or add the route")
        return Sysctl(name=f"{device}/{options['name']}",
                      value=validate.in_range("value", options["value"], 0, SETTINGS[options["name"]]))

    def observe(self, wanted, prune, state):
        names = [item.name for item in wanted]
        names += sorted({"/".join(path.parts[-2:]) for path in Path(FORMER).glob("*/*")} - set(names))
        found = (_look(name) for name in names)
        return {item.key: item for item in found if item}

    def plan(self, wanted, observed, prune, state):
        plan, after = super().plan(wanted, observed, prune, state)
        devices = sorted({change.after.name.split("/")[0] for change in plan.changes if change.after})
        unmet = [f"sysctl: there is no link {device}" for device in devices
                 if not os.path.exists(f"{CONF}/{device}") and ("link", None, device) not in state.made]
        return replace(plan, unmet=tuple(unmet)), after

    def operations(self, plan):
        done = []
        for change in plan.changes:
            before, after = change.before, change.after
            if after:
                done += [KeepSysctl(after.name, after.value, before.former if before else None), SetSysctl(after.name, after.value)]
                continue
            done += [SetSysctl(before.name, before.restored)] if before.restored is not None else []
            done.append(RemoveFile(f"{FORMER}/{before.name}"))
        return done

    def boot(self, items):
        return [line for item in items for line in SetSysctl(item.name, item.value).commands()]


def _look(name):
    """Return the Sysctl that the collection has set; one that went with its link has no value."""
    record, value = _record(name), number(f"{CONF}/{name}")
    if record is None:
        return None
    touched = record.given is not None and (value != record.given or number(_overall(name)) != record.overall)
    return Sysctl(name=name, value=value, restored=None if touched or value is None else record.former,
                  former=record.former if record.given in (None, value) else None)


def _record(name):
    found = numbers(f"{FORMER}/{name}")
    return Record(*found) if found else None


def _overall(name):
    """Return the path of the sysctl of all links."""
    return f"{CONF}/all/{name.split('/')[1]}"


def default_device():
    """Return the link of the best default route, or None."""
    rows = [line.split() for line in Path("/proc/thread-self/net/route").read_text(encoding="ascii").splitlines()[1:]]
    routes = [(int(metric), device) for device, dst, _gateway, _flags, _count, _use, metric, mask, *_rest in rows
              if int(dst, 16) == int(mask, 16) == 0]
    return min(routes)[1] if routes else None
