# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that the shell scripts of a former release have started: they run on, and become others at their next start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import record
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import STATE
from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import CAPABILITIES

from ..conftest import ROOT
from .support.containers import CAPABILITY, act, inside, log, pid
from .support.modules import run_module
from .support.processes import gone, status_of
from .support.remote import settings

pytestmark = pytest.mark.usefixtures("host")

FORMER = "170234b2ee61dfb773fe4852794bdf65e5191838"  # the last commit whose containers were scripts


@pytest.fixture
def former(tmp_path):
    """Runs the ns_container of the former release."""
    collection = tmp_path / "ansible_collections/fromscratch/containers"
    collection.mkdir(parents=True)
    found = subprocess.run(["git", "-C", ROOT, "archive", FORMER], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"the commit {FORMER[:7]} is not in this clone")
    (collection / "no.cfg").touch()
    subprocess.run(["tar", "-x", "-C", collection], input=found.stdout, check=True)

    # What is measured is this release.
    environment = {key: value for key, value in settings(tmp_path).items() if "COVERAGE" not in key}

    def run(*items):
        done = subprocess.run(
            [f"{sys.prefix}/bin/ansible", "localhost", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}",
             "-m", "fromscratch.containers.ns_container", "-a", json.dumps({"config": items})], cwd=tmp_path, capture_output=True, text=True,
            check=False, env={**environment, "ANSIBLE_CONFIG": str(collection / "no.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)})
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_containers_of_a_former_release_run_on_until_their_next_start(rootfs, former):
    wanted = [{"name": "c1", "rootfs": rootfs}, {"name": "c2", "rootfs": rootfs, "userns": "host", "command": ["sleep", "1000"]},
              {"name": "c3", "rootfs": rootfs, "state": "stopped"}]
    former(*wanted)
    assert sorted(os.listdir(f"{STATE}/c1"))[:2] == ["container", "container.json"] and not record.lines("c1")[3].startswith("/")
    before = {name: pid(name) for name in ("c1", "c2")}
    subprocess.run([f"{STATE}/c1/container", "exec", "sh", "-c", "echo mine >/srv/mine"], check=True)
    taken = act(config=wanted)
    assert {each["item"]: each["fields"] for each in taken.changes} == {f"container {name}": ["bundle off -> on"] for name in ("c1", "c2", "c3")}
    assert not any(verb in line for verb in ("ns-container", "netns") for line in taken.commands if "\n" not in line)
    assert {name: pid(name) for name in before} == before
    for name in "c1", "c2", "c3":
        assert set(os.listdir(f"{STATE}/{name}")) <= {"config.json", "layer", "log", "lower", "root"}
    assert inside("cat /srv/mine; hostname").split() == ["mine", "c1"]

    assert run_module("ns_container", config=[{**each, "state": "restarted"} for each in wanted]).changed
    for name in "c1", "c2", "c3":
        assert pid(name) not in before.values() and record.lines(name)[3] == os.path.realpath(rootfs)
        allowed = sum(1 << CAPABILITY[each] for each in CAPABILITIES)
        assert status_of(pid(name), "CapBnd", "Seccomp") == [f"{allowed:016x}", "2"]
    assert inside("cat /srv/mine") == "mine" and all(map(gone, before.values()))
    assert "ended with" not in log()


def test_a_container_of_a_former_release_goes(rootfs, host, former):
    empty = host.picture()
    former({"name": "c1", "rootfs": rootfs})
    first = pid()
    act(name="c1", state="absent")
    assert gone(first) and not Path(STATE).exists()
    assert host.picture() == empty
