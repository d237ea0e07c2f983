# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers by the module, and by the command line of their launcher."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ansible_collections.fromscratch.containers.plugins.module_utils.container import install
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import STATE
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid

from .modules import run_module

FACES = ("changed", "changes", "commands", "diff")
CAPABILITY = {name: number for number, name in enumerate(
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap".split())}
MARKER = "/.root-of-a-test"
UNTIL_TOLD = "until [ -e /end ]; do sleep 0.05; done"  # a command that ends when the test wants it to: see end()


def act(**options):
    """A real run, which must do what check mode predicted and leave nothing to a second one."""
    predicted = run_module("ns_container", check=True, **options)
    made = run_module("ns_container", **options)
    assert not made.failed, made.msg
    assert [getattr(made, each) for each in FACES] == [getattr(predicted, each) for each in FACES]
    again = run_module("ns_container", **options)
    if options.get("state") != "restarted":
        assert not again.failed and (again.changed, again.changes, again.commands) == (False, [], []), again
    return made


def end(name="c1"):
    """Have the command end that waits for it; what says so may end with it."""
    subprocess.run([PROGRAM, "exec", name, "touch", "/end"], check=False)


def pid(name="c1"):
    found = running_pid(name)
    assert found, f"{name} does not run; its log: {log(name)}"
    return found


def log(name="c1"):
    return Path(STATE, name, "log").read_text(encoding="utf-8")


def launcher(verb, *words, name="c1"):
    """A command line of the launcher, as people and all of ours call it."""
    return [PROGRAM, verb, name, *words]


def take_away():
    """The launcher that the tests before have left."""
    for operation in install.removal():
        operation.apply()


def bundle(name="c1"):
    return json.loads(Path(STATE, name, "config.json").read_text(encoding="utf-8"))


def line(verb, name="c1"):
    return f"{PROGRAM} {verb} {name}"


def run_in(command, name="c1", **options):
    """Never elsewhere: a container that fails to change its root would let a test loose on the machine's."""
    command = f"[ -e {MARKER} ] || {{ echo 'not the root of the container' >&2; exit 99; }}; {command}"
    done = subprocess.run(launcher("exec", "/bin/sh", "-c", command, name=name), capture_output=True, text=True, check=False, **options)
    assert done.returncode != 99, done.stderr
    return done


def inside(command, name="c1"):
    done = run_in(command, name)
    assert done.returncode == 0, f"{command}: {done.returncode}: {done.stderr or done.stdout}"
    return done.stdout.strip()


def refused(host, *words, check=False, **options):
    """Fails with these words, and leaves everything as it was."""
    before = host.picture()
    result = run_module("ns_container", check=check, **options)
    assert result.failed and not result.changed
    for each in words:
        assert each in result.msg, result.msg
    assert host.picture() == before
    return result
