# SPDX-License-Identifier: GPL-3.0-or-later
"""Attempts to get out of a container, or to take more than its share: each of them fails, with and without a user namespace."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import isolation, spec
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import seccomp, start, syscalls
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.mounts import NODES as DEVICES
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import STATE
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import running as running_pid

from .support.containers import MARKER, UNTIL_TOLD, act, bundle, end, inside, log, pid, run_in
from .support.modules import run_module
from .support.namespaces import sh
from .support.processes import eventually, members, status_of
from .support.terminals import in_terminal

pytestmark = pytest.mark.usefixtures("host")

USERNS = ["auto", "host"]
SECRET = "of the host alone"  # noqa: S105 (no password)


@pytest.fixture(params=USERNS)
def userns(request, rootfs):
    why = isolation.refusal(rootfs)
    if request.param == "auto" and why:
        pytest.skip(f"no user namespace: {why}")
    return request.param


@pytest.fixture
def c1(userns, rootfs):
    """A container, and the pid of its process 1."""
    act(name="c1", rootfs=rootfs, userns=userns)
    return pid()


@pytest.fixture
def secret(tmp_path):
    """A file of the host."""
    path = tmp_path / "secret"
    path.write_text(SECRET, encoding="ascii")
    return path


@pytest.mark.parametrize("before, after", [("host", "auto"), ("auto", "host")])
def test_other_user_ids_for_what_a_container_has_written_are_refused(rootfs, host, before, after):
    if isolation.refusal(rootfs):
        pytest.skip(f"no user namespace: {isolation.refusal(rootfs)}")
    act(name="c1", rootfs=rootfs, userns=before)
    first = pid()
    inside("echo x >/srv/mine")
    found = run_module("ns_container", name="c1", rootfs=rootfs, userns=after)
    assert found.failed and "userns" in found.msg and f"rm -r {STATE}/c1/layer" in found.msg and pid() == first
    assert any("userns" in each for each in run_module("ns_container", check=True, name="c1", rootfs=rootfs, userns=after).warnings)
    act(name="c1", rootfs=rootfs, userns=before, state="stopped")
    sh(f"rm -r {STATE}/c1/layer")
    act(name="c1", rootfs=rootfs, userns=after)
    assert run_in("cat /srv/mine").returncode != 0


# Out of the root

@pytest.mark.parametrize("init", [True, False])
def test_a_shell_of_the_containers_own_gets_no_way_to_the_host(rootfs, userns, host, tmp_path, init):
    """/bin/sh is the first program of the container's files that runs."""
    private = tmp_path / "rootfs"
    sh(f"cp -a {rootfs} {private}", f"rm {private}/bin/sh")
    (private / "bin" / "sh").write_text("""#!/bin/busybox sh
for fd in 3 4 5 6 7 8 9; do
    if [ -d /proc/self/fd/$fd ]; then
        echo "$fd is a directory: $(ls /proc/self/fd/$fd/..)"
    elif [ -e /proc/self/fd/$fd ]; then
        echo "$fd is $(readlink /proc/self/fd/$fd)"
    fi
done >/found
exec /bin/busybox sh "$@"
""", encoding="ascii")
    (private / "bin" / "sh").chmod(0o755)
    act(name="c1", rootfs=str(private), userns=userns, init=init, command=["/bin/sh", "-c", "exec /bin/sleep infinity"])
    found = Path(STATE, "c1", "layer", "upper", "found").read_text(encoding="ascii").splitlines()
    assert found == []


def test_a_shell_of_the_containers_own_holds_up_nobody(rootfs, userns, host, tmp_path):
    """It may keep what it is given."""
    private = tmp_path / "rootfs"
    sh(f"cp -a {rootfs} {private}", f"rm {private}/bin/sh")
    (private / "bin" / "sh").write_text('#!/bin/busybox sh\nexec /bin/busybox sleep infinity\n', encoding="ascii")
    (private / "bin" / "sh").chmod(0o755)
    assert not run_module("ns_container", name="c1", rootfs=str(private), userns=userns).failed
    with start.Lock("c1", 1):
        pass


