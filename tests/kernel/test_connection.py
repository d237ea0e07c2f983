# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection plugin by real runs of ansible-playbook, into a container that plays a host and into a plain one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.fromscratch.containers.plugins.module_utils import _process
from ansible_collections.fromscratch.containers.plugins.module_utils._container import RUN, STATE

from .conftest import run_module

ROOT = Path(__file__).resolve().parents[2]
BINARY = bytes(range(256)) * 1000 + b"\r\n\0end"


@pytest.fixture(scope="module")
def containers(apart, rootfs):
    """A host with Python, a container without, and one that is stopped."""
    seen = {os.path.realpath(each) for each in (ROOT, sys.prefix, sys.base_prefix)} - {"/usr"}
    made = run_module("ns_container", config=[
        {"name": "lab", "rootfs": "/", "layer": "tmpfs", "privileged": True,
         "tmpfs": ["/run:mode=755", "/tmp:mode=1777", "/var/lib:mode=755"],
         "binds": [{"source": each, "dest": each, "read_only": True} for each in sorted(seen | {rootfs})]},
        {"name": "alpine", "rootfs": rootfs}, {"name": "idle", "rootfs": rootfs, "state": "stopped"}])
    assert not made.failed, made.msg
    return apart


@pytest.fixture
def play(containers, tmp_path):
    """Runs tasks on a host of the inventory; the list of their results."""
    def run(host, *tasks, **environment):
        inventory, playbook = tmp_path / "hosts.json", tmp_path / "play.json"
        inventory.write_text(json.dumps({"all": {
            "hosts": {"lab": None, "alpine": None, "idle": None, "nobody": None, "alias": {"ansible_host": "lab"}},
            "vars": {"ansible_connection": "fromscratch.containers.ns_container",
                     "ansible_python_interpreter": sys.executable}}}), encoding="utf-8")
        steps = []
        for number, task in enumerate(tasks):
            out = tmp_path / f"result{number}"
            steps += [{**task, "register": "result", "ignore_errors": True, "ignore_unreachable": True},
                      {"ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": str(out)}, "delegate_to": "localhost"}]
        playbook.write_text(json.dumps([{"hosts": host, "gather_facts": False, "tasks": steps}]), encoding="utf-8")
        done = subprocess.run(
            [f"{sys.prefix}/bin/ansible-playbook", "-i", inventory, playbook], cwd=ROOT, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL, env={
                **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8", "HOME": str(tmp_path), **environment})
        assert "localhost" in done.stdout, done.stdout + done.stderr
        return [json.loads((tmp_path / f"result{number}").read_text(encoding="utf-8")) for number in range(len(tasks))]
    return run


def raw(command):
    return {"ansible.builtin.raw": command}


@pytest.mark.parametrize("pipelining", ["True", "False"])
@pytest.mark.parametrize("host", ["lab", "alias"])
def test_modules(play, pipelining, host):
    ping, shell = play(host, {"ansible.builtin.ping": {"data": "ü \"'\\ $x"}},
                       {"ansible.builtin.shell": 'cat; hostname; readlink /proc/self/ns/net; pwd; echo "$HOME"; cat /proc/1/comm >&2',
                        "args": {"stdin": "données\n", "stdin_add_newline": False}}, ANSIBLE_PIPELINING=pipelining)
    assert ping["ping"] == "ü \"'\\ $x", ping
    assert shell["stdout_lines"] == ["données", "lab", os.readlink(f"/proc/{_process.running('lab')}/ns/net"), "/", "/root"]
    assert shell["stderr"] == "sh"


def test_a_container_without_python(play):
    results = play("alpine", raw("cat /etc/alpine-release; echo wrong >&2; exit 3"), raw("kill -TERM $$"), raw("kill -KILL $$"),
                   raw("echo \"a  b\" 'c\"d' ü $HOME `echo x`"), raw("/no/such/program"), raw("yes 0123456789 | head -c 3000000"),
                   raw("cat </dev/stdin | wc -c"), {"ansible.builtin.ping": {}})
    assert results[0]["rc"] == 3 and results[0]["stdout"].strip() and results[0]["stderr"].strip() == "wrong"
    assert (results[1]["rc"], results[2]["rc"]) == (143, 137), "as a shell reports signals"
    assert results[3]["stdout"].strip() == "a  b c\"d ü /root x"
    assert results[4]["rc"] == 127 and len(results[5]["stdout"]) == 3000000 and results[6]["stdout"].strip() == "0"
    assert results[7]["failed"] and "unreachable" not in results[7], "without Python, modules fail and the host is there"


@pytest.mark.parametrize("pipelining", ["True", "False"])
def test_files(play, tmp_path, pipelining):
    source, back = tmp_path / "source file", tmp_path / "back"
    source.write_bytes(BINARY)
    name = f"/root/it's \"ü\" $x {pipelining}"
    copied, fetched, again, missing = play(
        "lab", {"ansible.builtin.copy": {"src": str(source), "dest": name, "mode": "0640"}},
        {"ansible.builtin.fetch": {"src": name, "dest": str(back), "flat": True}},
        {"ansible.builtin.copy": {"src": str(source), "dest": name, "mode": "0640"}},
        {"ansible.builtin.fetch": {"src": "/root/none", "dest": str(back), "flat": True}}, ANSIBLE_PIPELINING=pipelining)
    assert back.read_bytes() == BINARY and copied["checksum"] == hashlib.sha1(BINARY, usedforsecurity=False).hexdigest()
    assert fetched["changed"] and missing["failed"]
    assert not os.path.exists(name), "in the container, not on the host"
    assert copied["changed"] and not again["changed"]


def test_transfers_by_name(containers, tmp_path):
    """What no module does, whose temporary files have plain names."""
    connection = connection_loader.get("fromscratch.containers.ns_container", PlayContext(), "/dev/null")
    connection.set_options(direct={"remote_addr": "alpine"})
    (tmp_path / "source").write_bytes(BINARY)
    connection.put_file(str(tmp_path / "source"), "/root/a b'c \"$x ü")
    connection.fetch_file("/root/a b'c \"$x ü", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == BINARY
    for call, words in [(lambda: connection.put_file(str(tmp_path / "none"), "/x"), "no file"),
                        (lambda: connection.put_file(str(tmp_path / "source"), "/no/such/x"), "container alpine failed"),
                        (lambda: connection.fetch_file("/none", str(tmp_path / "x")), "container alpine failed")]:
        with pytest.raises(AnsibleError, match=words):
            call()


def test_a_script(play, tmp_path):
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho \"$1\" from $(hostname)\nexit 5\n", encoding="utf-8")
    result, = play("alpine", {"ansible.builtin.script": f"{script} 'a b'"})
    assert result["rc"] == 5 and result["stdout"].strip() == "a b from alpine"


@pytest.mark.parametrize("host", ["idle", "nobody"])
def test_a_container_that_does_not_run(play, host):
    result, = play(host, raw("true"))
    assert result["unreachable"] and f"Container {host} does not run on this machine" in result["msg"]


def test_become_needs_no_sudo_as_root(play):
    """There is no sudo in the container: su, which is, or nothing."""
    plain, su = play("alpine", {**raw("id -u"), "become": False},
                     {**raw("id -u"), "become": True, "become_method": "ansible.builtin.su"})
    assert plain["stdout"].strip() == "0"
    assert su["stdout"].strip() == "0", su


def test_a_container_in_a_container(play, rootfs):
    wanted = {"name": "nested", "rootfs": rootfs}
    module = "fromscratch.containers.ns_container"
    made, again, inside, gone, left = play(
        "lab", {module: wanted}, {module: wanted},
        raw(f"{STATE}/nested/container exec /bin/sh -c 'hostname; head -c 4 /dev/urandom | wc -c; ls /proc/1/ns | wc -l'"),
        {module: {"name": "nested", "state": "absent"}}, raw(f"ls -A {STATE} {RUN} /run/netns 2>/dev/null; cat /proc/[0-9]*/comm"))
    assert made["changed"] and not again["changed"], made
    assert inside["stdout"].split()[:2] == ["nested", "4"], inside
    assert gone["changed"] and "sleep" in left["stdout"] and left["stdout"].split().count("sleep") == 1
    assert _process.running("nested") is None and not os.path.exists("/run/netns/nested")
