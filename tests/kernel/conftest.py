# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests on the kernel: throwaway namespaces, the real modules in this process, and assertions by ``ip -j``."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import os
import shlex
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from ansible.module_utils.testing import patch_module_args

from ..conftest import ROOT

MODULES = "ansible_collections.fromscratch.containers.plugins.modules"
CLONE_NEWNS = 0x00020000


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0 or "FROMSCRATCH_APART" not in os.environ:
        for item in items:
            if "kernel" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="kernel tests need root, and run apart: scripts/apart pytest"))


class Result(SimpleNamespace):
    """A module's JSON result by attribute; ``failed`` is always there, ``warnings`` a list."""


def run_module(module, /, check=False, **params):
    """Run a module as ansible-core does, in this process: real arguments in, real JSON out."""
    main = importlib.import_module(f"{MODULES}.{module}").main
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp",
                 "_ansible_keep_remote_files": False}
    out, warnings = io.StringIO(), []
    # Where ansible-core finds its controller in the same process, a module's warnings go to the screen.
    with (patch_module_args(arguments), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit),
          mock.patch("ansible.module_utils.basic.AnsibleModule.warn", lambda self, text: warnings.append(text))):
        main()
    return Result(**{"failed": False, "changed": False, **json.loads(out.getvalue()), "warnings": warnings})


