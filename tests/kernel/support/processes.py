# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes, and what they do in their own time."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def members(process):
    """The processes of a container: those of its pid namespace."""
    space, found = os.readlink(f"/proc/{process}/ns/pid"), []
    for each in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{each}/ns/pid") == space:
                found.append(int(each))
        except OSError:
            pass
    return sorted(found)


def commandline(process):
    return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def eventually(condition, what):
    """What other processes do, they do in their own time."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not in a minute: {what}"
        time.sleep(0.02)


def gone(process):
    """Dead; whose child it was has yet to look."""
    try:
        return Path("/proc", str(process), "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@contextlib.contextmanager
def ended(process):
    """A process of the test's own, which does not outlive it."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def status_of(process, *names):
    lines = Path("/proc", str(process), "status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return [found[name].strip() for name in names]
