# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad inputs as one table: every option of every module and of the role, with values that are wrong.

Each is refused with a message that names the option, the value and the remedy, in check mode and in a real run, and leaves a
host on which all is in order exactly as it was. A module's row is tried in each place where a task can write the item.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import nftables
from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import KINDS
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from ..conftest import ROOT
from .support import task_results
from .support.bad_tarballs import BAD
from .support.faces import different, lasting
from .support.modules import MODULES, run_module
from .support.namespaces import Scene, js, sh
from .support.tarballs import GOOD, packed

ROOTFS = "/var/lib/rootfs/alpine"
MAC, ZERO = "02:00:00:00:00:09", "00:00:00:00:00:00"
LONG = "x" * 16
LEFT_OUT = object()


class Row(NamedTuple):
    """What is wrong, and what the message says about it.

    ``option`` is a path, such as ``fdb.mac``; ``beside`` are other options that it takes, by theirs. ``named`` and ``shown`` are
    what the message calls option and value where it does otherwise.
    """

    option: str
    value: object
    remedy: str
    beside: dict = {}
    named: str = None
    shown: str = None


BOOL, INT = "Valid booleans include", "unable to convert to int"
LIST, DICT = "unable to convert to list", "unable to convert to dict"
CHOICES, REQUIRED, UNKNOWN = "must be one of", "required", "Supported parameters include"
PROGRAM = "or the path of such a program on the host"
NAMES = "use 1 to 63 letters, digits"
LENGTH, CHARACTERS = "an interface name has 1 to 15 bytes", "an interface name has no '/', ':', '%' or white space"
PLAIN_NAME = "it also stands in rules of packet filters and in files, so use letters"
PATH, PLAIN = "it must be an absolute path without '..'", "a path has letters, digits and the characters"
PREFIX, HOST_ADDRESS = "an address needs its prefix length, such as", "an interface carries a unicast address"
IP, ONE_HOST = "give an IPv4 or IPv6 address without a prefix or scope, such as", "it must be the address of one host, neither multicast"
PAIRS, UNICAST = "a MAC address is six pairs of hexadecimal digits, such as", "a link needs a unicast MAC address"
NO_HOST = {  # addresses that no host of a network can have
    "10.0.0.0/24": "it is the address of its network, 10.0.0.0/24", "10.0.0.255/24": "it is the broadcast address of its network",
    "fd00::/64": "it is the address of all routers of its network", "10.0.0.1/0": "give that of the subnet",
    "fd00::1/0": "give that of the subnet", "127.0.0.5/8": "it is an address of the loopback", "::1/128": "it is an address of the loopback",
    "0.1.2.3/8": "0.0.0.0/8 means this network", "255.255.255.255/32": "the address of one host, neither multicast",
    "::ffff:10.0.0.1/120": "give 10.0.0.1 itself"}
NETWORK, TWICE, SAME = "neither 'default' nor a network such as", "leave one of them out", "give one of the same"
DIRECTORY, SYSTEM = "give the absolute path of a directory", "give a directory of its own, such as"
RELEASE, SHA = "a release has three numbers, such as", "give sha256: and 64 hexadecimal digits"
URL, TARBALL = "give an http or https URL such as", "give the absolute path of a tarball"
MISSING, ONE_OF = "all of the following are missing", "parameters are mutually exclusive: container|namespace|pid"
INSIDE = "parameters are mutually exclusive: "
NO_UNDERLAY = "give one of its addresses, or the device"

# What fetches a tarball, in each module that does.
FETCHING = [
    Row("validate_certs", "maybe", BOOL),
    Row("use_proxy", "maybe", BOOL),
    Row("timeout", "soon", INT), Row("timeout", 0, "it must be from 1 to 3600"),
    Row("timeout", 3601, "it must be from 1 to 3600"),
    Row("http_agent", "me\r\nHost: other", "one line of text without control characters"),
]

