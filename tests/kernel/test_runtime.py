# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that crun or runc runs, by the same module and the same ``ns-container``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import spec
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import cgroups, runtime
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import RUN, STATE
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid
from ansible_collections.fromscratch.containers.plugins.module_utils.core import dependencies

from ..conftest import ROOT
from .support.containers import act, bundle, inside, launcher, pid, refused
from .support.modules import run_module
from .support.namespaces import sh
from .support.processes import ended, eventually, gone, members
from .support.remote import OURS, run_tasks, settings

# Beside these, the tests of the launcher's own containers that hold for those of each runtime.
pytestmark = [pytest.mark.usefixtures("container_runtime"), pytest.mark.parametrize("container_runtime", spec.RUNTIMES, indirect=True)]


def handed(name="c1"):
    """The bundle as the runtime got it."""
    return json.loads(Path(runtime.HOME, name, "config.json").read_text(encoding="utf-8"))


def test_it_is_the_other_runtime_that_runs_it(rootfs, container_runtime):
    act(name="c1", rootfs=rootfs)
    assert bundle()["annotations"][runtime.RUNTIME] == container_runtime and not bundle()["root"]["path"].startswith(runtime.HOME)
    done = subprocess.run([container_runtime, "--root", f"{runtime.HOME}/c1/state", "list", "--format", "json"], capture_output=True, text=True, check=True)
    assert [(each["id"], each["pid"], each["status"]) for each in json.loads(done.stdout)] == [("c1", pid(), "running")]
    changed = act(name="c1", rootfs=rootfs, runtime="ns-container")
    assert changed.changes[0]["action"] == "recreate" and f"runtime {container_runtime} -> ns-container" in changed.changes[0]["fields"]
    assert not os.path.exists(f"{runtime.HOME}/c1")
    act(name="c1", rootfs=rootfs, runtime=shutil.which(container_runtime))
    assert handed()["annotations"][runtime.RUNTIME] == shutil.which(container_runtime)


def test_restart_keeps_the_network_and_the_layer(rootfs):
    act(name="c1", rootfs=rootfs)
    sh("ip -n c1 link add eth0 type bridge")
    inside("echo kept >/root/file")
    first = pid()
    subprocess.run([PROGRAM, "restart", "c1"], check=True)
    assert pid() != first and inside("cat /root/file; ls /sys/class/net").split() == ["kept", "eth0", "lo"]


def test_a_command_has_the_rights_of_the_container(rootfs):
    """And its environment stands in no command line."""
    act(name="c1", rootfs=rootfs, ulimits={"nofile": 99})
    found = inside("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ulimit -n").splitlines()
    assert set(found[:7]) <= set(Path(f"/proc/{pid()}/status").read_text(encoding="utf-8").splitlines())
    assert found[5:] == ["NoNewPrivs:\t1", "Seccomp:\t2", "99"]
    with ended(subprocess.Popen([PROGRAM, "exec", "-e", "SECRET", "c1", "sleep", "1000"], env={**os.environ, "SECRET": "hush-hush"})) as command:
        eventually(lambda: len(members(pid())) > 2, "it runs")
        assert "hush-hush" not in sh("cat /proc/[0-9]*/cmdline", check=False)
        command.terminate()
        command.wait()


def test_a_set_user_id_program_is_for_nobody_of_the_host(rootfs, tmp_path):
    """Whoever finds the root filesystem, by its path or by a process of the container with the same user id."""
    act(name="c1", rootfs=rootfs, userns="host", user="65534:65534", command=["sleep", "1000"], init=False, no_new_privs=False)
    first = pid()
    own = Path(STATE, "c1/layer/upper/own")
    shutil.copy("/usr/bin/id", own)
    os.chmod(own, 0o4755)
    assert Path(f"/proc/{first}/root/own").stat().st_mode & stat.S_ISUID, "the container's own file"
    for place in f"{runtime.HOME}/c1/mounts/root/own", own, f"/proc/{first}/root/own":
        done = subprocess.run(["sh", "-c", f"{place} -u"], user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False)
        assert done.stdout.strip() in ("", "65534"), f"{place} makes root of a user of the host"
    for path, mode in (runtime.HOME, 0o711), (f"{runtime.HOME}/c1", 0o711), (f"{runtime.HOME}/c1/state", 0o700), (f"{runtime.HOME}/c1/config.json", 0o600):
        assert stat.S_IMODE(os.stat(path).st_mode) == mode, path
    assert os.listdir(f"{runtime.HOME}/c1/mounts/root") == [], "it is mounted where others see it"


