# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host lacks, said so that the role can install it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import RUNTIMES
from ansible_collections.fromscratch.containers.plugins.module_utils.core import dependencies
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError
from ansible_collections.fromscratch.containers.plugins.module_utils.host import topology
from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import KINDS, Topology

OPTIONS = (*KINDS, "validate_certs", "use_proxy", "http_agent", "timeout", "persist")


@pytest.fixture
def host(monkeypatch):
    """A host on which pyroute2 says that it is of this version, or cannot be imported."""
    def make(version):
        monkeypatch.setitem(sys.modules, "pyroute2", None if version is None else sys)  # something to import
        monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
        importlib.reload(dependencies)

    yield make
    monkeypatch.undo()
    importlib.reload(dependencies)


@pytest.mark.parametrize("version", ["0.7.2", "0.7.12", "0.9.7", "1.0", "0.8.1.dev3"])
def test_a_version_that_will_do(host, version):
    host(version)
    dependencies.require(["pyroute2"])


@pytest.mark.parametrize("version", ["0.7.1", "0.6.13", "0.5.14"])
def test_a_version_that_is_too_old(host, version):
    host(version)
    with pytest.raises(ModuleError, match=f"pyroute2 0.7.2 or newer, and {version} is too old [(]the package") as found:
        dependencies.require(["pyroute2"])
    assert found.value.details == {"missing": [{"name": "pyroute2", "deb": "python3-pyroute2", "rpm": None}]}


def test_none(host):
    host(None)
    with pytest.raises(ModuleError, match="pyroute2 0.7.2 or newer [(]the package") as found:
        dependencies.require(["pyroute2"])
    assert found.value.details["missing"][0]["name"] == "pyroute2" and "ModuleNotFoundError" in found.value.details["exception"]


def test_one_that_does_not_say(host, monkeypatch):
    host("0.9.7")
    monkeypatch.setattr(importlib.metadata, "version", int)
    assert dependencies.pyroute2_version() is None
    dependencies.require(["pyroute2"])


def test_all_that_is_missing_is_named_at_once_with_its_package(host, monkeypatch):
    host(None)
    monkeypatch.setattr(dependencies.shutil, "which", lambda name, path: None if name in ("sysctl", "nft") else f"/usr/bin/{name}")
    with pytest.raises(ModuleError) as found:
        dependencies.require(["sysctl", "ip", "nft", "pyroute2", "nft"])
    assert str(found.value) == (
        "This host lacks what the task needs: the program nft (the package nftables); the Python library pyroute2 0.7.2 or newer "
        "(the package python3-pyroute2 from Debian 12 or Ubuntu 24.04 on; pip install pyroute2 elsewhere); the program sysctl "
        "(the package procps, procps-ng in the family of Red Hat)")
    assert [(each["name"], each["deb"], each["rpm"]) for each in found.value.details["missing"]] == [
        ("nft", "nftables", "nftables"), ("pyroute2", "python3-pyroute2", None), ("sysctl", "procps", "procps-ng")]


def test_programs_are_found_where_a_path_without_sbin_does_not_lead(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dependencies.found("sh") and dependencies.found("no-such-program") is None
    (tmp_path / "no-such-program").touch(mode=0o755)
    assert dependencies.found("no-such-program") == os.path.join(tmp_path, "no-such-program")


@pytest.mark.parametrize("option", KINDS)
def test_each_kind_knows_what_it_needs_and_the_package_of_that(option):
    params = dict.fromkeys(OPTIONS)

    def needed(items):
        return set(Topology({**params, option: items}).requirements())

    present, absent = needed([{"state": "present", "accept": True}]), needed([{"state": "absent", "accept": False}])
    assert present <= {*dependencies.PACKAGES, "pyroute2"} and absent <= {"pyroute2"} and absent <= present
    assert bool(present) == (option not in ("alpine_rootfs", "names", "publish"))
    assert needed([{"state": "absent"}, {"state": "present", "accept": True}]) == present


def test_no_package_is_known_of_a_program_that_nothing_needs():
    params = {option: [{"state": "present", "accept": True}] for option in KINDS}
    params["ns_container"] = [{"state": "present", "runtime": runtime} for runtime in RUNTIMES]
    needed = set(Topology({**dict.fromkeys(OPTIONS), **params}).requirements())
    assert needed == {*dependencies.PACKAGES, "pyroute2"}


@pytest.mark.parametrize(("option", "systemd", "needed"), [
    ("linux_bridge", True, True), ("linux_bridge", False, False), ("vxlan_link", True, True), ("veth_pair", True, True),
    ("ns_container", True, False)])
def test_the_boot_script_needs_sysctl_for_links(monkeypatch, option, systemd, needed):
    monkeypatch.setattr(topology, "manages_host", lambda: systemd)
    params = {**dict.fromkeys(OPTIONS), "persist": True, option: [{"state": "present"}]}
    assert ("sysctl" in Topology(params).requirements()) == needed
    assert "sysctl" not in Topology({**params, "persist": False}).requirements()
    assert "sysctl" not in Topology({**params, option: [{"state": "absent"}]}).requirements()
