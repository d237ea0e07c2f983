# SPDX-License-Identifier: GPL-3.0-or-later
"""The way out and in, names, and other programs' packet filters: what the role gives a host, in a namespace that plays it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import nftables, sysctl
from ansible_collections.fromscratch.containers.plugins.module_utils.host import names

from .support.egress import HERE, OUTSIDE, SENT_TO_IPTABLES, reaches
from .support.modules import run_module
from .support.namespaces import sh

CONF = Path("/proc/sys/net/ipv4/conf")

pytestmark = pytest.mark.skipif(nftables.nft() is None, reason="nft is not installed")


def says(netns, address, port):
    """What a server says to one who connects."""
    done = subprocess.run(["ip", "netns", "exec", netns, "busybox", "nc", "-w", "2", address, str(port)], check=False,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout.strip()


# Debian's busybox, of which the stand-in for Alpine is made, pings by raw sockets.
RAW = {"capabilities": {"add": ["net_raw"]}}
# Alpine's nc goes on listening with -lk, Debian's busybox with -ll.
SERVER = {"command": ["sh", "-c", "nc -lk -p 80 -e echo hello || nc -ll -p 80 -e echo hello"], "publish": ["8080:80/tcp"]}


def test_out_and_in(machine):
    if SENT_TO_IPTABLES.exists():  # it would translate the answers of neighbours as well
        SENT_TO_IPTABLES.write_text("0", encoding="ascii")
    assert not machine.run(("c1", SERVER), ("c2", {}), egress=True).failed
    assert reaches("c1", OUTSIDE), "outside knows no way back to 10.0.0.0/24: the host lends its address"
    assert says(machine.outside, HERE, 8080) == "hello"
    assert says(machine.name, HERE, 8080) == "hello", "from the host itself"
    assert says("c2", HERE, 8080) == "hello", "from a neighbour, by the host's address"
    sh(f"ip -n {machine.outside} route add 10.0.0.0/24 via {HERE}")
    assert not reaches(machine.outside, "10.0.0.11") and says(machine.outside, "10.0.0.11", 80) == ""
    sh("nft delete table inet fromscratch")
    assert reaches(machine.outside, "10.0.0.11"), "without the table, who knows the way comes in"
    assert not machine.run(("c1", SERVER), ("c2", {}), egress=True).failed
    assert not reaches(machine.outside, "10.0.0.11") and says(machine.outside, HERE, 8080) == "hello"


def test_the_table_of_an_earlier_release_is_mended(machine):
    """Its chain is called by what has become a word of nft's: it can be listed, and not be loaded again."""
    machine.converge(("c1", {}))
    ours = sh("nft -s list table inet fromscratch")
    chain = {"family": "inet", "table": "fromscratch", "name": "vxlan", "type": "filter", "hook": "input", "prio": -10, "policy": "accept"}
    former = json.dumps({"nftables": [{"add": {"table": {"family": "inet", "name": "fromscratch"}}}, {"add": {"chain": chain}}]})
    sh("nft delete table inet fromscratch", f"nft -j -f - <<'EOF'\n{former}\nEOF")
    mended = machine.converge(("c1", {}))
    assert [(each["item"], each["action"]) for each in mended.changes] == [("nftables table inet fromscratch", "update")]
    assert sh("nft -s list table inet fromscratch") == ours


def test_without_egress_there_is_no_way(machine):
    machine.converge(("c1", {}))
    assert not reaches("c1", OUTSIDE)
    assert "nat" not in sh("nft list ruleset") and not Path(sysctl.FORMER).exists()


def test_what_is_set_is_set_again_and_taken_back(machine):
    before = {each: (CONF / each).read_text() for each in ("all/forwarding", "default/forwarding", "enX0/forwarding")}
    made = machine.converge(("c1", {}), egress=True)
    assert [each["item"] for each in made.changes if each["item"].startswith("sysctl")] == [
        "sysctl net/ipv4/conf/br0/forwarding", "sysctl net/ipv4/conf/enX0/forwarding"]
    assert "sysctl -qw net/ipv4/conf/br0/forwarding=1" in made.commands
    assert (CONF / "all/forwarding").read_text() == before["all/forwarding"], "the whole host's setting stays"
    (CONF / "enX0/forwarding").write_text("0")
    repaired = machine.converge(("c1", {}), egress=True)
    assert [each["fields"] for each in repaired.changes] == [["value 0 -> 1"]] and reaches("c1", OUTSIDE)
    machine.converge(("c1", {}))
    assert {each: (CONF / each).read_text() for each in before} == before and not reaches("c1", OUTSIDE)
    machine.converge(("c1", {}), egress=True)
    machine.converge(state="absent")
    assert {each: (CONF / each).read_text() for each in before} == before
    assert not Path("/var/lib/fromscratch").exists() and "fromscratch" not in sh("nft list ruleset")


