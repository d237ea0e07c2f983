# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module must know about one kind of thing, for ``run`` to do the rest."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from .plan import Plan
from .resource import Item


class Ahead:
    """What the plans made so far in this run will do: those made after them count on it.

    ``made`` and ``gone`` hold paths of directories, names of network namespaces as ``("netns", name)``, and links as
    ``("link", netns, name)``. A thing made anew is in both. ``trees`` are the paths of the trees that root filesystems will lead
    to, by their names. Forgotten before the first plan is applied.
    """

    def __init__(self) -> None:
        self.made: Set[Any] = set()
        self.gone: Set[Any] = set()
        self.trees: Dict[str, str] = {}

    def forget(self) -> None:
        self.made.clear()
        self.gone.clear()
        self.trees.clear()


class Kind:
    """One kind of thing. A subclass fills in these; all but ``apply`` leave the host as it is."""

    options: Dict[str, Any] = {}  # the specification of one item's options
    rules: Dict[str, Any] = {}  # what Ansible checks of them together, such as required_if
    tools: Tuple[str, ...] = ()  # the programs of the host, in the words of ``dependencies``, without which there can be no item

    def __init__(self, ahead: Optional[Ahead] = None) -> None:
        self.ahead = ahead or Ahead()
        self.warnings: List[str] = []  # what an administrator should know about the host, in words

    def parse(self, options: Dict[str, Any]) -> Item:
        """The wanted item from the options of one. Raises OptionError."""
        raise NotImplementedError

    def require(self) -> None:
        """Raises ModuleError where an option that is not an item's cannot be."""

    def requirements(self, options: List[Dict[str, Any]]) -> Iterable[str]:
        """What the host must have, in the words of ``dependencies``, for items of these options."""
        return self.tools if any(each.get("state") != "absent" for each in options) else ()

    def complete(self, item: Any) -> Optional[Item]:
        """The wanted item with the defaults that only this host can tell."""
        return item

    def observe(self, wanted: Sequence[Any], prune: bool) -> Dict[str, Any]:
        """The items found, by key: those wanted, and with ``prune`` all others of the kind."""
        raise NotImplementedError

    def left(self, named: Sequence[Any]) -> List[Any]:
        """The items of ours that none of these is, and that the plans so far do not take away."""
        return []

    def missing(self, plan: Plan) -> List[str]:
        """What the plan needs that is not there yet, in words. A real run refuses; check mode warns."""
        return []

    def expect(self, plan: Plan) -> None:
        """Tells ``ahead`` what the plan will make and take away."""

    def commands(self, plan: Plan) -> List[str]:
        """The plan as the commands of an administrator."""
        raise NotImplementedError

    def boot(self, items: Sequence[Any]) -> List[str]:
        """What makes these items from nothing, or from what is there, as lines of a shell script."""
        return []

    def apply(self, plan: Plan) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of what observing and applying have opened."""
