# SPDX-License-Identifier: GPL-3.0-or-later
"""The role compares what the underlays of its hosts carry, before any host is changed. Two links of one namespace play two hosts."""

from __future__ import annotations

from .support.role import held


def test_underlays_that_differ_are_refused_with_the_value_to_set(run_role):
    before = held(run_role.netns)
    for arguments in ("--check",), ():
        succeeded, said = run_role(*arguments)
        assert not succeeded and ("overlay_mtu: the hosts of VNI 100 of the group overlay would have different MTUs: h1 1450, h2 1350."
                                  in " ".join(said.split())), said
        assert "set overlay_mtu to 1350 for all of them" in " ".join(said.split()), said
    assert held(run_role.netns) == before
    succeeded, said = run_role("--check", overlay_mtu=1350)
    assert succeeded, said


def test_with_serial_a_batch_is_compared_with_those_before_it(run_role):
    succeeded, said = run_role("--check", "-e", "batch=1")
    assert not succeeded and "h1 1450, h2 1350." in " ".join(said.split()), said
    succeeded, said = run_role("--check", "-e", "batch=1", overlay_mtu=1350)
    assert succeeded, said


def test_only_hosts_of_the_run_are_compared(run_role):
    """What --limit leaves out has told nothing, as the documentation says."""
    for name in "h1", "h2":
        succeeded, said = run_role("--check", "--limit", name)
        assert succeeded and "would have different MTUs" not in said, said
