# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's first task and what it stops, by real playbooks whose hosts are all this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ..conftest import ROOT

VARIABLES = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
PARTS = """
- hosts: overlay
  gather_facts: false
  serial: "{{ batch | default('100%') }}"
  vars:
    boxes: {h1: 10, h2: 20}
    overlay_group: overlay
    overlay_forwarding: static
    overlay_underlay_ip: "192.0.2.{{ boxes[inventory_hostname] }}"
    overlay_containers: [{name: "box-{{ inventory_hostname }}", address: "10.0.0.{{ boxes[inventory_hostname] }}/24"}]
  tasks:
    - fromscratch.containers.overlay_plan:
      register: plan
      run_once: true
    - ansible.builtin.copy:
        content: "{{ lookup('file', plan.parts[inventory_hostname]) }}"
        dest: "{{ playbook_dir }}/{{ inventory_hostname }}.part{{ title | default('') }}"
        mode: "0600"
"""
STRATEGIES = ("linear", "free", "host_pinned")
LACKING = {"ping": "iputils-ping", "xargs": "findutils"}  # programs of verify, and their packages
ROLE = """
- hosts: all
  gather_facts: false
  roles: [fromscratch.containers.overlay]
"""


def host(at, **more):
    return {"overlay_underlay_ip": f"192.0.2.{at}", "overlay_containers": [{"name": f"box-{at}", "address": f"10.0.0.{at}/24"}], **more}


class Play:
    """Runs of playbooks on an inventory of this machine's many names, in a network namespace that reaches nothing."""

    def __init__(self, directory):
        self.directory = directory

    def __call__(self, playbook, hosts, *options, **variables):
        (self.directory / "hosts.json").write_text(json.dumps({"overlay": {
            "hosts": hosts, "vars": {**VARIABLES, **variables}}}), encoding="utf-8")
        if not isinstance(playbook, Path):
            path = self.directory / "play.yml"
            path.write_text(playbook, encoding="utf-8")
            playbook = path
        return subprocess.run(
            ["unshare", "--net", Path(sys.executable).parent / "ansible-playbook", "-i", self.directory / "hosts.json", playbook, *options],
            cwd=ROOT, capture_output=True, text=True, check=False, env={
                **os.environ, "ANSIBLE_CONFIG": f"{ROOT}/ansible.cfg", "ANSIBLE_HOME": str(self.directory), "COLUMNS": "10000",
                "ANSIBLE_REMOTE_TEMP": f"{self.directory}/tmp", "LC_ALL": "C.UTF-8"})

    def part(self, name, title=""):
        path = self.directory / f"{name}.part{title}"
        found = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return found


@pytest.fixture
def play(tmp_path):
    return Play(tmp_path)


def recap(done):
    """What the last lines count for each host."""
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)}
            for name, counts in re.findall(r"^(\w+) +: (ok=.*)$", done.stdout, re.M)}


def entitled(title, *lines):
    """The play, which writes its parts to files of this title, with these lines beside its hosts."""
    head, tasks = PARTS.split("  tasks:", 1)
    return "".join([head, f"    title: {title}\n", *(f"  {line}\n" for line in lines), "  tasks:", tasks])


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """One run of plays that differ in what stands beside their tasks."""
    run = Play(tmp_path_factory.mktemp("plans"))
    done = run(entitled("whole") + entitled("defaults", "module_defaults: {group/fromscratch.containers.all: {prune: true}}") + "".join(
        entitled(each, f"strategy: {each}") for each in STRATEGIES), {"h1": {}, "h2": {}})
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(said=done.stdout + done.stderr, **{
        title: {name: run.part(name, title) for name in ("h1", "h2")} for title in ("whole", "defaults", *STRATEGIES)})


