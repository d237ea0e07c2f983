# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a host holds as one plan; a namespace plays the host's own, as the links' ``netns``."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import USERS
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import nftables, sysctl
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs import store

from .support.faces import converge, lasting
from .support.modules import run_module
from .support.namespaces import addresses, host_netns, link, sh

ROOTFS = "/var/lib/rootfs/alpine"
KINDS = ("alpine_rootfs", "ns_container", "veth_pair", "linux_bridge", "vxlan_link")


@pytest.fixture
def host(apart, scene):
    netns = host_netns(scene)
    sh(f"ip -n {netns} link delete br0")
    yield netns
    scene.close()
    scene.names.clear()
    apart.clear()


def whole(netns, tarball, *names, **states):
    """The article's host with these containers."""
    wanted = {
        "alpine_rootfs": [{"dest": ROOTFS, "src": tarball}],
        "ns_container": [{"name": name, "rootfs": ROOTFS} for name in names],
        "veth_pair": [{"container": name, "netns": netns, "addresses": [f"10.0.0.{at}/24"], "underlay": "192.0.2.1"}
                      for at, name in enumerate(names, 100)],
        "linux_bridge": [{"name": "br0", "netns": netns, "addresses": ["10.0.0.1/24"], "underlay": "192.0.2.1",
                          "ports": [f"ve-{name}" for name in names]}],
        "vxlan_link": [{"name": "vxlan0", "netns": netns, "vni": 100, "local": "192.0.2.1", "remotes": ["192.0.2.2"],
                        "bridge": "br0"}]}
    return {kind: [{**item, **({"state": states[kind]} if kind in states else {})} for item in items]
            for kind, items in wanted.items()}


def absent(wanted):
    return {kind: [{**item, "state": "absent"} for item in items] for kind, items in wanted.items()}


def items(result):
    return [f"{each['action']} {each['item'].split(' in netns')[0]}" for each in result.changes]


def test_an_empty_host_and_back(host, tarball):
    wanted, before = whole(host, tarball, "c1", "c2"), lasting(host)
    predicted = run_module("topology", check=True, **wanted)
    assert predicted.warnings == [], "what comes earlier in the plan is counted on"
    assert lasting(host) == before and not Path(ROOTFS).exists()
    made = converge("topology", host, **wanted)
    assert made.changes == predicted.changes and items(made) == [
        f"create rootfs {ROOTFS}", "create container c1", "create container c2", "create veth_pair ve-c1",
        "create veth_pair ve-c2", "create bridge br0", "create vxlan vxlan0"]
    assert list(made.observed) == list(predicted.observed) == list(KINDS)
    assert addresses("c1", "eth0") == {"10.0.0.100/24"} and sh("ip netns exec c1 ping -c1 -W2 10.0.0.101")
    for netns, name in ((host, "ve-c1"), ("c2", "eth0"), (host, "br0"), (host, "vxlan0")):
        assert link(netns, name)["mtu"] == 1450, name
    assert link(host, "ve-c1")["master"] == link(host, "vxlan0")["master"] == "br0"
    gone = converge("topology", host, **absent(wanted))
    assert items(gone) == ["delete vxlan vxlan0", "delete bridge br0", "delete veth_pair ve-c1", "delete veth_pair ve-c2",
                           "delete container c1", "delete container c2", f"delete rootfs {ROOTFS}"]
    assert lasting(host) == before and not Path(ROOTFS).exists()


