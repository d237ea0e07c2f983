# SPDX-License-Identifier: GPL-3.0-or-later
"""Start systemd units when their files are written, and stop and forget them before these are removed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Optional

from ..core.kind import Kind
from ..core.operations import Run
from ..core.resource import Item, identity, observed_only, settable

# A job may just be on its way: it is waited for by that of our own.
ACTIVE = ("active", "activating", "reloading")


@dataclass(frozen=True)
class Unit(Item):
    word = "unit"

    name: str = identity()
    active: Optional[bool] = settable()
    failed: Optional[bool] = observed_only()


class Units(Kind):
    def parse(self, options):
        return Unit(name=options["name"], active=True)

    def observe(self, wanted, prune, state):
        found = (look(item.name) for item in wanted)
        return {item.key: item for item in found if item is not None}

    def operations(self, plan):
        done = []
        for change in plan.changes:
            if change.after:
                done.append(Run(("systemctl", "start", change.after.name)))
            else:
                done += [Run(("systemctl", "stop", change.before.name))] * change.before.active
                done += [Run(("systemctl", "reset-failed", change.before.name))] * change.before.failed
        return done


def look(name):
    """Return the Unit, if systemd remembers a run of it, whose file may be gone; else None."""
    output = subprocess.run(["systemctl", "show", "--property=ActiveState", name], stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, check=False).stdout
    state = output.strip().partition("=")[2]
    return Unit(name=name, active=state in ACTIVE, failed=state == "failed") if state in (*ACTIVE, "failed") else None


def is_active(name):
    """Return whether systemd runs the unit."""
    return subprocess.run(["systemctl", "is-active", "--quiet", name], stdin=subprocess.DEVNULL, check=False).returncode == 0
