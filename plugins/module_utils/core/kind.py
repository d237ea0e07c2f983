# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module must know about one kind of thing, for ``run`` to do the rest."""

from __future__ import annotations


class Ahead:
    """What the plans made so far in this run will do: those made after them count on it.

    ``made`` and ``gone`` hold paths of directories, names of network namespaces as ``("netns", name)``, and links as
    ``("link", netns, name)``. A thing made anew is in both. ``trees`` are the paths of the trees that root filesystems will lead
    to, by their names. Forgotten before the first plan is applied.
    """

    def __init__(self):
        self.made, self.gone, self.trees = set(), set(), {}

    def forget(self):
        self.made.clear()
        self.gone.clear()
        self.trees.clear()


class Kind:
    """One kind of thing. A subclass fills in these; all but ``apply`` leave the host as it is."""

    options = {}  # the specification of one item's options
    tools = ()  # the programs of the host, in the words of ``dependencies``, without which there can be no item

    def __init__(self, ahead=None):
        self.ahead = ahead or Ahead()
        self.warnings = []  # what an administrator should know about the host, in words

    def parse(self, options):
        """The wanted item from the options of one. Raises OptionError."""
        raise NotImplementedError

    def require(self):
        """Raises ModuleError where an option that is not an item's cannot be."""

    def requirements(self, options):
        """What the host must have, in the words of ``dependencies``, for items of these options."""
        return self.tools if any(each.get("state") != "absent" for each in options) else ()

    def complete(self, item):
        """The wanted item with the defaults that only this host can tell."""
        return item

    def observe(self, wanted, prune):
        """The items found, by key: those wanted, and with ``prune`` all others of the kind."""
        raise NotImplementedError

    def left(self, named):
        """The items of ours that none of these is, and that the plans so far do not take away."""
        return []

    def missing(self, plan):
        """What the plan needs that is not there yet, in words. A real run refuses; check mode warns."""
        return []

    def expect(self, plan):
        """Tells ``ahead`` what the plan will make and take away."""

    def commands(self, plan):
        """The plan as the commands of an administrator."""
        raise NotImplementedError

    def boot(self, items):
        """What makes these items from nothing, or from what is there, as lines of a shell script."""
        return []

    def apply(self, plan):
        raise NotImplementedError

    def close(self):
        """Lets go of what observing and applying have opened."""
