# SPDX-License-Identifier: GPL-3.0-or-later
"""Eight hosts and three networks, two of them with the same addresses: everybody reaches its own network and no other, and a
change touches what it must and nobody else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NUMBERS = range(1, 9)
BLUE = {f"10.0.{number}.2" for number in NUMBERS}  # and nowhere else
GREEN = {f"10.0.{number}.3" for number in NUMBERS}
SIX = {f"10.6.{number}.1" for number in NUMBERS}

# Blue from hosts and containers, green from containers alone, six from both by both families; nobody pings itself.
PAIRS = (8 + 16) * 16 - 16 + 16 * 15 + 2 * ((8 + 8) * 8 - 8)

# From node1 to containers of node3 that no test changes, in each network and family.
STEADY = (("node1-a", "10.0.3.1"), ("node1-c", "10.0.6.1"), ("node1-e", "10.6.3.1"), ("node1-e", "fd00:6::3:1"))

LINKS = {f"{kind}-{network}" for kind in ("bridge br", "vxlan vx") for network in ("blue", "green", "six")}
GUARD = "nftables table inet fromscratch"
# What each container of the host may send.
PORTS = "nftables table bridge fromscratch"
# Green is static: its tables know each container of other hosts.
TABLES = {"vxlan vx-green", "bridge br-green"}
SYSCTLS = {f"sysctl net/ipv4/conf/br-{network}/arp_ignore" for network in ("blue", "green", "six")}


def within(overlay, name, command):
    """What a command prints in a container, whatever it returns."""
    return overlay.hosts[name.split("-")[0]].run(f"/usr/local/lib/fromscratch/ns-container exec {name} sh -c %s", command).stdout


def answering(overlay, name, addresses):
    """The addresses that answer a container's ARP, and those that answer its ping."""
    lines = within(overlay, name, f"""for each in {" ".join(addresses)}; do
        (arping -q -f -w 1 -I eth0 $each && echo arp $each) &
        (ping -q -c 1 -W 1 $each && echo ping $each) &
    done 2>&1; wait""").splitlines()
    return tuple({line.split()[1] for line in lines if re.fullmatch(f"{way} [0-9.]+", line)} for way in ("arp", "ping"))