class Scene:
    """A test's namespaces. ``scene.netns()`` makes one; everything is gone when the test ends."""

    counter = itertools.count()

    def __init__(self):
        self.names = []

    def netns(self, lo=True):
        name = f"test{os.getpid()}-{next(self.counter)}"
        sh(f"ip netns add {name}")
        self.names.append(name)
        if lo:
            sh(f"ip -n {name} link set lo up")
        return name

    def underlay(self, *addresses, mtu=1500):
        """Namespaces, one for each address, on one Ethernet; the device in each is ``enX0``."""
        switch, hosts = self.netns(), []
        sh(f"ip -n {switch} link add lan mtu {mtu} type bridge", f"ip -n {switch} link set lan up")
        for number, address in enumerate(addresses):
            host = self.netns()
            sh(f"ip -n {switch} link add port{number} mtu {mtu} type veth peer name enX0 mtu {mtu} netns {host}",
               f"ip -n {switch} link set port{number} master lan up",
               f"ip -n {host} address add {address} dev enX0 nodad" if ":" in address
               else f"ip -n {host} address add {address} dev enX0",
               f"ip -n {host} link set enX0 up")
            hosts.append(host)
        return hosts

    def close(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def sh(*commands, check=True):
    """Run shell commands; the standard output of the last."""
    for command in commands:
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def js(command):
    """The JSON that ``ip -j`` or ``bridge -j`` prints."""
    return json.loads(sh(command) or "[]")


def link(netns, name):
    """``ip -d -j link show`` of one link, or None where it is not there."""
    found = [each for each in js(f"ip -n {netns} -d -j link show") if each.get("ifname") == name]
    return found[0] if found else None


def addresses(netns, name):
    """The addresses of a link in CIDR form, without the kernel's own link-local one."""
    return {f"{each['local']}/{each['prefixlen']}" for entry in js(f"ip -n {netns} -j address show dev {name}")
            for each in entry.get("addr_info", []) if each["scope"] != "link"}


def state(*names):
    """All that an administrator sees of namespaces, without what changes by itself; to compare before and after."""
    volatile = ("ifindex", "link_index", "bridge_id", "root_id", "hello_timer", "gc_timer", "valid_life_time",
                "preferred_life_time", "tcn_timer", "topology_change_timer", "operstate", "link_netnsid", "txqlen",
                "stats64", "stats", "expires")

    def clean(value):
        if isinstance(value, dict):
            return {key: clean(each) for key, each in value.items() if key not in volatile}
        return [clean(each) for each in value] if isinstance(value, list) else value

    views = {"links": "ip -n {} -d -j link show", "addresses": "ip -n {} -j address show",
             "routes": "ip -n {} -j route show", "routes6": "ip -n {} -6 -j route show", "fdb": "bridge -n {} -j fdb show"}
    together = " && echo '|' && ".join(views.values())  # one shell for all

    def look(name):
        return zip(views, (json.loads(each.strip() or "[]") for each in sh(together.replace("{}", shlex.quote(name))).split("|\n")))

    return {name: {**{what: sorted(map(clean, found), key=json.dumps) for what, found in look(name)}, "settings": settings(name)}
            for name in names}


BELIEFS = ("ipv4/conf/*/accept_redirects", "ipv6/conf/*/accept_ra", "ipv6/conf/*/accept_redirects", "ipv6/conf/*/disable_ipv6")


def settings(netns):
    """What the links of a namespace take from strangers, by the name of the file below /proc/sys/net."""
    with _utils("network.namespaces").entered(netns):
        return {str(path.relative_to("/proc/sys/net")): path.read_text(encoding="ascii").strip()
                for pattern in BELIEFS for path in sorted(Path("/proc/sys/net").glob(pattern))}


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.close()


def _utils(name):
    return importlib.import_module(MODULES.replace(".modules", f".module_utils.{name}"))


class Host:
    """A machine's /run and /var/lib, empty and private, in a mount namespace that shares mounts as systemd has it."""

    def __init__(self, directory):
        self.home, self.directory, self.counter = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), directory, itertools.count()
        _utils("network.namespaces")._call("unshare", CLONE_NEWNS)
        sh("mount --make-rprivate /", "mount --make-rshared /")
        self._cover()

    def _cover(self):
        lib = f"{self.directory}/lib{next(self.counter)}"
        os.makedirs(lib)
        sh("mount -t tmpfs -o mode=755 run /run", f"mount --bind {lib} /var/lib", "mkdir -p /run/mount")  # mount's own

    def picture(self):
        """All files with modes and contents, and all mounts."""
        def content(path, status):
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(path)
            return path.read_bytes() if stat.S_ISREG(status.st_mode) and path.parent.name not in ("netns", "users") else status.st_ino

        found = {}
        for each in sorted([*Path("/run").rglob("*"), *Path("/var/lib").rglob("*")]):
            status = os.lstat(each)
            found[str(each)] = (oct(status.st_mode), status.st_uid, content(each, status))
        # Not the mounts of tests beside this one: the kernel takes them away here, too, when their directory is removed.
        mounts = Path("/proc/thread-self/mountinfo").read_text(encoding="ascii").splitlines()
        return found, [line for line in mounts if not line.split()[4].startswith(f"{tempfile.gettempdir()}/")]

    def clear(self):
        """Ends what a test left behind. Deletes nothing: should these paths ever be the machine's own, nothing is lost."""
        assert os.stat("/proc/thread-self/ns/mnt").st_ino != os.fstat(self.home).st_ino
        for namespace in Path("/run/netns").glob("*"):
            for pid in sh(f"ip netns pids {namespace.name}", check=False).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for record in Path(_utils("container.launcher.record").RUN).glob("*"):
            pid = _utils("container.launcher.record").running(record.name)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        sh("umount --lazy /run", "umount --lazy /var/lib")
        self._cover()

    def close(self):
        self.clear()
        _utils("network.namespaces")._call("setns", self.home, CLONE_NEWNS)
        os.close(self.home)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """What a module's tests do to /run and /var/lib is their own affair."""
    made = Host(tmp_path_factory.mktemp("host"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def tarball():
    """That of the root filesystem that the demo would use without Alpine's mirror."""
    found = subprocess.run([ROOT / "scripts/find-rootfs", "--local"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(found.stderr.strip())
    return found.stdout.strip()


@pytest.fixture(scope="session")
def rootfs(tarball, tmp_path_factory):
    """A root filesystem for containers, unpacked."""
    directory = tmp_path_factory.mktemp("rootfs") / "rootfs"
    directory.mkdir()
    sh(f"tar -xzf {tarball} -C {directory} --no-same-owner")
    return str(directory)
