# SPDX-License-Identifier: GPL-3.0-or-later
"""One host's part of an overlay, worked out from the variables of all hosts."""

from __future__ import annotations

import copy
import re

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError
from ansible_collections.fromscratch.containers.plugins.module_utils.network.identity import derived_mac
from ansible_collections.fromscratch.containers.plugins.plugin_utils.antispoof import link_local
from ansible_collections.fromscratch.containers.plugins.plugin_utils.overlay import Overlay

from .hosts import host, of

pings = Overlay.pings


def two():
    return {"h1": host(1, "a", antispoof=False), "h2": host(2, "b")}


def test_two_hosts():
    assert of(two(), "h1") == {
        "ns_container": [{"rootfs": "/var/lib/fromscratch/rootfs/alpine", "name": "a"}],
        "nftables": [{"name": "fromscratch", "family": "inet", "rules": "\n".join((
            "chain fs_strangers {", "type filter hook input priority -10; policy accept;",
            "udp dport 4789 @th,96,24 100 ip daddr 172.31.0.1 ip saddr { 172.31.0.2 } iifname != { \"lo\", \"br0\" } "
            "fib saddr . iif oif exists counter accept",
            "udp dport 4789 @th,96,24 100 counter drop", "}",
            "chain fs_forward {", "type filter hook forward priority -10; policy accept;",
            "udp dport 4789 @th,96,24 100 ip daddr { 172.31.0.1, 172.31.0.2 } ip saddr != { 172.31.0.1, 172.31.0.2 } counter drop",
            "udp dport 4789 @th,96,24 100 ip daddr { 172.31.0.1, 172.31.0.2 } fib saddr . iif oif missing counter drop",
            'iifname "br0" oifname != "br0" counter drop', 'iifname != "br0" oifname "br0" counter drop', "}"))},
            {"name": "fromscratch", "family": "bridge", "state": "absent"}],
        "veth_pair": [{"name": "ve-a", "container": "a", "addresses": ["10.0.0.10/24"], "underlay": "172.31.0.1"}],
        "linux_bridge": [{"name": "br0", "ports": ["ve-a"], "hairpin_ports": [], "addresses": ["10.0.0.1/24"], "neighbours": [],
                          "underlay": "172.31.0.1"}],
        "vxlan_link": [{"name": "vxlan0", "vni": 100, "local": "172.31.0.1", "remotes": ["172.31.0.2"], "port": 4789,
                        "bridge": "br0", "fdb": [], "flood": True}],
        "names": [], "sysctl": [], "forward": [{"bridge": "br0", "accept": False, "routed": False}], "publish": []}
    assert of(two(), "h1", pings) == [["-", "h1", "a", "10.0.0.10"], ["-", "h1", "b", "10.0.0.20"], ["a", "a", "b", "10.0.0.20"]]
    other = of(two(), "h2")
    assert other["vxlan_link"][0]["local"] == "172.31.0.2" and other["vxlan_link"][0]["remotes"] == ["172.31.0.1"]
    assert other["ns_container"][0]["name"] == "b"


def test_three_hosts_one_without_containers_and_bridge_address():
    hosts = {**two(), "h3": host(3, bridge_address=None)}
    assert of(hosts, "h1")["vxlan_link"][0]["remotes"] == ["172.31.0.2", "172.31.0.3"]
    third = of(hosts, "h3")
    assert third["linux_bridge"] == [{"name": "br0", "ports": [], "hairpin_ports": [], "addresses": [], "neighbours": [], "underlay": "172.31.0.3"}]
    assert (third["ns_container"], third["veth_pair"], of(hosts, "h3", pings)) == ([], [], [])
    assert third["vxlan_link"][0]["remotes"] == ["172.31.0.1", "172.31.0.2"]


def test_a_single_host():
    assert of({"h1": host(1, "a")}, "h1")["vxlan_link"][0]["remotes"] == []


