# SPDX-License-Identifier: GPL-3.0-or-later
"""The README's first command, in a Debian 13 that has nothing but make, git and Python: a lab in a lab."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ..conftest import ROOT
from .lab import first_process, packages, play, require_mirror, sh

HOST = "demo"


@pytest.fixture
def project(tmp_path):
    """The project's path on a machine that has just been given it."""
    if not (ROOT / ".cache/userland/trixie/etc").is_dir():
        pytest.skip("NOT RUN: Debian 13 is not in .cache/userland: run scripts/userland")
    require_mirror("trixie")
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"overlay": {"hosts": {HOST: {"lab_address": "172.31.0.14/20", "lab_userland": "trixie"}}}}))
    play("-i", inventory, ROOT / "playbooks/lab.yml")
    try:
        subprocess.run(["git", "-c", "safe.directory=*", "clone", "--quiet", "--no-local", ROOT, tmp_path / "project"], check=True)
        shutil.copytree(tmp_path / "project", Path("/proc", str(first_process(HOST)), "root/srv/project"), symlinks=True)
        with packages(HOST):
            yield "/srv/project"
    finally:
        play("-i", inventory, ROOT / "playbooks/lab.yml", "-e", "lab_state=absent")


def test_the_demo_runs_on_a_minimal_debian(project):
    sh(HOST, "apt-get -qq update && apt-get install -qq -y --no-install-recommends make git python3-venv")
    said = sh(HOST, f"cd {project} && make demo").stdout
    assert " reaches " in said, said
    assert "DOES NOT REACH" not in said and "The lab is up" in said
    sh(HOST, f"cd {project} && make demo-down")
    assert sh(HOST, "ip netns").stdout == ""
