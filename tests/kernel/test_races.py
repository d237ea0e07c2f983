# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else does at a certain moment of a run: the moment is a function of the run that the test stands in for."""

from __future__ import annotations

import subprocess

from ansible_collections.fromscratch.containers.plugins.module_utils.container import kind

from . import test_ns_container
from .conftest import run_module
from .test_ns_container import act, launcher, pid

host = test_ns_container.host  # a fixture, for each test here


def before(monkeypatch, module, name, action):
    """Do something once, right before a function of a module is called."""
    function, todo = getattr(module, name), [action]

    def call(*args, **options):
        while todo:
            todo.pop()()
        return function(*args, **options)

    monkeypatch.setattr(module, name, call)


def test_a_start_by_hand_between_the_stop_and_the_new_configuration(rootfs, monkeypatch):
    act(name="c1", rootfs=rootfs)
    with monkeypatch.context() as patched:
        before(patched, kind.install, "install", lambda: subprocess.run(launcher("start"), check=True))
        found = run_module("ns_container", name="c1", rootfs=rootfs, hostname="other")
    assert found.failed and found.msg == "container c1 was started concurrently with its old configuration; run the task again"
    assert pid() and act(name="c1", rootfs=rootfs, hostname="other").changed
