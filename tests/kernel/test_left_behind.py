# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers and runs that were killed leave behind goes; what only looks like it stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import kind
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import STATE, USERS
from ansible_collections.fromscratch.containers.plugins.module_utils.core import files

from .support.containers import act, line, pid
from .support.modules import run_module
from .support.namespaces import sh

pytestmark = pytest.mark.usefixtures("host")


def test_what_is_mounted_below_a_container_is_not_removed(rootfs, host, tmp_path):
    """A bind of the same file system is one for which rm has no eyes."""
    precious, shared = tmp_path / "precious", Path(STATE, "c1", "shared")
    precious.mkdir()
    (precious / "file").touch()
    act(name="c1", rootfs=rootfs)
    shared.mkdir()
    sh(f"mount --bind {precious} {shared}")
    try:
        predicted = run_module("ns_container", check=True, name="c1", state="absent")
        assert any(f"{shared} is a mount point" in each for each in predicted.warnings)
        refused = run_module("ns_container", name="c1", state="absent")
        assert refused.failed and f"{shared} is a mount point" in refused.msg
        assert (precious / "file").exists() and pid(), "nothing was done"
        with pytest.raises(files.ModuleError, match="is a mount point"):
            files.remove_tree(str(shared.parent))
        assert (precious / "file").exists()
    finally:
        sh(f"umount {shared}")
    act(name="c1", state="absent")


def test_the_cgroup_of_a_container_that_ended_by_itself(rootfs, host, tmp_path, monkeypatch):
    """It is made here by hand, as of one that had limits: a host without controllers refuses these."""
    monkeypatch.setattr(kind, "refuse_limits", lambda *unused: [])
    mounted = any(line.split()[2] == "cgroup2" for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines())
    if not mounted and subprocess.run(["mount", "-t", "cgroup2", "none", tmp_path], check=False, capture_output=True).returncode:
        pytest.skip("cgroup2 cannot be mounted here")
    try:
        point = next(line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
                     if line.split()[2] == "cgroup2")
        act(name="c1", rootfs=rootfs, pids=100, state="stopped")
        os.makedirs(f"{point}/fromscratch/c1")
        gone = act(name="c1", state="absent")
        assert gone.commands.count(line("stop")) == 1 and not os.path.exists(f"{point}/fromscratch")
    finally:
        if not mounted:
            sh(f"umount {tmp_path}")


def test_a_network_namespace_of_somebody_else_is_not_removed_with_a_stopped_container(rootfs, host):
    act(name="c1", rootfs=rootfs)
    mapped = os.path.exists(f"{USERS}/c1")
    sh(line("stop"), "ip netns delete c1", f"umount {USERS}/c1; rm {USERS}/c1" if mapped else "true", "ip netns add c1")
    try:
        if mapped:  # else nothing tells it from the container's own
            gone = act(name="c1", state="absent")
            assert os.path.exists("/run/netns/c1") and not any("ip netns" in line or USERS in line for line in gone.commands)
    finally:
        sh("ip netns delete c1", check=False)


def test_prune_spares_what_is_no_container(rootfs, host):
    act(name="c1", rootfs=rootfs)
    for name in "lost+found", "backup":
        os.makedirs(f"{STATE}/{name}")
    Path(STATE, "backup", "file").touch()
    Path(STATE, "note").touch()
    os.mkdir(f"{STATE}/begun")  # by a run that was killed
    try:
        gone = act(config=[{"name": "c1", "rootfs": rootfs}], prune=True)
        assert [each["item"] for each in gone.changes] == ["container begun"]
        assert sorted(os.listdir(STATE)) == ["backup", "c1", "lost+found", "note"]
    finally:
        sh(f"rm -r {STATE}/backup {STATE}/lost+found {STATE}/note", check=False)


@pytest.mark.parametrize("kind", ["text", "link"])
def test_a_write_that_was_killed(tmp_path, kind):
    path = tmp_path / "file"
    child = os.fork()
    if child == 0:
        os.replace = lambda *unused: os._exit(9)
        files.write(str(path), "text", 0o600, "target" if kind == "link" else None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9 and len(os.listdir(tmp_path)) == 1
    (tmp_path / ".other.new-1").touch()
    files.unlink(str(path))
    assert os.listdir(tmp_path) == [".other.new-1"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError):
        files.write(str(tmp_path / "file"), "text", 0o600)
    assert os.listdir(tmp_path) == ["file"]
