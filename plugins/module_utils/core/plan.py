# SPDX-License-Identifier: GPL-3.0-or-later
"""The difference between what is wanted and what is observed, as pure data: no kernel, no Ansible.

A plan is computed before anything is touched. It is then applied, shown as the diff and rendered as the commands
that an administrator would type. After applying, the plan computed again must be empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Dict, FrozenSet, Iterable, Mapping, Optional, Set, Tuple

from .errors import NotOwnedError
from .resource import OWNER, UNMARKED, Item

CREATE, UPDATE, RECREATE, DELETE = "create", "update", "recreate", "delete"


@dataclass(frozen=True)
class Difference:
    field: str
    have: object
    want: object
    fixed: bool = False

    def __str__(self) -> str:
        return f"{self.field} {words(self.have)} -> {words(self.want)}"


def words(value: Any) -> str:
    if value is None or value == "" or value == frozenset() or value == ():
        return "none"
    if isinstance(value, str) and "\n" in value:
        return f"{len(value.splitlines())} lines"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, frozenset):
        return ", ".join(sorted(str(each) for each in value))
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ", ".join(str(each) for each in value)
    return str(value)


@dataclass(frozen=True)
class Change:
    """One item's way from ``before`` to ``after``; None is "not there"."""

    action: str
    before: Any  # of the kind's own type, a subclass of Item, or None
    after: Any
    differences: Tuple[Difference, ...] = ()

    @property
    def subject(self) -> Any:
        """Return the item as it comes, or the one that goes."""
        return self.after or self.before

    @property
    def item(self) -> str:
        return self.subject.key

    def differing(self) -> Set[str]:
        return {each.field for each in self.differences}

    def to_result(self) -> Dict[str, Any]:
        return {"item": self.item, "action": self.action, "fields": [str(each) for each in self.differences]}


@dataclass(frozen=True)
class State:
    """What the plans made so far in a run will have changed of the host: those made after them count on it.

    ``made`` and ``gone`` hold paths of directories, names of network namespaces as ``("netns", name)``, links as
    ``("link", netns, name)``, and addresses of the host itself as ``("address", address)``. A thing made anew is in both.
    ``trees`` are the paths of the trees that root filesystems will lead to, by their names.
    """

    made: FrozenSet[Any] = frozenset()
    gone: FrozenSet[Any] = frozenset()
    trees: Mapping[str, str] = field(default_factory=dict)

    def after(self, made: Iterable[Any] = (), gone: Iterable[Any] = (), trees: Optional[Mapping[str, str]] = None) -> State:
        """Return the state with more that is made and gone."""
        return State(self.made.union(made), self.gone.union(gone), {**self.trees, **(trees or {})})


NOW = State()  # the host as it is: no plan is ahead of it


@dataclass(frozen=True)
class Plan:
    """``unmet``: what the changes need that is not there yet, in words. A real run refuses; check mode warns. ``state`` is the one
    that they start from."""

    changes: Tuple[Change, ...] = ()
    unmet: Tuple[str, ...] = ()
    state: State = NOW

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def going(self) -> Plan:
        """What is deleted."""
        return replace(self, changes=tuple(change for change in self.changes if change.action == DELETE))

    @property
    def coming(self) -> Plan:
        """What is created, changed or made anew."""
        return replace(self, changes=tuple(change for change in self.changes if change.action != DELETE))

    def before(self) -> Dict[str, Any]:
        return {change.item: change.before.to_result() for change in self.changes if change.before}

    def after(self) -> Dict[str, Any]:
        return {change.item: change.after.to_result() for change in self.changes if change.after}


def ours(item: Item) -> bool:
    return getattr(item, "owner", OWNER) in (OWNER, UNMARKED)


def differences(wanted: Item, observed: Item) -> Tuple[Difference, ...]:
    """The managed fields of ``wanted`` that ``observed`` does not have."""
    found = [Difference("owner", None, OWNER)] if getattr(observed, "owner", OWNER) == UNMARKED else []
    for each in fields(wanted):
        want, have = getattr(wanted, each.name), getattr(observed, each.name)
        if each.metadata.get("identity") or (want is None and not each.metadata.get("nullable")):
            continue
        if want == have or (each.metadata.get("at_least") and have is not None and want <= have):
            continue
        fixed = each.metadata.get("fixed", False)
        found.append(Difference(each.name, have, want, bool(fixed(have, want)) if callable(fixed) else fixed))
    return tuple(found)


def diff(wanted: Dict[str, Optional[Item]], observed: Dict[str, Item], prune: bool = False, state: State = NOW) -> Plan:
    """The plan that takes a host from ``observed`` to ``wanted``.

    ``wanted`` maps each item's key to the item, or to None where it must be absent. ``observed`` maps keys to the
    items found; with ``prune`` those of ours that ``wanted`` does not name are deleted. Raises NotOwnedError where a
    wanted name, or one to be removed, belongs to a thing that the collection did not make.
    """
    changes = []
    for key, item in wanted.items():
        have = observed.get(key)
        if have is not None and not ours(have):
            raise NotOwnedError(key, "exists and was not made by this collection",
                                "Choose another name, or remove it by hand first.")
        if item is None:
            if have is not None:
                changes.append(Change(DELETE, have, None))
        elif have is None:
            changes.append(Change(CREATE, None, item))
        else:
            found = differences(item, have)
            if found:
                action = RECREATE if any(each.fixed for each in found) else UPDATE
                changes.append(Change(action, have, item.merged_onto(have), found))
    if prune:
        changes = [Change(DELETE, have, None) for key, have in observed.items()
                   if key not in wanted and ours(have)] + changes
    return Plan(tuple(changes), state=state)