TABLE = {
    "alpine_rootfs": [
        Row("dest", LEFT_OUT, REQUIRED), Row("dest", "", DIRECTORY), Row("dest", "srv/a", DIRECTORY),
        Row("dest", "/srv/\0", DIRECTORY), Row("dest", "/srv/../etc", "give the path itself"), Row("dest", "/etc/alpine", SYSTEM),
        Row("dest", "/var/lib", SYSTEM), Row("dest", f"{ROOTFS}/srv/b", "give it a place beside that"),
        Row("dest", "/srv/" + "x" * 256, "give a shorter one"),
        Row("state", "there", CHOICES),
        Row("version", "3.21", RELEASE), Row("version", "../../3.21.3", RELEASE), Row("version", "edge", RELEASE),
        Row("arch", "sparc64", CHOICES),
        Row("mirror", "ftp://m/alpine", URL), Row("mirror", "m/alpine", URL), Row("mirror", "http://", URL),
        Row("mirror", "file://host/x", URL), Row("mirror", "http://m:port/", "it is not a URL"),
        Row("mirror", "http://m/?x", "it has no query"), Row("mirror", "http://m/a b", "white space"),
        Row("mirror", "http://me:secret@m/", "put the user and the password into ~/.netrc", shown="http://...@m/"),
        Row("src", "a.tar.gz", TARBALL), Row("src", "/nowhere/a.tar.gz", "give the path of a tarball"),
        Row("src", "/dev/null", "give the path of a tarball"), Row("src", "/etc", "give the path of a tarball"),
        Row("checksum", "", SHA), Row("checksum", "md5:" + "1" * 32, SHA), Row("checksum", "1" * 63, SHA),
        Row("checksum", "sha256:" + "g" * 64, SHA), Row("checksum", "0" * 64, "Get it again", named="src"),
        Row("colour", "red", UNKNOWN, shown=""),
        Row("config", {"dest": ROOTFS}, LIST, {"dest": LEFT_OUT}, shown="dict"), Row("config", [], INSIDE, named="dest", shown="dest|config"),
        Row("prune", "maybe", BOOL),
        *FETCHING,
    ],
    "ns_container": [
        Row("name", LEFT_OUT, REQUIRED), Row("name", "", NAMES), Row("name", "../x", NAMES), Row("name", "a b", NAMES),
        Row("name", "-a", NAMES), Row("name", "x" * 64, NAMES), Row("name", "a\n", NAMES),
        Row("state", "running", CHOICES),
        Row("rootfs", LEFT_OUT, f"state is started but {MISSING}: rootfs"), Row("rootfs", None, MISSING, shown=""),
        Row("rootfs", "relative", PATH), Row("rootfs", "/a/../b", PATH),
        Row("rootfs", "/a,b", PLAIN), Row("rootfs", "/a:b", PLAIN), Row("rootfs", "/a b", PLAIN), Row("rootfs", "/a\nb", PLAIN),
        Row("rootfs", "/a'b", PLAIN),
        Row("command", [], "at least the program to run"), Row("command", [""], "at least the program to run", shown="['']"),
        Row("command", ["a", "b\0"], "an argument has no NUL", shown="b\\x00"), Row("command", {"a": 1}, "it is a list of words"),
        Row("command", "sh -c 'sleep", "give the list of its words"), Row("command", "", "at least the program to run", shown="[]"),
        Row("command", ["echo", True], "put it in quotes", shown="True"), Row("command", ["chmod", 493, "/"], "put it in quotes", shown="493"),
        Row("env", {"1A": "x"}, "and no digit first", shown="1A"),
        Row("env", {"A B": "x"}, "has letters, digits and '_'", shown="A B"),
        Row("env", {"": "x"}, "has letters, digits and '_'", shown="''"), Row("env", {"A": "x\0y"}, "no NUL", shown="x\\x00y"),
        Row("env", {"A": None}, "it needs a string; an empty one is ''", named="env.A", shown="None"),
        Row("env", {"A": ["x"]}, "it needs a string", named="env.A", shown="['x']"),
        *(Row("env", {"A": value}, "put it in quotes", named="env.A", shown=str(value)) for value in (True, 8, 1.1)),
        Row("env", "x", "could not parse JSON or key=value", shown="str"),
        Row("hostname", "a b", NAMES), Row("hostname", "-", NAMES),
        Row("workdir", "here", PATH), Row("workdir", "/..", PATH),
        Row("layer", "memory", CHOICES),
        Row("binds", {"/a": "/b"}, LIST, shown="dict"), Row("binds.source", "a", PATH), Row("binds.source", LEFT_OUT, REQUIRED),
        Row("binds.dest", "/", "it must be below /"), Row("binds.dest", "b", PATH), Row("binds.dest", LEFT_OUT, REQUIRED),
        Row("binds.read_only", "maybe", BOOL),
        Row("binds", [{"source": "/a", "dest": "/b"}, {"source": "/c", "dest": "/b/"}], TWICE, named="binds and tmpfs", shown="/b"),
        Row("tmpfs", ["run"], PATH), Row("tmpfs", ["/"], "it must be below /"),
        Row("tmpfs", ["/run:size 4"], "such as mode=1777,size=64m"), Row("tmpfs", ["/run:"], "such as mode=1777,size=64m"),
        Row("tmpfs", ["/srv/etc/memory"], "the bind to /srv/etc would hide it"),
        Row("tmpfs", ["/run:dev"], "dev lifts what keeps the container apart"),
        Row("tmpfs", ["/run", "/run:size=1m"], TWICE, named="binds and tmpfs", shown="/run"),
        Row("read_only", "maybe", BOOL),
        Row("privileged", "maybe", BOOL),
        Row("capabilities", {"grow": ["net_raw"]}, UNKNOWN, shown="grow"),
        Row("capabilities.add", ["fly"], "no capability of capabilities(7)"),
        Row("capabilities.add", ["net_raw"], "leave out one of the two options", {"privileged": True}),
        Row("capabilities.drop", ["fly"], "no capability of capabilities(7)"),
        Row("no_new_privs", "maybe", BOOL),
        Row("seccomp", "maybe", BOOL),
        Row("userns", "own", CHOICES), Row("userns", "auto", "leave it out, or set it to host", {"privileged": True}),
        Row("ulimits", ["nofile"], DICT, shown="list"), Row("ulimits", {"files": 5}, "it is one of", shown="files"),
        Row("ulimits", {"nofile": "many"}, "such as 1024:4096", named="ulimits.nofile", shown="many"),
        Row("ulimits", {"nofile": "9:5"}, "the soft limit is above the hard one", named="ulimits.nofile", shown="9:5"),
        Row("recreate", "always", CHOICES),
        Row("init", "maybe", "it is true, false, catatonit or tini"), Row("init", "/no/such/init", "there is no such program on the host"),
        Row("runtime", "docker", PROGRAM), Row("runtime", "/no/such/runtime", "there is no such program on the host"),
        Row("user", "root", "it is UID or UID:GID"), Row("user", "65536", "numbers below 65536"),
        Row("stop_timeout", -1, "it must be from 0 to 3600"), Row("stop_timeout", 3601, "it must be from 0 to 3600"),
        Row("stop_timeout", "soon", INT),
        Row("restart", "never", CHOICES), Row("restart", "always", "leave it out, or set it to no"),
        Row("memory", "64 MB", "such as 64M"), Row("memory", "0", "such as 64M"),
        Row("cpus", "half", "unable to convert to float", shown="str"), Row("cpus", 0.0, "it must be from 0.01 to 1024"),
        Row("pids", 0, "it must be from 1 to 4194304"), Row("pids", "few", INT),
        Row("colour", "red", UNKNOWN, shown=""),
        Row("config", {"name": "c1"}, LIST, {"name": LEFT_OUT}, shown="dict"), Row("config", [], INSIDE, named="name", shown="name|config"),
        Row("prune", "maybe", BOOL),
    ],
    "veth_pair": [
        Row("name", "ve-of-the-testing", LENGTH), Row("name", "a b", CHARACTERS),
        Row("name", LEFT_OUT, "one of the following is required: name, container, namespace", {"container": LEFT_OUT, "pid": 1}),
        Row("state", "up", CHOICES),
        Row("netns", "a b", NAMES),
        Row("container", "a b", NAMES), Row("container", LEFT_OUT, "state is present but any of the following are missing: container, namespace, pid"),
        Row("namespace", "c1", ONE_OF, shown=""), Row("namespace", "a/b", NAMES, {"container": LEFT_OUT}),
        Row("pid", 1, ONE_OF, shown=""), Row("pid", 0, "it must be from 1 to 4194304", {"container": LEFT_OUT}),
        Row("pid", "self", INT, {"container": LEFT_OUT}),
        Row("inner_name", "eth/0", CHARACTERS), Row("inner_name", "", LENGTH),
        Row("addresses", ["10.0.0.100"], PREFIX), Row("addresses", ["10.0.0.1/24", "10.0.0.1/16"], TWICE, shown="10.0.0.1"),
        Row("addresses", {"a": 1}, LIST, shown="dict"),
        Row("gateway", "10.9.0.1", "add one that leads to it"), Row("gateway", "fd01::1", "add one that leads to it"),
        Row("gateway", "", IP), Row("gateway", "host", IP), Row("gateway", "10.0.0.0/24", IP), Row("gateway", "10.0.0.256", IP),
        Row("routes", {"dst": "default"}, LIST, shown="dict"), Row("routes.dst", LEFT_OUT, REQUIRED),
        Row("routes.dst", "10.1.0.1/16", NETWORK), Row("routes.dst", "host", NETWORK), Row("routes.dst", "10.0.0.0/40", NETWORK),
        Row("routes.via", "10.9.0.1", "add one that leads to it"), Row("routes.via", "fd00::1", SAME),
        Row("routes.via", "host", IP), Row("gateway", "fe80::1%eth0", IP),
        Row("gateway", "10.0.0.255", "it is the broadcast address of its network"),
        Row("gateway", "10.0.0.0", "it is the address of its network"), Row("gateway", "127.0.0.1", "an address of the loopback"),
        Row("gateway", "239.1.1.1", ONE_HOST), Row("gateway", "0.0.0.0", ONE_HOST), Row("gateway", "::ffff:10.0.0.1", "give 10.0.0.1"),
        Row("gateway", "10.0.0.100", "it is one of the addresses of this end itself"),
        Row("routes", [{"dst": "10.1.0.0/16", "via": "10.0.0.255"}], "the broadcast address of its network", named="routes.via",
            shown="10.0.0.255"),
        *(Row("addresses", [value], remedy) for value, remedy in NO_HOST.items()),
        Row("routes", [{"dst": "10.0.0.0/24"}], "the kernel makes that route itself", named="routes.dst", shown="10.0.0.0/24"),
        Row("routes", [{"dst": "10.3.0.0/16", "via": "10.0.0.9"}, {"dst": "10.3.0.0/16", "via": "10.0.0.8"}], TWICE,
            named="routes.dst", shown="10.3.0.0/16"),
        Row("name", "ä" * 8, LENGTH),
        Row("mtu", 1279, "it must be from 1280 to 65535"), Row("mtu", "big", INT),
        Row("underlay", "239.1.1.1", ONE_HOST), Row("underlay", "192.0.2.77", NO_UNDERLAY),
        Row("underlay_device", "enX9", "this host has no such link", {"underlay": "192.0.2.1"}),
        Row("mac", "01:00:00:00:00:00", UNICAST),
        Row("inner_mac", "02-00", PAIRS),
        Row("bridge", LONG, LENGTH),
        Row("colour", "red", UNKNOWN, shown=""),
        Row("config", {"name": "ve-c1"}, LIST, {"name": LEFT_OUT, "container": LEFT_OUT}, shown="dict"),
        Row("config", [], INSIDE, named="name", shown="name|config"),
        Row("prune", "maybe", BOOL),
    ],
    "linux_bridge": [
        Row("hairpin_ports", ["eth9"], "it is not one of ports"),
        Row("mtu", 1279, "it must be from 1280 to 65535", {"addresses": ["fd00::1/64"]}),
        Row("name", LEFT_OUT, REQUIRED), Row("name", "", LENGTH), Row("name", LONG, LENGTH),
        *(Row("name", value, CHARACTERS) for value in ("a/b", "a b", "a:b", "a%d", ".", "..", "all", "default", "a\x07")),
        Row("state", "up", CHOICES),
        *(Row("netns", value, NAMES) for value in ("", "-a", ".", "a/b", "a b", "x" * 64)),
        Row("addresses", ["10.0.0.1"], PREFIX), Row("addresses", ["10.0.0.1/33"], "it is not an address with a prefix length"),
        *(Row("addresses", [value], HOST_ADDRESS) for value in ("239.1.1.1/24", "0.0.0.0/0", "fe80::1/64")),
        *(Row("addresses", [value], remedy) for value, remedy in NO_HOST.items()),
        Row("addresses", ["10.0.0.1/24", "10.0.0.1/16"], TWICE, shown="10.0.0.1"),
        *(Row("mac", value, PAIRS) for value in ("", "02:00:00:00:00", "0g:00:00:00:00:01")),
        *(Row("mac", value, UNICAST) for value in ("01:00:00:00:00:01", ZERO)),
        *(Row("mtu", value, "it must be from 68 to 65535") for value in (67, 65536, 0, -1)), Row("mtu", "big", INT),
        Row("underlay", "host", IP), Row("underlay", "192.0.2.77", NO_UNDERLAY),
        Row("underlay_device", "enX9", "this host has no such link", {"underlay": "192.0.2.1"}),
        Row("underlay", "127.0.0.1", "it is an address of the loopback"),
        Row("ports", ["a/b"], CHARACTERS), Row("ports", {"a": 1}, LIST, shown="dict"),
        Row("neighbours", {"a": 1}, LIST, shown="dict"),
        Row("neighbours", [{"address": "10.0.0.9", "mac": MAC}] * 2, TWICE, named="neighbours.address", shown="10.0.0.9"),
        Row("neighbours.address", "10.0.0.9/24", IP), Row("neighbours.address", "239.1.1.1", ONE_HOST),
        Row("neighbours.mac", "x", PAIRS), Row("neighbours.mac", ZERO, UNICAST), Row("neighbours.mac", LEFT_OUT, REQUIRED),
        Row("neighbours.address", LEFT_OUT, REQUIRED),
        Row("stp", "maybe", BOOL),
        Row("vlan_filtering", "maybe", BOOL),
        Row("priority", 65536, "it must be from 0 to 65535"), Row("priority", "high", INT),
        Row("forward_delay", 1, "it must be from 2 to 30"),
        Row("hello_time", 11, "it must be from 1 to 10"),
        Row("max_age", 5, "it must be from 6 to 40"),
        Row("ageing_time", -1, "it must be from 0 to 1000000"),
        Row("colour", "red", UNKNOWN, shown=""),
        Row("config", {"name": "br0"}, LIST, {"name": LEFT_OUT}, shown="dict"), Row("config", [], INSIDE, named="name", shown="name|config"),
        Row("prune", "maybe", BOOL),
    ],
    "vxlan_link": [
        Row("name", LEFT_OUT, REQUIRED), Row("name", "vxlan-of-the-test", LENGTH), Row("name", "a/b", CHARACTERS),
        Row("state", "up", CHOICES),
        Row("netns", "a b", NAMES),
        Row("vni", 0, "it must be from 1 to 16777215"), Row("vni", 16777216, "it must be from 1 to 16777215"),
        Row("vni", "many", INT), Row("vni", LEFT_OUT, f"state is present but {MISSING}: vni"),
        Row("vni", None, f"state is present but {MISSING}: vni", shown=""),
        Row("local", LEFT_OUT, f"state is present but {MISSING}: local"), Row("local", "192.0.2.77", NO_UNDERLAY), Row("local", "host", IP),
        *(Row("local", value, ONE_HOST) for value in ("239.1.1.1", "0.0.0.0", "::", "fe80::1", "169.254.0.1")),
        Row("remotes", ["192.0.2.1"], "give those of the others"), Row("remotes", ["2001:db8::2"], SAME),
        Row("remotes", ["192.0.2.2", "192.0.2.2"], TWICE, shown="192.0.2.2"), Row("remotes", ["239.1.1.1"], ONE_HOST),
        *(Row("remotes", [value], remedy) for value, remedy in {
            "127.0.0.1": "an address of the loopback", "255.255.255.255": ONE_HOST, "0.1.2.3": "means this network"}.items()),
        Row("remotes", ["host2"], IP), Row("remotes", {"a": 1}, LIST, shown="dict"),
        Row("group", "192.0.2.9", "a group is a multicast address, such as", {"remotes": LEFT_OUT}),
        Row("group", "fd00::1", "a group is a multicast address, such as", {"remotes": LEFT_OUT}),
        Row("group", "ff05::1", SAME, {"remotes": LEFT_OUT}), Row("group", "239.1.1.1", "parameters are mutually exclusive: remotes|group", shown=""),
        Row("device", "a b", CHARACTERS),
        Row("port", 0, "it must be from 1 to 65535"), Row("port", 65536, "it must be from 1 to 65535"),
        Row("learning", "maybe", BOOL),
        Row("ttl", 256, "it must be from 0 to 255"),
        Row("ageing", 0, "it must be from 1 to 1000000"),
        Row("udp_checksum", False, "set it to true, or leave it out", {"local": "2001:db8::1", "remotes": [], "fdb": []}),
        Row("udp_checksum", "maybe", BOOL),
        Row("mtu", 60, "it must be from 68 to 65535"), Row("mtu", 1451, "the underlay device enX0 leaves 1450"),
        Row("mac", "x", PAIRS),
        Row("bridge", LONG, LENGTH),
        Row("flood", False, "give the bridge, too", {"bridge": LEFT_OUT}), Row("flood", "maybe", BOOL),
        Row("fdb", [{"mac": MAC, "dst": "192.0.2.2"}] * 2, TWICE, named="fdb.mac", shown=MAC),
        Row("fdb", {"mac": MAC}, LIST, shown="dict"), Row("fdb.mac", ZERO, UNICAST), Row("fdb.mac", LEFT_OUT, REQUIRED),
        Row("fdb.dst", "2001:db8::2", SAME), Row("fdb.dst", "192.0.2.1", "give those of the others"),
        Row("fdb.dst", LEFT_OUT, REQUIRED),
        Row("colour", "red", UNKNOWN, shown=""),
        Row("config", {"name": "vxlan0"}, LIST, {"name": LEFT_OUT}, shown="dict"), Row("config", [], INSIDE, named="name", shown="name|config"),
        Row("prune", "maybe", BOOL),
    ],
    "topology": [
        *(Row(kind, {"a": 1}, LIST, shown="dict") for kind in KINDS),
        Row("nftables.name", LEFT_OUT, REQUIRED), Row("nftables.name", "a b", "use small letters, digits and '_'"),
        Row("nftables.family", "ip", CHOICES),
        Row("nftables.rules", LEFT_OUT, f"state is present but {MISSING}: rules"), Row("nftables.rules", "chain input { no such thing }", "nft refuses it"),
        Row("nftables.state", "there", CHOICES),
        Row("names.network", "a/b", NAMES), Row("names.network", LEFT_OUT, REQUIRED), Row("names.file", "passwd", CHOICES),
        Row("names.lines", ["a\nb"], "a line has no line break"), Row("names.lines", {"a": 1}, LIST, shown="dict"),
        Row("forward.bridge", LONG, LENGTH), Row("forward.bridge", LEFT_OUT, REQUIRED), Row("forward.accept", "maybe", BOOL),
        Row("forward.routed", "maybe", BOOL),
        Row("sysctl.device", "a/b", CHARACTERS), Row("sysctl.name", "rp_filter", CHOICES),
        Row("sysctl.value", 9, "it must be from 0 to 8"), Row("sysctl.value", "on", INT),
        Row("publish.port", LEFT_OUT, REQUIRED), Row("publish.port", 0, "it must be from 1 to 65535"),
        Row("publish.protocol", "icmp", CHOICES), Row("publish.address", "192.0.2.99", "this host has no such address"),
        Row("publish.over", "maybe", BOOL),
        Row("prune", "maybe", BOOL),
        Row("persist", "maybe", BOOL), Row("use", "a\nb", "a name has no line break"),
        Row("colour", "red", UNKNOWN, shown=""),
        *FETCHING,
    ],
}

