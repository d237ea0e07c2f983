# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh that an earlier release of this collection has set up, upgraded host by host: all reach each other all the while."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM

from ..conftest import ROOT
from .lab import play, sh

EARLIER = "170234b2ee61dfb773fe4852794bdf65e5191838"
CONTAINERS = {"debian": ("container-a", "10.0.0.100"), "amazon": ("container-b", "10.0.0.200")}
# The chain of the guard against strangers, as it was called and is called.
FORMER, PRESENT = "chain vxlan {", "chain fs_"


def git(*words, **options):
    # Whoever owns the checkout, it is root who looks.
    return subprocess.run(["git", "-c", "safe.directory=*", "-C", ROOT, *words], capture_output=True, check=False, **options)


@pytest.fixture
def earlier(tmp_path):
    """The tree of the earlier release, which has set up a mesh of two hosts of a lab."""
    if git("cat-file", "-e", f"{EARLIER}^{{commit}}").returncode:
        pytest.skip(f"NOT RUN: the history of this checkout does not reach back to {EARLIER[:7]}")
    subprocess.run(["tar", "-x", "-C", tmp_path], input=git("archive", EARLIER).stdout, check=True)
    play(ROOT / "playbooks/lab.yml")
    # By which the earlier connection plugin enters the hosts of the lab.
    doors = [Path("/var/lib/fromscratch/containers", name, "container") for name in CONTAINERS]
    for door in doors:
        door.write_text(f'#!/bin/sh\nshift\nexec {PROGRAM} exec --no-tty {door.parent.name} "$@"\n', encoding="ascii")
        door.chmod(0o700)
    yield tmp_path
    for door in doors:
        door.unlink()
    play(ROOT / "playbooks/lab.yml", "-e", "lab_state=absent")


def reached():
    for one, other in itertools.product(CONTAINERS, CONTAINERS):
        address = CONTAINERS[other][1]
        sh(one, f"ping -q -c1 -W1 {address} || ping -q -c3 -W2 {address}")
        sh(one, f"ip netns exec {CONTAINERS[one][0]} ping -q -c1 -W2 {address}")


def processes(name):
    """Those of the host's container."""
    return sorted(sh(name, f"ip netns pids {CONTAINERS[name][0]}").stdout.split())


def rules(name):
    return sh(name, "nft list ruleset").stdout


def test_a_mesh_stays_connected_while_it_is_upgraded_host_by_host(earlier):
    play("site.yml", directory=earlier)
    assert all(FORMER in rules(name) and PRESENT not in rules(name) for name in CONTAINERS)
    reached()
    before = {name: processes(name) for name in CONTAINERS}
    assert all(before.values())
    for number, name in enumerate(CONTAINERS, 1):
        play("site.yml", "--limit", name)
        assert [PRESENT in rules(each) for each in CONTAINERS] == [True] * number + [False] * (len(CONTAINERS) - number)
        assert FORMER not in rules(name)
        assert {each: processes(each) for each in CONTAINERS} == before  # no container is stopped by it
        reached()
    unused, results = play("site.yml")
    assert [each.get("changes") for each in results if each.get("changes")] == []
    play("playbooks/verify.yml")
