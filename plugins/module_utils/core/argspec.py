# SPDX-License-Identifier: GPL-3.0-or-later
"""One option specification for two forms: one item by flat options, or many under ``config``."""

from __future__ import annotations

from .errors import OptionError


def argument_spec(options):
    """``options`` describes one item; the flat form makes nothing required that ``config`` may give instead."""
    flat = {name: {key: value for key, value in spec.items() if key != "required"} for name, spec in options.items()}
    return {**flat,
            "config": {"type": "list", "elements": "dict", "options": options},
            "prune": {"type": "bool", "default": False}}


# What tells one item from another: no default of several.
IDENTITY = ("name", "dest", "container", "namespace", "pid")


def spread(options, params):
    """The parameters as the task gave them, with those of one item that stand beside ``config`` as defaults of its items.

    Ansible adds ``module_defaults`` there, whichever form a task uses.
    """
    beside = {name: params[name] for name in options if params.get(name) is not None and name not in IDENTITY}
    if not beside or not isinstance(params.get("config"), list):
        return params
    return {**{name: value for name, value in params.items() if name not in beside},
            "config": [{**beside, **item} if isinstance(item, dict) else item for item in params["config"]]}


def items_of(options, params):
    """The option dicts of the wanted items, in order, whichever form the task used."""
    flat = {name: params[name] for name in options}
    if params["config"] is None:
        missing = [name for name, spec in options.items() if spec.get("required") and flat[name] is None]
        if missing:
            raise OptionError(missing[0], None, "it is required; or give a list of items under config")
        return [flat]
    for name in options:
        if name in IDENTITY and flat[name] is not None:
            raise OptionError(name, flat[name], "give it inside config, where config is used: it tells one item from another")
    return params["config"]