# The variables of the role, without its name before them.
ROLE = [
    Row("state", "gone", CHOICES),
    Row("group", "ungrouped", "put it into the group that overlay_group names", shown=""),
    Row("underlay_ip", LEFT_OUT, REQUIRED), Row("underlay_ip", "host", IP), Row("underlay_ip", "239.1.1.1", ONE_HOST),
    Row("underlay_ip", "192.0.2.77", NO_UNDERLAY), Row("underlay_ip", "192.0.2.2", "and of peer"),
    Row("device", "a*", PLAIN_NAME), Row("device", "a b", CHARACTERS), Row("device", "nope0", "this host has no such link", {"mtu": LEFT_OUT}),
    Row("networks.device", "a b", CHARACTERS),
    Row("vni", "many", INT), Row("vni", 0, "it must be from 1 to 16777215"),
    Row("port", "vxlan", INT), Row("port", 65536, "it must be from 1 to 65535"),
    Row("bridge", LONG, LENGTH), Row("bridge", "br*", PLAIN_NAME), Row("bridge", 'a"accept#', PLAIN_NAME),
    Row("bridge_address", "10.0.0.1", PREFIX), Row("bridge_address", "10.0.0.255/24", "it is the broadcast address of its network"),
    Row("bridge_address", "10.0.0.1/32", "give overlay_bridge_address its prefix length", named="containers.address",
        shown="10.0.0.100/24"),
    Row("bridge_address", "10.9.0.1/24", "all hosts of a network are in one subnet", {"containers": []}, shown="10.9.0.0/24"),
    Row("bridge_addresses", ["fd01::1"], PREFIX), Row("bridge_addresses", {"a": 1}, LIST, shown="dict"),
    Row("vxlan", "a b", CHARACTERS), Row("vxlan", "!vx", PLAIN_NAME),
    Row("mtu", "big", INT), Row("mtu", 67, "it must be from 68 to 65535"),
    Row("guard", "maybe", BOOL),
    Row("bridge_netfilter", "off", CHOICES),
    Row("egress", "maybe", BOOL), Row("egress", True, "set overlay_bridge_address", {"bridge_address": LEFT_OUT}),
    Row("names", "maybe", BOOL), Row("metadata", "maybe", BOOL), Row("networks.metadata", "maybe", BOOL),
    Row("antispoof", "maybe", BOOL), Row("networks.antispoof", "maybe", BOOL), Row("publish_over", "maybe", BOOL),
    Row("containers.allowed_addresses", ["10.0.0.50/24"], "give the address of one host, such as 10.0.0.50"),
    Row("dns", ["host"], IP),
    Row("forwarding", "magic", CHOICES),
    Row("networks", {"name": "blue"}, LIST, shown="dict"),
    Row("networks", [{"name": "blue"}] * 2, "two networks of the host have this name", shown="blue"),
    Row("networks.name", "a/b", NAMES), Row("networks.name", LEFT_OUT, REQUIRED), Row("networks.vni", "many", INT),
    Row("networks.port", 0, "it must be from 1 to 65535"), Row("networks.bridge", LONG, LENGTH),
    Row("networks.bridge_address", "10.0.0.1", PREFIX), Row("networks.bridge_addresses", ["fd01::1"], PREFIX),
    Row("networks.vxlan", "a b", CHARACTERS), Row("networks.mtu", 67, "it must be from 68 to 65535"),
    Row("networks.forwarding", "magic", CHOICES), Row("networks.egress", "maybe", BOOL), Row("networks.names", "maybe", BOOL),
    Row("networks.dns", ["host"], IP), Row("networks.underlay_ip", "host", IP), Row("networks.colour", "red", UNKNOWN, shown=""),
    Row("containers", {"name": "c1"}, LIST, shown="dict"), Row("containers.name", "a/b", NAMES),
    Row("containers.name", LEFT_OUT, REQUIRED), Row("containers.address", "10.0.0.100", PREFIX),
    Row("containers.address", "10.9.0.100/24", "outside of 10.0.0.0/24, the subnet of"),
    Row("containers.address", "10.0.0.100/32", "another prefix length than its network, 10.0.0.0/24: give 10.0.0.100/24"),
    Row("containers.address", "10.0.0.0/24", "it is the address of its network"),
    Row("containers.address", LEFT_OUT, REQUIRED), Row("containers.addresses", ["fd00::100"], PREFIX),
    Row("containers.gateway", "10.9.0.1", "add one that leads to it"), Row("containers.network", "red", "is not one of blue"),
    Row("containers.publish", ["80"], "such as 8080:80/tcp"),
    Row("containers.publish", ["8080:80"], "set overlay_egress", shown="8080"), Row("containers.rootfs", "here", PATH),
    Row("containers.command", [], "at least the program to run"),
    Row("containers.env", {"A": True}, "put it in quotes", named="containers.env.A", shown="True"),
    Row("containers.env", {"1A": "x"}, "and no digit first", shown="1A"), Row("containers.hostname", "a b", NAMES),
    Row("containers.workdir", "here", PATH), Row("containers.layer", "memory", CHOICES),
    Row("containers.binds", {"/a": "/b"}, LIST, shown="dict"), Row("containers.binds.source", "a", PATH),
    Row("containers.binds.dest", "/", "it must be below /"), Row("containers.binds.read_only", "maybe", BOOL),
    Row("containers.tmpfs", ["run"], PATH), Row("containers.read_only", "maybe", BOOL),
    Row("containers.capabilities", ["net_raw"], DICT, shown="list"),
    Row("containers.capabilities.add", ["fly"], "no capability of capabilities(7)"),
    Row("containers.capabilities.drop", ["fly"], "no capability of capabilities(7)"), Row("containers.user", "root", "it is UID or UID:GID"),
    Row("containers.no_new_privs", "maybe", BOOL), Row("containers.seccomp", "maybe", BOOL),
    Row("containers.userns", "own", CHOICES), Row("containers.ulimits", ["nofile"], DICT, shown="list"),
    Row("containers.recreate", "always", CHOICES), Row("containers.runtime", "docker", PROGRAM),
    Row("containers.privileged", "maybe", BOOL), Row("containers.init", "maybe", "it is true, false, catatonit or tini"),
    Row("containers.stop_timeout", -1, "it must be from 0 to 3600"), Row("containers.restart", "never", CHOICES),
    Row("containers.memory", "64 MB", "such as 64M"), Row("containers.cpus", 0.0, "it must be from 0.01 to 1024"),
    Row("containers.pids", 0, "it must be from 1 to 4194304"), Row("containers.colour", "red", UNKNOWN, shown=""),
    Row("prune", "maybe", BOOL), Row("colour", "red", "the role has no such variable", shown=""),
    Row("runtime", "docker", PROGRAM), Row("rootfs", "here", DIRECTORY),
    Row("rootfs_version", "edge", RELEASE),
    Row("rootfs_src", "a.tar.gz", TARBALL),
    Row("rootfs_src", "/nowhere/a.tar.gz", "give the path of a tarball"),
    Row("rootfs_checksum", "1" * 63, SHA),
    Row("rootfs_mirror", "ftp://m/alpine", URL),
    Row("install_packages", "maybe", BOOL),
]

