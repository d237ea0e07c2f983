# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts of an overlay get, worked out from variables as the role does it."""

from __future__ import annotations

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader

from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError
from ansible_collections.fromscratch.containers.plugins.plugin_utils.members import Mistakes
from ansible_collections.fromscratch.containers.plugins.plugin_utils.overlay import Overlay
from ansible_collections.fromscratch.containers.plugins.plugin_utils.settings import options, typed

OPTIONS = options(DataLoader())
VALIDATOR = ArgumentSpecValidator(OPTIONS)


def overlay(variables, *leaving, **play):
    """The overlay of hosts with these variables, those of ``leaving`` away or on their way out; ``play`` are given to all of them."""
    settings, mistakes = {}, Mistakes()
    for name, values in variables.items():
        given = {key: value for key, value in {**values, **play}.items() if key.startswith("overlay_") and value is not None}
        settings[name], wrong = typed(given, VALIDATOR)
        if name in leaving or settings[name]["overlay_state"] == "present":
            for sentence in wrong:
                mistakes.add(sentence, name)
    found = Overlay({name: values for name, values in settings.items() if not mistakes.about(name)}, mistakes, leaving)
    if mistakes:
        raise ModuleError("\n".join(mistakes.sentences()))
    return found


def part(variables, host, **play):
    """The items of one host, by module."""
    return overlay(variables, host, **play).host_plan(host)