def setting(device):
    return (CONF / device / "forwarding").read_text().strip()


def no_more(machine):
    """The way out is wanted no more; what was run for the device, and the setting that it has then."""
    made = machine.converge(("c1", {}))
    assert not Path(sysctl.FORMER).exists()
    return [line for line in made.commands if line.startswith("sysctl") and "enX0" in line], setting("enX0")


def test_what_somebody_else_has_set_meanwhile_stays(machine):
    machine.converge(("c1", {}), egress=True)
    (CONF / "enX0/forwarding").write_text("0")  # by somebody else, and repaired
    machine.converge(("c1", {}), egress=True)
    (CONF / "all/forwarding").write_text("1")  # as Docker does, which sets that of each link
    assert no_more(machine) == ([], "1")
    machine.converge(("c1", {}), egress=True)
    (CONF / "enX0/forwarding").write_text("0")
    assert no_more(machine) == ([], "0")
    (CONF / "enX0/forwarding").write_text("1")
    machine.converge(("c1", {}), egress=True)
    assert setting("enX0") == "1"
    (CONF / "enX0/forwarding").write_text("0")
    machine.converge(("c1", {}), egress=True)
    assert no_more(machine) == (["sysctl -qw net/ipv4/conf/enX0/forwarding=0"], "0"), "what it had last"


def test_what_an_earlier_release_has_kept_is_set_again(machine):
    machine.converge(("c1", {}), egress=True)
    Path(sysctl.FORMER, "enX0/forwarding").write_text("0\n", encoding="ascii")
    assert machine.run(("c1", {}), egress=True).changes == []
    assert no_more(machine) == (["sysctl -qw net/ipv4/conf/enX0/forwarding=0"], "0")


def test_a_setting_that_gets_one_value_after_another_gets_the_first_one_again(machine):
    before = (CONF / "enX0/arp_ignore").read_text()
    for value in 1, 2:
        assert run_module("topology", sysctl=[{"device": "enX0", "name": "arp_ignore", "value": value}]).changed
    assert run_module("topology", sysctl=[]).changed and (CONF / "enX0/arp_ignore").read_text() == before


def test_a_host_without_a_way_out(machine):
    sh("ip route del default")
    found = machine.run(("c1", {}), egress=True)
    assert found.failed and "sysctl.device" in found.msg and "no default route" in found.msg
    assert running_pid("c1") is None and "br0" not in sh("ip link")


def within(name, command):
    return sh(f"{PROGRAM} exec {name} sh -c '{command}'")


def test_of_the_host_a_container_gets_the_nameservers(machine):
    machine.converge(("c1", {}), egress=True)
    assert within("c1", "cat /etc/resolv.conf").splitlines()[1:] == names.nameservers()


def test_names_are_kept_current(machine):
    machine.converge(("c1", RAW), names=True)
    first = running_pid("c1")
    assert "127.0.0.1 localhost" in within("c1", "cat /etc/hosts")
    made = machine.converge(("c1", RAW), ("c2", {"hostname": "web"}), names=True)
    assert made.changes[0]["item"] == "file /var/lib/fromscratch/networks/overlay/hosts"
    assert running_pid("c1") == first, "it runs on, and sees the change"
    assert "1 packets received" in within("c1", "ping -c1 -W2 c2") and "10.0.0.12" in within("c1", "ping -c1 web")
    hosts = Path("/var/lib/fromscratch/networks/overlay/hosts")
    inode = hosts.stat().st_ino
    hosts.write_text("nonsense\n" * 100, encoding="ascii")
    machine.converge(("c1", RAW), ("c2", {"hostname": "web"}), names=True)
    assert hosts.stat().st_ino == inode and "nonsense" not in within("c1", "cat /etc/hosts")
    machine.converge(("c1", RAW), names=True)
    assert "c2" not in within("c1", "cat /etc/hosts")
    machine.converge(("c1", RAW))
    assert not hosts.exists() and running_pid("c1") != first


def test_nameservers(machine):
    machine.converge(("c1", {}), egress=True, dns=["192.0.2.53", "2001:db8::53"])
    assert within("c1", "cat /etc/resolv.conf").splitlines()[1:] == ["nameserver 192.0.2.53", "nameserver 2001:db8::53"]


@pytest.mark.parametrize("target", ["../run/systemd/resolve/stub-resolv.conf", "/etc/passwd", "/nowhere"])
def test_a_link_in_the_place_of_resolv_conf(machine, tmp_path, target):
    """It is replaced in the layer and never followed, neither in the root filesystem nor on the host."""
    root = tmp_path / "root"
    sh(f"cp -a {machine.rootfs} {root}", f"rm -f {root}/etc/resolv.conf", f"ln -s {target} {root}/etc/resolv.conf", f"chmod 755 {tmp_path}")
    passwd = (root / "etc/passwd").read_text(encoding="utf-8")
    machine.rootfs = str(root)
    machine.converge(("c1", {}), egress=True, dns=["192.0.2.53"])
    assert within("c1", "cat /etc/resolv.conf").splitlines()[1:] == ["nameserver 192.0.2.53"]
    assert (root / "etc/resolv.conf").is_symlink() and (root / "etc/passwd").read_text(encoding="utf-8") == passwd
    assert within("c1", "cat /etc/passwd") == passwd


