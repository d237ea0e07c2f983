# SPDX-License-Identifier: GPL-3.0-or-later
"""One option specification for all forms: one item by flat options, many under ``config``, or a list of M(topology).

A kind has ``options``, the specification of one item, and ``rules``, what Ansible checks of them together: ``required_if``,
``required_one_of`` and ``mutually_exclusive``.
"""

from __future__ import annotations


def list_of(kind):
    """The specification of an option that lists items of the kind."""
    return {"type": "list", "elements": "dict", "options": kind.options, **kind.rules}


def argument_spec(kind):
    """The specification of both forms; the flat one requires nothing, as long as ``config`` may give it instead."""
    flat = {name: {key: value for key, value in spec.items() if key != "required"} for name, spec in kind.options.items()}
    return {**flat, "config": list_of(kind), "prune": {"type": "bool", "default": False}}


# What tells one item from another: no default of several.
IDENTITY = ("name", "dest", "container", "namespace", "pid")


def rules_of(kind, params):
    """What Ansible checks of a module's options together, in the form that the task uses."""
    if params.get("config") is None:
        return kind.rules
    return {"mutually_exclusive": [(name, "config") for name in IDENTITY if name in kind.options]}


def spread(options, params):
    """The parameters as the task gave them, with those of one item that stand beside ``config`` as defaults of its items.

    Ansible adds ``module_defaults`` there, whichever form a task uses.
    """
    beside = {name: params[name] for name in options if params.get(name) is not None and name not in IDENTITY}
    if not beside or not isinstance(params.get("config"), list):
        return params
    return {**{name: value for name, value in params.items() if name not in beside},
            "config": [{**beside, **item} if isinstance(item, dict) else item for item in params["config"]]}


def given(options, params):
    """The parameters without those that are null, which Ansible counts as given: where an option has no default, null says that
    it is left out."""
    return {name: _given_below(options.get(name, {}), value) for name, value in params.items()
            if value is not None or name not in options or "default" in options[name]}


def _given_below(spec, value):
    if "options" in spec and isinstance(value, dict):
        return given(spec["options"], value)
    if "options" in spec and isinstance(value, list):
        return [_given_below(spec, item) for item in value]
    return value


def items_of(options, params):
    """The option dicts of the wanted items, in order, whichever form the task used."""
    return [{name: params[name] for name in options}] if params["config"] is None else params["config"]
