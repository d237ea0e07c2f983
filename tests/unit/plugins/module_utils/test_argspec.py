# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule: what it takes, in its canonical form. What it refuses stands in tests/kernel/test_bad_input.py, by option."""

from __future__ import annotations

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils import _argspec as rule
from ansible_collections.fromscratch.containers.plugins.module_utils._errors import Invalid
from ansible_collections.fromscratch.containers.plugins.module_utils._model import Route

OPTIONS = {"name": {"type": "str", "required": True}, "port": {"type": "int", "default": 4789}}


@pytest.mark.parametrize("check, value, canonical", [
    (rule.interface_name, "vxlan0", "vxlan0"), (rule.interface_name, "x" * 15, "x" * 15), (rule.interface_name, None, None),
    (rule.thing_name, "container-a.1", "container-a.1"), (rule.thing_name, None, None),
    (rule.mac, "02-AB-00-00-00-01", "02:ab:00:00:00:01"), (rule.mac, None, None),
    (rule.ip, "FD00:0::1", "fd00::1"), (rule.ip, None, None),
    (rule.unicast, "172.31.89.40", "172.31.89.40"), (rule.unicast, None, None),
    (rule.multicast, "239.1.1.1", "239.1.1.1"), (rule.multicast, "FF05::1", "ff05::1"), (rule.multicast, None, None),
    (rule.interface_address, "10.0.0.1/24", "10.0.0.1/24"), (rule.interface_address, "fd00:0::1/64", "fd00::1/64"),
    (rule.interface_addresses, ["10.0.0.1/24", "fd00::1/64"], frozenset(["10.0.0.1/24", "fd00::1/64"])),
    (rule.interface_addresses, None, None),
    *((rule.interface_address, each, each) for each in (  # small subnets, and addresses that work though they look odd
        "10.0.0.0/31", "10.0.0.1/31", "10.0.0.0/32", "fd00::/127", "fd00::/128", "240.0.0.1/24", "169.254.7.1/16", "10.0.0.255/23")),
    (rule.host_ip, "fe80::1", "fe80::1"), (rule.host_ip, None, None),
    (rule.network, "default", "default"), (rule.network, "0.0.0.0/0", "0.0.0.0/0"),
    (rule.network, "::/0", "::/0"), (rule.network, "10.1.0.0/16", "10.1.0.0/16"),
    (rule.mtu, 68, 68), (rule.mtu, 65535, 65535), (rule.mtu, None, None),
])
def test_taken(check, value, canonical):
    assert check("option", value) == canonical


def test_ipv6_needs_an_mtu_of_1280():
    assert rule.mtu("mtu", 1279, ["10.0.0.1/24"]) == 1279 and rule.mtu("mtu", 1280, ["fd00::1/64"]) == 1280
    with pytest.raises(Invalid, match="from 1280"):
        rule.mtu("mtu", 1279, ["10.0.0.1/24", "fd00::1/64"])


def test_families_are_not_mixed():
    assert rule.same_family("remotes", "10.0.0.2", "local", "10.0.0.1") == "10.0.0.2"
    for one, other in ("10.0.0.1", "fd00::1"), ("fd00::1", "10.0.0.1"):
        with pytest.raises(Invalid, match=f"remotes: '{one}' is not valid: .* than local, {other}"):
            rule.same_family("remotes", one, "local", other)


def test_routes_and_the_gateway_are_one_set():
    assert rule.routes("routes", None, None) is None
    assert rule.routes("routes", [], None) == frozenset()
    found = rule.routes("routes", [{"dst": "10.1.0.0/16", "via": None}], "10.0.0.1")
    assert found == {Route("10.1.0.0/16"), Route("default", "10.0.0.1")}
    for dst, via in ("10.1.0.0/16", "fd00::1"), ("0.0.0.0/0", "fd00::1"), ("::/0", "10.0.0.1"):
        with pytest.raises(Invalid, match="routes.via: .*another address family"):
            rule.routes("routes", [{"dst": dst, "via": via}], None)


@pytest.mark.parametrize("dst, via, expected", [
    ("default", None, "default"), ("default", "10.0.0.1", "default"), ("default", "fd00::1", "::/0"),
    ("0.0.0.0/0", None, "default"), ("0.0.0.0/0", "10.0.0.1", "default"), ("::/0", None, "::/0"), ("::/0", "fd00::1", "::/0")])
