# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that systemd runs: containers are services, the network comes back at boot, strangers stay out, and all of it goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
STATE = Path("/var/lib/fromscratch/containers")

# Sends VNI 100 an echo request of 10.0.0.66 for a container of host one, by the encapsulation that anybody can write.
FORGERY = r"""
import socket, struct, sys
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return ~((total >> 16) + (total & 0xffff)) & 0xffff
def summed(data, at):
    return data[:at] + struct.pack("!H", checksum(data)) + data[at + 2:]
icmp = summed(struct.pack("!BBHHH", 8, 0, 0, 7, 7), 2)
ip = summed(struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(icmp), 1, 0, 64, 1, 0, socket.inet_aton("10.0.0.66"),
                        socket.inet_aton("10.0.0.11")), 10)
frame = bytes.fromhex(sys.argv[1].replace(":", "")) + bytes.fromhex("020000000066") + b"\x08\x00" + ip + icmp
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for unused in range(5):
    out.sendto(struct.pack("!II", 0x08000000, 100 << 8) + frame, ("172.31.0.1", 4789))
"""

# Units of ours, as systemd names them; network namespaces are mounts.
OURS = "^(fromscratch|ns-container|system-ns|run-netns)"

# Makes its chain, as Docker does, when the network of the containers has had all the time to be there first.
DOCKER = """\
[Unit]
Description=Stands in for Docker
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'for turn in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
    ! systemctl is-active --quiet fromscratch-network.service || break; sleep 0.1; done; \
    nft add table ip filter; \
    nft "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"'

[Install]
WantedBy=multi-user.target
"""

# What an administrator would look at to see whether anything is left.
VIEWS = ("ip -j link", "ip -j address", "ip -j route", "ip -6 -j route", "ip -j rule", "ip netns", "nft list ruleset",
         "ls -lR --time-style=+ /etc/systemd /etc/udev/rules.d /etc/NetworkManager /run/fromscratch /run/netns 2>/dev/null",
         "ls -la --time-style=+ /var/lib/fromscratch", "cut -d' ' -f4- /proc/self/mountinfo",
         "systemctl list-unit-files --no-legend --no-pager", "ls -d /sys/fs/cgroup/system.slice/*container*",
         f"systemctl list-units --all --plain --no-legend --no-pager | grep -E '{OURS}'",
         "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/forwarding")
OUTSIDE = "198.51.100.1"


def show(host, unit, *names):
    lines = host.check_output(f"systemctl show {unit} " + " ".join(f"--property {each}" for each in names)).splitlines()
    return dict(line.split("=", 1) for line in lines)