def test_what_a_later_stage_cannot_do_stops_all_before_anything_changes(host, tarball):
    before = lasting(host)
    for kind, change, message in (
            ("vxlan_link", {"local": "192.0.2.77"}, "vxlan_link.local: '192.0.2.77' is not valid: no link of this host"),
            ("vxlan_link", {"bridge": "br7"}, "there is no link br7"),
            ("vxlan_link", {"mtu": 1451}, "vxlan_link.mtu: 1451 is not valid: the underlay device enX0 leaves 1450"),
            ("veth_pair", {"underlay": "192.0.2.77"}, "veth_pair.underlay: '192.0.2.77' is not valid: no link of this host"),
            ("linux_bridge", {"ports": ["ve-c7"]}, "there is no link ve-c7"),
            ("ns_container", {"rootfs": "/nowhere"}, "there is no root filesystem in /nowhere"),
            ("ns_container", {"command": []}, "ns_container.command: [] is not valid"),
            ("linux_bridge", {"addresses": ["10.0.0.100"]}, "linux_bridge.addresses: '10.0.0.100' is not valid"),
            ("linux_bridge", {"colour": "red"}, "linux_bridge.colour. Supported parameters include"),
            ("vxlan_link", {"vni": "many"}, "found in 'vxlan_link'"),
            ("veth_pair", {"netns": "elsewhere"}, "there is no network namespace elsewhere")):
        wanted = whole(host, tarball, "c1")
        wanted[kind] = [{**wanted[kind][0], **change}]
        found = run_module("topology", **wanted)
        assert found.failed and message in found.msg, found.msg
        assert lasting(host) == before and not Path(ROOTFS).exists() and running_pid("c1") is None


def test_what_an_earlier_change_takes_along_is_predicted(host, tarball):
    """A pair that is made anew is no port of the bridge any more; a bridge that is gone takes the tunnel's membership."""
    wanted = whole(host, tarball, "c1", "c2")
    converge("topology", host, **wanted)
    sh("ip -n c1 link set eth0 down", "ip -n c1 link set eth0 name eth7")
    repaired = converge("topology", host, **wanted)
    assert items(repaired) == ["recreate veth_pair ve-c1", "update bridge br0"]
    assert repaired.changes[1]["fields"] == ["ports ve-c2, vxlan0 -> ve-c1, ve-c2"]
    sh(f"ip -n {host} link delete br0")
    assert items(converge("topology", host, **wanted)) == ["create bridge br0", "update vxlan vxlan0"]
    assert sh("ip netns exec c1 ping -c1 -W2 10.0.0.101")


def test_a_namespace_whose_name_has_gone_astray(host, tarball):
    """The running container's links are looked for in its own namespace, whatever has taken the name."""
    wanted = whole(host, tarball, "c1")
    converge("topology", host, **wanted)
    sh("ip netns delete c1", "ip netns add c1")
    repaired = converge("topology", host, **wanted)
    assert [each["action"] for each in repaired.changes] == ["update"] and repaired.changes[0]["item"] == "container c1"
    assert addresses("c1", "eth0") == {"10.0.0.100/24"}


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_a_namespace_without_its_name_outlives_the_process_that_holds_it(host, tarball, userns):
    """It gets the name back before the container is made anew, or its cables went with it."""
    wanted = whole(host, tarball, "c1")
    wanted["ns_container"][0].update(userns=userns)
    converge("topology", host, **wanted)
    namespace = os.stat("/run/netns/c1").st_ino
    sh("ip netns delete c1")
    wanted["ns_container"][0].update(hostname="other")
    repaired = converge("topology", host, **wanted)
    assert items(repaired) == ["recreate container c1"] and os.stat("/run/netns/c1").st_ino == namespace
    assert addresses("c1", "eth0") == {"10.0.0.100/24"}


def test_a_network_namespace_whose_user_namespace_is_lost_is_made_anew_with_its_cable(host, tarball):
    wanted = whole(host, tarball, "c1")
    wanted["ns_container"][0].update(userns="auto", state="stopped")
    converge("topology", host, **wanted)
    sh(f"umount {USERS}/c1", f"rm {USERS}/c1")
    repaired = converge("topology", host, **wanted)
    assert items(repaired) == ["update container c1", "recreate veth_pair ve-c1", "update bridge br0"]
    assert addresses("c1", "eth0") == {"10.0.0.100/24"}


@pytest.fixture
def newer(tarball, tmp_path):
    """Another tarball, with one file more."""
    sh(f"mkdir {tmp_path}/tree", f"tar -xzpf {tarball} -C {tmp_path}/tree", f"touch {tmp_path}/tree/newer",
       f"tar -czf {tmp_path}/newer.tar.gz -C {tmp_path}/tree .")
    return str(tmp_path / "newer.tar.gz")


def lists(name, path):
    return subprocess.run([PROGRAM, "exec", name, "ls", path], capture_output=True, check=False).returncode == 0


