# SPDX-License-Identifier: GPL-3.0-or-later
"""One schema: what a module takes is what it documents; the role's variables, and what its actions take, are of the same types."""

from __future__ import annotations

import importlib
import sys

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fromscratch.containers.plugins.action import overlay_host, overlay_plan
from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import KINDS
from ansible_collections.fromscratch.containers.plugins.plugin_utils import members, overlay

from ..conftest import ROOT
from .documented import MODULES, documented

PLUGINS = "ansible_collections.fromscratch.containers.plugins"
ACTIONS = {"overlay_host": overlay_host.ARGUMENTS, "overlay_plan": overlay_plan.ARGUMENTS}
ROLE = yaml.safe_load((ROOT / "roles/overlay/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["variables"]["options"]
DEFAULTS = yaml.safe_load((ROOT / "roles/overlay/defaults/main.yml").read_text(encoding="utf-8"))
CONTAINERS, NETWORKS = (ROLE[f"overlay_{name}"]["options"] for name in ("containers", "networks"))
FLAT = {name[len("overlay_"):]: spec for name, spec in ROLE.items()}
# What the role itself says of a container, beside the options of ns_container.
PLACE = {"address", "addresses", "gateway", "allowed_addresses", "publish", "network"}
TYPE = ("type", "elements", "choices")
WHOLE = (*TYPE, "default", "required")


def shape(spec, keys):
    """What a specification or a documentation says of an option for machines."""
    given = {"type": "str", "required": False, **spec}
    return {key: list(value) if isinstance(value, tuple) else value for key in keys if (value := given.get(key)) is not None}


def differences(here, there, places, keys=WHOLE, before=""):
    """Each option of two places that one of them lacks or has otherwise, in words."""
    for name in sorted({*here, *there}):
        path = before + name
        for options, place in zip((here, there), places):
            if name not in options:
                yield f"{path} is missing in {place}"
        if name in here and name in there:
            one, other = here[name], there[name]
            if shape(one, keys) != shape(other, keys):
                yield f"{path} is {shape(one, keys)} in {places[0]} and {shape(other, keys)} in {places[1]}"
            below = (each.get("options") or each.get("suboptions") or {} for each in (one, other))
            yield from differences(*below, places, keys, f"{path}.")


def taken(module, monkeypatch):
    """The argument specification that a module gives to Ansible."""
    if module in ACTIONS:
        return ACTIONS[module]
    found = {}

    def remember(self, argument_spec, **unused):
        found.update(argument_spec)
        sys.exit()

    monkeypatch.setattr(AnsibleModule, "__init__", remember)
    with pytest.raises(SystemExit):
        importlib.import_module(f"{PLUGINS}.modules.{module}").main()
    return found


@pytest.mark.parametrize("module", sorted(path.stem for path in MODULES.glob("*.py")))
def test_a_module_documents_what_it_takes(module, monkeypatch):
    places = f"the argument spec of {module}", f"the documentation of {module}"
    assert list(differences(taken(module, monkeypatch), documented(module), places)) == []


def test_the_containers_of_the_role_take_what_ns_container_takes():
    own = {name: spec for name, spec in CONTAINERS.items() if name not in PLACE}
    options = {name: spec for name, spec in KINDS["ns_container"].options.items() if name != "state"}  # that of the host
    places = "overlay_containers of the role", "ns_container"
    assert list(differences(own, options, places, (*TYPE, "required"))) == []
    assert set(CONTAINERS) >= PLACE


def test_what_the_controller_passes_on_is_what_the_role_takes():
    assert set(overlay.CONTAINER_OPTIONS) == set(CONTAINERS) - PLACE


def test_a_network_of_the_role_takes_what_the_variables_of_the_host_take():
    one = {name: spec for name, spec in NETWORKS.items() if name != "name"}
    many = {name: {**FLAT.get(name, {}), "required": False} for name in members.NETWORK if name in FLAT}
    places = "overlay_networks of the role", "the variables of the role that plugin_utils.members.NETWORK names"
    assert list(differences(one, many, places, TYPE)) == []
    assert set(members.NETWORK) <= set(FLAT), "each is a variable of the role"
    unset = {name for name in members.NETWORK if not FLAT[name].get("required") and FLAT[name].get("default") in (None, [])}
    assert unset == set(members.OPTIONAL), "those that are none by default, and may be so in a network"


@pytest.mark.parametrize("variable, kind, option", [
    ("vni", "vxlan_link", "vni"), ("port", "vxlan_link", "port"), ("mtu", "vxlan_link", "mtu"), ("device", "vxlan_link", "device"),
    ("underlay_ip", "vxlan_link", "local"), ("bridge", "linux_bridge", "name"), ("vxlan", "vxlan_link", "name"),
    ("runtime", "ns_container", "runtime"), ("state", "vxlan_link", "state"),
    *((variable, "alpine_rootfs", option) for option, variable in overlay.ARCHIVE.items())])
def test_a_variable_is_of_the_type_of_the_option_that_it_sets(variable, kind, option):
    here, there = FLAT[variable], KINDS[kind].options[option]
    keys = (*TYPE, "default") if {"default"} <= here.keys() & there.keys() else TYPE
    assert shape(here, keys) == shape(there, keys), f"overlay_{variable} and {kind}.{option}"


def test_the_defaults_of_the_role_are_those_that_it_documents():
    assert {name: spec["default"] for name, spec in ROLE.items() if "default" in spec} == DEFAULTS


def test_what_differs_is_named_with_its_place():
    here, there = {"a": {"type": "int"}, "b": {"options": {"c": {}}}}, {"b": {"suboptions": {}}, "d": {}}
    assert list(differences(here, there, ("one", "two"))) == ["a is missing in two", "b.c is missing in two", "d is missing in one"]
    assert list(differences({"a": {"default": 1}}, {"a": {"default": 2}}, ("one", "two"))) == [
        "a is {'type': 'str', 'default': 1, 'required': False} in one and {'type': 'str', 'default': 2, 'required': False} in two"]
