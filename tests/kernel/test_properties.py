# SPDX-License-Identifier: GPL-3.0-or-later
"""Any topology converges, check mode predicts it, its commands rebuild it elsewhere, and any drift is repaired.

A case is a host with containers, bridges, cables and tunnels of every kind, on the real kernel. What is not ours stands
beside it and inside of its containers, and has to be untouched in the end.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import namespaces
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import RUN, STATE, USERS, running
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces as network_namespaces

from .support.faces import converge, different, lasting, same_by_commands
from .support.modules import run_module
from .support.namespaces import Scene, host_netns, js, link, sh
from .support.processes import eventually, members

CASES = int(os.environ.get("FROMSCRATCH_CASES", "40"))
KINDS = ("ns_container", "veth_pair", "linux_bridge", "vxlan_link")
SEEN, DRIFTS = Counter(), Counter()


def subset(values, most=None):
    return st.lists(st.sampled_from(values), unique=True, max_size=most)


def maybe(strategy):
    return st.none() | strategy


# A host's namespaces by number: its own, those of cables, and those of containers.
CABLES, CONTAINERS = range(1, 4), range(4, 7)
PEERS = {4: [f"192.0.2.{number}" for number in range(2, 7)], 6: [f"2001:db8::{number}" for number in range(2, 7)]}
MACS = [f"02:00:00:00:0f:{number:02x}" for number in range(4)]
HOSTILE = " '\"\\$HOME `id` $(id) !*;%=-#&|<>~\n\t\r "
TEXT = st.just(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
BINDS = [("folder", "/own/folder"), ("folder", "/srv"), ("file", "/etc/own"), ("file", "/own/deep/file")]
TMPFS = ["/tmp:mode=1777,size=1m", "/run", "/var/cache/own:size=64k"]


@st.composite
def containers(draw, number):
    """Options of a container with that number. Each ends at once when it is asked to, or is given no time."""
    words = draw(st.lists(TEXT, max_size=3))
    ends, init = draw(st.booleans()), draw(st.booleans())
    return given_only(
        name=number, state=draw(st.sampled_from(["started", "started", "stopped"])), init=init, userns=draw(maybe(st.just("host"))),
        command=["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait", *words] if ends else ["sleep", "1000"],
        stop_timeout=draw(st.integers(0, 10)) if ends or init else 0,
        env=draw(maybe(st.dictionaries(st.sampled_from(["HOME", "WORD", "_x1", "long_Name"]), TEXT))),
        hostname=draw(maybe(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True))),
        workdir=draw(maybe(st.sampled_from(["/", "/etc", "/tmp"]))),
        layer=draw(st.sampled_from(["none", "disk", "tmpfs"])), read_only=draw(st.booleans()), tmpfs=draw(subset(TMPFS)),
        binds=[{"source": source, "dest": dest, "read_only": draw(st.booleans())} for source, dest in draw(subset(BINDS, 2))])


@st.composite
def topologies(draw):
    """Options of M(topology); the namespaces of the host, of the cables' other ends and of containers are numbers."""
    inside = CONTAINERS[:draw(st.sampled_from([0, 0, 0, 1, 2, 3]))]
    bridges = draw(subset(["br1", "br2", "br3"]))
    on = maybe(st.sampled_from(bridges)) if bridges else st.none()
    numbers, wanted = iter(range(1, 200)), {kind: [] for kind in KINDS}
    wanted["ns_container"] = [draw(containers(number)) for number in inside]

    def some_addresses(most):
        return [draw(st.sampled_from([f"10.{number}.0.1/24", f"fd00:{number}::1/64"]))
                for number in (next(numbers) for unused in range(draw(st.integers(0, most))))]

    for name in bridges:
        wanted["linux_bridge"].append(given_only(
            name=name, netns=0, addresses=some_addresses(2), stp=draw(st.booleans()),
            mtu=draw(maybe(st.integers(1280, 1450))), priority=draw(maybe(st.sampled_from([4096, 32768]))),
            ageing_time=draw(maybe(st.integers(10, 1000))), mac=draw(maybe(st.just(f"02:00:00:00:0b:0{name[-1]}"))),
            neighbours=[{"address": f"10.99.{name[-1]}.{at}", "mac": mac} for at, mac in enumerate(draw(subset(MACS)), 1)]))
    inner_names = {place: ["eth0", "net1", "lan2"] for place in (*CABLES, *inside)}
    for number in CABLES[:draw(st.integers(0, 3))]:
        place = draw(st.sampled_from([number, *inside]))
        inner_name = draw(st.sampled_from(inner_names[place]))
        inner_names[place].remove(inner_name)
        inner = some_addresses(2)
        if bridges and draw(st.booleans()):  # a cable is set up before the bridge, which takes it as a port
            draw(st.sampled_from(wanted["linux_bridge"])).setdefault("ports", []).append(f"ve{number}")
        families = {6 if ":" in each else 4 for each in inner}
        routes = [{"dst": f"198.51.{number}.0/24"}] if 4 in families and draw(st.booleans()) else []
        wanted["veth_pair"].append(given_only(
            name=f"ve{number}", netns=0, addresses=inner, routes=routes, inner_name=inner_name,
            mtu=draw(maybe(st.integers(1280, 1450))), inner_mac=draw(maybe(st.just(f"02:00:00:00:0e:0{number}"))),
            **{"container" if place in inside else "namespace": place}))
    family, learning = draw(st.sampled_from([4, 6])), draw(st.booleans())
    for vni in draw(subset([1, 100, 16777215])):
        remotes = draw(subset(PEERS[family], 3))
        entries = [{"mac": mac, "dst": draw(st.sampled_from(PEERS[family]))} for mac in draw(subset(MACS))]
        wanted["vxlan_link"].append(given_only(
            name=f"vx{vni}"[:10], netns=0, vni=vni, local={4: "192.0.2.1", 6: "2001:db8::1"}[family], remotes=remotes,
            learning=learning, ttl=draw(maybe(st.integers(1, 255))), ageing=draw(maybe(st.integers(1, 1000))), fdb=entries,
            port=draw(st.sampled_from([4789, 8472])), bridge=draw(on), mtu=draw(maybe(st.integers(1280, 1400)))))
    return wanted


