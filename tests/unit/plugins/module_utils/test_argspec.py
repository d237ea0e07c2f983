# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule: what it takes, in its canonical form. What it refuses stands in tests/kernel/test_bad_input.py, by option."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core import argspec, validate
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import OptionError
from ansible_collections.fromscratch.containers.plugins.module_utils.core.kind import Kind
from ansible_collections.fromscratch.containers.plugins.module_utils.network import addressing, identity
from ansible_collections.fromscratch.containers.plugins.module_utils.network.links import Route

OPTIONS = {"name": {"type": "str", "required": True}, "port": {"type": "int", "default": 4789}, "via": {"type": "str"},
           "routes": {"type": "list", "elements": "dict", "options": {"dst": {"type": "str"}}}}


class Doors(Kind):
    options = OPTIONS
    rules: ClassVar = {"required_if": [("port", 4789, ("via",))]}


@pytest.mark.parametrize("check, value, canonical", [
    (addressing.interface_name, "vxlan0", "vxlan0"), (addressing.interface_name, "x" * 15, "x" * 15), (addressing.interface_name, None, None),
    (validate.thing_name, "container-a.1", "container-a.1"), (validate.thing_name, None, None),
    (addressing.mac, "02-AB-00-00-00-01", "02:ab:00:00:00:01"), (addressing.mac, None, None),
    (addressing.ip, "FD00:0::1", "fd00::1"), (addressing.ip, None, None),
    (addressing.unicast, "172.31.89.40", "172.31.89.40"), (addressing.unicast, None, None),
    (addressing.multicast, "239.1.1.1", "239.1.1.1"), (addressing.multicast, "FF05::1", "ff05::1"), (addressing.multicast, None, None),
    (addressing.interface_address, "10.0.0.1/24", "10.0.0.1/24"), (addressing.interface_address, "fd00:0::1/64", "fd00::1/64"),
    (addressing.interface_addresses, ["10.0.0.1/24", "fd00::1/64"], frozenset(["10.0.0.1/24", "fd00::1/64"])),
    (addressing.interface_addresses, None, None),
    *((addressing.interface_address, each, each) for each in (  # small subnets, and addresses that work though they look odd
        "10.0.0.0/31", "10.0.0.1/31", "10.0.0.0/32", "fd00::/127", "fd00::/128", "240.0.0.1/24", "169.254.7.1/16", "10.0.0.255/23")),
    (addressing.host_ip, "fe80::1", "fe80::1"), (addressing.host_ip, None, None),
    (addressing.network, "default", "default"), (addressing.network, "0.0.0.0/0", "0.0.0.0/0"),
    (addressing.network, "::/0", "::/0"), (addressing.network, "10.1.0.0/16", "10.1.0.0/16"),
    (addressing.mtu, 68, 68), (addressing.mtu, 65535, 65535), (addressing.mtu, None, None),
])
def test_taken(check, value, canonical):
    assert check("option", value) == canonical


def test_ipv6_needs_an_mtu_of_1280():
    assert addressing.mtu("mtu", 1279, ["10.0.0.1/24"]) == 1279 and addressing.mtu("mtu", 1280, ["fd00::1/64"]) == 1280
    with pytest.raises(OptionError, match="from 1280"):
        addressing.mtu("mtu", 1279, ["10.0.0.1/24", "fd00::1/64"])


def test_families_are_not_mixed():
    assert addressing.same_family("remotes", "10.0.0.2", "local", "10.0.0.1") == "10.0.0.2"
    for one, other in ("10.0.0.1", "fd00::1"), ("fd00::1", "10.0.0.1"):
        with pytest.raises(OptionError, match=f"remotes: '{one}' is not valid: .* than local, {other}"):
            addressing.same_family("remotes", one, "local", other)


def test_routes_and_the_gateway_are_one_set():
    assert addressing.routes("routes", None, None) is None
    assert addressing.routes("routes", [], None) == frozenset()
    found = addressing.routes("routes", [{"dst": "10.1.0.0/16", "via": None}], "10.0.0.1")
    assert found == {Route("10.1.0.0/16"), Route("default", "10.0.0.1")}
    for dst, via in ("10.1.0.0/16", "fd00::1"), ("0.0.0.0/0", "fd00::1"), ("::/0", "10.0.0.1"):
        with pytest.raises(OptionError, match="routes.via: .*another address family"):
            addressing.routes("routes", [{"dst": dst, "via": via}], None)


@pytest.mark.parametrize("dst, via, expected", [
    ("default", None, "default"), ("default", "10.0.0.1", "default"), ("default", "fd00::1", "::/0"),
    ("0.0.0.0/0", None, "default"), ("0.0.0.0/0", "10.0.0.1", "default"), ("::/0", None, "::/0"), ("::/0", "fd00::1", "::/0")])
def test_a_default_route_has_a_family(dst, via, expected):
    assert addressing.routes("routes", [{"dst": dst, "via": via}], None) == {Route(expected, via)}


