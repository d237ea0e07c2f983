# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers on the real kernel, on a host whose /run and /var/lib are the tests' own."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import install, isolation, spec
from ansible_collections.fromscratch.containers.plugins.module_utils.container.install import LINK
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import namespaces, record, start, syscalls
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.mounts import NODES as DEVICES
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import RUN, STATE
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid
from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import CAPABILITIES, MASKED, READ_ONLY

from .support.containers import (
    CAPABILITY,
    MARKER,
    UNTIL_TOLD,
    act,
    bundle,
    end,
    inside,
    launcher,
    line,
    log,
    pid,
    refused,
    run_in,
    take_away,
)
from .support.modules import run_module
from .support.namespaces import addresses, link, sh
from .support.processes import commandline, ended, eventually, gone, members, status_of

INSTALLED = ("completion.bash", "launcher", "ns-container", "ns-container.8")

pytestmark = pytest.mark.usefixtures("host")


# The life of a container

@pytest.mark.usefixtures("container_runtime")
def test_act_again_check_change_absent(host, rootfs):
    take_away()
    empty = host.picture()
    predicted = run_module("ns_container", check=True, name="c1", rootfs=rootfs)
    assert predicted.changed and host.picture() == empty, "check mode changed something"
    made = act(name="c1", rootfs=rootfs)
    assert [(each["item"], each["action"]) for each in made.changes] == [("container c1", "create")]
    assert made.commands[-1] == line("start") and all(path in "".join(made.commands) for path in [*install.files(), f"{STATE}/c1/config.json"])
    assert made.observed[0]["state"] == "started" and made.observed[0]["rootfs"] == rootfs
    first = pid()

    changed = act(name="c1", rootfs=rootfs, hostname="other")
    assert "hostname c1 -> other" in changed.changes[0]["fields"] and changed.changes[0]["action"] == "recreate"
    assert [changed.commands[at] for at in (0, -1)] == [line("stop"), line("start")] and len(changed.commands) == 4, "the bundle is written"
    assert changed.diff["before"]["container c1"]["hostname"] == "c1"
    assert changed.diff["after"]["container c1"]["hostname"] == "other"
    assert pid() != first and gone(first) and inside("hostname") == "other"

    last = act(name="c1", state="absent")
    assert [each for each in last.commands if "empty" not in each and not each.startswith("rmdir")] == [
        line("stop"), "ip netns delete c1", "umount /run/fromscratch/users/c1", "rm /run/fromscratch/users/c1",
        f"rm -r {STATE}/c1", *(f"rm -rf {link}" for link in install.LINKS),
        f"rm -rf --one-file-system {' '.join(f'{install.HOME}/{name}' for name in INSTALLED)}"]
    assert host.picture() == empty, "something was left behind"


@pytest.mark.usefixtures("container_runtime")
def test_states(host, rootfs):
    act(name="c1", rootfs=rootfs, state="stopped")
    assert running_pid("c1") is None and link("c1", "lo")
    act(name="c1", rootfs=rootfs)
    first = pid()
    stopped = act(name="c1", rootfs=rootfs, state="stopped")
    assert stopped.commands == [line("stop")] and gone(first)
    assert not list(Path(RUN).iterdir())
    act(name="c1", rootfs=rootfs)
    second = pid()
    restarted = run_module("ns_container", name="c1", rootfs=rootfs, state="restarted")
    assert restarted.changed and restarted.commands == [line("stop"), line("start")]
    assert restarted.observed[0]["state"] == "started" and pid() != second and gone(second)
    assert run_module("ns_container", name="c1", rootfs=rootfs, state="restarted").changed
    third = pid()
    act(name="c1", rootfs=rootfs, stop_timeout=3)
    assert pid() == third, "a longer stop_timeout does not need a restart"
    assert bundle()["annotations"]["fromscratch.stop-timeout"] == "3"
    act(name="c1", state="absent")
    assert gone(third)


def test_links_and_addresses_survive_a_restart_and_a_new_command(scene, rootfs):
    act(name="c1", rootfs=rootfs)
    switch = scene.netns()
    sh(f"ip -n {switch} link add ve type veth peer name eth0 netns c1", "ip -n c1 address add 10.0.0.100/24 dev eth0",
       "ip -n c1 link set eth0 up")
    namespace = os.stat("/run/netns/c1").st_ino
    assert os.stat(f"/proc/{pid()}/ns/net").st_ino == namespace
    act(name="c1", rootfs=rootfs, state="restarted")
    act(name="c1", rootfs=rootfs, command=["sleep", "1000"])
    assert os.stat(f"/proc/{pid()}/ns/net").st_ino == namespace
    assert addresses("c1", "eth0") == {"10.0.0.100/24"}
    assert "10.0.0.100/24" in inside("ip address show eth0")


def test_many_in_one_call_and_prune(host, rootfs):
    empty = host.picture()
    config = [{"name": f"c{number}", "rootfs": rootfs} for number in range(30)]
    made = act(config=config)
    assert len(made.changes) == 30 and len({pid(each["name"]) for each in config}) == 30
    kept = pid("c7")
    pruned = act(config=[config[7]], prune=True)
    assert len(pruned.changes) == 29 and pid("c7") == kept and os.listdir("/run/netns") == ["c7"]
    act(config=[], prune=True)
    assert host.picture() == empty