OF_MODULE = ("config", "prune", *(row.option for row in FETCHING))  # the options that are not those of an item
ANOTHER = {  # what makes of the good item a second one beside it
    "alpine_rootfs": {"dest": f"{ROOTFS}-2"},
    "ns_container": {"name": "c2"},
    "veth_pair": {"name": "ve-c2", "inner_name": "eth1", "addresses": ["10.0.0.101/24"]},
    "linux_bridge": {"name": "br1", "addresses": ["10.1.0.1/24"], "ports": []},
    "vxlan_link": {"name": "vxlan1", "vni": 101},
}


def with_(options, path, value):
    """The options with this value at the path, in the last item of each list on the way."""
    head, unused, rest = path.partition(".")
    if rest:
        below = options.get(head, {})
        value = [*below[:-1], with_(below[-1], rest, value)] if isinstance(below, list) else with_(below, rest, value)
    return {**{name: each for name, each in options.items() if name != head}, **({} if value is LEFT_OUT else {head: value})}


def wrong(options, row):
    for path, value in {**row.beside, row.option: row.value}.items():
        options = with_(options, path, value)
    return options


def as_ours(row):
    """The value as a rule of ours shows it."""
    value = None if row.value is LEFT_OUT else row.value
    return repr(value[0] if isinstance(value, list) and len(value) == 1 else value)


