# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection plugin by real runs of ansible-playbook, into a container that plays a host and into a plain one."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import RUN, STATE
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid

from ..conftest import ROOT
from .support.modules import run_module
from .support.remote import OURS, WORDS, Remote, lab_host, python_rootfs, run_plays, run_tasks, settings

BINARY = bytes(range(256)) * 1000 + b"\r\n\0end"


@pytest.fixture(scope="module")
def containers(apart, rootfs):
    """A host with Python, a container without, and one that is stopped."""
    made = run_module("ns_container", config=[
        lab_host("lab", rootfs), {"name": "alpine", "rootfs": rootfs}, {"name": "idle", "rootfs": rootfs, "state": "stopped"}])
    assert not made.failed, made.msg
    return apart


def raw(command):
    return {"ansible.builtin.raw": command}


def by_file(variables):
    """The same host, to which Ansible takes a module as a file and does not pipe it."""
    return {**variables, "ansible_pipelining": False}


WAYS = {"lab": {}, "alias": {"ansible_host": "lab"}, "lab-by-file": by_file({"ansible_host": "lab"}),
        "alias-by-file": by_file({"ansible_host": "lab"})}
SCRIPT = ({"ansible.builtin.script": "'{{ playbook_dir }}/script.sh' 'a b'"},)


@pytest.fixture(scope="module")
def local(containers, rootfs, tmp_path_factory):
    """The results of all tasks on containers of this machine, by play and host: one run of Ansible, by whose plays the tests look."""
    directory = tmp_path_factory.mktemp("local")

    def run(*command, **environment):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                              env={**settings(directory), **environment})

    write_sources(directory)
    inventory = {"hosts": {**WAYS, "alpine": {}, "idle": {}, "nobody": {}}, "vars": {**OURS, "rootfs": rootfs}}
    found = run_plays(run, directory, inventory, {
        "modules": ([*WAYS], MODULES), "files": (["lab", "lab-by-file"], FILES), "plain": (["alpine"], PLAIN), "script": (["alpine"], SCRIPT),
        "become": (["alpine"], BECOME), "nested": (["lab"], NESTED), "refused": (["idle", "nobody"], [raw("true")])})
    return SimpleNamespace(directory=directory, **found)


def write_sources(directory):
    """What tasks copy to containers, and run in them."""
    (directory / "source file").write_bytes(BINARY)
    (directory / "long").write_bytes(BINARY * 20)
    (directory / "nothing").touch()
    (directory / "script.sh").write_text("#!/bin/sh\necho \"$1\" from $(hostname)\nexit 5\n", encoding="utf-8")


MODULES = ({"ansible.builtin.ping": {"data": "ü \"'\\ $x"}},
           {"ansible.builtin.shell": 'cat; hostname; readlink /proc/self/ns/net; pwd; echo "$HOME"; cat /proc/1/comm >&2',
            "args": {"stdin": "données\n", "stdin_add_newline": False}})


@pytest.mark.parametrize("host", WAYS)
def test_modules(local, host):
    ping, shell = local.modules[host]
    assert ping["ping"] == "ü \"'\\ $x", ping
    assert shell["stdout_lines"] == ["données", "lab", os.readlink(f"/proc/{running_pid('lab')}/ns/net"), "/", "/root"]
    assert shell["stderr"] == "sh"


PLAIN = (raw("busybox; echo wrong >&2; exit 3"), raw("kill -TERM $$"), raw("kill -KILL $$"),
         raw("echo \"a  b\" 'c\"d' ü $HOME `echo x`"), raw("/no/such/program"), raw("yes 0123456789 | head -c 300000"),
         raw("cat </dev/stdin | wc -c"), {"ansible.builtin.ping": {}})


def test_a_container_without_python(local):
    results = local.plain["alpine"]
    assert results[0]["rc"] == 3 and "BusyBox" in results[0]["stdout"] and results[0]["stderr"].strip() == "wrong"
    assert (results[1]["rc"], results[2]["rc"]) == (143, 137), "as a shell reports signals"
    assert results[3]["stdout"].strip() == "a  b c\"d ü /root x"
    assert results[4]["rc"] == 127 and len(results[5]["stdout"]) == 300000 and results[6]["stdout"].strip() == "0"
    assert results[7]["failed"] and "unreachable" not in results[7], "without Python, modules fail and the host is there"