def test_several_networks():
    """Two that overlap in addresses; only the hosts of a network are its peers."""
    blue = {"name": "blue", "vni": 1, "bridge": "br1", "vxlan": "vx1", "bridge_address": "10.0.0.1/24", "forwarding": "static"}
    green = {"name": "green", "vni": 2, "bridge": "br2", "vxlan": "vx2", "port": 4790, "mtu": 1400}
    hosts = {
        "h1": host(1, networks=[blue, green], containers=[
            {"name": "a", "address": "10.0.0.10/24"}, {"name": "b", "address": "10.0.0.10/24", "network": "green"}]),
        "h2": host(2, networks=[{**blue, "bridge_address": "10.0.0.2/24"}], containers=[{"name": "c", "address": "10.0.0.20/24"}]),
        "h3": host(3, networks=[green], bridge_address=None, containers=[{"name": "d", "address": "10.0.0.20/24", "gateway": "10.0.0.1"}])}
    found = of(hosts, "h1")
    assert [(each["vni"], each["port"], each["remotes"], each["bridge"]) for each in found["vxlan_link"]] == [
        (1, 4789, [], "br1"), (2, 4790, ["172.31.0.3"], "br2")]
    assert found["vxlan_link"][0]["learning"] is False and "learning" not in found["vxlan_link"][1]
    assert [(each["name"], each["ports"], each.get("mtu")) for each in found["linux_bridge"]] == [
        ("br1", ["ve-a"], None), ("br2", ["ve-b"], 1400)]
    assert [(each["container"], each.get("mtu")) for each in found["veth_pair"]] == [("a", None), ("b", 1400)]
    reached = of(hosts, "h1", pings)
    assert ["a", "a", "c", "10.0.0.20"] in reached and ["b", "b", "d", "10.0.0.20"] in reached
    assert not any(each[:3] in (["a", "a", "d"], ["b", "b", "c"]) for each in reached)
    assert of(hosts, "h3")["veth_pair"][0]["gateway"] == "10.0.0.1"


def test_ipv6_everywhere():
    hosts = {f"h{at}": host(at, underlay_ip=f"FD00:0::{at}", bridge_address=f"fd01::{at}/64",
                            containers=[{"name": f"c{at}", "address": f"fd01::{at}0/64"}]) for at in (1, 2)}
    found = of(hosts, "h1")
    assert (found["vxlan_link"][0]["local"], found["vxlan_link"][0]["remotes"]) == ("fd00::1", ["fd00::2"])
    assert found["veth_pair"][0]["addresses"] == ["fd01::10/64"]


def test_the_options_of_a_container_are_passed_on():
    hosts = two()
    options = {"command": ["x"], "binds": [{"source": "/a", "dest": "/b", "read_only": True}], "read_only": False, "init": None}
    hosts["h1"]["overlay_containers"][0].update(options, rootfs="/own", gateway="10.0.0.1")
    assert of(hosts, "h1")["ns_container"] == [
        {"rootfs": "/own", "name": "a", "command": ["x"], "binds": options["binds"], "read_only": False}]


def test_what_hangs_on_a_tunnel_has_its_mtu():
    hosts = two()
    hosts["h1"]["overlay_mtu"] = 1400
    found = of(hosts, "h1")
    for each in "veth_pair", "linux_bridge", "vxlan_link":
        assert found[each][0]["mtu"] == 1400 and "underlay" not in found[each][0]
        assert "mtu" not in of(two(), "h1")[each][0]  # the module takes it from the underlay


def test_long_names_of_containers_get_names_of_links_that_do_not_collide():
    hosts = {"h1": host(1, "a-container-of-web-one", "a-container-of-web-two")}
    names = of(hosts, "h1")["linux_bridge"][0]["ports"]
    assert len(set(names)) == 2 and all(len(each) <= 15 for each in names)


@pytest.mark.parametrize("others", [("h2",), ("h2", "h3")])
def test_an_absent_host_is_nobodys_peer(others):
    hosts = {**two(), "h3": host(3, "c")}
    for each in others:
        hosts[each]["overlay_state"] = "absent"
        del hosts[each]["overlay_underlay_ip"]  # nothing of it matters any more
    assert of(hosts, "h1")["vxlan_link"][0]["remotes"] == [f"172.31.0.{at}" for at in (2, 3) if f"h{at}" not in others]
    assert not any(each[2] in ("b", "c") and f"h{'bc'.index(each[2]) + 2}" in others for each in of(hosts, "h1", pings))


def test_a_host_on_its_way_out_knows_what_it_has():
    hosts = two()
    hosts["h1"]["overlay_state"] = "absent"
    found = of(hosts, "h1")
    assert [each["name"] for kind in ("ns_container", "veth_pair", "linux_bridge", "vxlan_link") for each in found[kind]] == [
        "a", "ve-a", "br0", "vxlan0"]
    assert all(each["state"] == "absent" for items in found.values() for each in items)
    # The teardown of all of them, whose state is that of the play and stands in nobody's variables.
    assert of(two(), "h1", overlay_state="absent")["vxlan_link"]