def eventually(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not in a minute: {what}"
        time.sleep(0.1)


def booted(host):
    """It is degraded where a service fails that this machine has of its own; none of ours does."""
    state = host.run("systemctl is-system-running").stdout.strip()
    failed = host.run("systemctl list-units --failed --plain --no-legend --no-pager").stdout
    assert not any(each in failed for each in ("fromscratch", "ns-container")), failed
    return state in ("running", "degraded")


@pytest.fixture
def one(overlay):
    return overlay.hosts["one"]


def test_the_hosts_have_booted(overlay):
    for name in "one", "two":
        eventually(lambda name=name: booted(overlay.hosts[name]), f"{name} has booted")


def test_the_unit_of_the_network_is_active(one):
    assert show(one, "fromscratch-network.service", "ActiveState", "UnitFileState") == {
        "ActiveState": "active", "UnitFileState": "enabled"}


def test_a_container_is_a_service(one):
    unit = "ns-container@one-b.service"
    found = show(one, unit, "ActiveState", "MainPID", "Restart", "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax", "UnitFileState")
    assert found == {"ActiveState": "active", "MainPID": one.check_output("head -n1 /run/fromscratch/containers/one-b"),
                     "Restart": "on-failure", "MemoryMax": str(32 * 1024 * 1024), "CPUQuotaPerSecUSec": "500ms",
                     "TasksMax": "20", "UnitFileState": "enabled"}
    eventually(lambda: "one-b says hello" in one.check_output(f"journalctl --no-pager -u {unit}"), "it is in the journal")
    assert "one-b.service.d/container.conf" in one.check_output(f"systemctl cat {unit}")
    assert "Restart=no" in one.check_output("systemctl show --property Restart ns-container@one-a.service")


@pytest.mark.parametrize("where, container, runtime", [("one", "one-c", "crun"), ("two", "two-a", "runc")])
def test_a_container_of_another_runtime_is_a_service_as_well(overlay, where, container, runtime):
    host = overlay.hosts[where]
    unit = f"ns-container@{container}.service"
    assert f'"fromscratch.runtime": "{runtime}"' in host.check_output(f"cat /run/fromscratch/runtimes/{container}/config.json")
    for unused in range(2):
        pid = show(host, unit, "MainPID")["MainPID"]
        assert host.check_output(f"ns-container status {container}") == f"{container} runs, process {pid}"
        assert f"/{unit}" in host.check_output(f"tail -n 1 /proc/{pid}/cgroup")
        assert host.check_output(f"ns-container exec {container} id -u") == "0"
        host.check_output(f"ns-container restart {container}")
    assert show(host, unit, "ActiveState")["ActiveState"] == "active"


def test_a_container_that_was_stopped_by_hand_is_started(overlay, one):
    one.check_output("systemctl stop ns-container@one-a")
    assert one.run("/usr/local/lib/fromscratch/ns-container status one-a").rc == 3
    changes = [change for result in overlay.play("site.yml") for change in result.get("changes", ())]
    assert [(each["item"], each["action"]) for each in changes] == [("container one-a", "update")]
    assert one.run("systemctl is-active ns-container@one-a").rc == 0


def test_a_container_that_was_started_by_hand_gets_into_its_unit_which_is_said(overlay, one):
    one.check_output("systemctl stop ns-container@one-a")
    one.check_output("setsid /usr/local/lib/fromscratch/ns-container start --unit one-a </dev/null >/dev/null 2>&1")
    results = [result for result in overlay.play("site.yml") if result.get("changes")]
    assert [change["item"] for result in results for change in result["changes"]] == ["container one-a"]
    said = "container one-a runs, but was not started by ns-container@one-a.service"
    assert any(said in warning for result in results for warning in result["warnings"])
    assert one.run("systemctl is-active ns-container@one-a").rc == 0


def test_a_container_that_fails_comes_back_with_its_links(one):
    before = show(one, "ns-container@one-b.service", "MainPID")["MainPID"]
    one.check_output(f"kill -KILL {before}")
    eventually(lambda: show(one, "ns-container@one-b.service", "MainPID", "ActiveState").get("ActiveState") == "active"
               and one.run("/usr/local/lib/fromscratch/ns-container status one-b").rc == 0, "it is back")
    assert show(one, "ns-container@one-b.service", "MainPID")["MainPID"] != before
    assert one.run("ip netns exec one-b ping -c1 -W2 10.0.0.21").rc == 0


def test_system_calls_that_a_container_has_no_use_for_are_refused(one):
    for name in "one-a", "one-b":
        assert one.check_output(f"grep Seccomp: /proc/$(head -n1 /run/fromscratch/containers/{name})/status").split()[1] == "2"
        assert one.run(f"/usr/local/lib/fromscratch/ns-container exec {name} unshare -U true").rc != 0
    assert one.check_output("systemctl show --property KeyringMode ns-container@one-a").strip() == "KeyringMode=private"


def test_a_unit_that_systemd_has_not_read_again(overlay, one):
    """As a run leaves it that is killed between the two."""
    path = "/etc/systemd/system/ns-container@one-b.service.d/container.conf"
    before = show(one, "ns-container@one-b.service", "MainPID")
    one.check_output(f"touch -d '1 minute' {path}; echo >>{path}")
    assert "yes" in one.check_output("systemctl show --property NeedDaemonReload ns-container@one-b")
    overlay.play("site.yml")
    assert "no" in one.check_output("systemctl show --property NeedDaemonReload ns-container@one-b")
    assert show(one, "ns-container@one-b.service", "MainPID") == before


def out_and_in(overlay):
    """From a container to the outside, which knows no way back but to the host; and from there to a port of the host."""
    one, stranger = overlay.hosts["one"], overlay.hosts["stranger"]
    stranger.run(f"ip address replace {OUTSIDE}/32 dev lo")
    assert one.run(f"ip netns exec one-a ping -c1 -W2 {OUTSIDE}").rc == 0
    assert "hello" in stranger.run("busybox nc -w 2 172.31.0.1 8080 </dev/null").stdout


def test_the_way_out_and_in(overlay):
    out_and_in(overlay)
    stranger = overlay.hosts["stranger"]
    stranger.check_output("ip route replace 10.0.0.0/24 via 172.31.0.1")
    assert stranger.run("ping -c1 -W1 10.0.0.13").rc != 0, "what is not published is reached from outside"
    stranger.check_output("ip route delete 10.0.0.0/24")


def test_containers_know_each_other_by_name(overlay, one, tmp_path):
    def hosts(host, name):
        return overlay.hosts[host].check_output(f"/usr/local/lib/fromscratch/ns-container exec {name} cat /etc/hosts")

    assert one.run("/usr/local/lib/fromscratch/ns-container exec one-a ping -c1 -W2 two-a").rc == 0
    change = tmp_path / "change.yml"
    change.write_text(json.dumps({"overlay": {"hosts": {"two": {"overlay_containers": [
        {"name": "two-a", "address": "10.0.0.21/24"}, {"name": "two-b", "address": "10.0.0.22/24", "hostname": "web"}]}}}}),
        encoding="utf-8")
    overlay.play("site.yml", "-i", str(change))
    assert "10.0.0.22 two-b web" in hosts("one", "one-a") and "10.0.0.22 two-b web" in hosts("two", "two-a")
    overlay.play("site.yml", "-e", "overlay_prune=true")
    assert "two-b" not in hosts("one", "one-a") + hosts("two", "two-a")


def test_managers_are_told(one):
    for program, path, line in (
            ("/lib/systemd/systemd-networkd", "/etc/systemd/network/05-fromscratch.network", "Unmanaged=yes"),
            ("/lib/systemd/systemd-udevd", "/etc/systemd/network/05-fromscratch.link", "MACAddressPolicy=none"),
            ("/usr/sbin/NetworkManager", "/etc/NetworkManager/conf.d/zz-fromscratch.conf", "interface-name:vxlan0")):
        if one.file(program).exists:
            assert line in one.file(path).content_string and one.file(path).mode == 0o644
        else:
            assert not one.file(path).exists


def echoes(one):
    """Echo requests that the container has taken."""
    lines = one.check_output("ip netns exec one-a grep ^Icmp: /proc/net/snmp").splitlines()
    return int(dict(zip(*(line.split() for line in lines)))["InEchos"])


def forge(overlay):
    mac = overlay.js("one", "ip -n one-a -j link show eth0")[0]["address"]
    overlay.hosts["stranger"].check_output("/usr/bin/python3 -c %s %s", FORGERY, mac)
    time.sleep(0.5)


def test_strangers_stay_out(overlay, one):
    before = echoes(one)
    forge(overlay)
    assert echoes(one) == before, "a forged frame came through the guard"
    dropped, = one.check_output("nft list chain inet fromscratch fs_strangers | grep drop").splitlines()
    assert "counter packets 5 " in dropped
    one.check_output("nft delete table inet fromscratch")
    forge(overlay)
    assert echoes(one) == before + 5, "without it, all of them come through"
    changes = [change for result in overlay.play("site.yml") for change in result.get("changes", ())]
    assert [(each["item"], each["action"]) for each in changes] == [("nftables table inet fromscratch", "create")]
    forge(overlay)
    assert echoes(one) == before + 5


@pytest.mark.parametrize("verb", ["start", "reload", "restart", "stop"])
def test_what_flushes_all_rules_brings_ours_back(one, verb):
    ours = one.check_output("nft -s list table inet fromscratch")
    one.check_output("nft add table inet somebody_elses")
    one.check_output(f"systemctl {verb} nftables.service")
    assert "somebody_elses" not in one.check_output("nft list tables"), "nothing was flushed"
    assert one.check_output("nft -s list table inet fromscratch") == ours


def lasting(overlay):
    """What is the same before and after a reboot."""
    def clean(value):
        if isinstance(value, dict):
            return {key: clean(each) for key, each in value.items() if not key.endswith("_timer") and key not in (
                "ifindex", "link_index", "link_netnsid", "operstate", "state", "valid_life_time",
                "preferred_life_time", "tentative", "flags", "dadfailed")}
        return [clean(each) for each in value] if isinstance(value, list) else value

    found = {}
    for where in "", "-n one-a", "-n one-b":
        for what in "-d -j link", "-j address", "-j route", "-6 -j route":
            found[where, what] = {str(each.get("ifname") or each): each for each in clean(overlay.js("one", f"ip {where} {what}"))}
    found["fdb"] = sorted(str(clean(each)) for each in overlay.js("one", "bridge -j fdb show dev vxlan0")
                          if each.get("state") == "permanent")
    # Tables are listed in the order of their making.
    found["nft"] = sorted(overlay.hosts["one"].check_output("nft -s list ruleset").splitlines())
    return found


def test_a_reboot(overlay, one):
    """Beside a program that makes a chain which drops what is forwarded, and starts later than ours would."""
    one.check_output("printf %s >/etc/systemd/system/docker.service", DOCKER)
    one.check_output("systemctl daemon-reload && systemctl enable --now docker.service")
    changes = [change["item"] for result in overlay.play("site.yml") for change in result.get("changes", ())]
    assert changes == ["passage of br0", "file /var/lib/fromscratch/network"]
    before = lasting(overlay)
    assert sum('comment "fromscratch.containers"' in line for line in before["nft"]) >= 2
    boot = one.check_output("cat /var/lib/fromscratch/network")
    assert "python" not in boot and "ansible" not in boot
    subprocess.run(["/usr/local/lib/fromscratch/ns-container", "stop", "one"], check=True)
    subprocess.run(["ip", "netns", "delete", "one"], check=True)  # and all links that were in it
    overlay.play("playbooks/lab.yml")
    eventually(lambda: booted(one), "it has booted")
    after = lasting(overlay)
    assert set(after) == set(before)
    for key, value in before.items():
        assert after[key] == value, key
    results = overlay.play("site.yml")
    assert [each for each in results if each.get("changes")] == []
    assert one.run("ip netns exec one-b ping -c1 -W2 10.0.0.21").rc == 0
    assert one.run("ip netns exec one-a ping -c1 -W2 10.0.0.12").rc == 0
    out_and_in(overlay)


def test_the_boot_script_brings_back_a_tunnel_that_went_with_its_device(overlay, one):
    one.check_output("ip link delete vxlan0")
    one.check_output("systemctl restart fromscratch-network.service")
    assert [each for each in overlay.play("site.yml") if each.get("changes")] == []
    assert one.run("ip netns exec one-a ping -c1 -W2 10.0.0.21").rc == 0


def test_teardown_leaves_nothing(overlay, one):
    def look():
        return {view: one.run(view).stdout for view in VIEWS}

    overlay.play("playbooks/teardown.yml")
    before = look()
    assert "fromscratch" not in before["nft list ruleset"]
    assert "ns-container@" not in before["systemctl list-unit-files --no-legend --no-pager"]
    units = f"systemctl list-units --all --plain --no-legend --no-pager | grep -E '{OURS}'"
    eventually(lambda: one.run(units).stdout == "", "no unit of ours is loaded")  # systemd forgets a slice when it likes
    assert "/run/netns" not in before["cut -d' ' -f4- /proc/self/mountinfo"]
    assert [line.split()[-1] for line in before["ls -la --time-style=+ /var/lib/fromscratch"].splitlines()[1:]] == [".", ".."]
    changed = subprocess.run(["find", STATE / "one/layer/upper/etc", "-name", "*fromscratch*", "-o", "-name", "*ns-container*"],
                             check=True, capture_output=True, text=True).stdout.split()
    assert [each for each in changed if not Path(each).is_char_device()] == []  # a character device is the mark of a deletion
    overlay.play("site.yml")
    assert look() != before
    overlay.play("playbooks/teardown.yml")
    after = look()
    for view in VIEWS:
        assert after[view] == before[view], view
    for seconds in 3, 5:  # half a set-up, of a run that is killed with all that it has started
        run = subprocess.Popen(["ansible-playbook", "-i", overlay.inventory, "site.yml"], cwd=ROOT, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")})
        time.sleep(seconds)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        one.run("pkill -KILL -f AnsiballZ_")
        overlay.play("playbooks/teardown.yml")
        # systemd removes a cgroup when it likes.
        eventually(lambda: look() == before, f"all is gone of what a run made in {seconds} s")
    overlay.play("site.yml")
