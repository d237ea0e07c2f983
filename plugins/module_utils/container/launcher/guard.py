# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that the kernel knows as /proc/self/exe of what starts a container: the host's Python.

A container's own program may be ``#!/proc/self/exe``, and Python then runs with libraries of the container, which can open
that path to write to it. Where root inside is somebody else outside, the file is not its to write to. Where it is not, the
launcher runs itself anew from a sealed copy of Python in memory, that nobody can write to, and with nothing else in its own
memory that is not the container's: a tracer inside may see it for a moment.
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
    """Whether the container's root could write to programs of the host; one that is privileged can in any case."""
    return not mapped(config) and not privileged(config)


def is_sealed():
    with open("/proc/self/exe", "rb") as program:
        try:
            return fcntl.fcntl(program, fcntl.F_GET_SEALS) & SEALS == SEALS
        except OSError:  # of a file that cannot have any
            return False


def sealed_copy(path):
    """A program in memory, as a descriptor."""
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
    """Run this program anew with these words from a sealed copy, and with ``kept`` open; or go on where that is not needed."""
    if not needed(config) or is_sealed():
        return
    for each in kept:
        os.set_inheritable(each, True)
    python = os.readlink("/proc/self/exe")
    os.execve(sealed_copy(python), [python, "-IS", PROGRAM, *words], env)  # noqa: S606