def test_nothing_but_the_inventory_counts():
    """A run with --limit, where only some hosts have facts, or set_fact's, finds the same."""
    plain = of(two(), "h1")
    hosts = two()
    hosts["h2"].update(ansible_facts={"default_ipv4": {"address": "9.9.9.9"}}, ansible_default_ipv4={"address": "9.9.9.9"})
    hosts["h1"]["ansible_facts"] = {"hostname": "other"}
    assert of(hosts, "h1") == plain
    before = copy.deepcopy(hosts)
    of(hosts, "h1")
    assert hosts == before, "the inventory's variables were changed"


def test_static_forwarding_knows_all_macs_and_addresses_of_the_peers():
    hosts = {"h1": host(1, "a"), "h2": host(2, "b", bridge_addresses=["fd01::2/64"]), "h3": host(3, bridge_address=None)}
    hosts["h2"]["overlay_containers"][0]["addresses"] = ["fd01::20/64"]
    found = of(hosts, "h1", overlay_forwarding="static")
    bridge, veth = derived_mac("bridge", "10.0.0.2"), derived_mac("veth", "10.0.0.20")
    assert found["vxlan_link"][0]["fdb"] == [{"mac": bridge, "dst": "172.31.0.2"}, {"mac": veth, "dst": "172.31.0.2"}]
    assert found["linux_bridge"][0]["neighbours"] == [
        {"address": "10.0.0.2", "mac": bridge}, {"address": "fd01::2", "mac": bridge},
        {"address": "10.0.0.20", "mac": veth}, {"address": "fd01::20", "mac": veth}]
    assert (found["vxlan_link"][0]["remotes"], found["vxlan_link"][0]["learning"], found["vxlan_link"][0]["flood"]) == ([], False, False)


def test_further_addresses_and_an_underlay_for_each_network():
    networks = [{"name": "blue"}, {"name": "six", "vni": 6, "bridge": "br6", "vxlan": "vx6", "bridge_address": None, "bridge_addresses": []}]
    hosts = {f"h{at}": host(at, bridge_addresses=[f"fd01::{at}/64"],
                            networks=[networks[0], {**networks[1], "underlay_ip": f"fd00::{at}"}],
                            containers=[{"name": f"c{at}", "address": f"10.0.0.{at}0/24", "addresses": [f"fd01::{at}0/64"]},
                                        {"name": f"s{at}", "address": f"fd06::{at}0/64", "network": "six"}]) for at in (1, 2)}
    found = of(hosts, "h1")
    assert [(each["local"], each["remotes"]) for each in found["vxlan_link"]] == [
        ("172.31.0.1", ["172.31.0.2"]), ("fd00::1", ["fd00::2"])]
    assert [each["addresses"] for each in found["linux_bridge"]] == [["10.0.0.1/24", "fd01::1/64"], []]
    assert [(each["addresses"], each["underlay"]) for each in found["veth_pair"]] == [
        (["10.0.0.10/24", "fd01::10/64"], "172.31.0.1"), (["fd06::10/64"], "fd00::1")]
    reached = of(hosts, "h1", pings)
    assert ["c1", "c1", "c2", "fd01::20"] in reached and ["-", "h1", "c2", "10.0.0.20"] in reached
    # Nobody asks in a family that he has no address of.
    assert [each for each in reached if each[2] == "s2"] == [["s1", "s1", "s2", "fd06::20"]]