def given_only(**options):
    return {name: value for name, value in options.items() if value is not None}


def on_host(wanted, names, files):
    """The options for the namespaces of those names, and for the files of the tests."""
    found = {kind: [{**item, **{key: names[item[key]] for key in ("name", "netns", "container", "namespace")
                                if isinstance(item.get(key), int)}} for item in items] for kind, items in wanted.items()}
    for item in found["ns_container"]:
        item.update(rootfs=f"{files}/rootfs", binds=[{**each, "source": f"{files}/{each['source']}"} for each in item["binds"]])
    return found


# What somebody may do by hand to a container.
CONTAINER_DRIFTS = {
    "killed": "{program} status {name} && kill -KILL $(head -n 1 {record}) && while {program} status {name}; do sleep 0.01; done",
    "stopped": "{program} stop {name}",
    "started": "setsid {program} start {name} 0>&1 >/dev/null 2>&1 | cat",  # which ends when the start is over
    "bundle edited": "echo ' ' >>{dir}/config.json",
    "launcher edited": "echo '# by hand' >>{program}",
    "launcher deleted": "rm {program}",
    "another stop_timeout": "sed -i 's/stop_timeout.\": [0-9]*/stop_timeout\\\\\": 99/' {dir}/config.json",
    "another workdir": "sed -i 's/workdir.\": .\"[^\"]*\"/workdir\\\\\": \\\\\"\\/else\\\\\"/' {dir}/config.json",
    "namespace's name deleted": "ip netns delete {name}",
    "namespace's name taken": "ip netns delete {name}; ip netns add {name}",
    "user namespace's name deleted": "umount {users} && rm {users}",
    "lo down": "ip -n {name} link set lo down"}


