# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop containers: SIGTERM, then SIGKILL after a timeout. When process 1 ends, the kernel kills all of its pid namespace."""

from __future__ import annotations

import os
import select
import signal

from . import cgroups, record, runtime
from .bundle import STOP_TIMEOUT, Refused, annotation, load, words
from .parallel import together

KILLED = 60  # seconds that a process may take to die that was killed
AT_ONCE = 250  # processes that wait, each behind a pipe


def stop_all(seconds):
    """Stop containers concurrently, given as {name: seconds until SIGKILL}. Return the failures as text, by name."""
    def act(name, writer):
        """Stop one container and end this process."""
        try:
            stop(name, seconds[name])
        except Exception as error:
            os.write(writer, words(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)

    return together(seconds, AT_ONCE, act)


def patience(name):
    """Return the stop timeout of a container, in seconds."""
    return int(annotation(load(name), STOP_TIMEOUT, "10"))


def stop(name, seconds):
    """Stop a container; do nothing where it does not run. Raise Refused."""
    process = opened(name)
    if process is not None:
        try:
            _signal(process, signal.SIGTERM)
            if not _ends(process, seconds):
                _signal(process, signal.SIGKILL)
                if not _ends(process, KILLED):
                    raise Refused(f"{name}: process {record.running(name)} does not die of SIGKILL: see what it waits for with ps "
                                  "-o wchan")
        finally:
            os.close(process)
    record.remove(name)
    runtime.forget(name)
    cgroups.remove(name)


def opened(name):
    """Return a pidfd_open(2) descriptor of the container's process 1, or None where it does not run."""
    pid = record.running(name)
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if record.running(name) != pid:  # the descriptor may be of somebody else, who has its number now
        os.close(process)
        return None
    return process


def wait(name):
    """Wait until the container has ended."""
    process = opened(name)
    if process is not None:
        select.select([process], [], [])
        os.close(process)


def _signal(process, number):
    try:
        signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        pass


def _ends(process, seconds):
    return bool(select.select([process], [], [], seconds)[0])