def escape(secret, command):
    found = run_in(command)
    assert SECRET not in found.stdout + found.stderr, f"{command}: {found.stdout}"
    assert secret.read_text(encoding="ascii") == SECRET
    return found


def test_by_chroot(c1, secret):
    """The classic: chroot elsewhere, and walk up from the directory that stayed behind."""
    escape(secret, f"mkdir /tmp/x; chroot /tmp/x true; cd /; chroot . sh -c 'cd ../../../../../../../..; cat .{secret}'")
    escape(secret, f"cat {'../' * 20}{secret}")


def test_by_proc_1_root(c1, secret):
    for where in "/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/1/fd/3":
        escape(secret, f"cat {where}{secret}")
    for each in members(c1):
        for name in os.listdir(f"/proc/{each}/fd"):
            assert os.readlink(f"/proc/{each}/fd/{name}") in ("/dev/null", "/bin/busybox") or (
                os.path.samefile(f"/proc/{each}/fd/{name}", f"{STATE}/c1/log"))
        assert os.readlink(f"/proc/{each}/root").endswith("/")
    assert inside("ls -A / | grep -c old || :") == "0"


@pytest.mark.parametrize("where", ["/", "/dev", "/dev/shm", "/tmp", "/bound/deep"])
def test_by_a_device_node(userns, rootfs, tmp_path, where):
    """Making one is allowed where root is root and has the capability; opening it is not, whatever it is on."""
    bound = tmp_path / "bound"
    (bound / "deep").mkdir(parents=True)
    sh(f"mount -t tmpfs deep {bound}/deep")
    try:
        act(name="c1", rootfs=rootfs, userns=userns, tmpfs=["/tmp:mode=1777"],
            capabilities={"add": ["mknod"]}, **({"binds": [{"source": str(bound), "dest": "/bound"}]} if where.startswith("/bound") else {}))
        major, minor = os.major(os.stat("/dev/null").st_rdev), os.minor(os.stat("/dev/null").st_rdev)
        found = run_in(f"mknod {where}/own c {major} {minor} && echo made; : <{where}/own && echo opened")
        assert "opened" not in found.stdout, found.stdout
        assert ("made" in found.stdout) == (userns == "host"), "nobody may make one"
    finally:
        run_module("ns_container", name="c1", state="absent")
        sh(f"umount {bound}/deep")


def test_by_the_hosts_own_device_nodes(userns, rootfs):
    """Whose owner and mode are nobody's to change inside, and whose neighbours are not to be reached."""
    before = {each: os.stat(f"/dev/{each}") for each in DEVICES}
    act(config=[{"name": "c1", "rootfs": rootfs, "userns": userns}, {"name": "c2", "rootfs": rootfs, "privileged": True}])
    own = f"{before['null'].st_dev}:{before['null'].st_ino}"
    for name in ("c1", "c2"):
        if name == "c2" or userns == "host":
            assert inside("stat -c %d:%i /dev/null", name) != own, "it would be the host's own that is changed next"
        for each in (*DEVICES, "console"):
            run_in(f"chmod 600 /dev/{each}; chown 5:5 /dev/{each}", name)
        for each, was in before.items():
            now = os.stat(f"/dev/{each}")
            assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)
    assert inside("ls -d /dev/nodes /nodes 2>/dev/null | wc -l") == "0"