def told(row, message):
    """The message names the option, the value and the remedy."""
    named, value = (row.named or row.option).split(".")[-1], row.shown
    if value is None and " is not valid: " in message:  # a rule of ours, not of Ansible's
        value = f"{named}: {as_ours(row)} is not valid: "
    elif value is None:
        value = "" if row.value is LEFT_OUT else as_ours(row).strip("'")
    for each in named, value, row.remedy:
        assert each in message, f"{each!r} is not in: {message}"


class Place:
    """A host on which all is in order: one item of each kind."""

    def __init__(self, files, netns, rootfs, tarball):
        self.files, self.names = files, (netns, "c1")
        self.good = {
            "alpine_rootfs": {"dest": ROOTFS, "src": tarball},
            "ns_container": {"name": "c1", "rootfs": rootfs,
                             "binds": [{"source": "/etc", "dest": "/srv/etc", "read_only": True}]},
            "veth_pair": {"name": "ve-c1", "container": "c1", "addresses": ["10.0.0.100/24", "fd00::100/64"],
                          "routes": [{"dst": "10.2.0.0/16", "via": "10.0.0.9"}]},
            "linux_bridge": {"name": "br0", "addresses": ["10.0.0.1/24"], "ports": ["ve-c1"],
                             "neighbours": [{"address": "10.0.0.200", "mac": MAC}]},
            "vxlan_link": {"name": "vxlan0", "vni": 100, "local": "192.0.2.1", "remotes": ["192.0.2.2"], "bridge": "br0",
                           "fdb": [{"mac": MAC, "dst": "192.0.2.2"}]},
            "names": {"network": "blue", "file": "hosts", "lines": ["10.0.0.100 c1"]},
            "forward": {"bridge": "br0"},
            "sysctl": {"device": "br0", "name": "arp_ignore"},
            "publish": {"port": 8080},
        }
        if nftables.nft():
            self.good["nftables"] = {"name": "fromscratch", "rules": "chain input {\ntype filter hook input priority 0;\n}"}
        self.good["topology"] = {kind: [item] for kind, item in self.good.items()}
        sh("ip link add enX0 type veth peer name wire", "ip link set wire up", "ip link set enX0 up",
           "ip address add 192.0.2.1/24 dev enX0", "ip address add 2001:db8::1/64 dev enX0 nodad")
        made = run_module("topology", **self.good["topology"])
        assert not made.failed, made.msg
        assert not run_module("topology", **self.good["topology"]).changed
        self.last = self.picture()
        assert self.last["pid"]

    def picture(self):
        """Links, addresses, routes, entries, packet filters, files, mounts, and the container's process."""
        return {"links": lasting(*self.names), "neighbours": js("ip -j neighbour show nud permanent"),
                "nft": sh("nft list ruleset", check=False), "files": dict(enumerate(self.files.picture())),
                "pid": running_pid("c1")}

    def changes(self):
        """Since the last time."""
        before, self.last = self.last, self.picture()
        return different(before, self.last)

    def forms(self, module, row):
        """Each place where a task can write the item: the module, what stands before the option's name there, and all options."""
        item = wrong(self.good[module], row)
        yield module, "", item
        if module in ANOTHER and row.option not in OF_MODULE:
            items = [{**self.good[module], **ANOTHER[module]}, item]
            yield module, "", {"config": items}
            yield "topology", f"{module}.", {module: items}