@pytest.mark.parametrize("first, second", [("h1", "h2"), ("h2", "h1")])
@pytest.mark.parametrize("h1, h2, message", [
    ({}, {"underlay_ip": "172.31.0.1"}, "overlay_underlay_ip: 172.31.0.1 is that of h1 and of h2"),
    ({}, {"underlay_ip": None}, "h2: missing required arguments: overlay_underlay_ip"),
    ({}, {"underlay_ip": "host"}, "h2: overlay_underlay_ip: 'host' is not valid"),
    ({}, {"underlay_ip": "172.31.0.2/20"}, "h2: overlay_underlay_ip: '172.31.0.2/20' is not valid"),
    ({}, {"underlay_ip": "fd00::2"}, "overlay_underlay_ip: 172.31.0.1 of h1 and fd00::2 of h2 are of different address families"),
    ({"vni": 100}, {"vni": 200}, "overlay_vni: h1 has 100 and h2 has 200 for the network overlay"),
    ({"port": 4789}, {"port": 8472}, "overlay_port: h1 has 4789 and h2 has 8472 for the network overlay"),
    ({"forwarding": "learning"}, {"forwarding": "static"}, "overlay_forwarding: h1 has learning and h2 has static for the network overlay"),
    ({}, {"forwarding": "magic"}, "h2: value of overlay_forwarding must be one of: learning, static, got: magic"),
    ({}, {"bridge_addresses": ["fd01::1"]}, "h2: overlay_bridge_addresses: 'fd01::1' is not valid"),
    ({}, {"containers": [{"name": "b", "address": "10.0.0.20/24", "addresses": ["10.9.0.1/24"]}]}, "container b is outside of 10.0.0.0/24"),
    ({}, {"containers": [{"name": "b", "address": "10.0.0.20/24", "addresses": ["10.0.0.10/24"]}]}, "that of container a and of container b"),
    ({}, {"bridge_address": "10.0.0.2/16", "containers": []},
     "overlay_bridge_address: h1 has 10.0.0.0/24 and h2 has 10.0.0.0/16 for the network overlay"),
    ({"bridge_addresses": ["10.5.0.1/24"]}, {"bridge_addresses": ["10.5.0.2/23"]},
     "overlay_bridge_address: h1 has 10.5.0.0/24 and h2 has 10.5.0.0/23 for the network overlay"),
    ({}, {"bridge_address": None, "containers": [{"name": "b", "address": "10.0.0.20/16"}]},
     "overlay_containers.address: container b of h2 has 10.0.0.20/16, and the network overlay is 10.0.0.0/24 on h1"),
    ({}, {"containers": [{"name": "b", "address": "10.0.0.20/32"}]}, "container b has another prefix length than its network, 10.0.0.0/24"),
    ({}, {"containers": [{"name": "b", "address": "10.0.0.255/24"}]}, "it is the broadcast address of its network"),
    ({}, {"bridge_address": "10.0.0.2/32"}, "the bridge br0 has no subnet, only addresses by themselves"),
    ({}, {"mtu": "big"}, "h2: argument 'overlay_mtu' is of type str"),
    ({}, {"vni": 0}, "h2: overlay_vni: 0 is not valid"), ({}, {"vni": 1 << 24}, "h2: overlay_vni: 16777216 is not valid"),
    ({}, {"vni": "many"}, "h2: argument 'overlay_vni' is of type str"),
    ({}, {"port": 65536}, "h2: overlay_port: 65536 is not valid"), ({}, {"bridge": "x" * 16}, f"h2: overlay_bridge: '{'x' * 16}' is not"),
    ({}, {"vxlan": "a b"}, "h2: overlay_vxlan: 'a b' is not valid"), ({}, {"bridge_address": "10.0.0.2"}, "h2: overlay_bridge_address: "),
    ({}, {"bridge_address": "10.0.0.1/24"}, "the address 10.0.0.1 in the network overlay is that of the bridge of h1 and of the bridge of h2"),
    ({}, {"bridge_address": "10.0.0.10/24"}, "the address 10.0.0.10 in the network overlay is that of container a and of the bridge of h2"),
    ({}, {"bridge_address": "10.9.0.2/24", "containers": []},
     "overlay_bridge_address: h1 has 10.0.0.0/24 and h2 has 10.9.0.0/24 for the network overlay"),
    ({}, {"containers": [{"name": "a", "address": "10.0.0.30/24"}]}, "the name a is given twice, on h1 and on h2"),
    ({}, {"containers": [{"name": "b", "address": "10.0.0.10/24"}]}, "is that of container a and of container b"),
    ({}, {"containers": [{"name": "b", "address": "10.9.0.10/24"}]}, "container b is outside of 10.0.0.0/24"),
    ({}, {"containers": [{"name": "b", "address": "10.0.0.20"}]}, "h2: overlay_containers.address: '10.0.0.20' is not valid"),
    ({}, {"containers": [{"name": "b"}]}, "h2: missing required arguments: address found in overlay_containers"),
    ({}, {"containers": [{"address": "10.0.0.9/24"}]}, "h2: missing required arguments: name found in overlay_containers"),
    ({}, {"containers": [{"name": "b/c", "address": "10.0.0.20/24"}]}, "overlay_containers.name: 'b/c' is not valid"),
    ({}, {"containers": [{"name": "b", "address": "10.0.0.20/24", "network": "red"}]}, "container b names a network that is not one of overlay"),
    ({}, {"networks": [{"name": "x"}, {"name": "x"}]}, "h2: overlay_networks: 'x' is not valid: two networks"),
    ({}, {"networks": [{"name": "x"}, {"name": "y", "vni": 2, "bridge": "br2"}]}, "overlay_vxlan: the networks x and y of h2 both have vxlan0"),
    ({}, {"networks": [{"name": "x"}, {"name": "y", "vxlan": "v2", "bridge": "br2"}]}, "overlay_vni: the networks x and y of h2 both have 100"),
    ({}, {"networks": [{"name": "x"}, {"name": "y", "vni": 2, "vxlan": "v2"}]}, "overlay_bridge: the networks x and y of h2 both have br0"),
    ({}, {"networks": [{"vni": 5}]}, "h2: missing required arguments: name found in overlay_networks"),
    ({}, {"networks": [{"name": "x", "vnid": 5}]}, "h2: overlay_networks.vnid. Supported parameters include: "),
])
def test_hosts_that_do_not_fit_together(h1, h2, message, first, second):
    """Each host is told, whichever runs first or alone."""
    hosts = {"h1": {**host(1, "a"), **{f"overlay_{key}": value for key, value in h1.items()}},
             "h2": {**host(2, "b"), **{f"overlay_{key}": value for key, value in h2.items()}}}
    for name in first, second:
        with pytest.raises(ModuleError) as found:
            of(hosts, name)
        assert message in str(found.value)