def test_variables_of_a_play_count_for_all_its_hosts_in_the_run_or_not(plans, play):
    assert [each["dst"] for each in plans.whole["h1"]["topology"]["vxlan_link"][0]["fdb"]] == ["192.0.2.20"]
    assert plans.whole["h2"]["topology"]["veth_pair"][0]["container"] == "box-h2"
    for options in ("--limit", "h1"), ("-e", "batch=1"):
        done = play(PARTS, {"h1": {}, "h2": {}}, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert play.part("h1") == plans.whole["h1"]


def test_what_the_command_line_gives_has_its_type(play):
    given = "overlay_prune=false overlay_install_packages=no overlay_vni=200 overlay_guard=False overlay_dns=192.0.2.53 overlay_egress=false"
    done = play(PARTS, {"h1": {}, "h2": {}}, "-e", given)
    assert done.returncode == 0, done.stdout + done.stderr
    found = play.part("h1")
    assert (found["install"], found["topology"]["prune"]) == (False, False)
    assert found["topology"]["vxlan_link"][0]["vni"] == 200
    assert not any("strangers" in (each.get("rules") or "") for each in found["topology"]["nftables"])


def test_mistakes_are_said_once_for_all_hosts_and_before_anything_is_done(play):
    done = play(ROLE, {"h1": host(1), "h2": host(2, overlay_conatiners=[], overlay_bridge="{{ nowhere }}")}, overlay_vni="many")
    assert done.returncode != 0 and done.stdout.count("fatal: ") == 1
    assert len(re.findall(r'"msg": ', done.stdout)) == 1
    for each in ("h1, h2: argument 'overlay_vni' is of type str", "h2: overlay_conatiners: the role has no such variable: did you mean "
                 "overlay_containers?", "h2: overlay_bridge: 'nowhere' is undefined"):
        assert each in done.stdout.partition("fatal: ")[2], each
    assert "Plan what has to change" not in done.stdout and "resolving" not in done.stdout
    done = play(ROLE, {"h1": host(1), "h2": host(2)}, overlay_group="overlays")
    assert "h1, h2: overlay_group: 'overlays' is not valid: the inventory has no such group" in done.stdout


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_that_lets_hosts_go_ahead_is_warned_of(plans, strategy):
    assert (f"strategy: {strategy} lets each host go ahead by itself" in plans.said) == (strategy != "linear")
    assert getattr(plans, strategy) == plans.whole


def test_verify_fails_with_a_limit_and_says_who_is_left_out(play):
    hosts = {f"h{at}": host(at) for at in (1, 2, 3)}
    done = play(ROOT / "playbooks/verify.yml", hosts, "--limit", "!h3")
    assert done.returncode != 0, "no container is there"
    assert "The run leaves out h3: nothing is tried from there" in done.stdout + done.stderr
    assert re.search(r"box-1 +DOES NOT REACH box-2", done.stdout) and "h3  " not in done.stdout


def test_verify_names_the_program_that_a_host_lacks_with_its_package(play):
    hosts = {"h3": host(3)}
    for at, program in enumerate(LACKING, 1):
        programs, python = play.directory / f"without-{program}", play.directory / f"python-without-{program}"
        programs.mkdir()
        for each in {"sh", "nsenter", *LACKING} - {program}:
            (programs / each).symlink_to(shutil.which(each))
        python.write_text(f'#!/bin/sh\nPATH={programs} exec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        hosts[f"h{at}"] = host(at, ansible_python_interpreter=str(python))
    done = play(ROOT / "playbooks/verify.yml", hosts)
    for at, (program, package) in enumerate(LACKING.items(), 1):
        fatal = re.findall(rf"^fatal: \[h{at}\]: .*", done.stdout, re.M)
        assert [f"This host lacks the program {program} (the package {package}" in line for line in fatal] == [True], done.stdout
        assert recap(done)[f"h{at}"]["failed"] == 1 and done.returncode != 0


def test_defaults_of_the_collections_modules_do_not_meet_the_roles_own(plans):
    assert plans.defaults["h1"]["topology"]["prune"] is False


def test_a_broken_host_does_not_hold_up_the_teardown_of_others(play, apart, monkeypatch):
    monkeypatch.delenv("_ANSIBLE_ANSIBALLZ_COVERAGE_CONFIG", raising=False)  # which wants a library, too
    bare = play.directory / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', encoding="utf-8")  # without any library
    bare.chmod(0o755)
    done = play(ROOT / "playbooks/teardown.yml", {
        "here": host(1), "gone": host(2, ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1),
        "poor": host(3, ansible_python_interpreter=str(bare), overlay_install_packages=False)})
    found = recap(done)
    assert (found["here"]["failed"], found["here"]["unreachable"], found["gone"]["unreachable"]) == (0, 0, 1), done.stdout
    assert found["poor"]["failed"] == 1 and "overlay_install_packages" in done.stdout
    assert "Root filesystem, containers" in done.stdout, "the last step was reached"