@pytest.fixture(scope="module")
def place(apart, rootfs, tmp_path_factory):
    scene = Scene()
    netns = scene.netns()
    tarball = packed(tmp_path_factory.mktemp("tarball") / "rootfs.tar.gz", *GOOD)
    with namespaces.entered(netns):
        yield Place(apart, netns, rootfs, tarball)
    apart.clear()
    scene.close()


def cases():
    for module, rows in TABLE.items():
        for at, row in enumerate(rows):
            needs_nft = pytest.mark.skipif(row.option.startswith("nftables.") and nftables.nft() is None, reason="nft is not installed")
            yield pytest.param(module, row, id=f"{module}-{row.option}-{at}", marks=needs_nft)


@pytest.mark.parametrize("module, row", list(cases()))
def test_a_module_refuses(place, module, row):
    named = row.named or row.option
    for called, where, options in place.forms(module, row):
        for check in True, False:
            result = run_module(called, check=check, **options)
            assert result.failed and not result.changed
            told(row, result.msg)
            if hasattr(result, "option"):
                assert result.option in (named, where + named) and result.msg.startswith(f"{result.option}: ")
            assert "secret" not in result.msg
    assert place.changes() == []


@pytest.mark.parametrize("module", ANOTHER)
def test_the_same_item_twice(place, module):
    twice = [place.good[module]] * 2
    for called, option, options in (module, "config", {"config": twice}), ("topology", module, {module: twice}):
        for check in True, False:
            result = run_module(called, check=check, **options)
            assert result.failed and result.option == option and "it is given twice" in result.msg
    assert place.changes() == []


