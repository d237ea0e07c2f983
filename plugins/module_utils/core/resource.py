# SPDX-License-Identifier: GPL-3.0-or-later
"""Define what a host can hold: one frozen type per kind, of desired and observed items alike.

``None`` means "not managed": such a field is neither compared nor changed. Each field says in its metadata
whether the kernel can change it in place; where it cannot, a difference recreates the item.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar, Dict, List, Optional, Tuple, TypeVar

T = TypeVar("T", bound="Item")
OWNER = "fromscratch.containers"  # the ifalias of every link that the collection makes
UNMARKED = OWNER + ", unmarked"  # the owner of a link that was made, but not yet marked, when its maker was killed

# What the kernel does with a field, None meaning "not managed":
settable = partial(field, default=None)  # it changes in place
nullable = partial(field, default=None, metadata={"nullable": True})  # the same, but None is a value: no limit, or none of them
fixed = partial(field, default=None, metadata={"fixed": True})  # it is set at creation: a difference makes the thing anew
at_least = partial(field, default=None, metadata={"at_least": True})  # a set: the members wanted, whatever else there is
identity = partial(field, default=None, metadata={"identity": True})  # it finds the thing, and is never compared
uncompared = partial(field, default=None, compare=False)


def observed_only(shown: bool = False) -> Any:
    """Return a field that is only observed: never compared, and part of results where it is ``shown``."""
    return uncompared(metadata={"identity": True, "hidden": not shown})


input_only = observed_only  # the same for one that is only given: other fields follow from it


@dataclass(frozen=True)
class Item:
    """Define what all items share. ``word`` is the noun in messages, ``key`` identifies the item on one host."""

    word: ClassVar[str] = "item"
    words: ClassVar[Dict[str, str]] = {}  # the fields that are words of ``ip link ... type KIND``
    mac_on_bridge: ClassVar[Optional[str]] = None  # the field of the MAC that others on its bridge see

    @property
    def address_scopes(self) -> Tuple[Tuple[Optional[str], ...], ...]:
        """Return the places in which each of the item's addresses must be unique."""
        return (("netns", getattr(self, "netns", None)),)

    @property
    def _name(self) -> str:
        """Return the name of an item that has one."""
        return vars(self)["name"]

    @property
    def link_names(self) -> List[Tuple[Optional[str], str]]:
        """Return (namespace, name) of each link of the item."""
        return [(getattr(self, "netns", None), self._name)]

    @property
    def key(self) -> str:
        """Return what identifies the item on a host, as text."""
        netns = getattr(self, "netns", None)
        return f"{self.word} {self._name}" + (f" in netns {netns}" if netns else "")

    def merged_onto(self: T, observed: Optional[Item]) -> T:
        """Return this item with every unmanaged field as observed: what the host holds once it is applied."""
        if observed is None:
            return self
        updates = {}
        for entry in fields(self):
            desired, have = getattr(self, entry.name), getattr(observed, entry.name)
            if entry.metadata.get("hidden") or (desired is None and not entry.metadata.get("nullable")):
                updates[entry.name] = have
            elif entry.metadata.get("at_least"):
                updates[entry.name] = desired | (have or frozenset())
        return replace(self, **updates)

    def expected_after_apply(self: T) -> T:
        """Return what has to be observed once this has been applied."""
        return self

    def to_result(self) -> Dict[str, Any]:
        """Return a dict for return values and diffs: sets sorted, unmanaged and hidden fields left out."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)
                if getattr(self, entry.name) is not None and not entry.metadata.get("hidden")}


def _plain(value):
    if hasattr(value, "_asdict"):
        return {key: part for key, part in value._asdict().items() if part not in (None, "")}
    if isinstance(value, frozenset):
        return [_plain(each) for each in sorted(value, key=str)]
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
