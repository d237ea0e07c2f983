# SPDX-License-Identifier: GPL-3.0-or-later
"""A file copied into a container, or out of it, by a process that is confined as the container's own are: its links lead nowhere
else.
"""

from __future__ import annotations

import os

from . import enter
from .bundle import Refused, load
from .terminal import pour


def sides(source, destination):
    """(name, path inside, whether it is copied into the container). Raises Refused."""
    inside = [each.partition(":") for each in (source, destination) if ":" in each and "/" not in each.partition(":")[0]]
    if len(inside) != 1 or not inside[0][2].startswith("/"):
        raise Refused("cp: one of the two is NAME:/PATH, the other a path of the host")
    return inside[0][0], inside[0][2], inside[0][0] == destination.partition(":")[0] and ":" in destination


def copy(name, path, outside, into):
    """The exit status. A directory to copy to keeps the name of the file."""
    config = load(name)
    base = os.path.basename(outside if into else path)
    if not into and os.path.isdir(outside):
        outside = os.path.join(outside, base)
    reader, writer = os.pipe()
    told, tells = os.pipe()
    if into:
        file = os.open(outside, os.O_RDONLY | os.O_CLOEXEC)
    else:
        file = os.open(outside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def act():
        target = os.path.join(path, base) if into and os.path.isdir(path) else path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if into else os.O_RDONLY | os.O_NONBLOCK
        inner = os.open(target, flags | os.O_CLOEXEC, 0o644)
        pour(reader, inner) if into else pour(inner, writer)
        return 0

    child = enter.confined(name, config, config["process"], None, act, tells, reader if into else writer)
    os.close(tells)
    os.close(reader if into else writer)
    try:
        pour(file, writer) if into else pour(reader, file)
    except BrokenPipeError:
        pass
    os.close(writer if into else reader)
    code = enter.status(os.waitpid(child, 0)[1])
    said = os.read(told, 65536).decode("utf-8", "replace")
    if said:
        raise Refused(f"cp: {name}: {said}")
    return code