def start_by_hand(name):
    sh(f"{PROGRAM} restart {name}")


def used():
    """The trees that no link leads to."""
    directory = Path(ROOTFS).parent / ".store"
    named = [os.path.realpath(each) for each in directory.parent.iterdir() if each.is_symlink()]
    return [str(each) for each in directory.iterdir() if str(each) not in named] if directory.exists() else []


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_a_root_filesystem_that_is_replaced_stays_for_those_who_run_on_it(host, tarball, newer, userns):
    before = lasting(host)
    wanted, others = whole(host, tarball, "c1", "c2"), whole(host, newer, "c1", "c2")
    for each in wanted, others:
        each["ns_container"][0].update(userns=userns)
        each["ns_container"][1].update(recreate="on_rootfs_change", userns=userns)
    converge("topology", host, **wanted)
    first = running_pid("c1")
    replaced = converge("topology", host, **others)
    assert items(replaced) == [f"recreate rootfs {ROOTFS}", "recreate container c2"] and running_pid("c1") == first
    assert lists("c1", "/bin/busybox") and not lists("c1", "/newer") and lists("c2", "/newer")
    tree, = used()
    assert os.path.realpath(f"/proc/{first}/root") != tree and not any("rm " in line and tree in line for line in replaced.commands)
    assert not run_module("topology", **others).changed
    start_by_hand("c2")
    converge("topology", host, alpine_rootfs=[{"dest": ROOTFS, "src": tarball}])
    assert len(used()) == 1 and lists("c1", "/bin/busybox") and lists("c2", "/newer"), "whoever has started it"
    anew = converge("topology", host, ns_container=[{**others["ns_container"][0], "hostname": "other"}])
    assert anew.commands[-1] == store.releasing(os.path.dirname(ROOTFS)) and len(used()) == 1 and lists("c1", "/bin/busybox")
    converge("topology", host, alpine_rootfs=[{"dest": ROOTFS, "state": "absent"}])
    assert lists("c1", "/bin/busybox") and lists("c2", "/newer") and not os.path.lexists(ROOTFS)
    assert items(converge("topology", host, alpine_rootfs=[{"dest": ROOTFS, "src": tarball}])) == [f"create rootfs {ROOTFS}"]
    assert lists("c1", "/bin/busybox") and lists("c2", "/newer") and len(used()) == 1
    converge("topology", host, **absent(wanted))
    assert lasting(host) == before and os.listdir(os.path.dirname(ROOTFS)) == []


def test_a_former_tree_whose_last_container_ended_by_itself_is_removed_by_the_next_run(host, tarball, newer):
    converge("topology", host, **whole(host, tarball, "c1"))
    others = whole(host, newer, "c1")
    converge("topology", host, **others)
    tree, = used()
    assert not run_module("topology", **others).changed
    start_by_hand("c1")
    assert lists("c1", "/newer")
    removed = converge("topology", host, **others)
    assert items(removed) == [f"update rootfs {ROOTFS}"] and f"rm -rf {tree}" in removed.commands and used() == []
    assert not os.path.exists(tree)


def test_a_directory_of_an_earlier_release_becomes_a_link_under_its_containers(host, tarball, newer):
    converge("topology", host, alpine_rootfs=[{"dest": ROOTFS, "src": tarball}])
    tree = os.path.realpath(ROOTFS)
    os.unlink(ROOTFS)
    os.rename(tree, ROOTFS)
    wanted = whole(host, tarball, "c1", "c2")
    converge("topology", host, ns_container=wanted["ns_container"])
    first = running_pid("c1")
    assert items(converge("topology", host, **wanted))[0] == f"update rootfs {ROOTFS}"
    assert os.path.realpath(ROOTFS) == tree and running_pid("c1") == first and lists("c1", "/bin/busybox")
    os.unlink(ROOTFS)
    os.rename(tree, ROOTFS)
    converge("topology", host, alpine_rootfs=[{"dest": ROOTFS, "src": newer}])
    assert len(used()) == 1 and "/inode-" in used()[0] and lists("c1", "/bin/busybox") and not lists("c1", "/newer")
    converge("topology", host, ns_container=absent(wanted)["ns_container"])
    assert used() == []