def drifts(wanted):
    """What somebody may do by hand to one host: (what it is, shell commands), for the namespaces in braces."""
    ports = [port for each in wanted["linux_bridge"] for port in each.get("ports", ())]
    for each in wanted["ns_container"]:
        name = f"{{{each['name']}}}"
        for what, command in CONTAINER_DRIFTS.items():
            yield f"container {what}", command.format(
                name=name, dir=f"{STATE}/{name}", program=PROGRAM, record=f"{RUN}/{name}", users=f"{USERS}/{name}")
    for kind in KINDS[1:]:
        for each in wanted[kind]:
            name = each["name"]
            yield f"{kind} deleted", f"ip -n {{0}} link delete {name}"
            yield f"{kind} down", f"ip -n {{0}} link set {name} down"
            yield f"{kind} takes advertisements", f"ip netns exec {{0}} sysctl -qew net/ipv6/conf/{name}/accept_ra=1"
            if kind == "vxlan_link" or "mtu" in each:
                yield f"{kind} another MTU", f"ip -n {{0}} link set {name} mtu 1290"
            if "bridge" in each or name in ports:
                yield f"{kind} in no bridge", f"ip -n {{0}} link set {name} nomaster"
                yield f"{kind} in another bridge", f"ip -n {{0}} link set {name} master br0"
            if each.get("addresses") and kind == "linux_bridge":
                yield "address deleted", f"ip -n {{0}} address delete {each['addresses'][0]} dev {name}"
            if kind == "linux_bridge":
                yield "address added", f"ip -n {{0}} address add 203.0.113.9/24 dev {name}"
                yield "spanning tree", f"ip -n {{0}} link set {name} type bridge stp_state {int(not each['stp'])}"
            if kind == "veth_pair":
                inner, there = each["inner_name"], f"ip -n {{{each.get('container', each.get('namespace'))}}}"
                yield "inner end deleted", f"{there} link delete {inner}"
                yield "inner end takes advertisements", (
                    f"{there.replace('-n', 'netns exec')} sysctl -qew net/ipv6/conf/{inner}/accept_ra=1")
                yield "inner end down", f"{there} link set {inner} down"
                yield "inner end renamed", f"{there} link set {inner} down && {there} link set {inner} name stray"
                yield "inner addresses flushed", f"{there} address flush dev {inner} scope global"
            if kind == "vxlan_link":
                there = {4: "192.0.2.99", 6: "2001:db8::99"}[6 if ":" in each["local"] else 4]
                yield "FDB entry added", f"bridge -n {{0}} fdb append 02:00:00:00:00:77 dev {name} dst {there} via enX0"
                yield "FDB entries flushed", (
                    f"bridge -n {{0}} fdb show dev {name} | grep -v master | grep 'dst' | "
                    f"sed 's/ dev / /; s/ self.*//' | while read -r mac rest; do bridge -n {{0}} fdb delete $mac dev {name} $rest; done")
                yield "learning", f"ip -n {{0}} link set {name} type vxlan {'nolearning' if each['learning'] else 'learning'}"


@st.composite
def cases(draw):
    wanted = draw(topologies())
    possible = list(drifts(wanted))
    # Hypothesis likes the first and the last of many, and what it had before; here all are alike.
    chance = random.Random(f"{draw(st.integers(0, 99999))} {wanted}")  # noqa: S311
    return wanted, chance.sample(possible, min(draw(st.integers(1, 4)), len(possible)))


# What a container is like

def strings(path):
    """What the kernel shows of a process as strings that end with NUL."""
    return Path(path).read_bytes().decode().split("\0")[:-1]


def command_of(item):
    """What its command is: process 1, or the first that an init has started; None where that has yet to come."""
    found = members(running(item["name"]))[item["init"]:]
    return strings(f"/proc/{found[0]}/cmdline") if found else None


def inside(item):
    """What the kernel says of a container that runs."""
    process = running(item["name"])
    variables = dict(each.split("=", 1) for each in strings(f"/proc/{process}/environ"))
    mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text(encoding="utf-8").splitlines()]
    return {"command": command_of(item), "hostname": sh(f"nsenter --target {process} --uts hostname").strip(),
            "workdir": os.readlink(f"/proc/{process}/cwd"), "network": os.stat(f"/proc/{process}/ns/net").st_ino,
            "env": {name: value for name, value in variables.items() if name not in ("PWD", "OLDPWD", "SHLVL")},  # a shell's own
            "overlay": [each[4] for each in mounts if each[each.index("-") + 1] == "overlay"],
            "mounts": {each[4]: each[5].split(",")[0] for each in mounts
                       if not each[4].startswith(("/dev/", "/proc/", "/sys/"))}}


def as_given(item):
    """The same by the options."""
    name = item["name"]
    hostname = item.get("hostname", name)
    ways = {True: "ro", False: "rw"}
    return {"command": item["command"], "hostname": hostname, "workdir": item.get("workdir", "/"),
            "network": os.stat(f"/run/netns/{name}").st_ino,
            "env": {"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOSTNAME": hostname, **item.get("env", {})},
            "overlay": ["/"] * (item["layer"] != "none"),
            "mounts": {"/": ways[item["read_only"]], "/proc": "rw", "/sys": "ro", "/dev": "rw",
                       **{each.partition(":")[0]: "rw" for each in item["tmpfs"]},
                       **{each["dest"]: ways[each["read_only"]] for each in item["binds"]}}}