FILE = "/root/it's \"ü\" $x {{ inventory_hostname }}"
FILES = ({"ansible.builtin.copy": {"src": "{{ playbook_dir }}/source file", "dest": FILE, "mode": "0640"}},
         {"ansible.builtin.fetch": {"src": FILE, "dest": "{{ playbook_dir }}/back {{ inventory_hostname }}", "flat": True}},
         {"ansible.builtin.copy": {"src": "{{ playbook_dir }}/source file", "dest": FILE, "mode": "0640"}},
         {"ansible.builtin.fetch": {"src": "/root/none", "dest": "{{ playbook_dir }}/none", "flat": True}})


@pytest.mark.parametrize("host", ["lab", "lab-by-file"])
def test_files(local, host):
    copied, fetched, again, missing = local.files[host]
    assert (local.directory / f"back {host}").read_bytes() == BINARY
    assert copied["checksum"] == hashlib.sha1(BINARY, usedforsecurity=False).hexdigest()
    assert fetched["changed"] and missing["failed"]
    assert not os.path.exists(FILE.replace("{{ inventory_hostname }}", host)), "in the container, not on the host"
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


def test_a_script(local):
    result, = local.script["alpine"]
    assert result["rc"] == 5 and result["stdout"].strip() == "a b from alpine"


@pytest.mark.parametrize("host", ["idle", "nobody"])
def test_a_container_that_does_not_run(local, host):
    result, = local.refused[host]
    assert result["unreachable"] and f"Container {host} does not run on this machine" in result["msg"]


BECOME = ({**raw("id -u"), "become": False}, {**raw("id -u"), "become": True, "become_method": "ansible.builtin.su"})


def test_become_needs_no_sudo_as_root(local):
    """There is no sudo in the container: su, which is, or nothing."""
    plain, su = local.become["alpine"]
    assert plain["stdout"].strip() == "0"
    assert su["stdout"].strip() == "0", su


CONTAINER = {"fromscratch.containers.ns_container": {"name": "nested", "rootfs": "{{ rootfs }}"}}
NESTED = (CONTAINER, CONTAINER,
          raw(f"{PROGRAM} exec nested /bin/sh -c 'hostname; head -c 4 /dev/urandom | wc -c; ls /proc/1/ns | wc -l'"),
          {"fromscratch.containers.ns_container": {"name": "nested", "state": "absent"}},
          raw(f"ls -A {STATE} {RUN} /run/netns 2>/dev/null; cat /proc/[0-9]*/comm"))


def test_a_container_in_a_container(local):
    made, again, inside, gone, left = local.nested["lab"]
    assert made["changed"] and not again["changed"], made
    assert inside["stdout"].split()[:2] == ["nested", "4"], inside
    assert gone["changed"] and "sleep" in left["stdout"] and left["stdout"].split().count("sleep") == 1
    assert running_pid("nested") is None and not os.path.exists("/run/netns/nested")


# Containers of hosts that are reached by ssh.

NOT_BY_SSH = {"ansible_connection": "fromscratch.containers.ns_container"}


@pytest.fixture(scope="module")
def remote(containers, rootfs, tmp_path_factory):
    """Two hosts, one behind the other, and containers of theirs; ``web`` has no Python, ``snake`` has."""
    found = Remote(tmp_path_factory.mktemp("remote"), rootfs)
    found.variables["amazon"]["containers"] = [{"name": "near", "rootfs": rootfs}]
    found.variables["debian"]["containers"] = [
        {"name": "web", "rootfs": rootfs}, {"name": "asleep", "rootfs": rootfs, "state": "stopped"},
        {"name": "snake", **python_rootfs(found.shared / "python")}]
    made = run_tasks(found.run, found.directory, {"hosts": found.variables}, [*found.variables],
                     [{"fromscratch.containers.ns_container": {"config": "{{ containers }}"}}])
    assert all(result["changed"] for result, in made.values()), made
    yield found
    found.close()