@pytest.mark.parametrize("options", [{}, {"user": "1000"}, {"user": "1000", "userns": "host"}])
def test_files_of_the_caller_stay_its_own(rootfs, tmp_path, options):
    """crun and runc make what a command reads from, or writes to, the command's user's own; crun 1.8 does so with /dev/null as well."""
    (tmp_path / "in").write_bytes(b"x" * (1 << 20))
    with open(tmp_path / "in", "rb") as given, open(tmp_path / "out", "wb") as told:
        act(name="c1", rootfs=rootfs, **options)
        subprocess.run(launcher("exec", "wc", "-c"), stdin=given, stdout=told, stderr=told, check=True)
        subprocess.run(launcher("exec", "true"), stdin=given, stdout=told, stderr=told, check=True)
    subprocess.run(launcher("exec", "true"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    assert (tmp_path / "out").read_text(encoding="ascii").strip() == str(1 << 20)
    for path in tmp_path / "in", tmp_path / "out", "/dev/null":
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (0, 0), path


def test_one_that_was_killed_before_it_could_record_it(rootfs):
    act(name="c1", rootfs=rootfs)
    first = pid()
    os.unlink(f"{RUN}/c1")
    act(name="c1", rootfs=rootfs)
    assert pid() != first and gone(first)


def test_ended_by_itself_with_its_runtime_gone(host, rootfs, monkeypatch):
    empty = host.picture()
    act(name="c1", rootfs=rootfs)
    os.kill(pid(), signal.SIGKILL)
    eventually(lambda: running_pid("c1") is None, "it dies")
    monkeypatch.setattr(runtime, "PATH", "/nowhere")
    act(name="c1", state="absent")
    assert host.picture() == empty


def test_a_command_that_is_not_there(rootfs, container_runtime):
    act(name="c1", rootfs=rootfs)
    inside("echo text >/text; chmod 755 /text")
    for command, code in ("no-such", 127), ("/etc", 126), ("/text", 126 if container_runtime == "crun" else 1):  # as runc says it too late
        done = subprocess.run(launcher("exec", command), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout) == (code, "") and done.stderr, done


def test_nothing_of_what_is_said_at_a_terminal_is_lost(rootfs):
    act(name="c1", rootfs=rootfs)
    for number in range(20):
        done = subprocess.run([PROGRAM, "exec", "-t", "c1", "sh", "-c", f"echo x{number}; exit {number}"], capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL)
        assert (done.returncode, done.stdout.strip()) == (number, f"x{number}")


@pytest.mark.parametrize("command, words", [("/no/such/program", "no such file"), ("/etc", "")])
def test_a_start_that_fails_says_why(rootfs, container_runtime, command, words):
    result = run_module("ns_container", name="c1", rootfs=rootfs, command=[command], init=False)
    assert result.failed and f"container c1: starting it failed: {container_runtime}: " in result.msg and words in result.msg.lower(), result.msg
    assert running_pid("c1") is None
    act(name="c1", rootfs=rootfs)


def test_one_that_is_not_installed(host, rootfs, container_runtime, monkeypatch):
    monkeypatch.setattr(dependencies, "found", lambda program: None if program == container_runtime else "/bin/true")
    for check in True, False:
        refused(host, f"the program {container_runtime} (the package {container_runtime})", check=check, name="c1", rootfs=rootfs)
    refused(host, "'/usr/bin/none'", "no such program on the host", name="c1", rootfs=rootfs, runtime="/usr/bin/none")
    refused(host, "'podman'", "ns-container, crun, runc", name="c1", rootfs=rootfs, runtime="podman")


def test_what_is_mounted_below_a_bind(host, rootfs, container_runtime, tmp_path):
    """crun before 1.9 leaves it out."""
    (tmp_path / "below").mkdir()
    sh(f"mount -t tmpfs below {tmp_path}/below")
    binds = [{"source": str(tmp_path), "dest": "/data"}]
    try:
        if container_runtime == "crun":
            refused(host, "binds.source", f"{tmp_path}/below", "set userns to host", name="c1", rootfs=rootfs, binds=binds)
        act(name="c1", rootfs=rootfs, binds=binds, userns="host" if container_runtime == "crun" else "auto")
        assert " /data/below " in inside("cat /proc/self/mountinfo")
        act(name="c1", state="absent")
    finally:
        sh(f"umount {tmp_path}/below")


def test_cgroups_of_its_own(rootfs, container_runtime):
    """runc makes one, and nothing is left of it."""
    act(name="c1", rootfs=rootfs)
    group = Path(f"/proc/{pid()}/cgroup").read_text(encoding="ascii").splitlines()[-1]
    assert (group == "0::/fromscratch/c1") is (container_runtime == "runc")
    act(name="c1", state="absent")
    assert not Path(cgroups.mount_point(), cgroups.PARENT, "c1").exists()


def test_the_connection_plugin(rootfs, tmp_path):
    act(name="c1", rootfs=rootfs)

    def run(*command, **environment):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                              env={**settings(tmp_path), **environment})

    tasks = [{"ansible.builtin.raw": "echo out; echo wrong >&2; exit 3"}, {"ansible.builtin.raw": "kill -KILL $$"}]
    results = run_tasks(run, tmp_path, {"hosts": {"c1": None}, "vars": OURS}, ["c1"], tasks)["c1"]
    assert (results[0]["rc"], results[0]["stdout"].strip(), results[0]["stderr"].strip(), results[1]["rc"]) == (3, "out", "wrong", 137)