def as_wanted(items):
    for item in items:
        if item["state"] == "stopped":
            assert running(item["name"]) is None, f"{item['name']} runs"
            continue
        assert running(item["name"]), f"{item['name']} does not run"
        eventually(lambda item=item: command_of(item) == item["command"], "its command runs")
        assert different(inside(item), as_given(item)) == []


def written(names):
    """The files of containers, without what each start writes anew."""
    return {f"{name}/{file}": (path.stat().st_mode, path.read_bytes()) for name in names
            for file in ("config.json",) for path in [Path(STATE, name, file)] if path.exists()}


# What is not ours: links, an address, a route and a neighbour, beside it and on the underlay device; a namespace, a process
# in it, and that one's mount; and a link inside of each container.
STRANGE = """\
link add foreign0 address 02:00:00:00:0a:01 type bridge
link set foreign0 up
address add 203.0.113.1/24 dev foreign0
route add 198.18.0.0/16 dev foreign0
neighbour replace 192.0.2.50 lladdr 02:00:00:00:0a:02 dev enX0 nud permanent
# A bridge whose MTU nobody has set takes that of its ports; one byte less makes it be set.
link set br0 mtu 1499
link set br0 mtu 1500
"""


class Stranger:
    def __init__(self, scene):
        self.netns = scene.netns()
        sh(f"ip -n {self.netns} link add foreign0 address 02:00:00:00:0a:04 type bridge")
        self.process = subprocess.Popen(["ip", "netns", "exec", self.netns, "sh", "-c", "mount -t tmpfs foreign /mnt && echo && "
                                         "exec sleep 1000"], stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def look(self):
        if self.process.poll() is not None:
            return ["its process has ended"]
        mounts = Path(f"/proc/{self.process.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        return [lasting(self.netns), [line for line in mounts if "foreign" in line],
                os.stat(f"/proc/{self.process.pid}/ns/net").st_ino, os.stat(f"/run/netns/{self.netns}").st_ino]

    def close(self):
        self.process.kill()
        self.process.communicate()


def foreign(netns):
    links = {each["ifname"]: each for each in js(f"ip -n {netns} -j address show")}
    return ([(links[name]["address"], links[name]["mtu"], [each["local"] for each in links[name]["addr_info"] if each["scope"] != "link"])
             for name in ("foreign0", "enX0", "br0")]
            + [js(f"ip -n {netns} -j {view}") for view in ("route show dev foreign0", "neighbour show dev enX0 nud permanent")])


def whereabouts(name):
    """A container's network namespace: that of its process 1, whatever has become of the name; None where it has lost it."""
    process = running(name)
    if process:
        return f"/proc/{process}/ns/net"
    mapped = json.loads(Path(STATE, name, "config.json").read_text(encoding="utf-8"))["linux"].get("uidMappings")
    return f"/run/netns/{name}" if namespaces.belongs_to(f"/run/netns/{name}", f"{USERS}/{name}" if mapped else None) else None


def strays(names):
    """The foreign link inside of each container that has it."""
    found = {name: [each for each in js(f"nsenter --net={there} ip -d -j address show") if each["ifname"] == "stray0"]
             for name in names for there in [whereabouts(name)] if there}
    return {name: links for name, links in found.items() if links}


def by_hand(drift, names):
    for unused, command in drift:
        sh(command.format(*names), check=False)  # what one has deleted, the next cannot change


class Case:
    def __init__(self, scene, apart, files, wanted):
        self.apart = apart
        used = {each.get("namespace") for each in wanted["veth_pair"]}
        self.names, self.others = ([host_netns(scene), *(
            scene.netns() if number in used else f"test{os.getpid()}-{next(scene.counter)}" for number in (*CABLES, *CONTAINERS))]
            for unused in range(2))
        for names in self.names, self.others:
            sh(f"ip -n {names[0]} -batch - <<'EOF'\n{STRANGE}EOF")
        self.wanted, self.twins = on_host(wanted, self.names, files), on_host(wanted, self.others, files)["ns_container"]
        self.containers = [each["name"] for each in self.wanted["ns_container"]]
        self.stranger = Stranger(scene)

    def everything(self, *names):
        return lasting(*names), self.apart.picture(), [running(name) for name in names]

    def converge(self, **state):
        wanted = {kind: [{**item, **state} for item in items] for kind, items in self.wanted.items()}
        return converge("topology", *self.names, look=self.everything, **wanted)

    def foreign(self):
        return foreign(self.names[0]) + self.stranger.look()

    def check(self, drift):
        before, empty, strange = lasting(*self.names), self.apart.picture(), self.foreign()
        made = self.converge()
        as_wanted(self.wanted["ns_container"])
        self.rebuild(made)
        right, right_files = lasting(*self.names), written(self.containers)
        for name in self.containers:
            sh(f"ip -n {name} link add stray0 address 02:00:00:00:0a:03 type bridge && "
               f"ip -n {name} address add 203.0.113.8/24 dev stray0")
        self.drift(drift)
        inner, spared = strays(self.containers), self.spared()
        repaired = self.converge()
        as_wanted(self.wanted["ns_container"])
        assert {name: running(name) for name in spared} == spared, "started anew for nothing"
        assert strays(self.containers) == inner, "a foreign link inside of a container was changed"
        for name in inner:
            sh(f"ip -n {name} link delete stray0")
        self.repair_by_commands(drift, repaired)
        assert different(lasting(*self.names), right) == [], "drift is left"
        assert different(written(self.containers), right_files) == [], "drift of files is left"
        assert self.foreign() == strange, "something of somebody else's was changed"
        self.converge(state="absent")
        assert different(lasting(*self.names), before) == [], "something is left after the removal"
        assert different([*self.apart.picture()], [*empty]) == [], "files or mounts are left after the removal"
        assert self.foreign() == strange, "something of somebody else's was removed"

    def rebuild(self, made):
        """An equal host by the commands alone."""
        same_by_commands(made, self.names, self.others)
        as_wanted(self.twins)
        again = run_module("ns_container", check=True, config=self.twins)
        assert not again.failed and not again.changed, again

    def repair_by_commands(self, drift, repaired):
        """The equal host, where the drift is one of links alone: those of containers name processes, and leave files out."""
        if not any(what.startswith("container") for what, unused in drift):
            by_hand(drift, self.others)
            same_by_commands(repaired, self.names, self.others)
        gone = run_module("ns_container", config=[{**item, "state": "absent"} for item in self.twins])
        assert not gone.failed, gone.msg

    def drift(self, drift):
        namespaces = {name: os.stat(f"/run/netns/{name}").st_ino for name in self.containers}
        by_hand(drift, self.names)
        for each in self.wanted["veth_pair"]:  # the kernel takes its time to take a namespace apart, and its cables along
            name = each.get("container")
            if name and namespaces[name] not in (network_namespaces.inode(name), network_namespaces.inode(f"/proc/{running(name)}/ns/net")):
                eventually(lambda each=each: link(self.names[0], each["name"]) is None, "the cable goes with the namespace")

    def spared(self):
        """The processes that are as they have to be, and have been as far as their containers' records say."""
        return {item["name"]: running(item["name"]) for item in self.wanted["ns_container"]
                if item["state"] == "started" and running(item["name"])
                and "/else" not in Path(STATE, item["name"], "config.json").read_text(encoding="utf-8")}


@pytest.fixture(scope="module")
def files(rootfs, tmp_path_factory):
    """Of this module's own, since a container without a layer makes its mount points in its root."""
    directory = tmp_path_factory.mktemp("files")
    sh(f"cp -a {rootfs} {directory}/rootfs")
    (directory / "folder").mkdir()
    (directory / "file").touch()
    return directory


@pytest.mark.slow
# Making a failing case smaller takes minutes: it is for the one who looks for the fault.
@seed(int(os.environ.get("FROMSCRATCH_SEED", "1")))
@settings(max_examples=CASES, deadline=None, database=None, report_multiple_bugs=False,
          phases=[Phase.generate] + [Phase.shrink] * ("FROMSCRATCH_SHRINK" in os.environ),
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases())
def test_any_topology_and_any_drift(apart, files, case):
    wanted, drift = case
    scene = Scene()
    try:
        made = Case(scene, apart, files, wanted)
        try:
            made.check(drift)
        finally:
            made.stranger.close()
    finally:
        scene.close()
        apart.clear()
    SEEN.update({"cases": 1, **{kind: len(items) for kind, items in wanted.items()}})
    DRIFTS.update(what for what, unused in drift)


@pytest.mark.slow
def test_there_were_enough_cases():
    inside = {what: count for what, count in sorted(DRIFTS.items()) if what.startswith("container")}
    print(f"\nproperty-based: {dict(SEEN)}, {sum(DRIFTS.values())} drifts of {len(DRIFTS)} kinds, {sum(inside.values())} of them of "
          f"containers: {inside}")
    assert SEEN["cases"] >= CASES and all(SEEN[kind] >= CASES / 4 for kind in KINDS)
    assert sum(DRIFTS.values()) >= CASES / 4 and sum(inside.values()) >= CASES / 8