def test_one_that_fails_does_not_keep_the_others_from_starting(host, rootfs):
    result = run_module("ns_container", config=[
        {"name": "bad1", "rootfs": rootfs, "command": ["/no/such/program"]}, {"name": "good", "rootfs": rootfs},
        {"name": "bad2", "rootfs": rootfs, "command": ["sh", "-c", "echo sorry; exit 3"]}])
    assert result.failed and "bad1" in result.msg and "bad2" in result.msg and "sorry" in result.msg
    assert pid("good")


# What it is like inside

def test_namespaces_of_its_own(rootfs):
    act(config=[{"name": "c1", "rootfs": rootfs}, {"name": "c2", "rootfs": rootfs}])
    spaces = [each for each in ("pid", "mnt", "uts", "ipc", "net", "cgroup") if os.path.exists(f"/proc/self/ns/{each}")]
    for space in spaces:
        inodes = {os.stat(f"/proc/{each}/ns/{space}").st_ino for each in ("self", pid("c1"), pid("c2"))}
        assert len(inodes) == 3, f"{space} is shared"
        assert inside(f"readlink /proc/self/ns/{space}") == os.readlink(f"/proc/{pid()}/ns/{space}"), f"exec: {space}"


def test_the_first_starts_do_not_mount_over_each_other(rootfs, monkeypatch):
    """Each of them finds no mount on /run/netns, and would hide what another has pinned there."""
    def mounted():
        lines = Path("/proc/thread-self/mountinfo").read_text(encoding="ascii").splitlines()
        return [line.split()[4] for line in lines].count(namespaces.RUN_NETNS)

    mount, before = syscalls.mount, mounted()

    def slowly(source, target, *rest):
        if source == target == namespaces.RUN_NETNS:
            time.sleep(0.1)  # for the others to come as far
        mount(source, target, *rest)

    monkeypatch.setattr(syscalls, "mount", slowly)
    names = [f"c{number}" for number in range(1, 9)]
    act(config=[{"name": name, "rootfs": rootfs} for name in names])
    assert mounted() == before + 1 and all(pid(name) for name in names)


