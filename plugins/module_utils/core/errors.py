# SPDX-License-Identifier: GPL-3.0-or-later
"""Define errors whose text says what to do next. Only ``run`` turns these into ``fail_json``."""

from __future__ import annotations


class ModuleError(Exception):
    """Report what stops the module. ``details`` become extra keys of the module's failure."""

    def __init__(self, message, **details):
        super().__init__(message)
        self.details = details


class OptionError(ModuleError):
    """Report a value that breaks a rule: the option, the value and the rule, before anything has changed."""

    def __init__(self, option, value, rule):
        super().__init__(f"{option}: {value!r} is not valid: {rule}", option=option)
        self.parts = option, value, rule

    def below(self, outer):
        """Return the error with the option that holds the list in which this one stands."""
        option, value, rule = self.parts
        return OptionError(f"{outer}.{option}", value, rule)


class NotOwnedError(ModuleError):
    """Report a thing of the desired name that another program made; it is neither taken over nor deleted."""

    def __init__(self, item, why, remedy):
        super().__init__(f"{item} {why}; it is left alone. {remedy}", item=item)
