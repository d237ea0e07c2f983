# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the names that containers resolve: a file ``hosts`` and a file ``resolv.conf`` for each network of a host.

Containers see them as /etc/hosts and /etc/resolv.conf by a bind mount, which refers to the file itself: so a file is rewritten in
place, and running containers see the change.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..core import validate
from ..core.errors import OptionError
from ..core.resource import OWNER
from .files import MADE, File, Files

DIRECTORY = "/var/lib/fromscratch/networks"
HOSTS, RESOLV = "hosts", "resolv.conf"
# systemd-resolved's own file names its stub on the loopback, where a container finds nobody; the second names the real ones.
OF_HOST = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def path(network, name):
    """Return the path of a network's file."""
    return f"{DIRECTORY}/{network}/{name}"


class Names(Files):
    """The list is all that there is to be: files of other networks go."""

    in_place = True

    options = {
        "network": {"type": "str", "required": True},
        "file": {"type": "str", "choices": [HOSTS, RESOLV], "required": True},
        "lines": {"type": "list", "elements": "str"},
    }

    def parse(self, options):
        """Without lines, ``resolv.conf`` has the nameservers of this host."""
        lines = options["lines"]
        if lines is None:
            lines = nameservers() if options["file"] == RESOLV else []
        for line in lines:
            if "\n" in line:
                raise OptionError("lines", line, "a line has no line break")
        text = "".join(f"{line}\n" for line in [f"{MADE} for the network {options['network']}.", *lines])
        return File(path=path(validate.thing_name("network", options["network"]), options["file"]), text=text, mode=0o644)

    def observe(self, wanted, prune, state):
        known = {item.path for item in wanted}
        others = [File(path=str(each)) for each in sorted(Path(DIRECTORY).glob("*/*")) if str(each) not in known]
        found = super().observe([*wanted, *others], prune, state)
        return {key: replace(item, owner=OWNER) for key, item in found.items()}  # the directory says it

    def plan(self, wanted, observed, prune, state):
        plan, after = super().plan(wanted, observed, prune, state)
        return plan, after.after(made=[change.after.path for change in plan.changes if change.after])


def nameservers():
    """Return the lines of this host's resolv.conf that are valid in a container, too."""
    for file in OF_HOST:
        try:
            lines = [line.split() for line in Path(file).read_text(encoding="utf-8", errors="replace").splitlines()]
        except OSError:
            continue
        kept = [" ".join(words) for words in lines if len(words) > 1 and (
            words[0] in ("search", "options") or (words[0] == "nameserver" and not words[1].startswith(("127.", "::1"))))]
        if any(line.startswith("nameserver") for line in kept):
            return kept
    return []
