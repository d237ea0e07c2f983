# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning as data: each folder plans/KIND/CASE has what a task wants, what a host has, and what has to be done.

``desired.yml`` holds a module's parameters. ``observed.yml`` is the host: its links by namespace and name for the kinds of link
(see snapshot.py); for others the items that are there, where ``made_with`` stands for the options that one was made with, and
under ``host`` the fields of wanted items that only a host can tell. ``plan.yml`` has the changes in words and, in the order of
doing, commands or operations; or why the task is refused. No kernel is asked.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.fromscratch.containers.plugins.module_utils.container.kind import Containers
from ansible_collections.fromscratch.containers.plugins.module_utils.container.operations import (
    NameNamespaces,
    Prepare,
    RemoveNamespaces,
    Start,
    Stop,
)
from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import Container
from ansible_collections.fromscratch.containers.plugins.module_utils.core.argspec import argument_spec, items_of
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError
from ansible_collections.fromscratch.containers.plugins.module_utils.core.operations import RemoveFile, Run, SwitchLink, WriteFile
from ansible_collections.fromscratch.containers.plugins.module_utils.core.planning import desired, plan, plan_all
from ansible_collections.fromscratch.containers.plugins.module_utils.core.resource import OWNER
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall.nftables import (
    ForgetConnections,
    LoadTable,
    Table,
    Tables,
)
from ansible_collections.fromscratch.containers.plugins.module_utils.host.files import File, Files
from ansible_collections.fromscratch.containers.plugins.module_utils.host.names import Names
from ansible_collections.fromscratch.containers.plugins.module_utils.network.bridge import Bridges
from ansible_collections.fromscratch.containers.plugins.module_utils.network.link_kind import LinkKind
from ansible_collections.fromscratch.containers.plugins.module_utils.network.veth import VethPairs
from ansible_collections.fromscratch.containers.plugins.module_utils.network.vxlan import Vxlans
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.download import OPTIONS as DOWNLOAD
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.item import Rootfs
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.kind import Rootfses
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.operations import Forget, InStore, Switch, Unpack

from .snapshot import Snapshot

PLANS = Path(__file__).parent / "plans"
CASES = sorted(path.parent for path in PLANS.glob("*/*/plan.yml"))
LINKS = {"bridge": Bridges, "veth": VethPairs, "vxlan": Vxlans}
OTHERS = {"containers": (Containers, Container), "files": (Files, File), "names": (Names, File), "nftables": (Tables, Table),
          "trees": (lambda: Rootfses({name: option["default"] for name, option in DOWNLOAD.items()}), Rootfs)}
# A container's are written where they differ from what the host happens to have, so that they are no part of its plan here.
ON_FILES = (WriteFile, RemoveFile, SwitchLink)
# Operations in words, but for those that no plan is about.
WORDS = {
    WriteFile: lambda found: f"write {found.path} {found.mode:04o}" + " in place" * found.in_place,
    RemoveFile: lambda found: f"remove {found.path}",
    SwitchLink: lambda found: f"link {found.path} -> {found.target}",
    Run: lambda found: f"run {' '.join(found.argv)}",
    LoadTable: lambda found: f"load {found.table.place}",
    ForgetConnections: lambda found: "forget UDP to " + ", ".join(f"{address or 'any'}:{port}" for address, port in found.ports),
    InStore: lambda found: {f"in {found.parent}": in_words(found.operations)},
    Unpack: lambda found: f"unpack {found.item.checksum[:4]} from {found.item.source}",
    Switch: lambda found: f"link {found.item.dest} to {found.item.checksum[:4]}",
    Forget: lambda found: f"forget {found.item.dest}",
    NameNamespaces: lambda found: f"name the namespaces of {found.name} again",
    RemoveNamespaces: lambda found: f"remove the namespaces of {found.name}" + " but for the network's" * (not found.network),
    Stop: lambda found: "stop " + ", ".join(item.name for item in found.items),
    Prepare: lambda found: {f"prepare {found.item.name}, which {'goes on' if found.goes_on else 'is stopped'}":
                            in_words(found.operations)},
    Start: lambda found: "start " + ", ".join(item.name for item in found.items),
}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def parameters(kind, given):
    """What Ansible makes of a task's parameters: types and defaults."""
    if not kind.options:  # only the collection itself makes any
        return {"prune": False, **given}
    found = ArgumentSpecValidator(argument_spec(kind)).validate(given)
    if found.error_messages:
        raise ModuleError("; ".join(found.error_messages))
    return found.validated_parameters