@pytest.mark.parametrize("via, others", [
    ("10.0.0.1", []), ("fe80::1", []), ("10.9.0.1", [Route("10.9.0.0/24")]), ("fd00::1", [])])
def test_a_gateway_that_can_be_reached(via, others):
    addressing.refuse_unreachable([Route("default", via), *others], ["10.0.0.100/24", "fd00::100/64"])


@pytest.mark.parametrize("via, others", [("10.9.0.1", []), ("fd01::1", []), ("10.9.0.1", [Route("10.9.0.0/24", "10.0.0.1")])])
def test_a_gateway_out_of_reach(via, others):
    with pytest.raises(OptionError, match=f"gateway: '{via}' is not valid: it is in no network of the addresses"):
        addressing.refuse_unreachable([Route("default", via), *others], ["10.0.0.100/24", "fd00::100/64"], gateway=via)


def test_own_mac_comes_from_the_address_or_from_the_host(monkeypatch):
    one = identity.own_mac("veth", "ve-a", None, ["10.0.0.1/24", "10.0.0.2/24"])
    assert one == identity.own_mac("veth", "ve-b", "n", ["10.0.0.1/16"]) != identity.own_mac("bridge", "ve-a", None, ["10.0.0.1/24"])
    here = identity.own_mac("veth", "ve-a", None)
    assert here != identity.own_mac("veth", "ve-a", "n") and here == identity.own_mac("veth", "ve-a", None, [])
    monkeypatch.setattr(identity, "_machine_id", lambda: "another")
    assert here != identity.own_mac("veth", "ve-a", None)


def test_one_specification_for_both_forms():
    spec = argspec.argument_spec(Doors)
    assert spec["name"] == {"type": "str"} and spec["config"] == argspec.list_of(Doors) == {
        "type": "list", "elements": "dict", "options": OPTIONS, **Doors.rules}
    assert spec["prune"] == {"type": "bool", "default": False}


def test_items_come_from_either_form():
    flat = {"name": "a", "port": 1, "via": None, "routes": None}
    assert argspec.items_of(OPTIONS, {**flat, "config": None}) == [flat]
    many = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    assert argspec.items_of(OPTIONS, {"name": None, "port": 4789, "config": many}) == many
    assert argspec.items_of(OPTIONS, {"name": None, "port": 4789, "config": []}) == []


def test_the_forms_are_not_mixed():
    assert argspec.rules_of(Doors, {"name": "a"}) == argspec.rules_of(Doors, {"name": "a", "config": None}) == Doors.rules
    assert argspec.rules_of(Doors, {"name": "a", "config": []}) == {"mutually_exclusive": [("name", "config")]}


@pytest.mark.parametrize("params, left", [
    ({"name": None, "via": None, "_ansible_x": None}, {"_ansible_x": None}), ({"port": None}, {"port": None}),
    ({"routes": [{"dst": None}, None, "dst=a"]}, {"routes": [{}, None, "dst=a"]}), ({"routes": {"dst": None}}, {"routes": {}})])
def test_null_is_left_out_where_there_is_no_default(params, left):
    """Ansible's rules count what is null as given."""
    assert argspec.given(OPTIONS, params) == left


@pytest.mark.parametrize("task, items", [
    ({"port": 1, "config": [{"name": "a"}, {"name": "b", "port": 4789}, {"name": "c", "port": None}]},
     [{"name": "a", "port": 1}, {"name": "b", "port": 4789}, {"name": "c", "port": None}]),  # one given is none of before
    ({"port": 1, "config": ["name=a"]}, ["name=a"]), ({"port": 1, "config": "name=a"}, "name=a"), ({"port": 1, "config": []}, []),
    ({"port": None, "config": [{"name": "a"}]}, [{"name": "a"}])])
def test_what_stands_beside_config_is_the_default_of_its_items(task, items):
    found = argspec.spread(OPTIONS, {**task, "prune": True, "_ansible_check_mode": True})
    assert found["config"] == items and found["prune"] and found["_ansible_check_mode"]


def test_one_item_takes_nothing_from_elsewhere():
    assert argspec.spread(OPTIONS, {"name": "a", "port": 1}) == {"name": "a", "port": 1}


@pytest.mark.parametrize("value, words", [
    (["a", "b c"], ("a", "b c")), ("a 'b  c' d\\ e", ("a", "b  c", "d e")), ("sh -c 'echo $HOME; x'", ("sh", "-c", "echo $HOME; x")),
    ("get http://a/#b c", ("get", "http://a/#b", "c"))])
def test_a_command_is_a_list_or_split_as_by_a_shell(value, words):
    assert validate.command("command", value) == words


def test_duplicates():
    validate.refuse_duplicates("remotes", ["a", "b"])
    with pytest.raises(OptionError, match="remotes: 'a' is not valid: it is given twice"):
        validate.refuse_duplicates("remotes", ["a", "b", "a"])