def test_by_a_user_namespace_inside(rootfs):
    """In one of its own, root inside could mount, and reach much of the kernel that it has no business with."""
    why = isolation.refusal(rootfs)
    if why:
        pytest.skip(why)
    act(name="c1", rootfs=rootfs)
    for attempt in "unshare -U true", "unshare -Ur mount -t tmpfs x /mnt", "echo 9 >/proc/sys/user/max_user_namespaces":
        assert run_in(attempt).returncode != 0, attempt
    subprocess.run([PROGRAM, "stop", "c1"], check=True)
    sh("ip netns delete c1")
    subprocess.run([PROGRAM, "start", "c1"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: run_in("true").returncode == 0, "it runs in namespaces that the script has made")
    assert run_in("unshare -U true").returncode != 0


def test_by_exec_while_it_starts(c1):
    """Until the root is changed, that of process 1 is the host's: nobody enters it then."""
    record = Path("/run/fromscratch/containers/c1")
    stat = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    was = record.read_text(encoding="ascii")
    record.write_text(f"{os.getpid()}\n{stat[19]}\n{was.split()[2]}\n", encoding="ascii")
    found = subprocess.run([PROGRAM, "exec", "c1", "true"], check=False, capture_output=True, text=True)
    record.write_text(was, encoding="ascii")
    assert (found.returncode, found.stderr) == (125, "ns-container: c1 is only just starting: try again\n")


def test_exec_leaks_neither_files_nor_terminal(c1, secret):
    found = subprocess.run(["sh", "-c", f"exec 9<{secret}; exec {PROGRAM} exec c1 sh -c 'ls /proc/self/fd'"], check=True,
                           capture_output=True, text=True)
    assert set(found.stdout.split()) <= {"0", "1", "2", "3"}, "3 is that of ls"
    said, unused = in_terminal(["sh", "-c", f"{PROGRAM} exec c1 sh -c ': >/dev/tty && echo reached' </dev/null 2>&1"])
    assert "reached" not in said and "/dev/tty" in said


def test_by_mount(c1):
    for attempt in ("mount -t tmpfs x /mnt", "mount -t proc x /mnt", "mount --bind /proc /mnt", "mount -o remount,rw /sys",
                    "umount /proc/sys", "umount /proc", "mount -t sysfs x /mnt", "mount -t cgroup2 x /mnt"):
        assert run_in(attempt).returncode != 0, attempt
        assert run_in(f"unshare -m {attempt}").returncode != 0, f"in a mount namespace of its own: {attempt}"


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
                                  "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper",
                                  "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_by_the_settings_of_the_kernel(c1, path):
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert run_in(f"mount -o remount,rw {path}; mount -o remount,rw /proc/sys; mount -o remount,rw /sys; : >>{path}").returncode != 0


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/sys/firmware",
                                  "/sys/devices/virtual/powercap", "/proc/acpi", "/proc/scsi"])
def test_what_is_hidden(c1, path):
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert inside(f"ls -A {path} | wc -l" if os.path.isdir(path) else f"head -c 10 {path} | wc -c") == "0"


def test_by_ptrace_of_a_process_of_the_host(c1):
    """It has no pid inside; nor has who would be reached by the pid that it has outside."""
    own = os.getpid()
    assert inside(f"kill -0 {own} && echo reached || :") == "" or own in members(c1)
    assert len(inside("ls -d /proc/[0-9]*").split()) <= 5
    tracer = ("import ctypes,sys; libc=ctypes.CDLL(None,use_errno=True); r=libc.ptrace(16,int(sys.argv[1]),0,0); "
              "sys.exit(0 if r==0 else ctypes.get_errno())")
    assert subprocess.run(["nsenter", "-t", str(c1), "-p", "-U" if os.readlink(f"/proc/{c1}/ns/user") != os.readlink(
        "/proc/self/ns/user") else "-i", "python3", "-c", tracer, str(own)], check=False, capture_output=True).returncode == 3


def test_by_a_kernel_module(c1):
    for attempt in "insmod /bin/busybox", "modprobe dummy", "rmmod dummy":
        assert run_in(attempt).returncode != 0, attempt
    assert "CAP_SYS_MODULE" not in bundle()["process"]["capabilities"]["bounding"]


def test_by_a_set_user_id_program(userns, rootfs):
    """Of a user without rights, a program with the bit and root as its owner makes no root."""
    act(name="c1", rootfs=rootfs, userns=userns)
    if not Path(rootfs, "usr/bin/scanelf").exists():
        pytest.skip("the root filesystem has no scanelf, which busybox, that gives such rights up, cannot stand in for")
    inside("cp /usr/bin/scanelf /own; chmod 4755 /own; cp /bin/busybox /for-root; chmod 400 /for-root; adduser -D -H somebody")
    reads = "su somebody -s /bin/sh -c '/own -F %a /for-root'"
    assert "EM_" not in run_in(reads).stdout
    act(name="c1", rootfs=rootfs, userns=userns, no_new_privs=False)
    assert "EM_" in inside(reads), "and asked not to, it lets it"