def planned(kind, task):
    """The plan of a module for these parameters, in the words of plan.yml."""
    try:
        params = parameters(kind, task)
        found, unused = plan(desired(kind, items_of(kind.options, params), params["prune"]))
    except ModuleError as refusal:
        return {"refused": str(refusal)}
    after = {change.item: change.after and replace(change.after.expected_after_apply(), owner=OWNER) for change in found.plan.changes}
    then = replace(found, found={key: item for key, item in {**found.found, **after}.items() if item})
    assert not then.left(), "what the plan leaves has something to do"
    shown = {"changes": list(map(change_in_words, found.plan.changes))}
    if isinstance(kind, LinkKind):
        return {**shown, "commands": found.going + found.coming, **({"unmet": list(found.plan.unmet)} if found.plan.unmet else {})}
    operations = [*kind.operations(found.plan.going), *kind.operations(found.plan.coming)]
    return {**shown, "operations": in_words(operations, ON_FILES if isinstance(kind, Containers) else ())}


def change_in_words(change):
    shown = change.to_result()
    return f"{shown['action']} {shown['item']}" + (f" ({'; '.join(shown['fields'])})" if shown["fields"] else "")


def in_words(operations, without=ON_FILES):
    """Those operations that do something, in words."""
    return [WORDS[type(found)](found) for found in operations
            if type(found) in WORDS and type(found) not in without and does_something(found)]


def does_something(operation):
    subjects = {Stop: "items", Start: "items", ForgetConnections: "ports"}.get(type(operation))
    return subjects is None or bool(getattr(operation, subjects))


def given(case, observed):
    """The kind of a case, which tells what the case has observed."""
    if case.parent.name in LINKS:
        return LINKS[case.parent.name](links=Snapshot(observed))
    make, item = OTHERS[case.parent.name]
    kind = make()
    found = [as_item(kind, item, each) for each in observed.get("items", ())]
    kind.complete = lambda wanted, state: replace(wanted, **observed.get("host", {}))
    kind.observe = lambda wanted, prune, state: {each.key: each for each in found}
    kind.judge = lambda item: None  # the tarball is nowhere
    return kind


def as_item(kind, item, values):
    values = {"owner": OWNER, **values}
    made_with = values.pop("made_with", None)
    values = {name: tuple(map(tuple, value)) if name == "reload" else value for name, value in values.items()}
    if made_with is None:
        return item(**values)
    return replace(kind.parse(items_of(kind.options, parameters(kind, made_with))[0]), **values)


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_plan(case):
    assert planned(given(case, read(case / "observed.yml")), read(case / "desired.yml")) == read(case / "plan.yml")


def test_a_plan_starts_from_what_those_before_it_leave():
    """One pair goes, which the bridge has as its port, and another comes: both are ports that the bridge is to have."""
    host = Snapshot({"host": {"br0": {"kind": "bridge", "ours": True, "mac": "02:00:00:00:00:01"},
                              "ve-old": {"kind": "veth", "ours": True, "peer": "a/eth0", "master": "br0"}},
                     "a": {"eth0": {"kind": "veth", "peer": "host/ve-old"}}, "b": {}})

    def task(kind, *config):
        return desired(kind, parameters(kind, {"config": list(config)})["config"])

    ports = task(Bridges(host), {"name": "br0", "mac": "02:00:00:00:00:01", "ports": ["ve-old", "ve-new"]})
    pairs = task(VethPairs(host), {"name": "ve-old", "state": "absent"}, {"name": "ve-new", "namespace": "b"})
    alone, unused = plan(ports)
    assert (alone.coming, alone.plan.unmet) == (["ip link set ve-new master br0"], ("bridge br0: there is no link ve-new",))
    (unused, then), state = plan_all([pairs, ports])
    assert (then.coming, then.plan.unmet) == (
        ["ip link set ve-new master br0", "ip link set ve-old master br0"], ("bridge br0: there is no link ve-old",))
    assert state.gone == {("link", None, "ve-old")} and state.made == {("link", None, "ve-new")}


def test_every_folder_is_whole():
    folders = [path for path in PLANS.glob("*/*") if path.is_dir()]
    assert folders and {path.name for folder in folders for path in folder.iterdir()} == {"desired.yml", "observed.yml", "plan.yml"}
    assert sorted(folders) == CASES
