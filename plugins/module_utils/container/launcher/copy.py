# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy a file into or out of a container by a process confined like the container's own, so that its symbolic links stay inside."""

from __future__ import annotations

import os

from . import enter
from .bundle import Refused, load
from .terminal import pour


def sides(source, destination):
    """Return (container, path inside, whether to copy into it) of the two operands. Raise Refused."""
    inside = [each.partition(":") for each in (source, destination) if ":" in each and "/" not in each.partition(":")[0]]
    if len(inside) != 1 or not inside[0][2].startswith("/"):
        raise Refused("cp: one of the two is NAME:/PATH, the other a path of the host")
    return inside[0][0], inside[0][2], inside[0][0] == destination.partition(":")[0] and ":" in destination


def copy(name, path, outside, into):
    """Copy one file. Return the exit status. A destination that is a directory keeps the file's name."""
    config = load(name)
    base = os.path.basename(outside if into else path)
    if not into and os.path.isdir(outside):
        outside = os.path.join(outside, base)
    reader, writer = os.pipe()
    errors, error_writer = os.pipe()
    if into:
        file = os.open(outside, os.O_RDONLY | os.O_CLOEXEC)
    else:
        file = os.open(outside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def act():
        """Copy in the confined process, through the pipe."""
        target = os.path.join(path, base) if into and os.path.isdir(path) else path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if into else os.O_RDONLY | os.O_NONBLOCK
        inner = os.open(target, flags | os.O_CLOEXEC, 0o644)
        pour(reader, inner) if into else pour(inner, writer)
        return 0

    child = enter.confined(name, config, config["process"], None, act, error_writer, reader if into else writer)
    os.close(error_writer)
    os.close(reader if into else writer)
    try:
        pour(file, writer) if into else pour(reader, file)
    except BrokenPipeError:
        pass
    os.close(writer if into else reader)
    code = enter.status(os.waitpid(child, 0)[1])
    message = os.read(errors, 65536).decode("utf-8", "replace")
    if message:
        raise Refused(f"cp: {name}: {message}")
    return code