def test_by_a_raw_socket_on_the_network_of_the_host(c1):
    """There is none to be had but its own: a raw socket sees nothing of the host's."""
    assert os.readlink(f"/proc/{c1}/ns/net") != os.readlink("/proc/self/ns/net")
    assert inside("ls /sys/class/net") == "lo" and run_in("nsenter --net=/proc/1/ns/net ip link add x type bridge").returncode != 0
    assert run_in("ip link set lo mtu 1000").returncode != 0, "nor are its own links for it to change"


LINKS = ("proc", "sys", "dev", "dev/pts", "dev/shm", "dev/null", "dev/console", "dev/ptmx", "dev/fd", "etc/hosts", "etc/new", "srv")


@pytest.mark.parametrize("name", LINKS)
def test_by_a_link_in_the_root_filesystem(userns, rootfs, tmp_path, name):
    """For each path that is written to or mounted on at a start, a link to a file or directory of the host."""
    private, outside, victim = tmp_path / "rootfs", tmp_path / "outside", tmp_path / "victim"
    sh(f"cp -a {rootfs} {private}")
    outside.mkdir()
    victim.write_text(SECRET, encoding="ascii")
    link = private / name
    sh(f"rm -rf {link}")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if name in ("proc", "sys", "dev", "dev/pts", "dev/shm", "srv") else
                    outside / "new" if name == "etc/new" else victim)
    before = Path("/proc/thread-self/mountinfo").read_text(encoding="ascii").count(str(tmp_path))
    run_module("ns_container", name="c1", rootfs=str(private), userns=userns, tmpfs=["/srv"],
               binds=[{"source": __file__, "dest": f"/etc/{each}", "read_only": True} for each in ("hosts", "new")])
    assert victim.read_text(encoding="ascii") == SECRET and os.listdir(outside) == []
    assert Path("/proc/thread-self/mountinfo").read_text(encoding="ascii").count(str(tmp_path)) == before
    run_module("ns_container", name="c1", state="absent")
    assert victim.read_text(encoding="ascii") == SECRET and outside.is_dir()


# More than its share

def test_by_a_fork_bomb(userns, rootfs):
    """With a limit it stays inside; with cgroup v2 or systemd, pids does the same for all its processes together."""
    if userns == "host":
        pytest.skip("a limit of processes counts all those of a user of the host, which is root here")
    act(name="c1", rootfs=rootfs, userns=userns, ulimits={"nproc": 50})
    bomb = subprocess.Popen([PROGRAM, "exec", "c1", "sh", "-c",
                             f"[ -e {MARKER} ] || exit 99; bomb() {{ bomb | bomb & }}; bomb 2>/dev/null; sleep 1"])
    try:
        assert bomb.wait(60) != 99
        assert len(members(pid())) <= 51
        assert sh("echo fine") == "fine\n"
    finally:
        act(name="c1", state="absent")


def test_by_filling_memory(userns, rootfs):
    """The file systems in memory have an end, and so has a process that is told one."""
    act(name="c1", rootfs=rootfs, userns=userns, ulimits={"as": 64 * 1024 * 1024})
    first = pid()
    assert "No space" in run_in("dd if=/dev/zero of=/dev/shm/x bs=1M count=100 2>&1; rm /dev/shm/x").stdout
    assert "No space" in run_in("dd if=/dev/zero of=/dev/x bs=1k count=100 2>&1; rm /dev/x").stdout
    eater = run_in("dd if=/dev/zero of=/dev/null bs=200M count=1")
    assert eater.returncode != 0 and pid() == first and inside("echo fine") == "fine"


# What a container is given

