# SPDX-License-Identifier: GPL-3.0-or-later
"""Act on many containers concurrently, each in a process of its own."""

from __future__ import annotations

import gc
import os
import select


def together(names, workers, act):
    """Call ``act(name, descriptor)`` for each name in a forked process, ``workers`` at a time. Return the messages by name.

    ``act`` must end its process; what it writes to the descriptor is the message.
    """
    waiting, running, failures = list(names), {}, {}
    while waiting or running:
        while waiting and len(running) < workers:
            name = waiting.pop(0)
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                gc.disable()  # it would look at, and so copy, all the memory of who has forked
                act(name, writer)
            os.close(writer)
            running[reader] = name, pid
        for reader in select.select(list(running), [], [])[0]:
            message = os.read(reader, 65536)
            name, pid = running[reader]
            if message:
                failures[name] = failures.get(name, "") + message.decode("utf-8", "replace")
                continue
            del running[reader]
            os.close(reader)
            if os.waitpid(pid, 0)[1] and name not in failures:
                failures[name] = "the process at work on it was killed: try again, and see with dmesg whether the kernel did"
    return failures
