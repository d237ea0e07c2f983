# SPDX-License-Identifier: GPL-3.0-or-later
"""Protect /proc/self/exe of what starts a container: the host's Python interpreter.

A container's program may be ``#!/proc/self/exe``; Python then runs with libraries of the container, which can open that path for
writing. With a user namespace, root inside may not write to the file. Without one, the launcher executes itself again from a sealed
copy of Python in memory, which nobody can write to, and with only the container's own data in its memory: a tracer inside may see
it for a moment.
"""

from __future__ import annotations

import fcntl
import os

from .bundle import mapped, privileged

PROGRAM = "/usr/local/lib/fromscratch/ns-container"
TOLD = "FROMSCRATCH_TELL"  # the descriptor that tells who asked for a start what became of it
MFD_EXEC = 0x10  # memfd_create(2), since Linux 6.3
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE  # fcntl(2)


def needed(config):
    """Return whether root in the container could write to programs of the host. A privileged container can in any case."""
    return not mapped(config) and not privileged(config)


def is_sealed():
    """Return whether this process runs from a sealed copy of its program."""
    with open("/proc/self/exe", "rb") as program:
        try:
            return fcntl.fcntl(program, fcntl.F_GET_SEALS) & SEALS == SEALS
        except OSError:  # of a file that cannot have any
            return False


def sealed_copy(path):
    """Return a descriptor of a sealed copy of a program in memory."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create("ns-container", flags | MFD_EXEC)
    except OSError:
        copy = os.memfd_create("ns-container", flags)
    with open(path, "rb") as file:
        while os.sendfile(copy, file.fileno(), None, 1 << 24):
            pass
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, SEALS)
    return copy


def own_program(config, words, env, *kept):
    """Execute this program again from a sealed copy, with the descriptors ``kept``; return where that is not needed."""
    if not needed(config) or is_sealed():
        return
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    python = os.readlink("/proc/self/exe")
    os.execve(sealed_copy(python), [python, "-IS", PROGRAM, *words], env)  # noqa: S606