PLAYBOOK = """
- hosts: good
  gather_facts: false
  check_mode: true
  roles: [fromscratch.containers.overlay]

- hosts: bad
  gather_facts: false
  tasks:
    - block:
        - ansible.builtin.import_role: {name: fromscratch.containers.overlay}
      rescue:
        - ansible.builtin.add_host: {name: "{{ item }}", groups: planned}
          loop: "{{ groups.bad | reject('in', ansible_failed_result.msg | regex_findall('bad[0-9]+')) }}"

- hosts: bad
  gather_facts: false
  tasks:
    - ansible.builtin.meta: clear_host_errors

# Without them, the host that is fine would be changed.
- hosts: planned:fine
  gather_facts: false
  tasks:
    - block:
        - ansible.builtin.import_role: {name: fromscratch.containers.overlay}
      rescue:
        - ansible.builtin.set_fact: {said: "{{ ansible_failed_result.msg }}"}
"""


def inventory(place):
    """A host for each row, with the variable that is wrong, and one without; each with the same peer in a group of its own."""
    good = {"underlay_ip": "192.0.2.1", "bridge_address": "10.0.0.1/24", "rootfs": ROOTFS, "install_packages": False,
            "rootfs_src": place.good["alpine_rootfs"]["src"], "networks": [{"name": "blue"}],
            "containers": [{"name": "c1", "address": "10.0.0.100/24", "rootfs": place.good["ns_container"]["rootfs"],
                            "binds": [{"source": "/etc", "dest": "/srv/etc"}]}]}
    hosts = {"good": good, **{f"bad{at}": wrong(good, row) for at, row in enumerate(ROLE)}}
    hosts["fine"] = {**good, "containers": [], "networks": [{"name": "blue", "bridge": "br-fine", "bridge_address": "10.0.0.9/24"}]}
    hosts = {name: {"group": f"of_{name}", **values} for name, values in hosts.items()}
    peer = {"underlay_ip": "192.0.2.2", "bridge_address": "10.0.0.2/24", "networks": good["networks"]}
    return {"all": {
        "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "hosts": {name: {f"overlay_{key}": value for key, value in values.items()}
                  for name, values in {**hosts, "peer": peer}.items()},
        "children": {"bad": {"hosts": {name: {} for name in hosts if name.startswith("bad")}},
                     **{f"of_{name}": {"hosts": {name: {}, "peer": {}}} for name in hosts}}}}


