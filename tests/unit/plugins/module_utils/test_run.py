# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way of all modules, on a host that is a dict, and does what it is told or does not."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import Optional

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.fromscratch.containers.plugins.module_utils.core import resource
from ansible_collections.fromscratch.containers.plugins.module_utils.core import run as core_run
from ansible_collections.fromscratch.containers.plugins.module_utils.core.kind import Kind
from ansible_collections.fromscratch.containers.plugins.module_utils.core.plan import Plan


@dataclass(frozen=True)
class Lamp(resource.Item):
    word = "lamp"
    address_scopes = ()

    name: str = resource.identity()
    colour: Optional[str] = resource.settable()
    owner: Optional[str] = resource.observed_only()


@dataclass(frozen=True)
class Switch:
    kind: Lamps
    plan: Plan

    def commands(self):
        return [f"{change.action} {change.item}" for change in self.plan.changes]

    def apply(self):
        self.kind.how(self.kind.host, self.plan)


class Lamps(Kind):
    options = {"name": {"type": "str", "required": True}, "colour": {"type": "str"}, "state": {"type": "str", "default": "present"}}

    def __init__(self, host, apply):
        super().__init__()
        self.host, self.how, self.closed = host, apply, False

    def parse(self, options):
        return Lamp(options["name"], options["colour"])

    def observe(self, wanted, prune, state):
        return {each.key: self.host[each.key] for each in wanted if each.key in self.host}

    def operations(self, plan):
        return [Switch(self, plan)]

    def close(self):
        self.closed = True


def obey(host, plan):
    for change in plan.changes:
        if change.after:
            host[change.item] = replace(change.after, owner=resource.OWNER)
        else:
            del host[change.item]


def refuse(host, plan):
    raise OSError(28, "No space left on device")


@pytest.fixture
def switch(capsys, monkeypatch):
    """Runs a module for one lamp; its result."""
    def run(host, apply=obey, check=False, **params):
        kind = Lamps(host, apply)
        with patch_module_args({"name": "a", **params, "_ansible_check_mode": check, "_ansible_remote_tmp": "/tmp",
                                "_ansible_keep_remote_files": False}), contextlib.suppress(SystemExit):
            core_run.run(core_run.KindModule(kind), kind)
        assert kind.closed
        return json.loads(capsys.readouterr().out)

    monkeypatch.setattr(core_run.os, "geteuid", lambda: 0)
    return run


def test_once_and_no_more(switch):
    host = {}
    predicted = switch(host, check=True, colour="red")
    assert predicted["changed"] and host == {}
    made = switch(host, colour="red")
    assert host["lamp a"].colour == "red"
    assert [made[each] for each in ("changed", "changes", "commands", "observed")] == [
        predicted[each] for each in ("changed", "changes", "commands", "observed")] == [
        True, [{"item": "lamp a", "action": "create", "fields": []}], ["create lamp a"], [{"name": "a", "colour": "red"}]]
    assert not switch(host, refuse, colour="red")["changed"]
    assert switch(host, state="absent")["changed"] and host == {}


def test_a_host_that_does_not_keep_what_was_set(switch):
    host = {"lamp a": Lamp("a", "blue", owner=resource.OWNER)}
    found = switch(host, lambda host, plan: None, colour="red")
    assert found["failed"] and found["msg"] == ("Verification after apply failed: "
                                                "lamp a: update (colour blue -> red). Is another network manager active?")
    assert found["left"] == [{"item": "lamp a", "action": "update", "fields": ["colour blue -> red"]}]
    again = switch(host, lambda host, plan: None, state="absent")
    assert again["failed"] and again["left"][0]["action"] == "delete"


def test_what_the_operating_system_refuses(switch):
    found = switch({}, refuse, colour="red")
    assert found["failed"] and found["msg"] == "The operating system refused: [Errno 28] No space left on device"


def test_it_takes_root(switch, monkeypatch):
    monkeypatch.setattr(core_run.os, "geteuid", lambda: 1000)
    for check in True, False:
        found = switch({}, check=check, colour="red")
        assert found["failed"] and "must run as root, not as uid 1000: set become: true" in found["msg"]
