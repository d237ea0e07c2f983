# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests on the kernel: throwaway namespaces, the real modules in this process, and assertions by ``ip -j``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import spec
from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

from ..conftest import ROOT
from .support import equal_hosts
from .support.containers import MARKER
from .support.hosts import Host
from .support.modules import run_module
from .support.namespaces import Scene, sh
from .support.role import role_runner
from .support.tarballs import GOOD, packed


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0 or "FROMSCRATCH_APART" not in os.environ:
        for item in items:
            if "kernel" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="kernel tests need root, and run apart: scripts/apart pytest"))


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.close()


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


@pytest.fixture
def host(apart, rootfs):
    Path(rootfs + MARKER).touch()
    yield apart
    apart.clear()


@pytest.fixture(params=[spec.OWN_RUNTIME, *spec.RUNTIMES], ids=lambda name: f"by-{name}")
def container_runtime(request, monkeypatch, host):
    """The runtime of all containers of a test that does not name one."""
    if request.param in spec.RUNTIMES and not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setitem(spec.OPTIONS["runtime"], "default", request.param)
    yield request.param
    monkeypatch.undo()
    run_module("ns_container", config=[], prune=True)  # runc's cgroups are not the test's own


@pytest.fixture
def place(tmp_path):
    """An empty directory for rootfses; the tarballs of a test lie beside it."""
    made = tmp_path / "place"
    made.mkdir()
    return made


@pytest.fixture
def good(tmp_path):
    return packed(tmp_path / "good.tar.gz", *GOOD)


@pytest.fixture
def machine(apart, scene, rootfs):
    from .support import egress  # which plans as the controller does, so that a Python of hosts alone lacks what it takes

    made = egress.Machine(scene, rootfs)
    with namespaces.entered(made.name):
        yield made
    scene.close()
    scene.names.clear()
    apart.clear()


@pytest.fixture
def machines(apart, scene):
    """Makes one equal host after the other: each begins from nothing."""
    made = []

    def end():
        while made:
            made.pop().close()
        scene.close()
        scene.names.clear()
        apart.clear()

    def begin(systemd):
        end()
        made.append(equal_hosts.Machine(scene, systemd))
        return made[0]

    yield begin
    end()


@pytest.fixture
def run_role(apart, scene, tmp_path):
    """Runs the role on both hosts; what it has said, and whether it has succeeded."""
    return role_runner(scene, tmp_path)
