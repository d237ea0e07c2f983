# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a task names to a plan: ``plan(desired, state)`` returns the plan of one kind, and the state that it will leave.

The kind reads the host; nothing is changed here. Of several kinds, each is planned on the state that those before it will leave.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Tuple

from .errors import OptionError
from .kind import Kind
from .plan import NOW, Plan, State, diff
from .resource import Item


@contextmanager
def below(option):
    """Name the option of the module that holds the items, where one of theirs is invalid."""
    try:
        yield
    except OptionError as error:
        raise error.below(option) if option else error from None


@dataclass(frozen=True)
class Desired:
    """The items of one kind that a task names, by key and in its order; those of the keys ``absent`` are not to be there.

    ``option`` is that of the module which holds them as a list, None where the module is about this kind alone, or has no such
    option.
    """

    kind: Kind
    items: Dict[str, Item]
    absent: FrozenSet[str]
    prune: bool = False
    option: Optional[str] = None


def desired(kind: Kind, options: Iterable[Dict[str, Any]], prune: bool = False, option: Optional[str] = None) -> Desired:
    """Return what the validated options of each item say. Raise OptionError."""
    items: Dict[str, Item] = {}
    absent = set()
    with below(option):
        parsed = [(kind.parse(values), values) for values in options]
    for item, values in parsed:
        if item.key in items:
            raise OptionError(option or "config", item.key, "it is given twice")
        items[item.key] = item
        if values.get("state") == "absent":
            absent.add(item.key)
    return Desired(kind, items, frozenset(absent), prune, option)


@dataclass(frozen=True)
class Planned:
    """The plan of one kind: ``wanted`` by key as this host is to have it, None for what is not to be there; the items ``sought``
    and ``found``; and the commands of what goes and of what comes."""

    kind: Kind
    option: Optional[str]
    prune: bool
    wanted: Dict[str, Optional[Item]]
    sought: Tuple[Item, ...]
    found: Dict[str, Item]
    plan: Plan
    going: List[str]
    coming: List[str]

    @property
    def items(self) -> List[Item]:
        """Return those that are to be there."""
        return [item for item in self.wanted.values() if item]

    def predicted(self) -> List[Dict[str, Any]]:
        """Return the items that are to be there as the plan will leave them."""
        after = {change.item: change.after for change in self.plan.changes}
        return self._shown({key: after.get(key, item) for key, item in self.wanted.items() if item})

    def observed(self) -> List[Dict[str, Any]]:
        """Return the items that are to be there as they were found."""
        return self._shown(self.found)

    def _shown(self, items):
        return [items[key].to_result() for key, item in self.wanted.items() if item]

    def left(self) -> Plan:
        """Return what there is to do once more, if this was found after applying."""
        expected = {key: item and item.expected_after_apply() for key, item in self.wanted.items()}
        return diff(expected, self.found, self.prune)


def plan(task: Desired, state: State = NOW) -> Tuple[Planned, State]:
    """Return the plan of what is desired, on a state, and the state after it."""
    kind = task.kind
    with below(task.option):
        wanted = {key: None if key in task.absent else kind.complete(item, state) for key, item in task.items.items()}
        sought = tuple(wanted[key] or item for key, item in task.items.items())
        found = kind.observe(sought, task.prune, state)
    changes, after = kind.plan(wanted, found, task.prune, state)
    return Planned(kind, task.option, task.prune, wanted, sought, found, changes, _commands(kind, changes.going),
                   _commands(kind, changes.coming)), after


def _commands(kind, changes):
    return [line for operation in kind.operations(changes) for line in operation.commands()] if changes else []


def plan_all(tasks: Iterable[Desired], state: State = NOW) -> Tuple[List[Planned], State]:
    """Return the plans of several kinds, each on the state that those before it will leave, and the state after them."""
    plans = []
    for task in tasks:
        planned, state = plan(task, state)
        plans.append(planned)
    return plans, state
