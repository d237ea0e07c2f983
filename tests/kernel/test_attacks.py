# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts on what starts and enters containers: each worked while that was a chain of shell commands."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import enter, start
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import RUN, STATE

from .support.containers import act, inside, launcher, log, pid, run_in
from .support.modules import run_module
from .support.namespaces import sh
from .support.processes import eventually, members
from .support.remote import python_rootfs
from .support.terminals import in_terminal

pytestmark = pytest.mark.usefixtures("host")

SECRET = "of the host alone"  # noqa: S105 (no password)
HOST = {"userns": "host"}
MODES = {
    "default": {}, "host": HOST, "no rights": {**HOST, "capabilities": {"drop": ["all"]}},
    "tracer": {**HOST, "capabilities": {"add": ["sys_ptrace"]}}, "all rights": {"capabilities": {"add": ["all"]}}}


@pytest.fixture
def secret(tmp_path):
    """A file of the host, and its path."""
    path = tmp_path / "secret"
    path.write_text(SECRET, encoding="ascii")
    return path


@contextlib.contextmanager
def meanwhile(act):
    """Does something again and again, beside the test."""
    over = threading.Event()

    def again():
        while not over.is_set():
            act()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("mode", MODES)
def test_what_enters_a_container_does_not_show_the_root_of_the_host(rootfs, secret, mode):
    """Programs inside that look at /proc/N/root of all that comes, and at what it was run from (CVE-2016-9962)."""
    look = (f"while :; do for each in /proc/[0-9]*; do [ ! -e $each/root{secret} ] || echo $each >>/found; "
            "exe=$(readlink $each/exe); case $exe in *python*|*memfd*) echo $each $exe >>/exe;; esac; done; done")
    act(name="c1", rootfs=rootfs, command=["sh", "-c", f"touch /found; for each in 1 2; do ({look}) & done; wait"], **MODES[mode])
    for unused in range(12):
        assert run_in("true").returncode == 0
    assert inside("cat /found") == "", "the host's files"
    programs = {line.partition(" ")[2] for line in inside("cat /exe || :").splitlines()}
    assert all(program.startswith("/memfd:ns-container") for program in programs), "a program of the host that root inside may write to"