def test_a_default_route_has_a_family(dst, via, expected):
    assert rule.routes("routes", [{"dst": dst, "via": via}], None) == {Route(expected, via)}


@pytest.mark.parametrize("via, others", [
    ("10.0.0.1", []), ("fe80::1", []), ("10.9.0.1", [Route("10.9.0.0/24")]), ("fd00::1", [])])
def test_a_gateway_that_can_be_reached(via, others):
    rule.refuse_unreachable([Route("default", via), *others], ["10.0.0.100/24", "fd00::100/64"])


@pytest.mark.parametrize("via, others", [("10.9.0.1", []), ("fd01::1", []), ("10.9.0.1", [Route("10.9.0.0/24", "10.0.0.1")])])
def test_a_gateway_out_of_reach(via, others):
    with pytest.raises(Invalid, match=f"gateway: '{via}' is not valid: it is in no network of the addresses"):
        rule.refuse_unreachable([Route("default", via), *others], ["10.0.0.100/24", "fd00::100/64"], gateway=via)


def test_own_mac_comes_from_the_address_or_from_the_host(monkeypatch):
    one = rule.own_mac("veth", "ve-a", None, ["10.0.0.1/24", "10.0.0.2/24"])
    assert one == rule.own_mac("veth", "ve-b", "n", ["10.0.0.1/16"]) != rule.own_mac("bridge", "ve-a", None, ["10.0.0.1/24"])
    here = rule.own_mac("veth", "ve-a", None)
    assert here != rule.own_mac("veth", "ve-a", "n") and here == rule.own_mac("veth", "ve-a", None, [])
    monkeypatch.setattr(rule, "_machine_id", lambda: "another")
    assert here != rule.own_mac("veth", "ve-a", None)


def test_one_specification_for_both_forms():
    spec = rule.argument_spec(OPTIONS)
    assert spec["name"] == {"type": "str"} and spec["config"]["options"] is OPTIONS
    assert spec["prune"] == {"type": "bool", "default": False}


def test_items_come_from_either_form():
    assert rule.items_of(OPTIONS, {"name": "a", "port": 1, "config": None}) == [{"name": "a", "port": 1}]
    many = [{"name": "a", "port": 1}, {"name": "b", "port": 2}]
    assert rule.items_of(OPTIONS, {"name": None, "port": 4789, "config": many}) == many
    assert rule.items_of(OPTIONS, {"name": None, "port": 4789, "config": []}) == []


@pytest.mark.parametrize("params, start", [
    ({"name": None, "port": 4789, "config": None}, "name: None is not valid: it is required"),
    ({"name": "a", "port": 4789, "config": []}, "name: 'a' is not valid: give it inside config"),
])
def test_the_forms_are_not_mixed(params, start):
    with pytest.raises(Invalid) as refused:
        rule.items_of(OPTIONS, params)
    assert str(refused.value).startswith(start)


@pytest.mark.parametrize("task, items", [
    ({"port": 1, "config": [{"name": "a"}, {"name": "b", "port": 4789}, {"name": "c", "port": None}]},
     [{"name": "a", "port": 1}, {"name": "b", "port": 4789}, {"name": "c", "port": None}]),  # one given is none of before
    ({"port": 1, "config": ["name=a"]}, ["name=a"]), ({"port": 1, "config": "name=a"}, "name=a"), ({"port": 1, "config": []}, []),
    ({"port": None, "config": [{"name": "a"}]}, [{"name": "a"}])])
def test_what_stands_beside_config_is_the_default_of_its_items(task, items):
    found = rule.spread(OPTIONS, {**task, "prune": True, "_ansible_check_mode": True})
    assert found["config"] == items and found["prune"] and found["_ansible_check_mode"]


def test_one_item_takes_nothing_from_elsewhere():
    assert rule.spread(OPTIONS, {"name": "a", "port": 1}) == {"name": "a", "port": 1}


@pytest.mark.parametrize("value, words", [
    (["a", "b c"], ("a", "b c")), ("a 'b  c' d\\ e", ("a", "b  c", "d e")), ("sh -c 'echo $HOME; x'", ("sh", "-c", "echo $HOME; x"))])
def test_a_command_is_a_list_or_split_as_by_a_shell(value, words):
    assert rule.command("command", value) == words


def test_duplicates():
    rule.refuse_duplicates("remotes", ["a", "b"])
    with pytest.raises(Invalid, match="remotes: 'a' is not valid: it is given twice"):
        rule.refuse_duplicates("remotes", ["a", "b", "a"])