def test_nobody_writes_to_a_tree_of_the_store(host, tarball):
    wanted = whole(host, tarball, "c1")
    wanted["ns_container"][0].update(layer="none")
    refused = run_module("topology", **wanted)
    assert refused.failed and "ns_container.layer: 'none' is not valid" in refused.msg and "set read_only to true" in refused.msg
    wanted["ns_container"][0].update(read_only=True)
    converge("topology", host, **wanted)
    assert lists("c1", "/bin/busybox")
    wanted["ns_container"][0].update(read_only=False)
    assert run_module("topology", **wanted).failed and running_pid("c1")


def test_nothing_stays_where_all_start_anew(host, tarball, newer):
    wanted, others = whole(host, tarball, "c1", "c2"), whole(host, newer, "c1", "c2")
    for each in (*wanted["ns_container"], *others["ns_container"]):
        each.update(recreate="on_rootfs_change")
    converge("topology", host, **wanted)
    replaced = converge("topology", host, **others)
    assert used() == [] and lists("c1", "/newer") and lists("c2", "/newer")
    assert replaced.commands[-1] == store.releasing(os.path.dirname(ROOTFS))


def run_by_hand(result):
    """The commands of a result, one after the other."""
    for line in result.commands:
        sh(f"setsid sh -ec {shlex.quote(line)} 0>&1 >/dev/null | cat")


def test_commands_leave_what_runs_on_a_tree_and_no_more(host, tarball, newer):
    first, second = whole(host, tarball, "c1", "c2"), whole(host, newer, "c1", "c2")
    kinds = "alpine_rootfs", "ns_container"
    made = {kind: first[kind] for kind in kinds}
    converge("topology", host, **made)
    # Its only container on the way leaves with it, the other goes on.
    run_by_hand(run_module("topology", check=True, alpine_rootfs=second["alpine_rootfs"],
                           ns_container=[{"name": "c2", "state": "absent"}]))
    assert len(used()) == 1 and lists("c1", "/bin/busybox")
    run_by_hand(run_module("topology", check=True, ns_container=[{"name": "c1", "state": "absent"}]))
    assert used() == [] and len(os.listdir(Path(ROOTFS).parent / ".store")) == 1
    # All at once.
    converge("topology", host, **made)
    run_by_hand(run_module("topology", check=True, **absent(made)))
    assert os.listdir(os.path.dirname(ROOTFS)) == []


def test_a_tree_that_is_reached_by_a_link_stays_when_that_leads_elsewhere(host, tarball, newer):
    parent = Path(ROOTFS).parent
    one, two, current = (str(parent / each) for each in ("one", "two", "current"))
    converge("topology", host, alpine_rootfs=[{"dest": one, "src": tarball}, {"dest": two, "src": newer}])
    os.symlink("one", current)
    wanted = {"name": "c1", "rootfs": current}
    converge("topology", host, ns_container=[wanted])
    os.replace(os.symlink("two", f"{current}.new") or f"{current}.new", current)
    converge("topology", host, alpine_rootfs=[{"dest": one, "state": "absent"}])
    assert lists("c1", "/bin/busybox") and len(used()) == 1
    converge("topology", host, ns_container=[{**wanted, "hostname": "other"}])
    assert lists("c1", "/newer") and used() == []
    converge("topology", host, ns_container=[{"name": "c1", "state": "absent"}])
    os.unlink(current)
    converge("topology", host, alpine_rootfs=[{"dest": two, "state": "absent"}])


def test_nobody_inside_can_say_that_he_runs_on_another_tree(host, tarball, newer):
    wanted, others = whole(host, tarball, "c1", "c2"), whole(host, newer, "c1", "c2")
    converge("topology", host, **wanted)
    sh(f"{PROGRAM} exec c1 sh -c 'chmod 600 /.alpine_rootfs.json; touch -d 2020-01-01 /.alpine_rootfs.json /bin /'")
    converge("topology", host, alpine_rootfs=others["alpine_rootfs"])
    start_by_hand("c1")
    converge("topology", host, alpine_rootfs=wanted["alpine_rootfs"])
    assert len(used()) == 1 and lists("c1", "/newer") and lists("c2", "/bin/busybox")


