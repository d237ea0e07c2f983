# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the launcher as a program of the host: its files, and the links in PATH, to the manual page and to bash completion."""

from __future__ import annotations

import os
import pkgutil

from ..core.operations import Attempt, RemoveFile, Run, SwitchLink
from . import launcher
from .launcher import cli, guard, options
from .operations import written

HOME = os.path.dirname(guard.PROGRAM)
LINK = "/usr/local/sbin/ns-container"
MANUAL = "/usr/local/share/man/man8/ns-container.8"
COMPLETION = "/usr/local/share/bash-completion/completions/ns-container"
DIRECTORIES = (HOME, *map(os.path.dirname, (MANUAL, COMPLETION, os.path.dirname(COMPLETION))))  # with what is left in them
LINKS = {LINK: guard.PROGRAM, MANUAL: f"{HOME}/ns-container.8", COMPLETION: f"{HOME}/completion.bash"}
# The host's own Python and its standard library alone, without what an administrator or a virtual environment may have added.
MAIN = f"""#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-3.0-or-later
import sys

sys.path.insert(0, "{HOME}")
from launcher.cli import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
"""
LICENCE = MAIN.splitlines()[1] + "\n"


def modules():
    """Return the launcher's source files as {name: text}. Ansible has sent all of them, as ``cli`` imports them directly or not."""
    names = [f"{each.name}.py" for each in pkgutil.iter_modules(launcher.__path__)]
    return {name: pkgutil.get_data(cli.__package__, name).decode()  # type: ignore[union-attr]  # None is for loaders without data
            for name in names}


def files():
    """Return {path: (text, mode)}. The program itself comes last, as it needs the others."""
    texts = {"launcher/__init__.py": LICENCE, **{f"launcher/{name}": text for name, text in modules().items()},
             "ns-container.8": options.manual(), "completion.bash": options.completion()}
    return {**{f"{HOME}/{name}": (text, 0o644) for name, text in texts.items()}, guard.PROGRAM: (MAIN, 0o755)}


def operations():
    """Return the operations that write the files which are missing or of another release."""
    found = [operation for path, (text, mode) in files().items() for operation in written(path, text, mode)]
    return found + [SwitchLink(link, target) for link, target in LINKS.items() if _is_missing(link)]


def _is_missing(link):
    """Return whether a link has to be created or replaced. A file that an administrator put in its place stays."""
    return os.readlink(link) != LINKS[link] if os.path.islink(link) else not os.path.lexists(link)


def removal():
    """Return the operations that uninstall the launcher after the last container, with the directories that are empty then."""
    links = [link for link, target in LINKS.items() if os.path.islink(link) and os.readlink(link) == target]
    there = sorted(os.path.join(HOME, name) for name in os.listdir(HOME)) if os.path.isdir(HOME) else []
    # Of the directories one may be a mount point, and somebody else may have something in another.
    return [*map(RemoveFile, links), Run(("rm", "-rf", "--one-file-system", *there)), Attempt(("rmdir", *DIRECTORIES))]
