# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can hold: one frozen type per kind of thing, used for what is desired and for what is observed alike.

``None`` means "not managed": such a field is neither compared nor changed. Each field says in its metadata
whether the kernel can change it in place; where it cannot, a difference makes the thing anew.
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
    """A field that is only observed: never compared, and part of results where it is ``shown``."""
    return uncompared(metadata={"identity": True, "hidden": not shown})


input_only = observed_only  # the same for one that is only given: other fields follow from it


@dataclass(frozen=True)
class Item:
    """What all the types share. ``word`` is the noun in messages, ``key`` finds the thing on one host."""

    word: ClassVar[str] = "item"
    words: ClassVar[Dict[str, str]] = {}  # the fields that are words of ``ip link ... type KIND``
    mac_on_bridge: ClassVar[Optional[str]] = None  # the field of the MAC that others on its bridge see

    @property
    def address_scopes(self) -> Tuple[Tuple[Optional[str], ...], ...]:
        """Where each of the item's addresses may stand only once."""
        return (("netns", getattr(self, "netns", None)),)

    @property
    def _name(self) -> str:
        """That of a thing which has one."""
        return vars(self)["name"]

    @property
    def link_names(self) -> List[Tuple[Optional[str], str]]:
        """Each (namespace, name) that the links of the item take."""
        return [(getattr(self, "netns", None), self._name)]

    @property
    def key(self) -> str:
        """What finds it on a host, in words."""
        netns = getattr(self, "netns", None)
        return f"{self.word} {self._name}" + (f" in netns {netns}" if netns else "")

    def merged_onto(self: T, observed: Optional[Item]) -> T:
        """This item with every unmanaged field as observed: what the host holds once this is applied."""
        if observed is None:
            return self
        updates = {}
        for each in fields(self):
            wanted, have = getattr(self, each.name), getattr(observed, each.name)
            if each.metadata.get("hidden") or (wanted is None and not each.metadata.get("nullable")):
                updates[each.name] = have
            elif each.metadata.get("at_least"):
                updates[each.name] = wanted | (have or frozenset())
        return replace(self, **updates)

    def expected_after_apply(self: T) -> T:
        """What observing must find once this has been applied."""
        return self

    def to_result(self) -> Dict[str, Any]:
        """A plain dict for return values and diffs: sets sorted, unmanaged and hidden fields left out."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)
                if getattr(self, each.name) is not None and not each.metadata.get("hidden")}


def _plain(value):
    if hasattr(value, "_asdict"):
        return {key: part for key, part in value._asdict().items() if part not in (None, "")}
    if isinstance(value, frozenset):
        return [_plain(each) for each in sorted(value, key=str)]
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
