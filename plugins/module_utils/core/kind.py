# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module must know about one kind of thing, for ``run`` to do the rest."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Protocol, Sequence, Tuple

from .plan import Plan, State, diff
from .resource import Item


class Operation(Protocol):
    """Define what is done to a host, as data."""

    def apply(self) -> None:
        """Perform the operation. Raise ModuleError."""

    def commands(self) -> List[str]:
        """Return the shell commands that do the same, a list of strings."""


class Kind:
    """One kind of thing. A subclass fills in these, which leave the host as it is: operations change it."""

    options: Dict[str, Any] = {}  # the specification of one item's options
    rules: Dict[str, Any] = {}  # what Ansible checks of them together, such as required_if
    tools: Tuple[str, ...] = ()  # the programs of the host, in the words of ``dependencies``, without which there can be no item

    def __init__(self) -> None:
        self.warnings: List[str] = []  # what an administrator should know about the host, in words

    def parse(self, options: Dict[str, Any]) -> Item:
        """The wanted item from the options of one. Raises OptionError."""
        raise NotImplementedError

    def requirements(self, options: List[Dict[str, Any]]) -> Iterable[str]:
        """Return what the host must have, in the words of ``dependencies``, for items of these options. Raise ModuleError where an
        option that is not an item's cannot be."""
        return self.tools if any(each.get("state") != "absent" for each in options) else ()

    def complete(self, item: Any, state: State) -> Optional[Item]:
        """Return the wanted item with the defaults that only this host can tell, in the state that the plans so far will leave."""
        return item

    def observe(self, wanted: Sequence[Any], prune: bool, state: State) -> Dict[str, Any]:
        """Return the items found, by key: those wanted, and with ``prune`` all others of the kind."""
        raise NotImplementedError

    def plan(self, wanted: Dict[str, Optional[Any]], observed: Dict[str, Any], prune: bool, state: State) -> Tuple[Plan, State]:
        """Return the plan from the observed items to the wanted ones, and the state that it will leave. It changes nothing."""
        return diff(wanted, observed, prune, state), state

    def left(self, named: Sequence[Any], state: State) -> List[Any]:
        """Return the items of ours that none of these is, and that the plans do not take away."""
        return []

    def operations(self, plan: Plan) -> Sequence[Operation]:
        """Return what makes the plan true, in order: applied, and shown as the commands of an administrator."""
        raise NotImplementedError

    def boot(self, items: Sequence[Any]) -> List[str]:
        """What makes these items from nothing, or from what is there, as lines of a shell script."""
        return []

    def close(self) -> None:
        """Lets go of what observing and applying have opened."""