def test_prune_spares_root_filesystems_and_kinds_that_are_not_given(host, tarball):
    converge("topology", host, **whole(host, tarball, "c1", "c2"))
    other = ROOTFS + "-other"
    assert run_module("alpine_rootfs", dest=other, src=tarball).changed
    fewer = converge("topology", host, prune=True, **whole(host, tarball, "c1"))
    assert items(fewer) == ["delete veth_pair ve-c2", "delete container c2"]
    assert Path(other, "bin").is_dir()
    sh(f"ip -n {host} link delete br0")
    only = whole(host, tarball, "c1")
    one = converge("topology", host, prune=True, linux_bridge=only["linux_bridge"])
    assert items(one) == ["create bridge br0"] and running_pid("c1") and link(host, "vxlan0")


def test_one_address_in_two_kinds(host, tarball):
    wanted = whole(host, tarball, "c1")
    wanted["veth_pair"][0].update(bridge="br0", addresses=["10.0.0.1/24"])
    wanted["veth_pair"].append({"container": "c2", "netns": host, "bridge": "br0", "addresses": ["10.0.0.1/24"]})
    found = run_module("topology", **wanted)
    assert found.failed and "addresses: '10.0.0.1/24' is not valid" in found.msg and not Path(ROOTFS).exists()


def test_nothing_at_all():
    assert run_module("topology").changed is False
    assert run_module("topology").observed == {}


def elsewhere(wanted):
    """A run in a process of its own; its pid. What becomes of it is no matter."""
    pid = os.fork()
    if pid == 0:
        try:
            run_module("topology", **wanted)
        finally:
            os._exit(0)
    return pid


def test_runs_that_are_killed_leave_what_the_next_one_repairs(host, tarball):
    wanted, chance = whole(host, tarball, "c1", "c2"), random.Random(4)  # noqa: S311 (the same times in each run)
    before, killed, whole_runs = lasting(host), 0, []
    for goal in wanted, absent(wanted):  # each takes its own time, and a run that is over is not killed
        begin = time.monotonic()
        os.waitpid(elsewhere(goal), 0)
        whole_runs.append(time.monotonic() - begin)
    for attempt in range(300):
        if killed == 50:
            break
        goal = absent(wanted) if attempt % 2 else {**wanted, "ns_container": [
            {**each, "env": {"ATTEMPT": str(attempt)}} for each in wanted["ns_container"]]}
        pid = elsewhere(goal)
        time.sleep(chance.uniform(0, whole_runs[attempt % 2]))
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        if attempt % 5 == 0:
            converge("topology", host, **goal)
    assert killed == 50, "most runs were over before they were killed"
    converge("topology", host, **wanted)
    assert sh("ip netns exec c1 ping -c1 -W2 10.0.0.101")
    converge("topology", host, **absent(wanted))
    assert lasting(host) == before and not Path(ROOTFS).exists()


def test_two_runs_at_once(host, tarball):
    wanted = whole(host, tarball, "c1", "c2")
    for unused in range(3):
        for pid in [elsewhere(wanted), elsewhere(wanted)]:
            os.waitpid(pid, 0)
        converge("topology", host, **wanted)
        assert sh("ip netns exec c1 ping -c1 -W2 10.0.0.101")
        gone = run_module("topology", **absent(wanted))
        assert not gone.failed, gone.msg


GUARD = "chain input {\ntype filter hook input priority 0; policy accept;\nudp dport 4789 ip saddr {192.0.2.2} counter accept\n}"


def rules():
    return sh("nft -s list ruleset")


@pytest.fixture
def tables(scene):
    """A network namespace of the test's own for nft, which works on the present one."""
    with namespaces.entered(scene.netns()):
        yield