@pytest.fixture(scope="module")
def said(place, tmp_path_factory):
    """What the role says to each row. One real run of one playbook tries them all, on this one machine: once for all of them what
    is wrong with the variables, and then what the host finds wrong."""
    directory = tmp_path_factory.mktemp("role")
    (directory / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
    (directory / "hosts.json").write_text(json.dumps(inventory(place)), encoding="utf-8")
    command = [Path(sys.executable).parent / "ansible-playbook", "-i", directory / "hosts.json", directory / "play.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={
        **os.environ, "ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg", "ANSIBLE_HOME": str(directory),
        "ANSIBLE_REMOTE_TEMP": f"{directory}/tmp", "LC_ALL": "C.UTF-8", **task_results.enabled(directory / "results")})
    stopped = [line.split()[0] for line in done.stdout.splitlines() if " failed=1 " in line]
    assert stopped == ["fine"], f"it alone has nothing to be rescued from:\n{done.stdout}{done.stderr}"
    found = {}
    for task, host, result in task_results.read(directory / "results"):
        if result.get("failed") and task.endswith("Plan what has to change"):
            found[host] = result["msg"]
        elif result.get("failed") and task.endswith("Work out the overlay of all hosts"):  # once for all of them
            for sentence in result["msg"].splitlines():
                found.update({host: found.get(host, "") + sentence for host in re.findall("bad[0-9]+", sentence)})
    return found


@pytest.mark.parametrize("at, row", [pytest.param(at, row, id=f"{row.option}-{at}") for at, row in enumerate(ROLE)])
def test_the_role_refuses(said, at, row):
    told(row, said[f"bad{at}"])
    assert f"overlay_{(row.named or row.option).split('.')[0]}" in said[f"bad{at}"]


def test_the_role_changed_nothing(said, place):
    assert place.changes() == []


# Whether all is there

def paths(options, before=""):
    """All options and, by their paths, suboptions; those below config are those beside it, and of M(topology) those of the modules."""
    for name, spec in options.items():
        yield before + name
        yield from paths(spec.get("options", {}) if name not in ("config", *ANOTHER) else {}, f"{before}{name}.")


def without_row(options, rows):
    tried = {row.option for row in rows if not row.option.endswith("colour")}
    assert tried <= set(paths(options)), "rows of no option"
    return set(paths(options)) - tried


@pytest.mark.parametrize("module", TABLE)
def test_every_option_of_a_module_has_a_row(module, monkeypatch):
    found, program = {}, importlib.import_module(f"{MODULES}.{module}")

    def remember(self, argument_spec, **unused):
        found.update(argument_spec)
        sys.exit()

    monkeypatch.setattr(AnsibleModule, "__init__", remember)
    with pytest.raises(SystemExit):
        program.main()
    assert without_row(found, TABLE[module]) == set()


def test_every_module_has_rows():
    assert {path.stem for path in (ROOT / "plugins/modules").glob("*.py")} == set(TABLE) | {"overlay_plan", "overlay_host"}, (
        "those two are the role's, whose variables have rows")


def test_every_variable_of_the_role_has_a_row():
    specs = yaml.safe_load((ROOT / "roles/overlay/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    options = specs["variables"]["options"]
    assert without_row({name[len("overlay_"):]: spec for name, spec in options.items()}, ROLE) == set()


def test_the_numbers(place, capsys):
    counts = {**{module: len(rows) for module, rows in TABLE.items()}, "overlay": len(ROLE)}
    with capsys.disabled():
        print(f"\nbad inputs: {sum(counts.values())} rows ({', '.join(f'{name} {count}' for name, count in counts.items())}); "
              f"bad tarballs: {len(BAD)} kinds")
    assert sum(counts.values()) >= 60 and len(BAD) >= 15