def shown(process):
    """What a process shows to those who may look at it: namespaces, root, descriptors, ids and rights."""
    def read(path):
        return os.readlink(f"/proc/{process}/{path}")

    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines())
    rights = {key: int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    same = {key: " ".join(status[key].split()) for key in ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp")}
    same.update({kind: read(f"ns/{kind}") for kind in os.listdir(f"/proc/{process}/ns")})
    root = os.stat(f"/proc/{process}/root")
    directory = Path(f"/proc/{process}/fd")
    return rights, {**same, "root": (root.st_dev, root.st_ino)}, [os.readlink(each) for each in directory.iterdir() if int(each.name) > 2]


@pytest.mark.parametrize("mode", MODES)
def test_what_enters_a_container_is_confined_from_its_first_moment(rootfs, mode):
    """The process that the fork into the pid namespace makes is stopped there, before it does anything."""
    act(name="c1", rootfs=rootfs, init=False, user="7:8", command=["sleep", "1000"], **MODES[mode])
    fork, own = os.fork, os.readlink("/proc/self/ns/pid")

    def stopped_inside():
        child = fork()
        if child == 0 and os.readlink("/proc/self/ns/pid") != own:
            os.kill(os.getpid(), signal.SIGSTOP)
        return child

    caller = fork()
    if caller == 0:
        os.fork = stopped_inside
        code = 1
        with contextlib.suppress(BaseException):
            code = enter.run("c1", ["sleep", "0"])
        os._exit(code)

    def state(process):
        with contextlib.suppress(OSError):
            return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]

    eventually(lambda: any(state(each) == "T" for each in members(pid())), "it has come")
    entered = next(each for each in members(pid()) if state(each) == "T")
    try:
        (rights, same, descriptors), (allowed, wanted, unused) = shown(entered), shown(pid())
        assert same == wanted
        assert not {key: hex(found & ~allowed[key]) for key, found in rights.items() if found & ~allowed[key]}, "more rights than process 1"
        assert all(each.startswith(("pipe:", "socket:")) for each in descriptors), descriptors
        assert os.stat(f"/proc/{entered}/fd").st_uid == 0, "who can be looked into belongs to a user of the container"
    finally:
        os.kill(entered, signal.SIGCONT)
        code = os.waitpid(caller, 0)[1]
    assert code == 0


@pytest.fixture
def hostile(tmp_path):
    """A root filesystem in which Python runs, a program that tries to write to what it is run from, and a Python of the host."""
    options = python_rootfs(tmp_path / "python")
    program = tmp_path / "python" / "own"
    program.write_text("""#!/proc/self/exe
import os, sys
found = os.open("/proc/self/exe", os.O_RDONLY)
os.set_inheritable(found, True)
if sys.argv[1:] and os.fork():  # until who has run it is gone
    sys.exit()
if sys.argv[1:]:
    os.setsid()
    os.dup2(os.open("/said", os.O_WRONLY | os.O_CREAT), 1)
os.write(1, b"has it\\n")
os.execv("/bin/sh", ["sh", "-c", "n=0; while [ $n -lt 50 ]; do n=$((n + 1)); (echo overwritten >/proc/self/fd/%d) 2>/dev/null && "
                     "echo written; sleep 0.02; done; echo over" % found])
""", encoding="ascii")
    program.chmod(0o755)
    python = tmp_path / "host-python"
    shutil.copy("/usr/bin/python3", python)
    return options, str(python)


@pytest.mark.parametrize("verb", ["start", "exec"])
def test_the_program_that_starts_a_container_cannot_be_overwritten(hostile, verb):
    """By ``#!/proc/self/exe``, which is the host's Python with what the container gives it to load (CVE-2019-5736)."""
    options, python = hostile
    before = Path(python).read_bytes()
    command = ["/own"] if verb == "start" else ["sleep", "1000"]
    act(name="c1", command=command, init=False, state="stopped", userns="host", **options)
    subprocess.run([python, "-I", PROGRAM, "start", "c1"], check=True, timeout=60)
    if verb == "exec":
        subprocess.run([python, "-I", PROGRAM, "exec", "c1", "/own", "away"], check=True, stdin=subprocess.DEVNULL, timeout=60)
        said = Path(STATE, "c1/layer/upper/said")
        eventually(lambda: said.exists() and "over" in said.read_text(encoding="ascii").splitlines(), "it has tried")
        said = said.read_text(encoding="ascii")
    else:
        eventually(lambda: "over" in log().splitlines(), "it has tried")
        said = log()
    assert "has it" in said and "written" not in said, said
    assert Path(python).read_bytes() == before


def test_what_is_in_env_stands_in_no_command_line(rootfs):
    act(name="c1", rootfs=rootfs, env={"PASSWORD": SECRET}, state="stopped")
    seen = []

    def look():
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if SECRET.encode() in each.read_bytes():
                    seen.append(each)

    with meanwhile(look):
        for unused in range(3):
            subprocess.run(launcher("start"), check=True)
            assert inside("echo $PASSWORD") == SECRET
            subprocess.run([PROGRAM, "exec", "-e", "OTHER", "c1", "true"], env={**os.environ, "OTHER": SECRET}, check=True)
            subprocess.run(launcher("stop"), check=True)
    assert seen == []


def test_a_race_on_a_mount_point_below_a_bind_leads_nowhere(rootfs, tmp_path):
    """What another container that can write there replaces meanwhile by a link (CVE-2021-30465)."""
    shared, outside = tmp_path / "shared", tmp_path / "outside"
    shared.mkdir(), outside.mkdir()
    victim = outside / "file"
    victim.write_text(SECRET, encoding="ascii")
    (shared / "link").symlink_to(outside)
    (shared / "x").mkdir()

    def swap():
        for pair in ("x", "away"), ("link", "x"), ("x", "link"), ("away", "x"):
            with contextlib.suppress(OSError):
                os.rename(shared / pair[0], shared / pair[1])
                time.sleep(0.0005)

    act(name="c1", rootfs=rootfs, state="stopped", binds=[
        {"source": str(shared), "dest": "/data"}, {"source": __file__, "dest": "/data/x/file"}, {"source": __file__, "dest": "/data/x/new"}])
    with meanwhile(swap):
        for unused in range(15):
            subprocess.run(launcher("start"), check=False, capture_output=True)
            subprocess.run(launcher("stop"), check=False, capture_output=True)
    assert victim.read_text(encoding="ascii") == SECRET and os.listdir(outside) == ["file"]


@pytest.mark.parametrize("init", [True, False])
def test_no_descriptor_of_the_caller_is_open_inside(rootfs, secret, init):
    act(name="c1", rootfs=rootfs, init=init, state="stopped")
    folder = os.open(secret.parent, os.O_RDONLY)
    with open(secret, "rb") as file:
        for number in file.fileno(), folder:
            os.set_inheritable(number, True)
        subprocess.run(launcher("start"), check=True, close_fds=False)
        found = subprocess.run(launcher("exec", "ls", "-l", "/proc/self/fd"), check=True, close_fds=False, capture_output=True, text=True)
    os.close(folder)
    assert {line.split()[-3] for line in found.stdout.splitlines() if "->" in line} <= {"0", "1", "2", "3"} and str(secret.parent) not in found.stdout
    for process in members(pid()):
        own = {each: os.readlink(f"/proc/{process}/fd/{each}") for each in os.listdir(f"/proc/{process}/fd")}
        assert all(each in "012" or path == "/bin/busybox" for each, path in own.items()), own


@pytest.mark.parametrize("redirection", ["</dev/null", ">/dev/null", "2>/dev/null", "</dev/null 2>/dev/null", ""])
def test_a_terminal_of_the_caller_is_for_nobody_inside(rootfs, redirection):
    """Who outlives the command would go on reading from it, by whichever descriptor."""
    act(name="c1", rootfs=rootfs)
    script = "(for each in 0 1 2; do [ ! -t $each ] || stat -Lc '%d' /proc/self/fd/$each; done) >/found; echo shown"
    said, outer = in_terminal(["sh", "-c", f"{PROGRAM} exec c1 sh -c \"{script.replace('$', chr(92) + '$')}\" {redirection}"])
    assert outer not in inside("cat /found").split() and ("shown" in said or redirection.startswith(">"))


def test_nothing_of_a_start_can_be_opened_by_users_of_the_host(rootfs):
    act(name="c1", rootfs=rootfs)
    inside("cp /bin/busybox /own; chmod 4755 /own")
    kinds = [stat.S_IFMT(os.lstat(path).st_mode) for path in Path("/run/fromscratch").rglob("*")]
    assert not {stat.S_IFIFO, stat.S_IFSOCK} & set(kinds)
    for path in RUN, STATE, f"{STATE}/c1/layer/upper/own":
        done = subprocess.run(["ls", path], user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False)
        assert done.returncode and "denied" in done.stderr, path
    run_module("ns_container", name="c1", rootfs=rootfs, command=["/no/such"], init=False)
    with start.Lock("c1", 0):
        pass


def test_dev_has_room_for_names_only(rootfs):
    act(name="c1", rootfs=rootfs)
    assert int(inside("n=0; while [ $n -lt 2000 ] && touch /dev/$n 2>/dev/null; do n=$((n + 1)); done; echo $n")) < 600


def test_what_is_in_env_reaches_no_program_of_the_host(rootfs, tmp_path):
    traced = tmp_path / "traced"
    traced.mkdir(mode=0o777)
    act(name="c1", rootfs=rootfs, userns="host", env={"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": f"{traced}/it", "LD_LIBRARY_PATH": str(traced)})
    assert run_in("true").returncode == 0 and os.listdir(traced) == []


def test_a_link_in_place_of_a_file_is_replaced_in_the_layer(rootfs, tmp_path):
    private, mine = tmp_path / "rootfs", tmp_path / "resolv.conf"
    sh(f"cp -a {rootfs} {private}", f"rm -f {private}/etc/resolv.conf", f"ln -s ../run/stub.conf {private}/etc/resolv.conf")
    mine.write_text("nameserver 192.0.2.53\n", encoding="ascii")
    act(name="c1", rootfs=str(private), binds=[{"source": str(mine), "dest": "/etc/resolv.conf", "read_only": True}])
    assert inside("cat /etc/resolv.conf; ls -l /etc/resolv.conf | cut -c1; ls /run").split() == ["nameserver", "192.0.2.53", "-"]
    assert (private / "etc/resolv.conf").is_symlink()


def test_it_runs_under_the_python_of_the_host_alone(rootfs, tmp_path):
    """Nothing that an administrator's environment adds to Python is looked at by a program of root's."""
    act(name="c1", rootfs=rootfs)
    (tmp_path / "json.py").write_text("raise SystemExit('loaded')", encoding="ascii")
    done = subprocess.run(launcher("exec", "echo", "fine"), cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert sys.prefix not in Path(PROGRAM).read_text(encoding="utf-8")