def pairs(overlay, *options):
    """How many pairs playbooks/verify.yml prints, all of which it reached."""
    done = subprocess.run(["ansible-playbook", "-i", overlay.inventory, "playbooks/verify.yml", *options], cwd=ROOT,
                          env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return len(re.findall(r"\S+ +reaches +\S+ +[0-9a-f.:]+\"", done.stdout))


@contextmanager
def no_ping_is_lost(overlay):
    host = overlay.hosts["node1"]
    pids = host.check_output("\n".join(
        f"nsenter --net=/run/netns/{name} ping -i 0.2 {address} </dev/null >/tmp/ping-{at} 2>&1 & echo $!"
        for at, (name, address) in enumerate(STEADY))).split()
    try:
        yield
    finally:
        host.run(f"kill -INT {' '.join(pids)}; while kill -0 {' '.join(pids)}; do sleep 0.1; done")
    for at, pair in enumerate(STEADY):
        log = host.file(f"/tmp/ping-{at}").content_string
        answered = [int(each) for each in re.findall(r"icmp_seq=(\d+) ttl", log)]
        sent = int(re.search(r"(\d+) packets transmitted", log).group(1))
        # The last one may have been under way when ping was told to end.
        assert len(answered) > 10 and answered == list(range(1, len(answered) + 1)) and sent - len(answered) < 2, (pair, log)


def made(overlay):
    """What would differ if a container had been started again, or a link been made anew, on those hosts that stay."""
    look = "head -n 1 /run/fromscratch/containers/*; ip -o link | cut -d: -f-2"
    return {name: host.check_output(look) for name, host in overlay.hosts.items() if name != "node8"}


@pytest.fixture
def run(overlay):
    """Runs the site while pings go on; (host, item, action) of all that changed. A test that fails leaves nothing to the next."""
    ran = []

    def changed(*options):
        ran.append(options)
        before = made(overlay)
        with no_ping_is_lost(overlay):
            results = overlay.play("site.yml", *options)
        assert made(overlay) == before
        # Which files there are for network managers depends on what this machine has installed.
        return {(each["host"], change["item"], change["action"]) for each in results for change in each["changes"]
                if not change["item"].startswith("file ")}

    yield changed
    if any(ran[-1:]):
        overlay.play("site.yml")


@pytest.fixture
def change(tmp_path):
    """Options for the inventory with other variables of one host."""
    def options(name, **variables):
        path = tmp_path / "change.yml"
        path.write_text(json.dumps({"overlay": {"hosts": {name: variables}}}), encoding="utf-8")
        return "-i", str(path)
    return options


def each_of(numbers, items, action="update"):
    """As ``run`` returns it; in an item, {} stands for the host's name."""
    return {(f"node{number}", item.format(f"node{number}"), action) for number in numbers for item in items}


def test_everybody_reaches_everybody_of_its_network(overlay):
    assert pairs(overlay) == PAIRS


def test_six_is_laid_over_ipv6(overlay, name):
    found, = overlay.js(name, "ip -d -j link show vx-six")
    assert found["linkinfo"]["info_data"]["local6"] == f"fd00:31::{name[4:]}"
    assert found["mtu"] == 1430
    flood = {each["dst"] for each in overlay.js(name, "bridge -j fdb show dev vx-six") if each["mac"] == "00:00:00:00:00:00"}
    assert flood == {f"fd00:31::{number}" for number in NUMBERS} - {f"fd00:31::{name[4:]}"}


def test_an_address_of_two_networks_is_answered_from_ones_own(overlay, name):
    ask = "; ".join(f"nc 10.0.{number}.1 8080 </dev/null" for number in NUMBERS)
    assert within(overlay, f"{name}-a", ask).split() == [f"node{number}-a" for number in NUMBERS]
    assert within(overlay, f"{name}-c", ask).split() == [f"node{9 - number}-c" for number in NUMBERS]


@pytest.mark.parametrize(("container", "own", "other"), [
    ("a", BLUE, GREEN | SIX), ("c", GREEN, BLUE | SIX), ("e", SIX, BLUE | GREEN)], ids=["blue", "green", "six"])
def test_networks_are_kept_apart(overlay, name, container, own, other):
    own = own - {f"10.6.{name[4:]}.1"}  # nobody answers itself by ARP
    assert answering(overlay, f"{name}-{container}", own | other) == (own, own)


def test_the_bridge_of_another_network_does_not_answer(overlay):
    assert answering(overlay, "node1-c", {f"10.0.0.{number}" for number in NUMBERS}) == (set(), set())


def test_a_host_leaves_and_joins(overlay, change, run):
    all_it_has = {*LINKS, *SYSCTLS, GUARD, PORTS, "rootfs /var/lib/fromscratch/rootfs/alpine",
                  *(kind + each for kind in ("container {}-", "veth_pair ve-{}-") for each in "abcde")}
    of_others = each_of(range(1, 8), {"vxlan vx-blue", "vxlan vx-six", *TABLES, GUARD})
    without = change("node8", overlay_state="absent")

    assert run(*without) == of_others | each_of([8], all_it_has, "delete")
    # Without localhost, verify.yml would not look at what the hosts found.
    assert pairs(overlay, *without, "--limit", "all,localhost,!node8") == (7 + 14) * 14 - 14 + 14 * 13 + 2 * ((7 + 7) * 7 - 7)
    for number in range(1, 8):  # what was learned is forgotten in time
        known = overlay.hosts[f"node{number}"].check_output("bridge fdb | grep permanent; nft list table inet fromscratch")
        assert re.findall(r".*(?:172\.31\.0\.|fd00:31::)8\b.*", known) == []

    assert run() == of_others | each_of([8], all_it_has, "create")
    assert pairs(overlay) == PAIRS


def test_containers_are_renumbered_and_an_mtu_is_changed(overlay, change, run):
    """In blue only the container itself changes, the others learn; in green all hosts are told, and get the MTU."""
    expected = each_of([3], {"veth_pair ve-{}-b", PORTS}) | each_of(NUMBERS, {*TABLES, "veth_pair ve-{}-c", "veth_pair ve-{}-d"})
    renumbered = change("node3", b_ends_in=22, d_ends_in=33)

    def passes(name, address, size):
        return overlay.hosts["node1"].run(
            f"nsenter --net=/run/netns/{name} ping -c 1 -W 2 -M do -s {size - 28} {address}").rc == 0

    assert run(*renumbered, "-e", "green_mtu=1400") == expected
    assert pairs(overlay, *renumbered) == PAIRS
    assert answering(overlay, "node1-a", ["10.0.3.2", "10.0.3.22"]) == ({"10.0.3.22"}, {"10.0.3.22"})
    assert answering(overlay, "node1-c", ["10.0.3.3", "10.0.3.33"]) == ({"10.0.3.33"}, {"10.0.3.33"})
    assert passes("node1-c", "10.0.6.1", 1400) and not passes("node1-c", "10.0.6.1", 1401)
    assert passes("node1-a", "10.0.3.1", 1450) and not passes("node1-a", "10.0.3.1", 1451)

    assert run() == expected
    assert pairs(overlay) == PAIRS
    assert passes("node1-c", "10.0.6.1", 1450)