@pytest.mark.skipif(nftables.nft() is None, reason="nft is not installed")
class TestTables:
    def test_create_replace_and_delete(self, tables):
        sh("nft add table inet other", "nft add chain inet other mine")
        before = rules()
        table = {"name": "fromscratch", "rules": GUARD}
        predicted = run_module("topology", check=True, nftables=[table])
        assert rules() == before
        made = run_module("topology", nftables=[table])
        assert made.changes == predicted.changes and items(made) == ["create nftables table inet fromscratch"]
        assert "ip saddr 192.0.2.2" in rules()
        assert not run_module("topology", nftables=[table]).changed
        sh("nft add rule inet fromscratch input counter drop")
        assert run_module("topology", nftables=[table]).changed and "drop" not in rules()
        other = {**table, "rules": GUARD.replace("192.0.2.2", "192.0.2.7")}
        changed = run_module("topology", nftables=[other])
        assert items(changed) == ["update nftables table inet fromscratch"] and "192.0.2.2" not in rules()
        by_hand = rules()
        sh("nft delete table inet fromscratch", "\n".join(changed.commands))
        assert rules() == by_hand
        assert items(run_module("topology", nftables=[{"name": "fromscratch", "state": "absent"}])) == [
            "delete nftables table inet fromscratch"]
        assert rules() == before

    def test_tables_of_one_name_and_two_families(self, tables):
        bridge = {"name": "fromscratch", "family": "bridge",
                  "rules": "chain fs_ports {\ntype filter hook forward priority 0; policy accept;\niifname \"ve-a\" counter drop\n}"}
        made = run_module("topology", nftables=[{"name": "fromscratch", "rules": GUARD}, bridge])
        assert items(made) == ["create nftables table inet fromscratch", "create nftables table bridge fromscratch"]
        assert not run_module("topology", nftables=[bridge]).changed
        by_hand = rules()
        sh("nft flush ruleset", *made.commands)
        assert rules() == by_hand
        assert items(run_module("topology", nftables=[{**bridge, "state": "absent"}])) == ["delete nftables table bridge fromscratch"]
        assert "table bridge" not in rules() and "table inet fromscratch" in rules()

    def test_a_table_of_somebody_else_is_left_alone(self, tables):
        sh("nft add table inet other")
        before = rules()
        found = run_module("topology", nftables=[{"name": "other", "rules": GUARD}])
        assert found.failed and "was not made by this collection" in found.msg, found.msg
        assert rules() == before


def test_a_cable_of_a_bridge_that_comes_in_the_same_task(host, tarball):
    wanted = whole(host, tarball, "c1", "c2")
    before = lasting(host)
    for each in wanted["veth_pair"]:
        each["bridge"] = "br0"
    wanted["linux_bridge"][0]["ports"] = ["ve-c1"]
    converge("topology", host, **wanted)
    assert link(host, "ve-c1")["master"] == link(host, "ve-c2")["master"] == "br0"
    sh(f"ip -n {host} link delete br0")
    converge("topology", host, **wanted)
    sh(f"ip -n {host} link set ve-c2 nomaster")
    converge("topology", host, **wanted)
    assert link(host, "ve-c1")["master"] == link(host, "ve-c2")["master"] == "br0"
    wanted["veth_pair"][1]["addresses"] = ["10.0.0.1/24"]
    refused = run_module("topology", **wanted)
    assert refused.failed and "10.0.0.1/24" in refused.msg, "the bridge has it"
    wanted["veth_pair"][1]["addresses"] = ["10.0.0.101/24"]
    converge("topology", host, **absent(wanted))
    assert lasting(host) == before


@pytest.mark.parametrize("change, said", [
    ({"vxlan_link": {"name": "br0"}}, "'br0' is not valid: vxlan br0"), ({"linux_bridge": {"name": "ve-c1"}}, "'ve-c1' is not valid: bridge"),
    ({"linux_bridge": {"name": "eth0", "netns": "c1", "ports": []}}, "'eth0' is not valid: bridge eth0 in netns c1"),
    ({"linux_bridge": {"name": "br1", "addresses": []}}, "'ve-c1' is not valid: it is to be a port of")])
def test_what_cannot_be_together_is_refused_before_anything_is_done(host, tarball, change, said):
    wanted, before = whole(host, tarball, "c1"), lasting(host)
    for kind, options in change.items():
        wanted[kind].append({**wanted[kind][0], **options})
    if "vxlan_link" in change:
        wanted["vxlan_link"][1].update(vni=7, bridge=None)
    for check in True, False:
        refused = run_module("topology", check=check, **wanted)
        assert refused.failed and said in refused.msg, refused.msg
    assert lasting(host) == before and not Path(ROOTFS).exists()


