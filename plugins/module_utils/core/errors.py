# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, said so that a reader knows what to do next. Only ``run`` turns these into ``fail_json``."""

from __future__ import annotations


class ModuleError(Exception):
    """Something that stops the module. ``details`` become extra keys of the module's failure."""

    def __init__(self, message, **details):
        super().__init__(message)
        self.details = details


class OptionError(ModuleError):
    """A value that breaks a rule: names the option, the value and the rule, before anything has changed."""

    def __init__(self, option, value, rule):
        super().__init__(f"{option}: {value!r} is not valid: {rule}", option=option)
        self.parts = option, value, rule

    def below(self, outer):
        """The same, where the option stands in a list that another option holds."""
        option, value, rule = self.parts
        return OptionError(f"{outer}.{option}", value, rule)


class NotOwnedError(ModuleError):
    """A thing of the wanted name that somebody else made; it is neither taken over nor deleted."""

    def __init__(self, item, why, remedy):
        super().__init__(f"{item} {why}; it is left alone. {remedy}", item=item)
