# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher as a program of the host: its files, and the links by which people, man and bash find them."""

from __future__ import annotations

import contextlib
import inspect
import os
import shlex

from ..core.files import remove_tree, unlink
from ..core.operations import SwitchLink, WriteFile
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
    parallel,
    record,
    runtime,
    seccomp,
    start,
    stop,
    syscalls,
    terminal,
)

HOME = os.path.dirname(guard.PROGRAM)
LINK = "/usr/local/sbin/ns-container"
MANUAL = "/usr/local/share/man/man8/ns-container.8"
COMPLETION = "/usr/local/share/bash-completion/completions/ns-container"
DIRECTORIES = (HOME, *map(os.path.dirname, (MANUAL, COMPLETION, os.path.dirname(COMPLETION))))  # with what is left in them
LINKS = {LINK: guard.PROGRAM, MANUAL: f"{HOME}/ns-container.8", COMPLETION: f"{HOME}/completion.bash"}
MODULES = (bundle, cgroups, cli, confine, copy, enter, guard, listing, mounts, namespaces, options, parallel, record, runtime,
           seccomp, start, stop, syscalls, terminal)
# The host's own Python and its standard library alone, without what an administrator or a virtual environment may have added.
MAIN = f"""#!/usr/bin/python3 -IS
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
    found[LINKS[MANUAL]] = (options.manual(), 0o644)
    found[LINKS[COMPLETION]] = (options.completion(), 0o644)
    return found


def operations():
    """Writes what is missing or of another release. The program itself comes last, as it needs the others."""
    found = [WriteFile(path, text.encode(), mode) for path, (text, mode) in files().items() if not _is_there(path, text, mode)]
    found.sort(key=lambda each: each.path == guard.PROGRAM)
    return found + [SwitchLink(link, LINKS[link]) for link in filter(_is_missing, LINKS)]


def is_current():
    """Whether the program is there as this release has it."""
    return not operations()


def _is_there(path, text, mode):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read() == text and os.fstat(file.fileno()).st_mode & 0o7777 == mode
    except (OSError, ValueError):
        return False


def _is_missing(link):
    """Whether a link has to be made, or made anew. A file that an administrator has in its place stays."""
    return os.readlink(link) != LINKS[link] if os.path.islink(link) else not os.path.lexists(link)


def install():
    for operation in operations():
        operation.apply()


def uninstall():
    """Take it away again, with the last container, and the directories of links that are empty then."""
    for link in _own_links():
        unlink(link)
    for name in os.listdir(HOME) if os.path.isdir(HOME) else ():
        remove_tree(f"{HOME}/{name}")
    for directory in DIRECTORIES:
        with contextlib.suppress(OSError):  # a mount point, or somebody else has something in it
            os.rmdir(directory)


def removing():
    """The commands that take it away."""
    there = sorted(os.path.join(HOME, name) for name in os.listdir(HOME)) if os.path.isdir(HOME) else []
    return [shlex.join(["rm", "-rf", *_own_links(), *there]),
            f"rmdir {' '.join(DIRECTORIES)} 2>/dev/null || : # those that are empty"]


def _own_links():
    return [link for link, target in LINKS.items() if os.path.islink(link) and os.readlink(link) == target]