@pytest.mark.parametrize("module, options", [
    ("linux_bridge", {}), ("vxlan_link", {"vni": 9, "local": "192.0.2.1"}), ("veth_pair", {"container": "c1"})])
@pytest.mark.parametrize("there", ["br0", "vxlan0", "ve-c1"])
def test_a_link_of_another_kind_is_left_alone(host, tarball, module, options, there):
    converge("topology", host, **whole(host, tarball, "c1"))
    own = {"linux_bridge": "br0", "vxlan_link": "vxlan0", "veth_pair": "ve-c1"}[module] == there
    before = lasting(host, "c1")
    for state in ("absent", "present") * (not own):
        for check in True, False:
            refused = run_module(module, check=check, name=there, netns=host, state=state, **options)
            assert refused.failed and f"would take the name of a {link(host, there)['linkinfo']['info_kind']}" in refused.msg
    assert lasting(host, "c1") == before


def test_a_tunnel_that_is_no_longer_named_is_told_of(host, tarball):
    sh("ip link add u0 type veth peer name u1", "ip address add 192.0.2.1/24 dev u0", "ip link set u0 up")
    try:
        tunnels = [{"name": "vx1", "vni": 1, "local": "192.0.2.1"}, {"name": "vx2", "vni": 2, "local": "192.0.2.1"}]
        rules = [{"name": "fromscratch_test", "rules": "chain input { type filter hook input priority -10; policy accept; udp dport 4789 counter drop; }"}]
        assert run_module("topology", vxlan_link=tunnels, nftables=rules).warnings == []
        for prune in False, True:
            warnings = run_module("topology", vxlan_link=tunnels[:1], nftables=rules, prune=prune).warnings
            assert [each[:35] for each in warnings] == ["The tunnel vx2 with the VNI 2 is le"] * (not prune)
        run_module("topology", vxlan_link=[{**tunnels[0], "state": "absent"}], nftables=[{"name": "fromscratch_test", "state": "absent"}])
    finally:
        sh("ip link delete u0")


def test_a_setting_of_a_link_that_is_not_there(host):
    wanted = {"sysctl": [{"device": "nope", "name": "forwarding"}]}
    assert any("there is no link nope" in each for each in run_module("topology", check=True, **wanted).warnings)
    refused = run_module("topology", **wanted)
    assert refused.failed and "there is no link nope" in refused.msg and not Path(sysctl.FORMER).exists()


@pytest.mark.parametrize("wanted, said", [
    ({"linux_bridge": [{"name": "br*"}], "persist": True}, "linux_bridge.name: 'br*' is not valid: it also stands in rules"),
    ({"vxlan_link": [{"name": 'a"accept#', "vni": 1, "local": "192.0.2.1"}], "persist": True}, "vxlan_link.name: 'a\"accept#' is not valid"),
    ({"linux_bridge": [{"name": "br+"}], "persist": True}, "linux_bridge.name: 'br+' is not valid: it also stands in rules"),
    ({"veth_pair": [{"name": "!ve", "container": "c1"}], "persist": True}, "veth_pair.name: '!ve' is not valid"),
    ({"forward": [{"bridge": 'a"accept#'}]}, "forward.bridge: 'a\"accept#' is not valid"),
    ({"sysctl": [{"device": "a;b", "name": "forwarding"}]}, "sysctl.device: 'a;b' is not valid")])
def test_a_name_that_would_be_more_than_a_name_where_it_is_written(host, wanted, said):
    for check in True, False:
        refused = run_module("topology", check=check, **wanted)
        assert refused.failed and said in refused.msg, refused.msg


def test_an_underlay_device_whose_name_is_a_pattern_for_udev(host):
    sh("ip link add 'u*' type veth peer name u1", "ip address add 192.0.2.1/24 dev 'u*'", "ip link set 'u*' up")
    try:
        refused = run_module("topology", check=True, persist=True, vxlan_link=[{"name": "vx1", "vni": 1, "local": "192.0.2.1"}])
        assert refused.failed and "vxlan_link.local: 'u*' is not valid: it also stands in rules" in refused.msg, refused.msg
    finally:
        sh("ip link delete u1")