@pytest.fixture(scope="module")
def hosts(remote):
    """Containers and their hosts, some of which the inventory has under several names."""
    debian = remote.variables["debian"]
    ops = {**debian, "ansible_user": "ops", "ansible_become_user": "guest"}  # who is nobody to enter containers
    found = {**remote.variables, "ops": {**ops, "ansible_become_password": WORDS}, "asks": ops,
             "wrong": {**ops, "ansible_become_password": "no"}, "deaf": {**debian, "ansible_connection": "deaf"},
             "guest": {**debian, "ansible_user": "guest", "ansible_become": False}, "off": {**remote.variables["amazon"], "ansible_port": 1},
             "odd": {**debian, "ansible_connection": "no.such.plugin"}, "odder": {**debian, "ansible_become_method": "no.such.plugin"},
             "debian-by-file": by_file(debian)}
    inside = {"web": "debian", "snake": "debian", "asleep": "debian", "nobody": "debian", "near": "amazon", "loop": "loop",
              "nowhere": "no-host", "sly": "debian"}
    found.update({name: {**OURS, "ansible_ns_container_host": host} for name, host in inside.items()})
    found.update({f"web-{host}": {**OURS, "ansible_ns_container_name": "web", "ansible_ns_container_host": host}
                  for host in ("ops", "asks", "wrong", "guest", "off", "odd", "odder", "deaf")})
    found["sly"]["ansible_ns_container_name"] = "../web"
    # The same hosts as containers of this machine, which they are: no ssh at all, and a container in a container.
    found.update({"debian-here": {**NOT_BY_SSH, "ansible_ns_container_name": "debian"},
                  "nested": {**OURS, "ansible_ns_container_name": "web", "ansible_ns_container_host": "debian-here"},
                  "here": {**OURS, "ansible_ns_container_name": "alpine", "ansible_ns_container_host": "localhost"},
                  "snake-by-file": by_file({**OURS, "ansible_ns_container_name": "snake", "ansible_ns_container_host": "debian-by-file"})})
    return found


@pytest.fixture(scope="module")
def away(remote, hosts, tmp_path_factory):
    """The results of all tasks at the desk, on containers and on their hosts, by play and host: one run of Ansible."""
    directory = tmp_path_factory.mktemp("away")
    write_sources(directory)
    (directory / "deaf.py").write_text(DEAF, encoding="utf-8")
    found = run_plays(remote.run, directory, {"hosts": hosts, "vars": {"sockets": str(remote.directory)}}, {
        "reset": (["near"], RESET), "raw": ([*RAW_HOSTS], RAW), "files": (["snake", "snake-by-file"], FILES_AWAY), "script": (["web"], SCRIPT),
        "become": (["web"], BECOME_INSIDE), "module": (["snake"], BECOME_MODULE), "refused": ([*UNREACHABLE, *FAILED], [raw("true")]),
    }, ANSIBLE_CONNECTION_PLUGINS=str(directory))
    return SimpleNamespace(directory=directory, **found)


TEXT = "a  b 'c' \"d\" $HOME `x` \\\\ * ü\n# two\tlines; exit 1 &"
RAW = (raw("hostname; id -u; echo wrong >&2; exit 3"), raw("kill -KILL $$"), raw("exit 125"), raw("cat | wc -c"),
       raw(f"printf %s {shlex.quote(TEXT)}"), raw("yes 0123456789 | head -c 300000"), raw("tty; ls /proc/self/fd | wc -l"))
RAW_HOSTS = {"near": "near", "web": "web", "web-ops": "web", "nested": "web", "here": "alpine"}


@pytest.mark.parametrize("host, name", RAW_HOSTS.items(), ids=RAW_HOSTS)
def test_raw_through_a_host(away, host, name):
    """By ssh as root, through a jump host and sudo, by a sudo that asks for a password, and without ssh."""
    said, killed, status, read, quoted, long, files = away.raw[host]
    assert (said["rc"], said["stdout"], said["stderr"]) == (3, f"{name}\n0\n", "wrong\n")
    assert (killed["rc"], status["rc"]) == (137, 125), "neither is a lost connection"
    assert read["stdout"].strip() == "0", "nothing is to be read"
    assert quoted["stdout"] == TEXT and len(long["stdout"]) == 300000
    assert files["stdout_lines"] == ["not a tty", "4"], "no terminal and no descriptor of the host"


def test_a_password_that_was_asked_for(remote, hosts, tmp_path):
    """That of ``--ask-become-pass`` is the host's."""
    (tmp_path / "password").write_text(WORDS, encoding="utf-8")
    (result,), = run_tasks(remote.run, tmp_path, {"hosts": hosts}, ["web-asks"], [raw("hostname")],
                           ANSIBLE_BECOME_PASSWORD_FILE=str(tmp_path / "password")).values()
    assert result.get("stdout") == "web\n", result


EMPTY = "/root/empty-{{ inventory_hostname }}"
LONG = {"ansible.builtin.copy": {"src": "{{ playbook_dir }}/long", "dest": FILE, "mode": "0640"}}
FILES_AWAY = (LONG, {"ansible.builtin.fetch": {"src": FILE, "dest": "{{ playbook_dir }}/back {{ inventory_hostname }}", "flat": True}}, LONG,
              {"ansible.builtin.copy": {"src": "{{ playbook_dir }}/nothing", "dest": EMPTY, "mode": "0640"}},
              {"ansible.builtin.shell": f"cat; hostname; stat -c %s {EMPTY}; cat /proc/1/comm >&2",
               "args": {"stdin": "données\n", "stdin_add_newline": False}})