def test_containers_without_a_bridge_address_are_in_one_subnet():
    """Of two hosts neither of which has an address of its own."""
    hosts = {name: {**each, "overlay_bridge_address": None} for name, each in two().items()}
    assert of(hosts, "h1")["veth_pair"]
    hosts["h2"]["overlay_containers"] = [{"name": "b", "address": "10.0.0.20/25"}]
    with pytest.raises(ModuleError, match="container b of h2 has 10.0.0.20/25, and the network overlay is 10.0.0.0/24 on h1"):
        of(hosts, "h1")


def test_a_second_subnet_of_a_family_and_an_address_by_itself():
    """Containers may be in each subnet of the bridge, with its address there as the way out; a VIP is no subnet of its own."""
    hosts = {"h1": host(1, egress=True, bridge_addresses=["10.0.0.99/32", "10.0.0.98/24", "10.1.0.1/24"], containers=[
        {"name": "a", "address": "10.0.0.10/24"}, {"name": "b", "address": "10.1.0.10/24"}]), "h2": host(2, "c")}
    found = of(hosts, "h1")
    assert [(each["container"], each["gateway"]) for each in found["veth_pair"]] == [("a", "10.0.0.1"), ("b", "10.1.0.1")]
    assert "ip saddr { 10.0.0.0/24, 10.1.0.0/24 } oifname" in found["nftables"][0]["rules"]
    assert of(hosts, "h2")["veth_pair"]
    hosts["h1"]["overlay_containers"].append({"name": "d", "address": "10.2.0.10/24"})
    with pytest.raises(ModuleError, match="container d is outside of 10.0.0.0/24 and 10.1.0.0/24, the subnet of"):
        of(hosts, "h2")


def test_all_conflicts_are_reported_at_once():
    hosts = {"h1": host(1, "a"), "h2": host(2, "a", underlay_ip="172.31.0.1", port=1)}
    with pytest.raises(ModuleError) as found:
        of(hosts, "h1")
    assert len(str(found.value).splitlines()) == 3


def test_two_networks_may_have_the_same_addresses_and_hosts_their_own_names_of_links():
    hosts = two()
    hosts["h2"].update(overlay_bridge="br9", overlay_vxlan="vx9")
    assert of(hosts, "h1")["vxlan_link"][0]["name"] == "vxlan0" and of(hosts, "h2")["vxlan_link"][0]["name"] == "vx9"


def test_numbers_as_the_command_line_gives_them():
    """-e overlay_vni=200 is a string, on every host."""
    hosts = {name: {**each, "overlay_vni": "200"} for name, each in two().items()}
    assert of(hosts, "h1")["vxlan_link"][0]["vni"] == 200


def test_what_belongs_to_one_host_is_nobody_elses_default():
    hosts = {**two(), "h3": {"overlay_underlay_ip": "172.31.0.3"}}
    reached = of(hosts, "h1", pings)
    assert [each[2] for each in reached if each[0] == "-"] == ["a", "b"] and len(of(hosts, "h1")["vxlan_link"][0]["remotes"]) == 2


def test_the_guard():
    """Peers of a network, and of no other; a host without peers takes nothing; switched off or absent, the table goes."""
    networks = [{"name": "red", "vni": 1}, {"name": "blue", "vni": 2, "bridge": "br1", "vxlan": "vxlan1", "bridge_address": None}]
    hosts = {"h1": host(1, networks=networks), "h2": host(2, networks=networks[:1]), "h3": host(3, networks=networks[1:])}
    frames, way = "udp dport 4789 @th,96,24", 'iifname != { "lo", "br0", "br1" } fib saddr . iif oif exists'
    assert of(hosts, "h1")["nftables"][0]["rules"].splitlines()[2:6] == [
        f"{frames} 1 ip daddr 172.31.0.1 ip saddr {{ 172.31.0.2 }} {way} counter accept", f"{frames} 1 counter drop",
        f"{frames} 2 ip daddr 172.31.0.1 ip saddr {{ 172.31.0.3 }} {way} counter accept", f"{frames} 2 counter drop"]
    alone = of({"h1": host(1)}, "h1")["nftables"][0]["rules"]
    assert "accept;" in alone and "counter accept" not in alone and "counter drop" in alone
    for options in {"guard": False}, {"state": "absent"}:
        for table in of({"h1": host(1, **options), "h2": host(2)}, "h1")["nftables"]:
            assert (table["name"], table["state"]) == ("fromscratch", "absent")


def test_ports_belong_to_containers():
    """Sets of all ports that are held to their containers, and a table only where there is one."""
    networks = [{"name": "red", "vni": 1},
                {"name": "blue", "vni": 2, "bridge": "br1", "vxlan": "vxlan1", "bridge_address": None, "antispoof": False}]
    here = host(1, "a", antispoof=True, networks=networks)
    here["overlay_containers"] += [
        {"name": "b", "address": "fd00::11/64", "addresses": ["fd00::12/64"],
         "allowed_addresses": ["10.0.0.50", "192.168.0.0/25", "192.168.0.128/25"]},
        {"name": "c", "network": "blue", "address": "10.9.0.10/24"}]
    inet, bridge = of({"h1": here}, "h1")["nftables"]
    rules, mac = bridge["rules"], derived_mac("veth", "10.0.0.10")
    assert (inet["family"], bridge["family"]) == ("inet", "bridge") and "ve-c" not in rules
    assert f'elements = {{ "ve-a" . {mac} . 10.0.0.10, "ve-a" . {mac} . 0.0.0.0, "ve-b" . ' in rules
    assert '"ve-b" . 10.0.0.50 }' in rules and "ip saddr { 192.168.0.0/24 } accept" in rules
    assert '"ve-b" . fd00::11, "ve-b" . fd00::12, "ve-b" . fe80::' in rules
    assert f"0x0101{mac.replace(':', '')}, 0x0201{mac.replace(':', '')}" in rules
    for options in {"antispoof": False}, {"antispoof": True, "containers": []}:
        assert of({"h1": host(1, "a", **options)}, "h1")["nftables"][1] == {"name": "fromscratch", "family": "bridge", "state": "absent"}


def test_the_link_local_address_of_a_mac():
    """As the kernel works it out; the first is the example of RFC 4291."""
    assert str(link_local("34:56:78:9a:bc:de")) == "fe80::3656:78ff:fe9a:bcde" and str(link_local("02:00:00:00:00:01")) == "fe80::ff:fe00:1"


@pytest.mark.parametrize("value", ["10.0.0.50/24", "10.0.0.300", "nobody", "", 10, "224.0.0.18", "ff02::12", "0.0.0.0", "::"])
def test_an_allowed_address_is_one(value):
    here = host(1, "a")
    here["overlay_containers"][0]["allowed_addresses"] = [value]
    with pytest.raises(ModuleError, match=r"overlay_containers.allowed_addresses: .* is not valid: give the address of one host"):
        of({"h1": here}, "h1")


def test_an_absent_host_has_nothing_to_reach():
    hosts = {"h1": host(1, "a"), "h2": host(2, "b", state="absent")}
    assert of(hosts, "h2", pings) == [] and of(hosts, "h1", pings) == [["-", "h1", "a", "10.0.0.10"]]


def with_egress(**options):
    return {"h1": host(1, "a", egress=True, names=True, **options), "h2": host(2, "b")}


def test_egress_and_names():
    found = of(with_egress(), "h1")
    assert found["veth_pair"][0]["gateway"] == "10.0.0.1"
    assert found["sysctl"] == [{"device": "br0", "name": "forwarding"}, {"name": "forwarding"}]
    assert found["forward"] == [{"bridge": "br0", "accept": False, "routed": True}]
    assert found["names"] == [
        {"network": "overlay", "file": "hosts", "lines": ["127.0.0.1 localhost", "::1 localhost", "10.0.0.10 a", "10.0.0.20 b"]},
        {"network": "overlay", "file": "resolv.conf"}]
    assert [(each["source"], each["dest"]) for each in found["ns_container"][0]["binds"]] == [
        ("/var/lib/fromscratch/networks/overlay/hosts", "/etc/hosts"),
        ("/var/lib/fromscratch/networks/overlay/resolv.conf", "/etc/resolv.conf")]
    assert "ip saddr { 10.0.0.0/24 } oifname != \"br0\" counter masquerade" in found["nftables"][0]["rules"]
    other = of(with_egress(), "h2")
    assert "gateway" not in other["veth_pair"][0] and other["sysctl"] == [] and "nat" not in other["nftables"][0]["rules"]
    assert of(with_egress(dns=["192.0.2.53"]), "h1")["names"][1]["lines"] == ["nameserver 192.0.2.53"]
    assert of(with_egress(state="absent"), "h1")["names"] == of(with_egress(state="absent"), "h1")["sysctl"] == []
    assert "nat" in of(with_egress(guard=False), "h1")["nftables"][0]["rules"]


def test_egress_leaves_what_a_container_says_itself():
    hosts = with_egress()
    hosts["h1"]["overlay_containers"][0].update(gateway="10.0.0.99", binds=[{"source": "/srv/hosts", "dest": "/etc/hosts"}])
    found = of(hosts, "h1")
    assert found["veth_pair"][0]["gateway"] == "10.0.0.99"
    assert [each["source"] for each in found["ns_container"][0]["binds"] if each["dest"] == "/etc/hosts"] == ["/srv/hosts"]


def published(*ports, **options):
    hosts = with_egress(**options)
    hosts["h1"]["overlay_containers"][0]["publish"] = list(ports)
    return hosts


def test_published_ports():
    rules = of(published("8080:80/tcp", "192.0.2.1:53:5353/udp"), "h1")["nftables"][0]["rules"].splitlines()
    assert "fib daddr type local tcp dport 8080 counter dnat ip to 10.0.0.10:80" in rules
    assert "ip daddr != 127.0.0.0/8 fib daddr type local ip daddr 192.0.2.1 udp dport 53 counter dnat ip to 10.0.0.10:5353" in rules
    assert of(published("0.0.0.0:8080:80"), "h1")["nftables"] == of(published("8080:80"), "h1")["nftables"]


def test_the_host_is_asked_for_the_ports():
    hosts = published("8080:80/tcp", "192.0.2.1:53:5353/udp", "0.0.0.0:1:1")
    assert of(hosts, "h1")["linux_bridge"][0]["hairpin_ports"] == ["ve-a"]
    wanted = [{"port": 8080, "protocol": "tcp"}, {"port": 53, "protocol": "udp", "address": "192.0.2.1"}, {"port": 1, "protocol": "tcp"}]
    assert of(hosts, "h1")["publish"] == [{**each, "over": False} for each in wanted]
    hosts["h1"]["overlay_publish_over"] = "yes"
    assert of(hosts, "h1")["publish"] == [{**each, "over": True} for each in wanted]
    assert of(hosts, "h1", overlay_state="absent")["publish"] == []


@pytest.mark.parametrize("hosts, words", [
    (published("8080"), ["overlay_containers.publish", "'8080'", "PORT:PORT_INSIDE"]),
    (published("0:80"), ["overlay_containers.publish", "'0:80'"]),
    (published("300.0.0.1:1:80"), ["overlay_containers.publish", "300.0.0.1 is not an IPv4 address"]),
    (published(1342), ["overlay_containers.publish", "1342", "YAML reads 22:22 without quotes", "put it in quotes"]),
    (published(8080 * 60 + 53), ["YAML reads 8080:53 without quotes"]),
    (published("127.0.0.1:80:80"), ["overlay_containers.publish", "127.0.0.1 is an address of the host's loopback device", "none"]),
    (published("127.9.9.9:80:80"), ["overlay_containers.publish", "127.9.9.9 is an address of the host's loopback device"]),
    (published("224.0.0.1:80:80"), ["overlay_containers.publish", "224.0.0.1 is no address of one host"]),
    (published("255.255.255.255:80:80"), ["overlay_containers.publish", "255.255.255.255 is no address of one host"]),
    (published("0.0.0.0:80:80", "80:81"), ["overlay_containers.publish", "both have"]),
    (published("4789:1/udp"), ["overlay_containers.publish", "4789", "VXLAN itself"]),
    (published("80:80", "80:81"), ["overlay_containers.publish", "80", "both have"]),
    (published("80:80", "192.0.2.1:80:81"), ["overlay_containers.publish", "both have"]),
    (published("192.0.2.1:80:80", "80:81"), ["overlay_containers.publish", "both have"]),
    ({"h1": {**published("80:80")["h1"], "overlay_egress": False}}, ["overlay_containers.publish", "set overlay_egress"]),
    (with_egress(bridge_address=None), ["overlay_egress", "set overlay_bridge_address"]),
    (with_egress(dns=["ns.example"]), ["overlay_dns", "ns.example"]),
    ({"h1": host(1, egress="perhaps")}, ["overlay_egress", "perhaps", "Valid booleans include"]),
    ({"h1": host(1, bridge_netfilter="off")}, ["overlay_bridge_netfilter", "off", "warn, accept"]),
])
def test_egress_that_cannot_be(hosts, words):
    with pytest.raises(ModuleError) as caught:
        of(hosts, "h1")
    assert all(each in str(caught.value) for each in words), caught.value


@pytest.mark.parametrize("option", ["bridge", "vxlan", "device"])
@pytest.mark.parametrize("name", ["br*", "br+", 'a"accept#', "!br"])
def test_a_name_that_would_be_a_pattern_in_a_rule(option, name):
    with pytest.raises(ModuleError, match=re.escape(f"overlay_{option}: {name!r} is not valid: it also stands in rules")):
        of({"h1": host(1, **{option: name})}, "h1")


@pytest.mark.parametrize("bits", [24, 16])
def test_egress_of_networks_that_share_addresses(bits):
    networks = [{"name": name, "vni": at, "bridge": f"br{at}", "vxlan": f"vx{at}", "bridge_address": f"10.0.0.{at}/{more.pop('bits')}", **more}
                for at, (name, more) in enumerate({"one": {"egress": True, "bits": 24}, "two": {"bits": bits}}.items(), 1)]
    with pytest.raises(ModuleError, match="overlay_egress: the networks one and two of h1 share addresses"):
        of({"h1": host(1, networks=networks)}, "h1")


def test_networks_of_a_host_are_kept_apart():
    networks = [{"name": name, "vni": at, "bridge": f"br{at}", "vxlan": f"vx{at}", "bridge_address": f"10.{at}.0.1/24"}
                for at, name in enumerate(("one", "two"), 1)]
    found = of({"h1": host(1, networks=networks)}, "h1")
    assert found["sysctl"] == [{"device": "br1", "name": "arp_ignore"}, {"device": "br2", "name": "arp_ignore"}]
    rules = found["nftables"][0]["rules"].splitlines()
    assert 'iifname "br1" ip daddr { 10.2.0.1 } counter drop' in rules
    assert 'iifname "br1" oifname != "br1" counter drop' in rules and 'iifname != "br1" oifname "br1" counter drop' in rules
    for each in networks:
        each["egress"] = True
    rules = of({"h1": host(1, networks=networks)}, "h1")["nftables"][0]["rules"].splitlines()
    assert 'iifname "br1" oifname { "br2" } counter drop' in rules and 'iifname "br1" oifname != "br1" counter drop' not in rules


@pytest.mark.parametrize("name", ['a"accept#', "br*", "br+", "!br0", "-br0", "br0;", "a'b", "br[0]", "bré", "br\\"])
@pytest.mark.parametrize("option", ["bridge", "vxlan"])
def test_a_name_of_a_link_that_could_not_be_written_into_a_rule(option, name):
    with pytest.raises(ModuleError) as caught:
        of({"h1": host(1, **{option: name})}, "h1")
    assert f"overlay_{option}: {name!r} is not valid: it also stands in rules" in str(caught.value)
    with pytest.raises(ModuleError):
        of({"h1": host(1, networks=[{"name": "one", option: name}])}, "h1")


def test_the_credentials_of_the_host_are_refused_unless_asked_for():
    def refused(**options):
        return [line for line in of(with_egress(**options), "h1")["nftables"][0]["rules"].splitlines() if "reject" in line]

    assert refused() == [f'iifname "br0" {where} counter reject with icmpx type admin-prohibited'
                         for where in ("ip daddr 169.254.169.254", "ip6 daddr fd00:ec2::254")]
    assert refused(metadata=True) == refused(metadata="yes") == [] and refused(metadata="false") == refused()
    assert refused(networks=[{"name": "one", "metadata": True}]) == []