def test_root_is_nobody_outside(rootfs):
    why = isolation.refusal(rootfs)
    if why:
        pytest.skip(why)
    made = act(config=[{"name": "c1", "rootfs": rootfs}, {"name": "c2", "rootfs": rootfs}])
    firsts = [each["first_uid"] for each in made.observed]
    assert abs(firsts[0] - firsts[1]) >= spec.RANGE and min(firsts) >= isolation.LOWEST
    for name, first in zip(("c1", "c2"), firsts):
        for process in members(pid(name)):
            assert status_of(process, "Uid", "Gid") == ["\t".join([str(first)] * 4)] * 2
        assert inside("id -u; stat -c %u:%g /etc/passwd /; echo x >/own; stat -c %u /own", name).split() == [
            "0", "0:0", "0:0", "0"]
        assert os.stat(f"{STATE}/{name}/layer/upper/own").st_uid == first
    assert os.stat(f"{rootfs}/etc/passwd").st_uid == 0, "the root filesystem itself is as it was"
    inside("chown 1000:1000 /etc/passwd; rm /bin/ls")
    assert os.stat(f"{rootfs}/etc/passwd").st_uid == 0 and Path(rootfs, "bin/ls").is_symlink()


def test_rights_over_its_own_network_stay(c1, rootfs):
    """Ports below 1024, and ping without a raw socket."""
    with subprocess.Popen([PROGRAM, "exec", "c1", "nc", "-l", "-p", "80"]) as listening:
        eventually(lambda: ":0050" in Path(f"/proc/{c1}/net/tcp6").read_text(encoding="ascii") + Path(
            f"/proc/{c1}/net/tcp").read_text(encoding="ascii"), "it listens")
        listening.terminate()
    if Path(rootfs, "etc/alpine-release").exists():  # Debian's busybox has no other way
        assert "0% packet loss" in inside("ping -c1 127.0.0.1")
    assert "not permitted" in run_in("arping -c1 -w1 -I lo 127.0.0.1").stderr
    act(name="c1", rootfs=rootfs, capabilities={"add": ["net_raw"]}, **({} if mapped(c1) else {"userns": "host"}))
    assert run_in("arping -c1 -w1 -I lo 127.0.0.1").stderr.count("not permitted") == 0


def mapped(process):
    return os.readlink(f"/proc/{process}/ns/user") != os.readlink("/proc/self/ns/user")


@pytest.mark.parametrize("options, why", [
    ({"privileged": True}, "privileged"), ({"layer": "none"}, "writes to the root filesystem itself"),
    ({"binds": [{"source": "/proc/sys", "dest": "/mnt"}]}, "writes to files of the host"), ({"userns": "host"}, "the option says so")])
def test_where_there_is_no_user_namespace_the_result_says_why(rootfs, options, why):
    made = act(name="c1", rootfs=rootfs, **options)
    assert why in made.observed[0]["userns_reason"] and made.observed[0]["userns"] is False
    assert not mapped(pid()) and any(why in each for each in made.warnings) == ("layer" in options or "binds" in options)
    if "userns" not in options:
        found = run_module("ns_container", name="c1", rootfs=rootfs, **options, userns="auto")
        assert found.failed and found.msg.startswith("userns: 'auto' is not valid: ") and why in found.msg


def test_a_host_that_cannot(rootfs, monkeypatch):
    monkeypatch.setattr(isolation, "SINCE", {})
    found = run_module("ns_container", name="c1", rootfs=rootfs, userns="auto")
    assert found.failed and "whose files cannot be shown with other owners" in found.msg and "set it to host" in found.msg
    assert "whose files cannot be shown" in act(name="c1", rootfs=rootfs).observed[0]["userns_reason"]
    monkeypatch.setattr(isolation, "SINCE", {"ext4": (99, 0), "tmpfs": (99, 0), "xfs": (99, 0), "btrfs": (99, 0)})
    assert "since Linux 99.0" in run_module("ns_container", name="c2", rootfs=rootfs, userns="auto").msg


def test_a_host_that_has_no_user_ids_left(rootfs, monkeypatch):
    why = isolation.refusal(rootfs)
    if why:
        pytest.skip(f"no user namespace: {why}")
    monkeypatch.setattr(isolation, "delegated", lambda: [(0, 1 << 32)])
    found = run_module("ns_container", name="c1", rootfs=rootfs, userns="auto")
    assert found.failed and "all user ids that there are for containers are taken" in found.msg and "set it to host" in found.msg
    assert "are taken, by others or in /etc/subuid" in act(name="c1", rootfs=rootfs).observed[0]["userns_reason"]


