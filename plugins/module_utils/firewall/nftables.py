# SPDX-License-Identifier: GPL-3.0-or-later
"""Load tables of nftables, and compare them as nft prints them.

The desired rules are loaded into an empty network namespace first and listed there: so they are checked before anything changes,
and two ways to write a rule are no difference. A table is replaced in one transaction.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from typing import List, Optional

from ..core.dependencies import PYROUTE2
from ..core.errors import OptionError
from ..core.kind import Kind, Operation
from ..core.operations import PATH, Run, fed
from ..core.resource import OWNER, Item, identity, observed_only, settable
from . import conntrack

TABLE_PREFIX = "fromscratch"  # the name is the mark of ours: a table has no room for another
LIST = ("nft", "--numeric-protocol", "--stateless", "list")  # a protocol's name would be that of a file that not every host has


@dataclass(frozen=True)
class Table(Item):
    """Hold a table; ``rules`` is its body, without counters."""

    word = "nftables table"

    name: str = identity()
    family: Optional[str] = field(default="inet", metadata={"identity": True})
    rules: Optional[str] = settable()
    owner: Optional[str] = observed_only()

    @property
    def key(self):
        return f"{self.word} {self.place}"

    @property
    def place(self):
        """Return family and name, as nft's arguments."""
        return f"{self.family} {self.name}"


@dataclass(frozen=True)
class LoadTable:
    """Replace a table in one transaction."""

    table: Table

    def apply(self):
        done = run("nft", "-f", "-", text=loading(self.table))
        if done.returncode:
            raise OptionError("rules", self.table.key, f"nft refuses it: {done.stderr.strip()}")

    def commands(self):
        return [fed("nft -f -", loading(self.table).encode())]


@dataclass(frozen=True)
class ForgetConnections:
    """Delete the connection tracking entries of ports whose rules change."""

    ports: object

    def apply(self):
        conntrack.delete(self.ports)

    def commands(self):
        return conntrack.commands(self.ports)


class Tables(Kind):
    tools = ("nft", "unshare", PYROUTE2)
    options = {
        "name": {"type": "str", "required": True},
        "family": {"type": "str", "choices": ["inet", "bridge"], "default": "inet"},
        "rules": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    rules = {"required_if": [("state", "present", ("rules",))]}

    def parse(self, options):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", options["name"]):
            raise OptionError("name", options["name"], "use small letters, digits and '_', a letter first")
        return Table(name=options["name"], family=options["family"],
                     rules=options["rules"] if options["state"] == "present" else None)

    def complete(self, item, state):
        """The rules as nft lists them; None where the kernel has no tables of that family."""
        done = run("unshare", "--net", "sh", "-ec", f"nft -f - && {' '.join(LIST)} table {item.place}", text=loading(item))
        if done.returncode and item.family == "bridge" and not _knows_bridges():
            self.warnings.append(f"{item.key} is left out: the kernel of this host has no tables of that family, so that "
                                 "containers can send as each other (in the role: overlay_antispoof)")
            return None
        if done.returncode:
            raise OptionError("rules", item.rules, f"nft refuses it: {done.stderr.strip()}")
        return replace(item, rules=_inner(done.stdout))

    def observe(self, wanted, prune, state):
        found = {}
        for item in wanted if nft() else ():
            done = run(*LIST, "table", item.family, item.name)
            if done.returncode == 0:
                owner = OWNER if item.name.startswith(TABLE_PREFIX) else "somebody else"
                found[item.key] = replace(item, rules=_inner(done.stdout), owner=owner)
        return found

    def operations(self, plan):
        done: List[Operation] = []
        for change in plan.changes:
            done.append(LoadTable(change.after) if change.after else Run(("nft", "delete", "table", *change.before.place.split())))
            done.append(ForgetConnections(_republished(change)))
        return done

    def boot(self, items):
        return [line for item in items for line in LoadTable(item).commands()]


def _knows_bridges():
    """Return whether the kernel was built with tables of family bridge."""
    chain = "table bridge probe { chain fs_probe { type filter hook prerouting priority 0; }; }"
    return run("unshare", "--net", "nft", "-f", "-", text=chain).returncode == 0


def _republished(change):
    """Return the published UDP ports whose rules a change changes."""
    return conntrack.changed(change.before and change.before.rules, change.after and change.after.rules)


def loading(item):
    """Return the nft script that replaces a table, whether it exists or not."""
    return f"table {item.place}\ndelete table {item.place}\ntable {item.place} {{\n{item.rules.rstrip()}\n}}\n"


def _inner(listing):
    """Return the body of a listed table."""
    return listing.partition("{\n")[2].rpartition("}")[0]


def nft():
    """Return the path of nft, or None."""
    return shutil.which("nft", path=PATH)


def run(*command, text=""):
    """Run a program with ``text`` as its standard input. Return the CompletedProcess."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False,
                          env={"PATH": PATH, "LC_ALL": "C"})
