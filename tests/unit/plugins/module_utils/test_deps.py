# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host lacks, said so that the role can install it."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils import _deps
from ansible_collections.fromscratch.containers.plugins.module_utils._errors import Problem


@pytest.fixture
def host(monkeypatch):
    """A host on which pyroute2 says that it is of this version, or cannot be imported."""
    def make(version):
        monkeypatch.setitem(sys.modules, "pyroute2", None if version is None else sys)  # something to import
        monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
        importlib.reload(_deps)

    yield make
    monkeypatch.undo()
    importlib.reload(_deps)


@pytest.mark.parametrize("version", ["0.7.2", "0.7.12", "0.9.7", "1.0", "0.8.1.dev3"])
def test_a_version_that_will_do(host, version):
    host(version)
    _deps.require_pyroute2()


@pytest.mark.parametrize("version", ["0.7.1", "0.6.13", "0.5.14"])
def test_a_version_that_is_too_old(host, version):
    host(version)
    with pytest.raises(Problem, match=f"pyroute2 {version} is too old: 0.7.2 or newer is needed") as found:
        _deps.require_pyroute2()
    assert found.value.details == {"missing_library": "pyroute2"}


def test_none(host):
    host(None)
    with pytest.raises(Problem, match="pyroute2>=0.7.2") as found:
        _deps.require_pyroute2()
    assert found.value.details["missing_library"] == "pyroute2" and "ModuleNotFoundError" in found.value.details["exception"]


def test_one_that_does_not_say(host, monkeypatch):
    host("0.9.7")
    monkeypatch.setattr(importlib.metadata, "version", int)
    assert _deps.pyroute2_version() is None
    _deps.require_pyroute2()
