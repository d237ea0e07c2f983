# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else does at a certain moment of a run: the moment is a function of the run that the test stands in for."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import operations, service
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import namespaces, start

from .support.containers import MARKER, act, inside, launcher, pid
from .support.modules import run_module
from .support.namespaces import sh
from .support.races import before

pytestmark = pytest.mark.usefixtures("host")


def test_a_start_by_hand_between_the_stop_and_the_new_configuration(rootfs, monkeypatch):
    act(name="c1", rootfs=rootfs)
    with monkeypatch.context() as patched:
        before(patched, operations, "make_directory", lambda: subprocess.run(launcher("start"), check=True))
        found = run_module("ns_container", name="c1", rootfs=rootfs, hostname="other")
    assert found.failed and found.msg == "container c1 was started concurrently with its old configuration; run the task again"
    assert pid() and act(name="c1", rootfs=rootfs, hostname="other").changed


@pytest.fixture
def names(rootfs, tmp_path):
    """The name of a root filesystem in a store, and what changes the one that it leads to and sweeps the store."""
    dest, made = str(tmp_path / "place" / "alpine"), []
    Path(dest).parent.mkdir()

    def change():
        version = str(len(made))
        made.append(version)
        tree, tarball = tmp_path / f"tree{version}", tmp_path / f"{version}.tar.gz"
        sh(f"cp -a {rootfs} {tree}", f"echo {version} >{tree}/version", f"tar -c -C {tree} . | gzip -1 >{tarball}")
        done = run_module("alpine_rootfs", dest=dest, src=str(tarball))
        assert done.changed, done

    change()
    assert os.path.exists(dest + MARKER)
    return dest, change


@pytest.fixture
def forked(monkeypatch):
    """Starts are forks of this process, in which functions stand in for others, and not those of the launcher."""
    monkeypatch.setattr(service, "start_by_hand", start.start_all)


def test_a_tree_stays_that_is_swept_while_a_container_starts_on_it(names, forked, monkeypatch):
    dest, change = names
    before(monkeypatch, namespaces, "provide", change)  # in the process that starts it
    former = os.path.realpath(dest)
    made = run_module("ns_container", name="c1", rootfs=dest)
    assert not made.failed, made.msg
    assert inside("cat /version; ls /bin/busybox").split() == ["0", "/bin/busybox"] and os.path.realpath(dest) != former
    assert sorted(os.listdir(former)) and len(os.listdir(os.path.dirname(former))) == 2
    act(name="c1", rootfs=dest, state="restarted")
    assert inside("cat /version") == "1" and not os.path.exists(former), "nobody runs on it any more"


def test_a_tree_that_went_before_a_start_could_hold_it(names, forked, monkeypatch):
    dest, change = names
    flock, todo = fcntl.flock, [change]

    def late(descriptor, operation):
        while operation == fcntl.LOCK_SH and todo:
            todo.pop()()
        return flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    made = run_module("ns_container", name="c1", rootfs=dest)
    assert not made.failed, made.msg
    assert inside("cat /version") == "1" and len(os.listdir(f"{os.path.dirname(dest)}/.store")) == 1


def test_a_name_that_leads_nowhere(names):
    dest, unused = names
    act(name="c1", rootfs=dest, state="stopped")
    sh(f"mv {os.path.realpath(dest)} {dest}.away")
    done = subprocess.run(launcher("start"), capture_output=True, text=True, check=False)
    assert done.returncode == 125 and f"c1: {dest} leads to " in done.stderr and "alpine_rootfs" in done.stderr
