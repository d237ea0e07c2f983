# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out how a container has ended, from its init's output and from systemd."""

from __future__ import annotations

import re

from . import service
from .launcher.record import end_of_log

LOG_END = 1 << 16  # bytes of its log that are looked at: it is the container's, who may have made it as long as it likes
OUTPUT = 2000  # characters of the last output that an error shows


def how(name, by_systemd):
    """Return ``exit_status`` and the last ``output`` of a container that does not run, as a dict; None for what is unknown."""
    lines = (service.journal(name) if by_systemd else end_of_log(name, LOG_END) or "").splitlines()
    reports = [match for match in map(re.compile(r"ended with status (\d+)").fullmatch, lines) if match]
    text = "\n".join(line for line in lines if not any(line == report[0] for report in reports)).strip()[-OUTPUT:]
    status = int(reports[-1][1]) if reports else service.exit_status(name) if by_systemd else None
    return {"exit_status": status, "output": text or None}


def at_once(item):
    """Return the message for a container that ended right after its start."""
    found = how(item.name, item.service)
    status = "" if found["exit_status"] is None else f" with status {found['exit_status']}"
    return f"it ended at once{status}. Its command: {' '.join(item.command)}. Its last output: {found['output'] or 'none'}"
