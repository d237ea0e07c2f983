# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands at a terminal of their own."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess


def in_terminal(command):
    """What a command prints at a terminal of its own, and the number of the file system that this is on."""
    terminal, line = os.openpty()
    device = os.fstat(line).st_dev
    with subprocess.Popen(["setsid", "--ctty", "--wait", *command], stdin=line, stdout=line, stderr=line) as running:
        os.close(line)
        found = b""
        with contextlib.suppress(OSError):  # the last one has closed it
            while select.select([terminal], [], [], 60)[0] and (part := os.read(terminal, 4096)):
                found += part
        running.wait(60)
    os.close(terminal)
    return found.decode(), str(device)
