# SPDX-License-Identifier: GPL-3.0-or-later
"""IPv4 settings of single links, below /proc/sys/net/ipv4/conf, with the values that they had before.

None of them is the whole host's. What a link had is kept in a file, and set again when nobody wants the setting any more,
unless somebody else has had a say meanwhile: for this link, or for all links by ``conf/all``, as Docker does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

from . import _argspec as rule
from ._errors import Invalid
from ._files import number, numbers, write
from ._kind import Kind
from ._model import Item, fact, identity, settable
from ._paths import tidy
from ._plan import DELETE

FORMER = "/var/lib/fromscratch/sysctl"
CONF = "/proc/sys/net/ipv4/conf"
SETTINGS = {"forwarding": 1, "arp_ignore": 8}  # and the largest value of each


class Record(NamedTuple):
    """What is kept of a setting: the value that the link had, the one that it was given, and that of ``conf/all`` then.

    Of an earlier release there is the first alone.
    """

    former: int
    given: Optional[int] = None
    overall: Optional[int] = None


@dataclass(frozen=True)
class Sysctl(Item):
    word = "sysctl"

    name: str = identity()  # such as "br0/forwarding"
    value: Optional[int] = settable()
    restored: Optional[int] = fact()  # what it gets when it is not wanted any more; None where it stays as it is

    @property
    def key(self):
        return f"{self.word} net/ipv4/conf/{self.name}"

    def line(self, value):
        return f"sysctl -qw net/ipv4/conf/{self.name}={value}"


class Sysctls(Kind):
    """The list is all that there is to be: what it does not name, and was set here, gets its former value."""

    options = {
        "device": {"type": "str"},
        "name": {"type": "str", "choices": sorted(SETTINGS), "required": True},
        "value": {"type": "int", "default": 1},
    }

    def parse(self, options):
        device = rule.plain_interface_name("device", options["device"] or default_device())
        if device is None:
            raise Invalid("device", None, "this host has no default route, whose device it would be: name one, or add the route")
        return Sysctl(name=f"{device}/{options['name']}",
                      value=rule.in_range("value", options["value"], 0, SETTINGS[options["name"]]))

    def observe(self, wanted, prune):
        names = [item.name for item in wanted]
        names += sorted({"/".join(path.parts[-2:]) for path in Path(FORMER).glob("*/*")} - set(names))
        found = (_look(name) for name in names)
        return {item.key: item for item in found if item}

    def missing(self, plan):
        devices = sorted({change.after.name.split("/")[0] for change in plan.changes if change.after})
        return [f"sysctl: there is no link {each}" for each in devices
                if not os.path.exists(f"{CONF}/{each}") and ("link", None, each) not in self.ahead.made]

    def commands(self, plan):
        return [change.before.line(change.before.restored) if change.action == DELETE else change.after.line(change.after.value)
                for change in plan.changes if change.after or change.before.restored is not None]

    def apply(self, plan):
        for change in plan.changes:
            if change.action == DELETE:
                if change.before.restored is not None:
                    _set(change.before.name, change.before.restored)
                os.unlink(f"{FORMER}/{change.before.name}")
                tidy(os.path.dirname(f"{FORMER}/{change.before.name}"))
            else:
                _keep(change.after.name, change.after.value)
                _set(change.after.name, change.after.value)

    def boot(self, items):
        return [item.line(item.value) for item in items]


def _look(name):
    """The setting, where it was made here; one that went with its link has no value."""
    record, value = _record(name), number(f"{CONF}/{name}")
    if record is None:
        return None
    touched = record.given is not None and (value != record.given or _overall(name) != record.overall)
    return Sysctl(name=name, value=value, restored=None if touched or value is None else record.former)


def _record(name):
    found = numbers(f"{FORMER}/{name}")
    return Record(*found) if found else None


def _overall(name):
    return number(f"{CONF}/all/{name.split('/')[1]}")


def _keep(name, value):
    """Remember the value that the link has before it is given ``value``, unless it was given that here."""
    record, present = _record(name), number(f"{CONF}/{name}")
    former = record.former if record and record.given in (None, present) else present
    os.makedirs(os.path.dirname(f"{FORMER}/{name}"), exist_ok=True)
    write(f"{FORMER}/{name}", f"{former} {value} {_overall(name)}\n", 0o600)


def _set(name, value):
    if os.path.exists(f"{CONF}/{name}"):  # else it went with its link
        Path(CONF, name).write_text(str(value), encoding="ascii")


def default_device():
    """The link of the best default route; None where there is none."""
    rows = [line.split() for line in Path("/proc/thread-self/net/route").read_text(encoding="ascii").splitlines()[1:]]
    routes = [(int(metric), device) for device, dst, unused, unused, unused, unused, metric, mask, *unused in rows
              if int(dst, 16) == int(mask, 16) == 0]
    return min(routes)[1] if routes else None