def test_from_one_to_the_other_and_back(userns, rootfs, scene):
    """The network namespace goes with the user namespace that it belongs to, and the links in it with it."""
    act(name="c1", rootfs=rootfs, userns=userns)
    sh("ip -n c1 link add of-the-first type bridge")  # an inode of nsfs may well be given to the next one
    other, = {*USERNS} - {userns}
    changed = act(name="c1", rootfs=rootfs, userns=other)
    assert changed.changes[0]["action"] == "recreate" and any(each.startswith("userns ") for each in changed.changes[0]["fields"])
    assert [link["ifname"] for link in json.loads(sh("ip -n c1 -j link"))] == ["lo"]
    assert os.stat(f"/proc/{pid()}/ns/net").st_ino == os.stat("/run/netns/c1").st_ino
    act(name="c1", rootfs=rootfs, userns=userns)
    act(name="c1", state="absent")
    assert not Path("/run/fromscratch").exists()


def test_no_terminal_of_the_host(c1):
    stat = Path(f"/proc/{c1}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    assert stat[4] == "0", "a controlling terminal"
    assert run_in("echo x >/dev/tty").returncode != 0


def test_started_by_hand_at_a_terminal(c1):
    subprocess.run([PROGRAM, "stop", "c1"], check=True)
    assert in_terminal([PROGRAM, "start", "c1"])[0] == ""
    eventually(lambda: running_pid("c1"), "it runs")
    stat = Path(f"/proc/{pid()}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    assert stat[4] == "0"
    eventually(lambda: os.readlink(f"/proc/{pid()}/fd/1") == f"{STATE}/c1/log", "it writes to its log")


def test_exec_at_a_terminal(c1):
    """It has one of its own there, so that nothing inside can type into that of who sits before it."""
    words = "[ -t 0 ] && stat -Lc %d /proc/self/fd/0; echo \"$1\" '$HOME'"
    found, outer = in_terminal([PROGRAM, "exec", "c1", "sh", "-c", words, "x", "it's a \"b\" $c"])
    inner, said = found.splitlines()
    assert said == "it's a \"b\" $c $HOME" and inner.isdigit() and inner != outer


def test_no_keys_of_the_host(rootfs):
    """Run from a session with a key in its keyring, a container has another keyring."""
    number = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
    if number is None:
        pytest.skip(f"the number of keyctl on {os.uname().machine} is not known")
    ask = f"""import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(0 if libc.syscall({number}, 10, -3, b"user", b"fromscratch-test", 0) > 0 else ctypes.get_errno() or 1)"""
    libc = ctypes.CDLL(None, use_errno=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # the session is that of this process alone
        libc.syscall(number, 1, None)
        libc.syscall({"x86_64": 248, "aarch64": 217}[os.uname().machine], b"user", b"fromscratch-test", b"secret", 6, -3)
        assert subprocess.run(["python3", "-c", ask], check=False).returncode == 0, "the test's own key is not to be found"
        run_module("ns_container", name="c1", rootfs="/", layer="tmpfs", command=["sh", "-c", "python3 -c \"$0\"; echo \"found $?\"; sleep 1000", ask])
        os.write(writer, b"x")
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"x", "the container did not start"
    os.close(reader)
    os.waitpid(child, 0)
    eventually(lambda: "found" in log(), "it has looked")
    assert "found 0" not in log()


@pytest.mark.skipif(not seccomp.known_here(), reason="no filter of system calls for this machine")
def test_the_filter_of_system_calls_in_the_kernel():
    """Each call that it is about, in a process of its own; and those that are much like them."""
    column = seccomp.MACHINES[os.uname().machine][0]
    denied = {numbers[column]: name for name, numbers in seccomp.NUMBERS.items() if numbers[column] is not None}
    libc = ctypes.CDLL(None, use_errno=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.load_filter(seccomp.program(seccomp.profile()))
        wrong = []
        for number, name in denied.items():
            for flag in (seccomp.NEW_NAMESPACES if name == "clone" else [0]):
                found = libc.syscall(number, flag, 0, 0, 0, 0)
                if found != -1 or ctypes.get_errno() != (38 if name == "clone3" else 1):
                    wrong.append(name)
        if os.uname().machine == "x86_64" and libc.syscall(39 | 0x40000000) != -1:
            wrong.append("x32")
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        os.write(writer, " ".join(wrong).encode())
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 4096) == b"" and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(reader)


# The life of a container

def test_exit_status_and_last_output(rootfs):
    settings = {"name": "c1", "rootfs": rootfs, "command": ["sh", "-c", f"echo first; echo last words; {UNTIL_TOLD}; exit 7"]}
    act(**settings)
    end()
    eventually(lambda: running_pid("c1") is None, "it has ended")
    found = run_module("ns_container", **settings, state="stopped").observed[0]
    assert (found["exit_status"], found["output"]) == (7, "first\nlast words")
    failed = run_module("ns_container", name="c1", rootfs=rootfs, command=["sh", "-c", "echo no; exit 3"])
    assert "it ended at once with status 3" in failed.msg and failed.msg.endswith("Its last output: no")


def test_a_new_root_filesystem(rootfs, tmp_path):
    """Who uses the former is started anew only when asked to be."""
    private, other = tmp_path / "rootfs", tmp_path / "other"
    sh(f"cp -a {rootfs} {private}", f"cp -a {rootfs} {other}", f"touch {other}/new")
    config = [{"name": "c1", "rootfs": str(private)}, {"name": "c2", "rootfs": str(private), "recreate": "on_rootfs_change"}]
    act(config=config)
    before = pid("c1")
    sh(f"mv {private} {tmp_path}/old", f"mv {other} {private}")
    changed = act(config=config)
    assert [each["item"] for each in changed.changes] == ["container c2"]
    assert changed.changes[0]["action"] == "recreate" and changed.changes[0]["fields"][0].startswith("rootfs_id ")
    assert pid("c1") == before and inside("ls /new", "c2") == "/new" and run_in("ls /new", "c1").returncode != 0


def test_a_changed_command_says_why(rootfs):
    act(name="c1", rootfs=rootfs)
    changed = act(name="c1", rootfs=rootfs, command=["sleep", "1000"])
    assert (changed.changes[0]["action"], changed.changes[0]["fields"][0]) == (
        "recreate", "command sleep, infinity -> sleep, 1000")


def test_ulimits(userns, rootfs):
    act(name="c1", rootfs=rootfs, userns=userns, ulimits={"nofile": "100:200", "core": 0})
    lines = Path(f"/proc/{pid()}/limits").read_text(encoding="ascii").splitlines()
    limits = {line[:25].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max open files"] == ["100", "200"] and limits["Max core file size"] == ["0", "0"]
    assert inside("ulimit -n") == "100", "exec has them, too"
    assert run_in("ulimit -n 300").returncode != 0


def controllers():
    for line in Path("/proc/mounts").read_text(encoding="ascii").splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1], "cgroup.controllers").read_text(encoding="ascii").split()
    return []


@pytest.mark.skipif({"memory", "pids", "cpu"} - set(controllers()), reason="cgroup v2 has no controllers here")
def test_limits_without_systemd(rootfs):
    act(name="c1", rootfs=rootfs, memory="32M", pids=20, cpus=0.5)
    first = pid()
    assert run_in("dd if=/dev/zero of=/dev/null bs=200M count=1").returncode == 137 and pid() == first
    run_in("for each in $(seq 50); do sleep 5 & done 2>/dev/null")
    assert len(members(first)) <= 21
    for each in members(first)[2:]:
        os.kill(each, signal.SIGKILL)
    act(name="c1", state="absent")


@pytest.mark.skipif(bool(controllers()), reason="cgroup v2 has controllers here")
def test_limits_that_the_host_cannot_hold(rootfs):
    for option, value in {"memory": "32M", "pids": 20, "cpus": 0.5}.items():
        found = run_module("ns_container", name="c1", rootfs=rootfs, **{option: value})
        assert found.failed and found.msg.startswith(f"{option}: ") and "cgroup v2 with the controller" in found.msg