def test_processes(rootfs):
    act(name="c1", rootfs=rootfs)
    assert len(members(pid())) == 2, "an init and the command, and nobody else"
    assert [Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")[0] for each in members(pid())] == [b"/bin/sh", b"sleep"]
    assert len(inside("echo /proc/[0-9]*").split()) == 3, "these two, and the shell that looks"
    assert inside("cat /proc/1/comm") == "sh"


def test_no_descriptors_of_the_host_but_the_log(rootfs):
    with open(__file__, "rb"):  # as any program that starts one may have some open
        act(config=[{"name": "c1", "rootfs": rootfs}, {"name": "c2", "rootfs": rootfs, "init": False}])
    for process in members(pid("c1")) + members(pid("c2")):
        found = {each: os.readlink(f"/proc/{process}/fd/{each}") for each in os.listdir(f"/proc/{process}/fd")}
        own = {each: path for each, path in found.items() if path != "/bin/busybox"}
        assert own.pop("0") == "/dev/null"
        assert set(own) == {"1", "2"} and all(path.endswith("/log") for path in own.values()), found
    assert set(inside("ls /proc/self/fd").split()) <= {"0", "1", "2", "3"}


def test_mounts(rootfs):
    act(name="c1", rootfs=rootfs, tmpfs=["/tmp:mode=1777,size=1m"])
    mounts = [line.split() for line in inside("cat /proc/self/mountinfo").splitlines()]
    hidden = {path for path in (*MASKED, *READ_ONLY) if os.path.exists(path)}
    assert {each[4] for each in mounts} == {
        "/", "/dev", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys", "/tmp", "/dev/console", *hidden,
        *(f"/dev/{each}" for each in DEVICES)}
    kinds = {each[4]: each[each.index("-") + 1] for each in mounts}
    assert (kinds["/"], kinds["/proc"], kinds["/tmp"]) == ("overlay", "proc", "tmpfs")
    assert not any("shared:" in field or "master:" in field for each in mounts for field in each), "mounts propagate"
    flags = {each[4]: each[5].split(",") for each in mounts}
    assert "ro" in flags["/sys"] and all("ro" in flags[path] for path in READ_ONLY if path in flags)
    assert {path for path in flags if "nodev" not in flags[path]} <= {*(f"/dev/{each}" for each in (*DEVICES, "console", "pts")), *MASKED}
    assert {"nosuid", "nodev"} <= set(flags["/tmp"])
    assert inside("stat -c %a /tmp") == "1777" and inside("df -k /tmp | awk 'NR == 2 {print $2}'") == "1024"


def test_what_a_container_writes_to_its_standard_output_by_name_is_in_its_log(rootfs):
    act(name="c1", rootfs=rootfs, command=["sh", "-c", "echo w; echo x >>/dev/stdout; echo y >>/dev/stderr; echo z; exec sleep 1000"])
    eventually(lambda: log().splitlines() == ["w", "x", "y", "z"], "all are there")


def test_the_devices(rootfs):
    act(name="c1", rootfs=rootfs, userns="host")  # else the pipes of who runs exec are not for it to open
    assert inside("head -c 3 /dev/zero | od -An -tx1") == "00 00 00"
    assert inside("head -c 8 /dev/random | wc -c; head -c 8 /dev/urandom | wc -c").split() == ["8", "8"]
    assert inside("echo gone >/dev/null; wc -c </dev/null") == "0"
    assert "No space" in run_in("echo x >/dev/full").stderr
    assert "tty" in run_in("echo x >/dev/tty").stderr
    assert inside("echo x >/dev/shm/x && cat /dev/shm/x") == "x"
    assert inside("echo x | cat /dev/stdin; echo y >/dev/stdout; readlink /dev/fd; readlink /dev/ptmx").split() == [
        "x", "y", "/proc/self/fd", "pts/ptmx"]
    assert inside("stat -c %t:%T /dev/pts/ptmx /dev/null").split() == ["5:2", "1:3"]
    inside("exec 3<>/dev/ptmx && ls /dev/pts/0")
    assert sorted(inside("ls /dev").split()) == ["console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
                                                 "stdin", "stdout", "tty", "urandom", "zero"]
    inside(": >/dev/own-of-the-container")
    assert not os.path.exists("/dev/own-of-the-container"), "the host's /dev"


def test_host_name_environment_and_working_directory(rootfs, monkeypatch):
    monkeypatch.setenv("SECRET", "of the host")
    hostile = """a'b"c $HOME `id` \\ ü
    next line"""
    act(name="c1", rootfs=rootfs, hostname="web.example", workdir="/etc", env={"WORD": hostile, "NUMBER": "7"},
        command=["sh", "-c", f"[ -e {MARKER} ] || exit 99; " 'env >/env; printf "%s" "$WORD" >/word; printf "%s|" "$@" >/arguments; pwd >/pwd; exec sleep 1000',
                 "sh", hostile, "", "-n", "*"])
    assert sorted(line for line in inside("grep -v -e WORD -e 'next line' /env").splitlines()
                  if not line.startswith(("PWD=", "SHLVL=", "OLDPWD="))) == [
        "HOME=/root", "HOSTNAME=web.example", "NUMBER=7", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert inside("cat /word") == hostile
    assert run_in("cat /arguments").stdout == f"{hostile}||-n|*|"
    assert inside("cat /pwd; hostname; cat /proc/sys/kernel/hostname").split() == ["/etc", "web.example", "web.example"]
    assert socket.gethostname() != "web.example"
    assert inside('echo "$HOME $NUMBER $HOSTNAME ${SECRET-none}"') == "/root 7 web.example none"


def test_a_path_of_its_own(rootfs):
    act(name="c1", rootfs=rootfs, env={"PATH": "/bin"})
    assert inside("echo $PATH") == "/bin"


@pytest.mark.usefixtures("container_runtime")
def test_layers(rootfs, tmp_path):
    private = tmp_path / "rootfs"
    shutil.copytree(rootfs, private, symlinks=True)
    (private / "own").touch()
    act(config=[{"name": layer, "rootfs": str(private), "layer": layer} for layer in ("none", "disk", "tmpfs")])
    for layer in ("none", "disk", "tmpfs"):
        inside(f"echo {layer} >/root/{layer} && rm /own", layer)
        (private / "own").touch()
    assert os.listdir(private / "root") == ["none"]
    act(config=[{"name": layer, "rootfs": str(private), "layer": layer, "hostname": "x"} for layer in ("none", "disk", "tmpfs")])
    assert inside("ls /root", "none") == "none"
    assert inside("ls /root; ls /own 2>&1 | grep -c 'No such'", "disk").split() == ["disk", "none", "1"]
    assert inside("ls /root /own", "tmpfs").split() == ["/own", "/root:", "none"]
    assert (private / "root" / "none").read_text(encoding="ascii") == "none\n"


def test_two_of_one_root_do_not_see_each_other(rootfs):
    Path(rootfs, "own").mkdir()
    before = sorted(os.listdir(rootfs))
    act(config=[{"name": "c1", "rootfs": rootfs}, {"name": "c2", "rootfs": rootfs}])
    inside("echo one >/shared; rmdir /own", "c1")
    assert run_in("cat /shared", "c2").returncode == 1 and inside("ls -d /own", "c2") == "/own"
    assert sorted(os.listdir(rootfs)) == before
    Path(rootfs, "own").rmdir()


def test_binds(rootfs, tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("of the host\n", encoding="ascii")
    act(name="c1", rootfs=rootfs, tmpfs=["/run"], binds=[
        {"source": str(folder), "dest": "/data/rw"}, {"source": str(folder), "dest": "/data/ro", "read_only": True},
        {"source": str(file), "dest": "/etc/of/host"}, {"source": str(file), "dest": "/run/deep/file", "read_only": True},
        {"source": str(file), "dest": "/data/rw/below"}])
    inside("echo inside >/data/rw/x; echo more >>/etc/of/host")
    assert (folder / "x").read_text(encoding="ascii") == "inside\n"
    assert file.read_text(encoding="ascii") == "of the host\nmore\n"
    for command in "echo >/data/ro/y", "rm /data/ro/x", "echo >/run/deep/file", "mount -o remount,rw /data/ro":
        assert run_in(command).returncode != 0, command
    assert inside("cat /data/ro/x; wc -l </run/deep/file; wc -l </data/rw/below").split() == ["inside", "2", "2"]


def test_a_read_only_root(rootfs):
    act(name="c1", rootfs=rootfs, read_only=True, tmpfs=["/tmp"])
    assert "Read-only" in run_in("echo >/x").stderr
    inside("echo x >/tmp/x; echo x >/dev/shm/x")
    assert run_in("mount -o remount,rw /").returncode != 0


@pytest.mark.usefixtures("container_runtime")
def test_capabilities(rootfs):
    act(config=[{"name": "c1", "rootfs": rootfs}, {"name": "c2", "rootfs": rootfs, "privileged": True}])
    act(name="c1", rootfs=rootfs, tmpfs=["/own"])
    allowed = f"{sum(1 << CAPABILITY[name] for name in CAPABILITIES):016x}"
    assert allowed == "00000000800405fb", "what podman leaves to root"
    sets = ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs")
    for process in members(pid("c1")):
        assert status_of(process, *sets) == [allowed] * 3 + ["0" * 16] * 2 + ["1"]
    expected = "\n".join(inside(f"grep {each} /proc/self/status") for each in sets)
    assert expected.split()[1::2] == [allowed] * 3 + ["0" * 16] * 2 + ["1"], "exec has other rights"
    mine = status_of("self", "CapBnd")
    for process in members(pid("c2")):
        assert status_of(process, "CapEff", "CapBnd", "NoNewPrivs") == mine * 2 + ["0"]
    for attempt in ("mount -t tmpfs x /home", "ip link add br9 type bridge", "mknod /own-node b 254 0", "mknod /dev/own-node b 254 0",
                    "echo 1 >/proc/sys/net/ipv4/conf/lo/log_martians", "umount /own"):
        assert run_in(attempt).returncode != 0, attempt
        if attempt != "umount /own":
            inside(attempt, "c2")


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"])
def test_root_inside_does_not_set_the_hosts_kernel(rootfs, path):
    act(name="c1", rootfs=rootfs)
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert any(each in run_in(f": >>{path}").stderr for each in ("Read-only", "denied"))
    act(name="c1", rootfs=rootfs, userns="host")
    assert "Read-only" in run_in(f": >>{path}").stderr


# Processes and signals

@pytest.mark.usefixtures("container_runtime")
def test_the_init_reaps(rootfs):
    act(name="c1", rootfs=rootfs)
    inside("for each in 1 2 3 4 5; do (sh -c 'sleep 0.05 &' &); done")
    eventually(lambda: len(members(pid())) == 2, "zombies are reaped")


def test_sigterm_reaches_the_command(rootfs):
    act(name="c1", rootfs=rootfs, command=["sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"])
    eventually(lambda: "up" in log(), "the command runs")
    act(name="c1", rootfs=rootfs, state="stopped", command=["true"])
    assert log() == "up\nbye\nended with status 0\n"


def test_without_init_the_command_is_process_1(rootfs):
    act(name="c1", rootfs=rootfs, init=False, command=["sleep", "1000"])
    assert members(pid()) == [pid()]
    assert Path(f"/proc/{pid()}/cmdline").read_bytes() == b"sleep\x001000\0"


@pytest.mark.usefixtures("container_runtime")
def test_sigkill_after_the_timeout(rootfs):
    act(name="c1", rootfs=rootfs, stop_timeout=1, command=["sh", "-c", "trap '' TERM; sleep 1000; sleep 1000"])
    mine = members(pid())
    act(name="c1", state="absent")
    assert all(gone(each) for each in mine)


def test_no_time_to_end(rootfs):
    act(name="c1", rootfs=rootfs, stop_timeout=0, init=False, command=["sleep", "1000"])
    act(name="c1", rootfs=rootfs, stop_timeout=0, init=False, command=["sleep", "1000"], state="stopped")


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("command, words", [
    (["sh", "-c", "echo out; echo wrong >&2; exit 3"], ["sh -c", "out", "wrong"]),
    (["/no/such/program", "x"], ["/no/such/program", "not found"]), (["/etc"], ["/etc", "ermission denied"])])
def test_a_command_that_ends_at_once(rootfs, init, command, words):
    result = run_module("ns_container", name="c1", rootfs=rootfs, command=command, init=init)
    what = "starting it failed" if command[0].startswith("/") and not init else "it ended at once"
    assert result.failed and not result.changed and f"container c1: {what}" in result.msg
    for each in words:
        assert each in result.msg, result.msg
    assert running_pid("c1") is None
    act(name="c1", rootfs=rootfs)
    act(name="c1", state="absent")


@pytest.mark.usefixtures("container_runtime")
def test_absent_after_the_command_ended_by_itself(host, rootfs):
    empty = host.picture()
    act(name="c1", rootfs=rootfs, command=["sh", "-c", UNTIL_TOLD])
    end()
    eventually(lambda: running_pid("c1") is None, "the command ends")
    act(name="c1", state="absent")
    assert host.picture() == empty


def test_a_rootfs_without_a_shell(rootfs, tmp_path):
    result = run_module("ns_container", name="c1", rootfs=str(tmp_path))
    assert result.failed and "/bin/sh" in result.msg


def test_the_root_of_the_host_is_never_that_of_a_container(rootfs):
    """The last guard, whatever should go wrong before it."""
    result = run_module("ns_container", name="c1", rootfs="/", layer="none", command=["/bin/sleep", "1000"])
    assert result.failed and "the root of c1 would be the host's" in result.msg and running_pid("c1") is None


def test_a_rootfs_that_is_not_there(host, tmp_path):
    missing = str(tmp_path / "none")
    refused(host, "container c1", missing, "alpine_rootfs", name="c1", rootfs=missing)
    result = run_module("ns_container", check=True, name="c1", rootfs=missing)
    assert not result.failed and result.changed and missing in result.warnings[0]


def test_a_bind_that_is_not_there(host, rootfs, tmp_path):
    missing = str(tmp_path / "none")
    wanted = {"name": "c1", "rootfs": rootfs, "binds": [{"source": missing, "dest": "/x"}]}
    refused(host, "container c1", missing, "/x", **wanted)
    result = run_module("ns_container", check=True, **wanted)
    assert not result.failed and missing in result.warnings[0]


# What happened to it meanwhile

@pytest.mark.parametrize("what", ["start", "boot"])
def test_the_pid_of_somebody_else(rootfs, what):
    """After a reboot, or much later, the recorded pid is that of another process: it stays alone."""
    act(name="c1", rootfs=rootfs)
    record = Path(RUN, "c1")
    process, start, boot, *unused = record.read_text(encoding="ascii").split()
    with ended(subprocess.Popen(["sleep", "1000"])) as other:
        stat_ = Path(f"/proc/{other.pid}/stat").read_text(encoding="ascii").split()
        record.write_text(f"{other.pid} {start} {boot}\n" if what == "start"
                          else f"{other.pid} {stat_[21]} 00000000-0000-0000-0000-000000000000\n", encoding="ascii")
        assert running_pid("c1") is None
        done = subprocess.run(launcher("status"), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (3, "c1 does not run: ended\n")
        assert subprocess.run(launcher("stop"), check=False).returncode == 0
        os.kill(int(process), signal.SIGKILL)
        act(name="c1", rootfs=rootfs)
        assert pid() not in (other.pid, int(process))
        act(name="c1", state="absent")
        assert other.poll() is None, "a foreign process was ended"


@pytest.mark.parametrize("record", ["", "\n", "x y z\n", "1\n", "0 0 0\n", "-1 5 5\n", "../1 5 5\n", "99999999 5 5\n"])
def test_a_record_that_makes_no_sense(host, rootfs, record):
    act(name="c1", rootfs=rootfs, state="stopped")
    Path(RUN).mkdir(parents=True, exist_ok=True)
    Path(RUN, "c1").write_text(record, encoding="ascii")
    assert running_pid("c1") is None
    done = subprocess.run(launcher("status"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "c1 does not run\n", "")
    act(name="c1", rootfs=rootfs)


def test_a_process_1_with_a_strange_name(rootfs):
    """A name is up to the process; one with brackets and line ends hides nothing."""
    act(name="c1", rootfs=rootfs, privileged=True, init=False,
        command=["sh", "-c", "printf 'a) Z 1\\nb) X 1\\n' >/proc/1/comm; while :; do sleep 0.05; done"])
    eventually(lambda: b"b)" in Path(f"/proc/{pid()}/stat").read_bytes(), "the name is set")
    assert subprocess.run(launcher("status"), check=False, capture_output=True).returncode == 0
    act(name="c1", state="absent")


def test_process_1_killed_by_hand(rootfs):
    act(name="c1", rootfs=rootfs)
    first = pid()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: running_pid("c1") is None, "it dies")
    repaired = act(name="c1", rootfs=rootfs)
    assert repaired.changes[0]["fields"] == ["state stopped -> started"] and pid() != first


@pytest.mark.parametrize("state", ["started", "stopped"])
@pytest.mark.parametrize("again", [True, False])
def test_the_network_namespace_deleted_by_hand(rootfs, state, again):
    act(name="c1", rootfs=rootfs, state=state)
    first = pid() if state == "started" else None
    sh("ip netns delete c1")
    if again and state == "started":
        sh("ip netns add c1")  # somebody made another, which the container is not in
    elif again:
        sh("touch /run/netns/c1")  # what a crash leaves
    repaired = act(name="c1", rootfs=rootfs, state=state)
    assert "namespace off -> on" in repaired.changes[0]["fields"] and link("c1", "lo")["flags"][-1] != "DOWN"
    if state == "started":  # it still holds its namespace, which gets its name back
        assert pid() == first and os.stat(f"/proc/{first}/ns/net").st_ino == os.stat("/run/netns/c1").st_ino


@pytest.mark.parametrize("path", [f"{STATE}/c1/config.json", PROGRAM])
def test_a_file_edited_by_hand(rootfs, path):
    act(name="c1", rootfs=rootfs)
    first, content = pid(), Path(path).read_bytes()
    sh(f"echo ' ' >>{path}")
    repaired = act(name="c1", rootfs=rootfs)
    assert repaired.changes[0]["action"] == "update" and [os.path.basename(path) in line for line in repaired.commands] == [True, True]
    assert repaired.changes[0]["fields"] == ["bundle off -> on"]
    assert Path(path).read_bytes() == content and pid() == first


@pytest.mark.parametrize("change", [{"hostname": "x"}, {"state": "stopped"}, {"state": "absent"}])
@pytest.mark.parametrize("tamper", ["rm {}", "echo broken >{}", "chmod -x {}"])
def test_a_launcher_that_does_not_run_any_more_stops_containers_all_the_same(rootfs, tamper, change):
    act(name="c1", rootfs=rootfs)
    first = pid()
    sh(tamper.format(PROGRAM))
    act(**{"name": "c1", "rootfs": rootfs, **change})
    assert gone(first)


@pytest.mark.parametrize("state", ["started", "stopped"])
def test_the_loopback_device_down_by_hand(rootfs, state):
    act(name="c1", rootfs=rootfs, state=state)
    sh("ip -n c1 link set lo down")
    repaired = act(name="c1", rootfs=rootfs, state=state)
    assert repaired.commands == ["ip -n c1 link set lo up"] and "UP" in link("c1", "lo")["flags"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\xff", '{"annotations": 5}', "null"])
def test_a_corrupt_record_of_the_settings(host, rootfs, text):
    act(name="c1", rootfs=rootfs)
    Path(STATE, "c1", "config.json").write_text(text, encoding="latin-1")
    for state in "started", "absent":
        refused(host, f"{STATE}/c1/config.json", "restore it, or remove", name="c1", rootfs=rootfs, state=state)
    assert pid()


def test_a_run_that_was_killed_before_it_wrote_the_settings(host, rootfs):
    empty = host.picture()
    os.makedirs(f"{STATE}/c1", mode=0o700)
    os.chmod(STATE, 0o700)
    act(name="c1", rootfs=rootfs)
    assert pid()
    act(name="c1", state="absent")
    os.makedirs(f"{STATE}/c1")
    act(name="c1", state="absent")
    assert host.picture() == empty


def test_a_namespace_of_somebody_else(host, rootfs):
    sh("ip netns add c1")
    for state in "started", "stopped", "restarted":
        for check in True, False:
            refused(host, "container c1", "not made by this collection", check=check, name="c1", rootfs=rootfs, state=state)
    assert not act(name="c1", state="absent").changed, "it is no container"
    act(config=[], prune=True)
    act(name="c2", rootfs=rootfs)
    act(name="c2", state="absent")
    assert os.listdir("/run/netns") == ["c1"] and link("c1", "lo")
    sh("ip netns delete c1")


def test_files_are_roots_alone(rootfs):
    old = os.umask(0)
    try:
        act(name="c1", rootfs=rootfs, env={"PASSWORD": "x"})
    finally:
        os.umask(old)
    modes = {each.name: (oct(each.stat().st_mode & 0o7777), each.stat().st_uid)
             for each in (Path(STATE), Path(STATE, "c1"), *Path(STATE, "c1").iterdir()) if each.name not in ("root", "lower")}
    first = bundle()["linux"]["uidMappings"][0]["hostID"]
    assert modes == {"containers": ("0o700", 0), "c1": ("0o700", 0), "config.json": ("0o600", 0), "layer": ("0o700", 0),
                     "log": ("0o600", first)}
    assert oct(Path(RUN).stat().st_mode & 0o7777) == "0o700"


# Symbolic links that would lead a mount out of the container

@pytest.mark.parametrize("layer", ["none", "disk", "tmpfs"])
@pytest.mark.parametrize("link_, options", [
    ("srv", {"binds": [{"source": "/tmp", "dest": "/srv"}]}), ("srv", {"tmpfs": ["/srv/www"]}),
    ("srv", {"binds": [{"source": __file__, "dest": "/srv/deep/file"}]}), ("proc", {}), ("dev", {}), ("sys", {})])
def test_a_link_at_a_mount_point(rootfs, tmp_path, layer, link_, options):
    private, outside = tmp_path / "rootfs", tmp_path / "outside"
    outside.mkdir()
    shutil.copytree(rootfs, private, symlinks=True)
    shutil.rmtree(private / link_, ignore_errors=True)
    (private / link_).symlink_to(outside)

    def mounts():
        return [line for line in Path("/proc/thread-self/mountinfo").read_text(encoding="ascii").splitlines()
                if " /run/netns" not in line and " /run/fromscratch/users/" not in line]

    before = mounts()
    result = run_module("ns_container", name="c1", rootfs=str(private), layer=layer, **options)
    assert result.failed and f"/{link_} in {private} is a symbolic link" in result.msg
    assert os.listdir(outside) == [] and mounts() == before
    assert running_pid("c1") is None


def test_a_link_that_the_container_made_itself(rootfs, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    wanted = {"name": "c1", "rootfs": rootfs, "tmpfs": ["/data/cache"]}
    act(**wanted)
    inside(f"mv /data /data.old; ln -s {outside} /data")
    result = run_module("ns_container", state="restarted", **wanted)
    assert result.failed and "/data in" in result.msg and os.listdir(outside) == []
    act(name="c1", state="absent")


def test_a_link_below_a_bind(rootfs, tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir(), outside.mkdir()
    (folder / "x").symlink_to(outside)
    result = run_module("ns_container", name="c1", rootfs=rootfs, binds=[
        {"source": str(folder), "dest": "/data"}, {"source": __file__, "dest": "/data/x/file"}])
    assert result.failed and "/data/x in" in result.msg and os.listdir(outside) == []


# By hand

@pytest.mark.usefixtures("container_runtime")
def test_exec(rootfs):
    act(name="c1", rootfs=rootfs)

    def run(*command, **options):
        return subprocess.run(launcher("exec", *command), capture_output=True, check=False, **options)

    assert run("sh", "-c", "exit 42").returncode == 42
    assert run("/no/such/program").returncode == 127 and run("/etc").returncode == 126
    assert run("sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL
    assert run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    data = bytes(range(256)) * 4096
    assert run("cat", input=data).stdout == data
    assert run("sh", "-c", 'printf "%s|" "$@"', "sh", "a b", "", "*", "$HOME").stdout == b"a b||*|$HOME|"
    assert run("pwd").stdout == b"/\n"
    assert len(members(pid())) == 2, "exec left somebody behind"


@pytest.mark.usefixtures("container_runtime")
@pytest.mark.parametrize("before", [[], ["nohup"]])
def test_exec_ends_with_its_caller(rootfs, before):
    act(name="c1", rootfs=rootfs)
    with ended(subprocess.Popen([*before, *launcher("exec", "sleep", "1000")], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)) as caller:
        eventually(lambda: "sleep 1000" in [commandline(each) for each in members(pid())], "it runs")
        caller.terminate()
    eventually(lambda: len(members(pid())) == 2, "it ends")


def test_by_hand(rootfs, tmp_path):
    act(name="c1", rootfs=rootfs)

    def run(*words, **options):
        done = subprocess.run([*words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)
        return done.returncode, done.stdout, done.stderr

    assert run(*launcher("status")) == (0, f"c1 runs, process {pid()}\n", "")
    first = pid()
    assert run(*launcher("start")) == (0, "", "") and pid() == first
    assert run(*launcher("stop")) == (0, "", "") and run(*launcher("stop")) == (0, "", "")
    assert run(*launcher("status")) == (3, "c1 does not run: ended with status 143\n", "")
    assert run(*launcher("wait")) == (0, "143\n", "")
    assert run(*launcher("exec", "true")) == (125, "", "ns-container: c1 does not run: start it with ns-container start c1\n")
    for words in launcher("start"), [LINK, "start", "c1"], launcher("restart"):
        with open(tmp_path / "out", "w+", encoding="utf-8") as out:
            done = subprocess.run(words, cwd=f"{STATE}/c1", stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
                                  env={"PATH": "/usr/bin:/bin"})
            assert done.returncode == 0
        eventually(lambda: running_pid("c1"), "started by hand: " + (tmp_path / "out").read_text(encoding="utf-8"))
        eventually(lambda: len(members(pid())) == 2, "its command runs")
        assert run(*launcher("stop"))[0] == 0
    for words in [], ["start"], ["status", "--no-such", "c1"], ["no-such"]:
        assert run(PROGRAM, *words)[0] == 64


def alone():
    """Whether all that is in the container's network namespace is of one container."""
    return sorted(sh("ip netns pids c1").split()) == sorted(map(str, members(pid())))


@pytest.mark.parametrize("goal", ["absent", "started"])
def test_a_start_that_outlives_its_run_is_waited_for(rootfs, monkeypatch, goal):
    write = record.write
    monkeypatch.setattr(record, "write", lambda *args: time.sleep(1) or write(*args))  # before anybody can know of it
    run_of_its_own = os.fork()
    if run_of_its_own == 0:
        try:
            run_module("ns_container", name="c1", rootfs=rootfs)
        finally:
            os._exit(0)
    eventually(lambda: os.path.exists(f"{STATE}/c1/root"), "its start has begun")
    os.kill(run_of_its_own, signal.SIGKILL)
    os.waitpid(run_of_its_own, 0)
    act(name="c1", rootfs=rootfs, state=goal)
    time.sleep(1.5)
    assert running_pid("c1") is None and not os.path.exists(f"{RUN}/c1") if goal == "absent" else alone()


def test_a_start_that_does_not_come_to_an_end(rootfs, monkeypatch):
    act(name="c1", rootfs=rootfs, state="stopped")
    monkeypatch.setattr(start.Lock.__init__, "__defaults__", (0.2,))
    with start.Lock("c1"):
        found = run_module("ns_container", name="c1", rootfs=rootfs)
    assert found.failed and f"a start of the container in {STATE}/c1 has not come to an end" in found.msg
    assert act(name="c1", rootfs=rootfs).changed


def test_a_log_of_any_size(rootfs):
    """It is the container's own, who may make it what it likes."""
    act(name="c1", rootfs=rootfs, command=["sh", "-c", "echo hello; exit 3"], state="stopped")
    with open(f"{STATE}/c1/log", "wb") as file:
        file.truncate(1 << 42)
    act(name="c1", rootfs=rootfs, command=["sleep", "1000"], state="stopped")
    act(name="c1", state="absent")


def test_a_tree_of_any_depth(rootfs):
    act(name="c1", rootfs=rootfs)
    run_in("cd /tmp; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d; i=$((i + 1)); done")
    act(name="c1", state="absent")
    assert not os.path.exists(f"{STATE}/c1")


def test_limits_are_taken_away_again(rootfs, monkeypatch):
    monkeypatch.setattr(isolation, "without_controller", lambda options: [])
    act(name="c1", rootfs=rootfs, state="stopped", pids=20, memory="64M", cpus=0.5)
    fewer = act(name="c1", rootfs=rootfs, state="stopped", memory="64M")
    assert fewer.changes[0]["fields"] == ["cpus 0.5 -> none", "pids 20 -> none"]
    assert bundle()["linux"]["resources"] == {"memory": {"limit": 64 << 20, "swap": 64 << 20}}
    act(name="c1", rootfs=rootfs, state="stopped")
    assert "resources" not in bundle()["linux"]


def test_without_systemd_another_limit_takes_a_restart(rootfs, monkeypatch):
    """Its cgroup is made when it starts."""
    monkeypatch.setattr(isolation, "without_controller", lambda options: [])
    act(name="c1", rootfs=rootfs)
    commands = run_module("ns_container", check=True, name="c1", rootfs=rootfs, pids=20).commands
    assert [commands[at] for at in (0, -1)] == [line("stop"), line("start")]


def test_a_kernel_that_makes_no_user_namespaces_does_not_let_a_start_wait_for_ever(rootfs, monkeypatch):
    act(name="c1", rootfs=rootfs, state="stopped")
    sh("ip netns delete c1")

    def refused(flags):
        raise OSError(errno.ENOSPC, "no")

    with monkeypatch.context() as patched:
        patched.setattr(syscalls, "unshare", refused)
        with pytest.raises(OSError, match="unshare of the namespaces of c1: No space left"):
            namespaces.provide("c1", 1 << 20, spec.RANGE)
    act(name="c1", rootfs=rootfs)


@pytest.mark.usefixtures("container_runtime")
def test_a_bind_is_no_more_than_what_it_shows(rootfs, tmp_path):
    """What is mounted read-only on the host is that inside as well, and has the other options that it has there."""
    for name in "top", "top/below", "exec":
        (tmp_path / name).mkdir()
    sh(f"mount -t tmpfs -o ro,noexec own {tmp_path}/top", f"mount -t tmpfs -o noexec own {tmp_path}/exec")
    try:
        act(name="c1", rootfs=rootfs, binds=[{"source": str(tmp_path / "top"), "dest": "/top"},
                                             {"source": str(tmp_path / "exec"), "dest": "/exec", "read_only": True}])
        options = {line.split()[4]: line.split()[5].split(",") for line in inside("cat /proc/self/mountinfo").splitlines()}
        assert {"ro", "noexec", "nodev"} <= set(options["/top"]) and {"ro", "noexec", "nodev"} <= set(options["/exec"])
        assert run_in("touch /top/file").returncode != 0
    finally:
        act(name="c1", state="absent")
        sh(f"umount {tmp_path}/top {tmp_path}/exec")


def test_binds_come_from_the_outside_in_and_each_has_its_options(rootfs, tmp_path):
    """In whichever order they are given, and with mounts below that have blanks in their names."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    (outer / "in-it").mkdir(parents=True)
    (outer / "below it").mkdir()
    inner.mkdir()
    sh(f"mount -t tmpfs below '{outer}/below it'")
    binds = [{"source": str(inner), "dest": "/a-b/in-it", "read_only": True}, {"source": str(outer), "dest": "/a-b"}]
    try:
        for each in binds, binds[::-1]:
            act(name="c1", rootfs=rootfs, binds=each)
            options = {line.split()[4]: line.split()[5].split(",") for line in inside("cat /proc/self/mountinfo").splitlines()}
            found = [options[f"/a-b{below}"] for below in ("", "/in-it", "/below\\040it")]
            assert all("nodev" in each for each in found) and ["ro" in each for each in found] == [False, True, False]
        assert not run_module("ns_container", name="c1", rootfs=rootfs, binds=binds).changed, "the order does not count"
    finally:
        act(name="c1", state="absent")
        sh(f"umount '{outer}/below it'")


@pytest.mark.usefixtures("container_runtime")
def test_two_starts_at_once(rootfs):
    act(name="c1", rootfs=rootfs, state="stopped")
    starts = [subprocess.Popen(launcher("start"), stdin=subprocess.DEVNULL) for unused in range(4)]
    assert [each.wait() for each in starts] == [0] * 4
    eventually(lambda: len(members(pid())) == 2, "its command runs")
    assert alone()


def test_a_container_can_be_ended_as_soon_as_it_has_started(rootfs, monkeypatch):
    assert spec.INIT.count("child=$!\n") == 1
    monkeypatch.setattr(spec, "INIT", spec.INIT.replace("child=$!\n", "sleep 1\nchild=$!\n"))
    act(name="c1", rootfs=rootfs)
    os.kill(pid(), signal.SIGTERM)
    eventually(lambda: running_pid("c1") is None, "it ends")
    assert log().splitlines()[-1] == "ended with status 143"


def test_the_cable_of_a_namespace_without_its_name_is_still_seen(rootfs, scene):
    act(name="c1", rootfs=rootfs)
    cable = {"name": "ve-c1", "netns": scene.netns(), "container": "c1", "addresses": ["10.0.0.1/24"]}
    assert run_module("veth_pair", **cable).changed
    sh("ip netns delete c1")
    assert not run_module("veth_pair", check=True, **cable).changed
    act(name="c1", rootfs=rootfs)
    assert not run_module("veth_pair", **cable).changed
