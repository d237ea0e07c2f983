# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning as data: each folder plans/KIND/CASE has what a task wants, what a host has, and what has to be done.

``desired.yml`` holds a module's parameters. ``observed.yml`` is the host: its links by namespace and name for the kinds of link
(see snapshot.py), for others the items that are there and what else the host tells. ``plan.yml`` has the changes in words and, in
the order of doing, commands or operations; or why the task is refused. No kernel is asked.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.fromscratch.containers.plugins.module_utils.core.argspec import argument_spec, items_of
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError
from ansible_collections.fromscratch.containers.plugins.module_utils.core.plan import diff
from ansible_collections.fromscratch.containers.plugins.module_utils.core.resource import OWNER
from ansible_collections.fromscratch.containers.plugins.module_utils.core.run import Stage
from ansible_collections.fromscratch.containers.plugins.module_utils.network.bridge import Bridges
from ansible_collections.fromscratch.containers.plugins.module_utils.network.veth import VethPairs
from ansible_collections.fromscratch.containers.plugins.module_utils.network.vxlan import Vxlans

from .snapshot import Snapshot

PLANS = Path(__file__).parent / "plans"
CASES = sorted(path.parent for path in PLANS.glob("*/*/plan.yml"))
LINKS = {"bridge": Bridges, "veth": VethPairs, "vxlan": Vxlans}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def parameters(kind, given):
    """What Ansible makes of a task's parameters: types and defaults."""
    found = ArgumentSpecValidator(argument_spec(kind.options)).validate(given)
    assert not found.error_messages
    return found.validated_parameters


def planned(kind, desired):
    """The plan of a module for these parameters, in the words of plan.yml."""
    params = parameters(kind, desired)
    try:
        stage = Stage(kind, items_of(kind.options, params), params["prune"])
        stage.look()
    except ModuleError as refusal:
        return {"refused": str(refusal)}
    after = {change.item: change.after and replace(change.after, owner=OWNER) for change in stage.plan.changes}
    again = diff({key: item and item.expected_after_apply() for key, item in stage.wanted.items()},
                 {key: item for key, item in {**stage.found, **after}.items() if item}, params["prune"])
    assert not again, "what the plan leaves has something to do"
    found = {"changes": list(map(in_words, stage.plan.changes)), "commands": [line for lines in stage.commands for line in lines]}
    return {**found, "missing": stage.missing} if stage.missing else found


def in_words(change):
    shown = change.to_result()
    return f"{shown['action']} {shown['item']}" + (f" ({'; '.join(shown['fields'])})" if shown["fields"] else "")


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_plan(case):
    observed = read(case / "observed.yml")
    kind = LINKS[case.parent.name](links=Snapshot(observed))
    assert planned(kind, read(case / "desired.yml")) == read(case / "plan.yml")


def test_every_folder_is_whole():
    folders = [path for path in PLANS.glob("*/*") if path.is_dir()]
    assert folders and {path.name for folder in folders for path in folder.iterdir()} == {"desired.yml", "observed.yml", "plan.yml"}
    assert sorted(folders) == CASES
