# SPDX-License-Identifier: GPL-3.0-or-later
"""How a container has ended, as its init and systemd tell."""

from __future__ import annotations

import re

from . import service
from .launcher.record import end_of_log

LOG_END = 1 << 16  # bytes of its log that are looked at: it is the container's, who may have made it as long as it likes
OUTPUT = 2000  # characters of the last output that an error shows


def how(name, by_systemd):
    """The status and the last output of a container that does not run; its init says the status."""
    lines = (service.journal(name) if by_systemd else end_of_log(name, LOG_END) or "").splitlines()
    said = [found for found in map(re.compile(r"ended with status (\d+)").fullmatch, lines) if found]
    text = "\n".join(line for line in lines if not any(line == found[0] for found in said)).strip()[-OUTPUT:]
    status = int(said[-1][1]) if said else service.exit_status(name) if by_systemd else None
    return {"exit_status": status, "output": text or None}


def at_once(item):
    """What to say of a container that did not live."""
    found = how(item.name, item.service)
    status = "" if found["exit_status"] is None else f" with status {found['exit_status']}"
    return f"it ended at once{status}. Its command: {' '.join(item.command)}. Its last output: {found['output'] or 'none'}"
