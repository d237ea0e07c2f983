# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a container: SIGTERM, and SIGKILL after a while. With process 1 the kernel ends all that is in its pid namespace."""

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
    """Stop containers, many at once, as it is waiting, each after its own ``seconds``; what went wrong, in words, by name."""
    def act(name, writer):
        try:
            stop(name, seconds[name])
        except Exception as error:
            os.write(writer, words(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)

    return together(seconds, AT_ONCE, act)


def patience(name):
    """The seconds that a container has to end by itself."""
    return int(annotation(load(name), STOP_TIMEOUT, "10"))


def stop(name, seconds):
    """Stop a container; one that does not run is fine. Raises Refused."""
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
    """The container's process 1 as a descriptor, see pidfd_open(2); None where it does not run."""
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
    """Until the container has ended."""
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
