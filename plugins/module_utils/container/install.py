# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher as a program of the host: its files, a link to it for people, and what bash and man know of it."""

from __future__ import annotations

import inspect
import os

from .._files import remove_tree, unlink, write
from .launcher import (
    bundle,
    cgroups,
    cli,
    confine,
    copy,
    enter,
    guard,
    listing,
    mounts,
    namespaces,
    options,
    record,
    seccomp,
    start,
    stop,
    syscalls,
    terminal,
)

HOME = os.path.dirname(guard.PROGRAM)
LINK = "/usr/local/sbin/ns-container"
MODULES = (bundle, cgroups, cli, confine, copy, enter, guard, listing, mounts, namespaces, options, record, seccomp, start, stop,
           syscalls, terminal)
# The host's own Python, without what an administrator or a virtual environment may have added to it.
MAIN = f"""#!/usr/bin/python3 -I
# SPDX-License-Identifier: GPL-3.0-or-later
import sys

sys.path.insert(0, "{HOME}")
from launcher.cli import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
"""
LICENCE = MAIN.splitlines()[1] + "\n"


def files():
    """(text, mode) by path."""
    found = {f"{HOME}/launcher/__init__.py": (LICENCE, 0o644), guard.PROGRAM: (MAIN, 0o755)}
    for module in MODULES:
        found[f"{HOME}/launcher/{module.__name__.rpartition('.')[2]}.py"] = (inspect.getsource(module), 0o644)
    found[f"{HOME}/ns-container.8"] = (options.manual(), 0o644)
    found[f"{HOME}/completion.bash"] = (options.completion(), 0o644)
    return found


def is_current():
    """Whether the program is there as this release has it."""
    for path, (text, mode) in files().items():
        try:
            with open(path, encoding="utf-8") as file:
                if file.read() != text or os.fstat(file.fileno()).st_mode & 0o7777 != mode:
                    return False
        except (OSError, ValueError):
            return False
    return os.path.islink(LINK) and os.readlink(LINK) == guard.PROGRAM


def install():
    """Write what is missing or of another release. The program itself comes last, as it needs the others."""
    if is_current():
        return
    for directory in HOME, f"{HOME}/launcher", os.path.dirname(LINK):
        os.makedirs(directory, mode=0o755, exist_ok=True)
    for directory in HOME, f"{HOME}/launcher":
        os.chmod(directory, 0o755)
    for path, (text, mode) in sorted(files().items(), key=lambda item: item[0] == guard.PROGRAM):
        write(path, text, mode)
    if not os.path.lexists(LINK) or (os.path.islink(LINK) and os.readlink(LINK) != guard.PROGRAM):
        write(LINK, None, None, guard.PROGRAM)


def uninstall():
    """Take it away again, with the last container."""
    if os.path.islink(LINK) and os.readlink(LINK) == guard.PROGRAM:
        unlink(LINK)
    for name in os.listdir(HOME) if os.path.isdir(HOME) else ():
        path = f"{HOME}/{name}"
        remove_tree(path)
    try:
        os.rmdir(HOME)
    except OSError:
        pass  # a mount point, or somebody else has something in it