@pytest.mark.parametrize("host", ["snake", "snake-by-file"])
def test_files_through_a_host(away, host):
    copied, fetched, again, void, shell = away.files[host]
    assert (away.directory / f"back {host}").read_bytes() == BINARY * 20 and fetched["changed"]
    assert not os.path.exists(FILE.replace("{{ inventory_hostname }}", host))
    assert copied["checksum"] == hashlib.sha1(BINARY * 20, usedforsecurity=False).hexdigest()
    assert copied["changed"] and not again["changed"]
    assert void["changed"] and shell["stdout_lines"] == ["données", "snake", "0"] and shell["stderr"] == "sh"


def test_a_script_through_a_host(away):
    result, = away.script["web"]
    assert result["rc"] == 5 and result["stdout"].strip() == "a b from web"


WORKER = {"become": True, "become_user": "worker"}
BECOME_INSIDE = (raw("echo worker:x:4242:4242::/tmp:/bin/sh >>/etc/passwd"), {**raw("id -un"), "become": True},
                 {**raw("id -un; cat"), **WORKER, "become_method": "ansible.builtin.su"}, {**raw("id -un"), **WORKER})
BUSYBOX = {"ansible_become_exe": "busybox su", "ansible_become_flags": "-s /bin/sh", "ansible_shell_allow_world_readable_temp": True}
BECOME_MODULE = ({"ansible.builtin.command": "id -un", "become": True, "become_user": "daemon", "become_method": "ansible.builtin.su",
                  "vars": BUSYBOX}, {"ansible.builtin.command": "id -un"})


def test_become_inside(away):
    """Of a task, it is about users of the container, whatever it takes to enter; there is no sudo in web."""
    unused, as_root, as_worker, unknown = away.become["web"]
    assert as_root["stdout"] == "root\n" and as_worker["stdout"] == "worker\n"
    assert unknown["rc"] == 127 and "sudo" in unknown["stderr"]
    module, plain = away.module["snake"]
    assert (module.get("stdout"), plain.get("stdout")) == ("daemon", "root"), module


OPEN = {"ansible.builtin.find": {"paths": "{{ sockets }}", "file_type": "any", "use_regex": True, "patterns": "[0-9a-f]{10}"},
        "delegate_to": "localhost"}
RESET = ({**raw("hostname"), "delegate_to": "web"}, raw("hostname"), OPEN, {"ansible.builtin.meta": "reset_connection"}, OPEN,
         raw("hostname"))


def test_delegation_and_a_reset(away):
    """A reset of the container's connection is one of its host's, which the next task opens again."""
    delegated, hostname, open_one, unused, closed, after = away.reset["near"]
    assert (delegated["stdout"], hostname["stdout"], after["stdout"]) == ("web\n", "near\n", "near\n")
    assert open_one["matched"] == closed["matched"] + 1, "ssh keeps a connection open, until it is reset"


DEAF = """from ansible.plugins.connection.local import Connection as Local
DOCUMENTATION = "{name: deaf, short_description: takes no input, options: {}}"
class Connection(Local):
    has_pipelining = False
"""
UNREACHABLE = {
    "asleep": "Container asleep does not run on debian: start it",
    "nobody": "Container nobody does not run on debian: start it",
    "web-guest": "Entering containers of guest needs root there: set ansible_become",
    "web-off": "ssh: connect to host"}
FAILED = {
    "web-wrong": "Incorrect sudo password",
    "web-asks": "Missing sudo password",
    "web-deaf": "ansible_connection: 'deaf' of deaf cannot pipe data",
    "nowhere": "ansible_ns_container_host: 'no-host', where container nowhere is said to be, is no host",
    "loop": "ansible_ns_container_host: loop is in loop",
    "web-odd": "ansible_connection: there is no plugin 'no.such.plugin', which odd",
    "web-odder": "ansible_become_method: there is no plugin 'no.such.plugin', which odder",
    "sly": "ansible_ns_container_name: '../web' is not valid"}


@pytest.mark.parametrize("host", [*UNREACHABLE, *FAILED])
def test_what_cannot_be_entered(away, host):
    result, = away.refused[host]
    assert {**UNREACHABLE, **FAILED}[host] in result["msg"], result
    assert result.get("unreachable", False) == (host in UNREACHABLE), result
