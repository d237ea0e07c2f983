# SPDX-License-Identifier: GPL-3.0-or-later
"""Insert rules into other programs' chains that would drop a bridge's packets: Docker's FORWARD chain, for one, drops by default.

A drop is final in whatever table it is, so a table of the collection's own does not help: the rule that accepts its frames has to
be in the chain that drops them. It carries the collection's name as its comment, and nothing else of the chain is touched. Chains
of iptables are seen as nft shows them, which all but the long deprecated iptables-legacy use.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import FrozenSet, List, NamedTuple, Optional, Tuple

from ..core.errors import ModuleError
from ..core.files import number
from ..core.kind import Kind, Operation
from ..core.operations import Run
from ..core.resource import OWNER, Item, identity, input_only, observed_only, settable
from ..network import addressing
from .nftables import TABLE_PREFIX, nft, run

MARK = f'comment "{OWNER}"'
BRIDGED = 'iifname "{0}" oifname "{0}" counter accept'
# What comes from outside and is no answer has been dropped by our own table, whose chain is an earlier one. Matches of nft's own
# on the state of a connection would make the chain unreadable to iptables.
ROUTED = ('iifname "{0}" oifname != "{0}" counter accept', 'iifname != "{0}" oifname "{0}" counter accept')
SENDS = {"ip": "/proc/sys/net/bridge/bridge-nf-call-iptables", "ip6": "/proc/sys/net/bridge/bridge-nf-call-ip6tables"}


class Rule(NamedTuple):
    """Hold a rule of the collection in another program's chain."""

    chain: str  # family, table and name, such as "ip filter FORWARD"
    text: str

    def __str__(self):
        return f"{self.chain}: {self.text}"


@dataclass(frozen=True)
class Passage(Item):
    """Hold what chains that would drop a bridge's packets are given.

    ``accept`` is whether to insert rules, ``routed`` whether routed packets pass, too.
    """

    word = "passage of"

    name: str = identity()
    rules: Optional[FrozenSet[Rule]] = settable()
    accept: Optional[bool] = input_only()
    routed: Optional[bool] = input_only()
    handles: Optional[Tuple[Tuple[Rule, str], ...]] = observed_only()


@dataclass(frozen=True)
class InsertRule:
    """Insert a rule at the head of another program's chain."""

    rule: Rule

    @property
    def argv(self):
        return "nft", "insert", "rule", *self.rule.chain.split(), self.marked

    @property
    def marked(self):
        return f"{self.rule.text} {MARK}"

    def apply(self):
        Run(self.argv).apply()

    def commands(self):
        return [shlex.join(self.argv)]

    def boot(self, bridge):
        """Return the command that inserts the rule where it is missing; where that fails, it reports this and continues."""
        chain = self.rule.chain
        said = (f"No rule for {bridge} was inserted into the chain {chain}, which is not there or refuses it: once what makes it "
                "has started, run: systemctl restart fromscratch-network.service")
        return (f"nft -s list chain {chain} 2>/dev/null | grep -qF {shlex.quote(self.marked)} || {shlex.join(self.argv)} || "
                f"echo {shlex.quote(said)} >&2")


@dataclass(frozen=True)
class DeleteRule:
    """Delete a rule of the collection from a chain, by its handle."""

    rule: Rule
    handle: str

    def apply(self):
        Run(self.argv).apply()

    def commands(self):
        return [shlex.join(self.argv)]

    @property
    def argv(self):
        return "nft", "delete", "rule", *self.rule.chain.split(), "handle", self.handle


class Passages(Kind):
    """The list is all that there is to be: rules of ours for other bridges go."""

    options = {
        "bridge": {"type": "str", "required": True},
        "accept": {"type": "bool", "default": False},
        "routed": {"type": "bool", "default": False},
    }

    def __init__(self):
        super().__init__()
        self._before = None  # the chains as they are before the first plan

    def requirements(self, options):
        return ("nft",) if any(each.get("accept") for each in options) else ()

    def parse(self, options):
        name = addressing.plain_interface_name("bridge", options["bridge"])
        return Passage(name=name, accept=options["accept"], routed=options["routed"])

    def complete(self, item, state):
        if self._before is None:
            self._before = _chains()
        wanted = _needed(item, self._before)
        if not item.accept:
            self.warnings += [
                f"The chain {chain} drops what it is not told about, and packets of the bridge {item.name} pass through it: have "
                "rules for them added by overlay_bridge_netfilter: accept (in topology: forward.accept)"
                for chain in sorted({each.chain for each in wanted})]
            wanted = frozenset()
        return Passage(name=item.name, rules=wanted)

    def observe(self, wanted, prune, state):
        ours = {}
        for rule, handle in (entry for chain in _chains() for entry in chain.ours):
            ours.setdefault(re.findall(r'ifname (?:!= )?"([^"]+)"', rule.text)[0], []).append((rule, handle))
        names = {**dict.fromkeys(item.name for item in wanted), **ours}
        found = (Passage(name=name, rules=frozenset(rule for rule, _handle in marked), handles=tuple(marked))
                 for name, marked in ((name, ours.get(name, ())) for name in names))
        return {item.key: item for item in found}

    def operations(self, plan):
        done: List[Operation] = []
        for change in plan.changes:
            wanted = change.after.rules if change.after else frozenset()
            done += [DeleteRule(rule, handle) for rule, handle in change.before.handles if rule not in wanted]
            done += [InsertRule(rule) for rule in sorted(wanted - change.before.rules)]
        return done

    def boot(self, items):
        """Return the commands of the boot script. Other programs create the chains, and have started by then, or will not."""
        return [InsertRule(rule).boot(item.name) for item in items for rule in sorted(item.rules)]


def _needed(item, chains):
    """Return the rules without which another program's chain drops the bridge's packets."""
    through = {family for family, path in SENDS.items() if number(path)}
    rules = set()
    for chain in chains:
        family = chain.name.split()[0]
        if chain.drops and (family in through or (family == "inet" and through)):
            rules.add(Rule(chain.name, BRIDGED.format(item.name)))
        if chain.drops and item.routed and family in ("ip", "inet"):
            rules.update(Rule(chain.name, each.format(item.name)) for each in ROUTED)
    return frozenset(rules)


class Chain:
    """Hold a chain that forwarded packets traverse. ``ours`` are the collection's rules in it, as (Rule, handle)."""

    def __init__(self, name, policy):
        self.name, self.drops, self.ours = name, policy == "drop", []


def _chains():
    """Return the chains at the forward hook, without those of the collection's tables."""
    found, table, name = [], "", ""
    chain = None
    for line in _nft("-a", "-s", "list", "ruleset").splitlines() if nft() else ():
        text, _separator, handle = line.strip().partition(" # handle ")
        words = text.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            name, chain = words[1], None
        elif text.startswith("type filter hook forward") and not table.split()[1].startswith(TABLE_PREFIX):
            chain = Chain(f"{table} {name}", text.rpartition("policy ")[2].rstrip(";"))
            found.append(chain)
        elif chain and MARK in text:
            chain.ours.append((Rule(chain.name, text.replace(MARK, "").strip()), handle))
        elif chain and re.fullmatch(r"(counter )?(drop|reject\b.*)", text):
            chain.drops = True
    return found


def _nft(*words):
    done = run("nft", *words)
    if done.returncode:
        raise ModuleError(f"nft {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout
