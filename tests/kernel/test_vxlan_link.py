# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from .support.faces import converge, lasting, same_by_commands
from .support.modules import run_module
from .support.namespaces import host_netns, js, link, sh, state

ZERO = "00:00:00:00:00:00"
MAC = "02:00:00:00:00:09"
OWNER = "fromscratch.containers"


def item(netns, **options):
    return {"name": "vxlan0", "netns": netns, "vni": 100, "local": "192.0.2.1", "remotes": ["192.0.2.2"], **options}


def act(netns, **options):
    return converge("vxlan_link", netns, **item(netns, **options))


def fdb(netns, name="vxlan0"):
    return sorted((each["mac"], each["dst"], each.get("viaIf")) for each in js(f"bridge -n {netns} -j fdb show dev {name}")
                  if each["state"] == "permanent" and "dst" in each)


def data(netns, name="vxlan0"):
    return link(netns, name)["linkinfo"]["info_data"]


def test_act_again_check_change_absent(scene):
    netns = host_netns(scene, mtu=9001)
    made = act(netns, bridge="br0", ttl=16)
    assert [each["action"] for each in made.changes] == ["create"]
    shown = link(netns, "vxlan0")
    assert (shown["mtu"], shown["master"], shown["ifalias"]) == (8951, "br0", OWNER)
    assert "UP" in shown["flags"]
    assert {key: data(netns)[key] for key in ("id", "local", "remote", "link", "port", "learning", "ttl")} == {
        "id": 100, "local": "192.0.2.1", "remote": "192.0.2.2", "link": "enX0", "port": 4789, "learning": True, "ttl": 16}
    assert fdb(netns) == [(ZERO, "192.0.2.2", "enX0")]
    assert made.observed[0]["mac"] == shown["address"]

    assert [each["fields"] for each in act(netns, learning=False, ttl=16).changes] == [["learning on -> off"]]
    assert data(netns)["learning"] is False
    gone = converge("vxlan_link", netns, name="vxlan0", netns=netns, state="absent")
    assert gone.commands == [f"ip -n {netns} link delete vxlan0"] and link(netns, "vxlan0") is None


def test_module_defaults_beside_config(scene):
    """As Ansible passes them: beside config, whichever form the task uses. An item's own value counts, even a default one."""
    netns = host_netns(scene)
    made = run_module("vxlan_link", netns=netns, local="192.0.2.1", learning=False, bridge="br0", mtu=1400, config=[
        {"name": "vxlan0", "vni": 100}, {"name": "vxlan1", "vni": 101, "learning": True, "bridge": ""}])
    assert not made.failed, made.msg
    one, other = (link(netns, name) for name in ("vxlan0", "vxlan1"))
    assert [each["linkinfo"]["info_data"]["learning"] for each in (one, other)] == [False, True]
    assert one["master"] == "br0" and "master" not in other and one["mtu"] == other["mtu"] == 1400
    refused = run_module("vxlan_link", name="vxlan0", config=[{"vni": 100, "local": "192.0.2.1", "name": "vxlan0"}], netns=netns)
    assert refused.failed and refused.msg == "parameters are mutually exclusive: name|config", refused.msg


@pytest.mark.parametrize("local, remote, mtu", [("192.0.2.1", "192.0.2.2", 1450), ("2001:db8::1", "2001:db8::2", 1430)])
def test_peers_one_many_one_none(scene, local, remote, mtu):
    netns, twin = host_netns(scene), host_netns(scene)
    other = remote[:-1] + "3"
    same_by_commands(act(netns, local=local, remotes=[remote]), [netns], [twin])
    assert link(netns, "vxlan0")["mtu"] == mtu
    index = link(netns, "vxlan0")["ifindex"]
    for remotes in [remote, other], [other], [other, remote], [remote], []:
        made = act(netns, local=local, remotes=remotes)
        assert [each["action"] for each in made.changes] == ["update"]
        same_by_commands(made, [netns], [twin])
        assert fdb(netns) == sorted((ZERO, each, "enX0") for each in remotes)
    assert link(netns, "vxlan0")["ifindex"] == index


def test_multicast_group(scene):
    netns, twin = host_netns(scene), host_netns(scene)
    same_by_commands(act(netns, remotes=None, group="239.1.1.1", learning=True), [netns], [twin])
    assert data(netns)["group"] == "239.1.1.1"
    changes = act(netns, remotes=["192.0.2.2"]).changes
    assert changes[0]["action"] == "recreate" and "group 239.1.1.1 -> none" in changes[0]["fields"]


@pytest.mark.parametrize("change, words", [
    ({"vni": 2}, "vni 1 -> 2"),
    ({"port": 8472}, "port 4789 -> 8472"),
    ({"udp_checksum": False}, "udp_checksum on -> off"),
    ({"local": "2001:db8::1", "remotes": ["2001:db8::2"], "fdb": []}, "local 192.0.2.1 -> 2001:db8::1"),
    ({"device": "lo", "mtu": 1450}, "device enX0 -> lo"),
])
def test_what_cannot_change_in_place_is_made_anew_and_restored(scene, change, words):
    netns, twin = host_netns(scene), host_netns(scene)
    former = {"vni": 1, "fdb": [{"mac": MAC, "dst": "192.0.2.2"}], "bridge": "br0", "ageing": 77}
    same_by_commands(act(netns, **former), [netns], [twin])
    # What the task does not name is restored all the same.
    wanted = {"name": "vxlan0", "netns": netns, "vni": 1, "local": "192.0.2.1", "remotes": ["192.0.2.2"], **change}
    made = converge("vxlan_link", netns, **wanted)
    assert made.changes[0]["action"] == "recreate" and words in made.changes[0]["fields"]
    assert link(netns, "vxlan0")["master"] == "br0" and data(netns)["ageing"] == 77
    assert [entry[0] for entry in fdb(netns)] == ([ZERO] if "fdb" in change else [ZERO, MAC])
    same_by_commands(made, [netns], [twin])


def test_what_is_not_managed_cannot_follow_to_another_address_family(scene):
    netns, twin = host_netns(scene), host_netns(scene)
    entries = [{"mac": MAC, "dst": "192.0.2.2"}]
    same_by_commands(act(netns, remotes=["192.0.2.2", "192.0.2.3"], fdb=entries), [netns], [twin])
    made = converge("vxlan_link", netns, name="vxlan0", netns=netns, vni=100, local="2001:db8::1")
    assert made.observed[0]["remotes"] == made.observed[0]["fdb"] == [] == fdb(netns)
    assert made.diff["after"][f"vxlan vxlan0 in netns {netns}"]["remotes"] == []
    same_by_commands(made, [netns], [twin])


def test_what_changes_in_place(scene):
    netns, twin = host_netns(scene), host_netns(scene)
    for each in netns, twin:
        sh(f"ip -n {each} address add 192.0.2.5/24 dev enX0")
    same_by_commands(act(netns, ttl=1, ageing=1), [netns], [twin])
    index = link(netns, "vxlan0")["ifindex"]
    for change in ({"local": "192.0.2.5"}, {"ttl": 0}, {"ageing": 300}, {"learning": False}, {"mtu": 1400},
                   {"mac": "02:00:00:00:00:42"}, {"bridge": "br0"}, {"bridge": ""}, {"remotes": ["192.0.2.7"]}):
        made = act(netns, **change)
        assert [each["action"] for each in made.changes] == ["update"]
        same_by_commands(made, [netns], [twin])
    assert link(netns, "vxlan0")["ifindex"] == index


DRIFTS = {
    "down": ("ip -n {0} link set vxlan0 down", ["up off -> on"]),
    "mtu": ("ip -n {0} link set vxlan0 mtu 1400", ["mtu 1400 -> 1450"]),
    "mac": ("ip -n {0} link set vxlan0 address 02:00:00:00:00:77", ["mac 02:00:00:00:00:77 -> {mac}"]),
    "bridge": ("ip -n {0} link set vxlan0 nomaster", ["bridge none -> br0"]),
    "learning": ("ip -n {0} link set vxlan0 type vxlan learning", ["learning on -> off"]),
    "entry gone": ("bridge -n {0} fdb delete " + MAC + " dev vxlan0 dst 192.0.2.2",
                   ["fdb none -> " + MAC + " dst 192.0.2.2"]),
    "entry elsewhere": ("bridge -n {0} fdb replace " + MAC + " dev vxlan0 dst 192.0.2.9",
                        ["fdb " + MAC + " dst 192.0.2.9 -> " + MAC + " dst 192.0.2.2"]),
    "entry learnt": ("bridge -n {0} fdb replace " + MAC + " dev vxlan0 dst 192.0.2.9 dynamic",
                     ["fdb none -> " + MAC + " dst 192.0.2.2"]),
    "entry extra": ("bridge -n {0} fdb append 02:00:00:00:00:08 dev vxlan0 dst 192.0.2.2 via enX0",
                    ["fdb 02:00:00:00:00:08 dst 192.0.2.2 via enX0, " + MAC + " dst 192.0.2.2 -> "
                     + MAC + " dst 192.0.2.2"]),
    "peer gone": ("bridge -n {0} fdb delete " + ZERO + " dev vxlan0 dst 192.0.2.2 via enX0",
                  ["remotes 192.0.2.3 -> 192.0.2.2, 192.0.2.3"]),
    "peer extra": ("bridge -n {0} fdb append " + ZERO + " dev vxlan0 dst 192.0.2.8 via enX0",
                   ["remotes 192.0.2.2, 192.0.2.3, 192.0.2.8 -> 192.0.2.2, 192.0.2.3"]),
    "peer twice": ("bridge -n {0} fdb append " + ZERO + " dev vxlan0 dst 192.0.2.2",
                   ["remotes 192.0.2.2, 192.0.2.2 via any link, 192.0.2.3 -> 192.0.2.2, 192.0.2.3"]),
    "gone": ("ip -n {0} link delete vxlan0", []),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_repaired_and_only_it(scene, drift):
    netns, twin = host_netns(scene), host_netns(scene)
    wanted = {"remotes": ["192.0.2.2", "192.0.2.3"], "learning": False, "fdb": [{"mac": MAC, "dst": "192.0.2.2"}],
              "bridge": "br0"}
    made = act(netns, **wanted)
    same_by_commands(made, [netns], [twin])
    right = lasting(netns)
    command, fields = DRIFTS[drift]
    for each in netns, twin:
        sh(command.format(each))
    repaired = act(netns, **wanted)
    assert [each["fields"] for each in repaired.changes] == [
        [each.format(mac=made.observed[0]["mac"]) for each in fields]]
    assert lasting(netns) == right
    same_by_commands(repaired, [netns], [twin])


def test_the_entry_of_the_only_peer_is_repaired_and_can_still_be_replaced(scene):
    netns = host_netns(scene)
    act(netns)
    sh(f"bridge -n {netns} fdb delete {ZERO} dev vxlan0 dst 192.0.2.2 via enX0")
    act(netns)
    assert fdb(netns) == [(ZERO, "192.0.2.2", "enX0")]
    act(netns, remotes=["192.0.2.3"])
    assert fdb(netns) == [(ZERO, "192.0.2.3", "enX0")]


def test_the_mtu_follows_the_underlay(scene):
    netns = host_netns(scene, mtu=9001)
    act(netns)
    sh(f"ip -n {netns} link set enX0 mtu 1500")
    assert act(netns).changes[0]["fields"] == ["mtu 8951 -> 1450"]
    before = lasting(netns)
    refused = run_module("vxlan_link", **item(netns, mtu=1451))
    assert refused.failed and refused.msg.startswith("mtu: 1451 is not valid") and "enX0 leaves 1450" in refused.msg
    assert lasting(netns) == before


@pytest.mark.parametrize("kind", ["vxlan id 7 dstport 4790", "bridge"])
def test_a_link_of_somebody_else_is_left_alone(scene, kind):
    netns = host_netns(scene)
    sh(f"ip -n {netns} link add vxlan0 type {kind}")
    before = lasting(netns)
    for wanted in "present", "absent":
        for check in True, False:
            result = run_module("vxlan_link", check=check, **item(netns, state=wanted))
            assert result.failed and "vxlan0" in result.msg and "not made by this collection" in result.msg
    assert lasting(netns) == before


@pytest.mark.parametrize("vni, flags, what", [(100, "", "VNI 100"), (100, "gbp", "VNI 100"), (None, "external", "every VNI")])
@pytest.mark.parametrize("check", [True, False])
def test_a_vni_that_is_taken_is_refused_at_once(scene, vni, flags, what, check):
    netns = host_netns(scene)
    sh(f"ip -n {netns} link add other type vxlan {f'id {vni}' if vni else ''} dstport 4789 {flags}")
    before = lasting(netns)
    result = run_module("vxlan_link", check=check, **item(netns))
    assert result.failed and f"vxlan other in netns {netns} already receives {what} on UDP port 4789" in result.msg
    assert lasting(netns) == before
    act(netns, port=4790)


def test_two_items_cannot_share_a_vni_but_can_swap(scene):
    netns = host_netns(scene)
    one, two = item(netns, vni=1), item(netns, vni=2, name="vxlan1")
    twice = run_module("vxlan_link", check=True, config=[one, {**two, "vni": 1}])
    assert twice.failed and "vxlan0" in twice.msg and "vxlan1" in twice.msg
    converge("vxlan_link", netns, config=[one, two])
    swapped = converge("vxlan_link", netns, config=[{**one, "vni": 2}, {**two, "vni": 1}])
    assert [each["action"] for each in swapped.changes] == ["recreate", "recreate"]
    assert (data(netns)["id"], data(netns, "vxlan1")["id"]) == (2, 1)
    # The device that has the VNI goes in the same call, though it is named last.
    converge("vxlan_link", netns, config=[{**one, "name": "vxlan2", "vni": 2}, {**two, "vni": 1},
                                          {"name": "vxlan0", "netns": netns, "state": "absent"}])


def test_prune(scene):
    netns = host_netns(scene)
    sh(f"ip -n {netns} link add foreign type vxlan id 9 dstport 4790")
    with namespaces.entered(netns):  # pruning looks into the host's own namespace, too
        converge("vxlan_link", netns, config=[item(None, vni=1), item(None, vni=2, name="vxlan1")])
        pruned = converge("vxlan_link", netns, config=[item(None, vni=1)], prune=True)
    assert [(each["item"], each["action"]) for each in pruned.changes] == [("vxlan vxlan1", "delete")]
    assert pruned.commands == ["ip link delete vxlan1"]
    assert link(netns, "foreign") and link(netns, "vxlan0")


def test_what_a_killed_run_left_is_ours(scene):
    netns = host_netns(scene)
    made = act(netns)
    sh(f"ip -n {netns} link delete vxlan0", made.commands[0])  # made, and not marked
    repaired = act(netns)
    assert repaired.changes[0]["fields"][0] == f"owner none -> {OWNER}"
    assert link(netns, "vxlan0")["ifalias"] == OWNER and fdb(netns) == [(ZERO, "192.0.2.2", "enX0")]


@pytest.mark.parametrize("options, what", [
    ({"device": "enX9"}, "there is no link enX9"),
    ({"bridge": "br9"}, "there is no link br9"),
    ({"netns": "test-no-such"}, "there is no network namespace test-no-such"),
])
def test_what_is_not_there_yet_is_a_warning_in_check_mode_and_an_error_in_a_real_run(scene, options, what):
    netns = host_netns(scene)
    before = lasting(netns)
    wanted = {**item(netns), **options}
    predicted = run_module("vxlan_link", check=True, **wanted)
    assert not predicted.failed and predicted.changed and what in predicted.warnings[0]
    result = run_module("vxlan_link", **wanted)
    assert result.failed and what in result.msg
    assert lasting(netns) == before and "test-no-such" not in sh("ip netns list")


def test_frames_reach_the_peer_over_the_tunnel(scene):
    hosts = scene.underlay("192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24")
    for number, netns in enumerate(hosts, 1):
        peers = [f"192.0.2.{each}" for each in (1, 2, 3) if each != number]
        made = run_module("vxlan_link", **item(netns, local=f"192.0.2.{number}", remotes=peers))
        assert not made.failed, made.msg
        sh(f"ip -n {netns} address add 10.0.0.{number}/24 dev vxlan0")
    for peer in 2, 3:
        sh(f"ip netns exec {hosts[0]} ping -c 1 -W 2 -M do -s 1422 10.0.0.{peer}")


@pytest.mark.parametrize("address", ["192.0.2.9", "2001:db8:9::9"])
def test_an_underlay_address_on_a_bridge_without_a_port_leads_nowhere(scene, address):
    netns = host_netns(scene)
    other, bits = ("192.0.2.3", 32) if "." in address else ("2001:db8::3", 128)
    sh(f"ip -n {netns} link add empty0 type bridge", f"ip -n {netns} link set empty0 up",
       f"ip -n {netns} address add {address}/{bits} dev empty0")
    before = state(netns)
    options = {"name": "vxlan9", "netns": netns, "vni": 9, "local": address, "mtu": 1400}
    for check in True, False:
        for peers in {"remotes": [other]}, {"group": "239.1.1.1" if bits == 32 else "ff05::1"}:
            refused = run_module("vxlan_link", check=check, **options, **peers)
            assert refused.failed and refused.msg.startswith(f"local: '{address}' is not valid: its link, empty0, is a bridge without a port")
    assert state(netns) == before
    assert not run_module("vxlan_link", check=True, **options, remotes=[]).failed, "without peers it need not lead to any"
    made = run_module("vxlan_link", **options, remotes=[other], device="enX0")
    assert not made.failed and data(netns, "vxlan9")["link"] == "enX0", "the device that is named leads there"
    run_module("vxlan_link", **options, state="absent")
    sh(f"ip -n {netns} link add port0 type veth peer name port1", f"ip -n {netns} link set port0 master empty0",
       f"ip -n {netns} route add {other}/{bits} dev empty0")
    assert not run_module("vxlan_link", check=True, **options, remotes=[other]).failed


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_an_underlay_address_on_a_link_that_does_not_lead_to_the_peers(scene, family):
    """The kernel's routes say which does; one that is not there yet is no reason to refuse."""
    netns = host_netns(scene)
    local, peer, bits, via = {"IPv4": ("198.51.100.9", "192.0.2.3", 32, "192.0.2.254"),
                              "IPv6": ("2001:db8:9::9", "2001:db8::3", 128, "2001:db8::fe")}[family]
    far = {"IPv4": "203.0.113.3", "IPv6": "2001:db8:7::3"}[family]
    sh(f"ip -n {netns} link add enX9 type veth peer name wire9", f"ip -n {netns} link set enX9 up", f"ip -n {netns} link set wire9 up",
       f"ip -n {netns} address add {local}/{bits} dev enX9 {'nodad' * (bits == 128)}")
    options = {"name": "vxlan9", "netns": netns, "vni": 9, "local": local, "mtu": 1400}
    assert not run_module("vxlan_link", check=True, **options, remotes=[far]).failed, "no route leads there as yet"
    sh(f"ip -n {netns} route replace default via {via} dev enX0")
    before = state(netns)
    for check in True, False:
        for each in peer, far:
            refused = run_module("vxlan_link", check=check, **options, remotes=[each])
            assert refused.failed and refused.msg.startswith(
                f"local: '{local}' is not valid: its link is enX9, and the kernel reaches the peer {each} by enX0: give"), refused.msg
    assert state(netns) == before
    assert not run_module("vxlan_link", check=True, **options, remotes=[far], device="enX0").failed, "the device that is named leads there"
    sh(f"ip -n {netns} route add {far}/{bits} dev enX9")
    made = run_module("vxlan_link", **options, remotes=[far])
    assert not made.failed and data(netns, "vxlan9")["link"] == "enX9", made


def test_the_mtu_of_what_hangs_on_a_tunnel_by_the_device_that_is_named(scene):
    netns = host_netns(scene)
    sh(f"ip -n {netns} address add 198.51.100.9/32 dev lo")
    options = {"netns": netns, "underlay": "198.51.100.9"}
    assert run_module("linux_bridge", name="br9", **options).msg.startswith("underlay: '198.51.100.9' is not valid: it is an address of lo")
    assert not run_module("linux_bridge", name="br9", underlay_device="enX0", **options).failed
    assert link(netns, "br9")["mtu"] == link(netns, "enX0")["mtu"] - 50