def test_nameservers_of_the_host(tmp_path, monkeypatch):
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("# a comment\nnameserver 127.0.0.53\nsearch one.example\n", encoding="ascii")
    real.write_text("nameserver 192.0.2.1\nnameserver ::1\nsearch two.example\n", encoding="ascii")
    monkeypatch.setattr(names, "OF_HOST", (str(stub), str(real)))
    assert names.nameservers() == ["nameserver 192.0.2.1", "search two.example"]
    monkeypatch.setattr(names, "OF_HOST", (str(stub), str(tmp_path / "none")))
    assert names.nameservers() == []


def passes():
    """What iptables has of us."""
    return [line for line in sh("iptables -S FORWARD").splitlines() if "fromscratch" in line]


@pytest.mark.skipif(not SENT_TO_IPTABLES.exists(), reason="the kernel has no br_netfilter")
@pytest.mark.skipif(subprocess.run(["which", "iptables"], check=False, capture_output=True).returncode != 0,
                    reason="iptables is not installed")
class TestForwardThatDrops:
    BOTH = ("c1", {}), ("c2", {})

    @pytest.fixture(autouse=True)
    def docker(self, machine):
        """As Docker leaves it."""
        sh("iptables -P FORWARD DROP", "iptables -A FORWARD -i docker0 -j ACCEPT")

    def test_it_is_said(self, machine):
        for check in True, False:
            warned = machine.run(*self.BOTH, check=check).warnings
            assert any("ip filter FORWARD" in each and "bridge br0" in each and "overlay_bridge_netfilter" in each
                       for each in warned), warned
        assert not reaches("c1", "10.0.0.12") and passes() == []
        sh("iptables -P FORWARD ACCEPT")
        assert machine.run(*self.BOTH).warnings == [] and reaches("c1", "10.0.0.12")
        sh("iptables -A FORWARD -j DROP")
        assert len(machine.run(*self.BOTH).warnings) == 1, "a rule that drops all is as good as the policy"

    def test_it_is_mended_when_asked_to(self, machine):
        sysctls = {each: each.read_text() for each in SENT_TO_IPTABLES.parent.iterdir()}
        others = sh("iptables -S FORWARD")
        made = machine.converge(*self.BOTH, bridge_netfilter="accept")
        assert made.warnings == [] and reaches("c1", "10.0.0.12")
        line, = passes()
        assert line.startswith("-A FORWARD -i br0 -o br0") and line.endswith("-j ACCEPT")
        sh("iptables -F FORWARD", "iptables -A FORWARD -i docker0 -j ACCEPT")
        assert not reaches("c1", "10.0.0.12")
        repaired = machine.converge(*self.BOTH, bridge_netfilter="accept")
        assert [each["item"] for each in repaired.changes] == ["passage of br0"] and reaches("c1", "10.0.0.12")
        machine.converge(*self.BOTH)
        assert passes() == [], "asked no more, it goes"
        machine.converge(*self.BOTH, bridge_netfilter="accept")
        machine.converge(state="absent")
        assert sh("iptables -S FORWARD") == others
        assert {each: each.read_text() for each in sysctls} == sysctls

    def test_the_commands_do_the_same(self, machine):
        made = machine.converge(*self.BOTH, bridge_netfilter="accept", egress=True)
        rules = sh("nft -s list chain ip filter FORWARD")
        sh("iptables -F FORWARD", "iptables -A FORWARD -i docker0 -j ACCEPT",
           *(each for each in made.commands if each.startswith("nft insert")))
        assert sorted(sh("nft -s list chain ip filter FORWARD").split()) == sorted(rules.split())

    def test_the_way_out_as_well(self, machine):
        machine.converge(("c1", SERVER), egress=True)
        assert not reaches("c1", OUTSIDE) and says(machine.outside, HERE, 8080) == ""
        machine.converge(("c1", SERVER), egress=True, bridge_netfilter="accept")
        assert reaches("c1", OUTSIDE) and says(machine.outside, HERE, 8080) == "hello"
        assert len(passes()) == 3, "iptables can still read its chain"
        sh(f"ip -n {machine.outside} route add 10.0.0.0/24 via {HERE}")
        assert not reaches(machine.outside, "10.0.0.11") and says(machine.outside, "10.0.0.11", 80) == "", "nor does more come in"
