# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the variables of the role for each host of the inventory, as a task on that host would see them.

The role's argument specification is the one place that knows their names, types and defaults. Ansible validates it once for each
host and keeps no converted values; here every value gets its type, whatever way it was given.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Dict

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.template import Templar

PREFIX = "overlay_"
ENTRY = "variables"
SPECIFICATION = Path(__file__).resolve().parents[2] / "roles/overlay/meta/argument_specs.yml"


class Settings:
    """Read the settings of any host of the inventory in the context of one task of the role."""

    def __init__(self, task, loader, task_vars):
        self._task, self._loader = task, loader
        # What a play, a role or a task gives to its hosts is seen by the variable manager alone: hostvars[name] lacks it.
        self._manager, self._inventory = task_vars["hostvars"]._variable_manager, task_vars["hostvars"]._inventory
        self._options = options(loader)
        self._validator = ArgumentSpecValidator(self._options)
        self._contexts = {}  # of the hosts of which one variable has been asked for

    def one(self, host, name):
        """Return a single variable of a host, or None."""
        self._contexts[host] = variables, templar = self._context(host)
        return templar.template(variables.get(name))

    def read(self, host):
        """Return (all settings of a host with their types, its mistakes as sentences)."""
        variables, templar = self._contexts.pop(host, None) or self._context(host)
        given, mistakes = {}, []
        for name in sorted(name for name in variables if str(name).startswith(PREFIX)):
            if name not in self._options:
                mistakes.append(misspelt(name, self._options))
                continue
            try:
                value = templar.template({name: variables[name]}).get(name)
            except AnsibleError as error:
                mistakes.append(f"{name}: {_cause(error)}")
                continue
            if value is not None and value != variables.get("omit"):
                given[name] = plain(value)
        values, wrong = typed(given, self._validator)
        broken = [each.partition(":")[0] for each in mistakes]  # not to be called missing as well
        return values, mistakes + [each for each in wrong if not any(name in each for name in broken)]

    def _context(self, host):
        variables = self._manager.get_vars(play=self._task.get_play(), host=self._inventory.get_host(host), task=self._task)
        return variables, Templar(loader=self._loader, variables=variables)


def options(loader):
    """Return the argument specification of the role's variables."""
    found = loader.load_from_file(str(SPECIFICATION))["argument_specs"][ENTRY]["options"]
    return {name: _from_afar(spec) for name, spec in found.items()}


def typed(given, validator):
    """Return (all variables with their types and defaults, the mistakes in those given as sentences)."""
    known = validator.argument_spec
    listed = {name: as_listed(value, known.get(name, {})) for name, value in given.items()}
    result = validator.validate(listed)
    return {name: as_given(listed.get(name), value, known.get(name, {}))
            for name, value in result.validated_parameters.items()}, result.error_messages


def _from_afar(spec):
    """Return a specification without paths: ``~`` and environment variables are the host's, and not expanded here."""
    changed: Dict[str, Any] = {"type": "str"} if spec.get("type") == "path" else {}
    if spec.get("elements") == "path":
        changed["elements"] = "str"
    if "options" in spec:
        changed["options"] = {name: _from_afar(each) for name, each in spec["options"].items()}
    return {**spec, **changed}


def misspelt(name, known):
    """Return the sentence for a variable that the role does not have."""
    near = difflib.get_close_matches(name, known, 1)
    return f"{name}: the role has no such variable: " + (
        f"did you mean {near[0]}?" if near else f"names that begin with {PREFIX} are the role's, give your own another beginning")


def plain(value):
    """Return a value without the tags by which newer releases of Ansible track its origin, and which messages would show."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, str) else value


def as_listed(value, spec):
    """Return a string where a list is expected as a list of one; Ansible would split it at commas."""
    if spec.get("type") == "list" and isinstance(value, str):
        value = [value]
    if "options" in spec:
        items = value if isinstance(value, list) else [value]
        items = [{name: as_listed(each, spec["options"].get(name, {})) for name, each in item.items()}
                 if isinstance(item, dict) else item for item in items]
        value = items if isinstance(value, list) else items[0]
    return value


def as_given(given, value, spec):
    """Return a validated value without the options that its items do not give; one given as None stays."""
    if "options" not in spec:
        return value
    if isinstance(value, list):
        return [as_given(*each, spec) for each in zip(given or (), value)]
    if isinstance(value, dict):
        before = given if isinstance(given, dict) else {}
        return {name: as_given(before.get(name), each, spec["options"].get(name, {})) for name, each in value.items()
                if each is not None or name in before}
    return value


def _cause(error):
    """Return the message of the innermost error."""
    while isinstance(error.__cause__, AnsibleError):
        error = error.__cause__
    return getattr(error, "message", None) or str(error)
