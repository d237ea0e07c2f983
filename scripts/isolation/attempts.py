# SPDX-License-Identifier: GPL-3.0-or-later
"""What is tried in a container: each of these returns the words of the page."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path

from boxes import MARKER, PIDS, Podman, eventually, in_terminal, mounted, sh
from syscalls import PROBES, TELLTALE

from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import (
    ALL_CAPABILITIES,
    CAPABILITIES,
    MASKED,
    READ_ONLY,
)

LIFTED = "lifted"


def attempt(*commands):
    """The first of these commands that works, or that none does."""
    def tried(box):
        for command in commands:
            if box.run(command).returncode == 0:
                return "possible" if len(commands) == 1 else f"possible: ``{command}``"
        return "refused"
    return tried


def lifted(probe):
    """Not where nothing is refused."""
    return lambda box: LIFTED if box.kind == "privileged" else probe(box)


def listed(names, none):
    return ", ".join(f"``{each}``" for each in names) or none


def user_ids(box):
    first = box.say("read -r inside outside range </proc/self/uid_map; echo $outside")
    return "root outside as well" if first == "0" else f"root is user {first} outside"


def capabilities(box):
    mask = int(status(box, "CapBnd"), 16)
    held = {name for number, name in enumerate(ALL_CAPABILITIES) if mask >> number & 1}
    if held > set(CAPABILITIES):
        return f"all {len(held)} that this machine gives"
    missing = [each for each in CAPABILITIES if each not in held]
    return "podman's eleven" + (f" without {listed(missing, '')}" if missing else "")


def status(box, field):
    return box.say(f"grep ^{field}: /proc/self/status").partition(":")[2].strip()


def no_new_privs(box):
    return "on" if status(box, "NoNewPrivs") == "1" else "off"


def set_user_id(box):
    box.run("cp /usr/bin/scanelf /own; chmod 4755 /own; cp /bin/busybox /for-root; chmod 400 /for-root")
    read = box.run("su nobody -s /bin/sh -c '/own -F %a /for-root'").stdout
    return "root's rights" if "EM_" in read else "no more rights"


def seccomp(box):
    return "a filter" if status(box, "Seccomp") == "2" else "no filter here"


def lsm(box):
    return box.say("cat /proc/self/attr/current 2>/dev/null") or "none on this host"


OUT, INSIDE = "reads the host's file", "the container's own root"


def walk(box):
    found = box.run(f"{PROBES}/walk").returncode
    return {0: OUT, errno.ENOENT: INSIDE}.get(found, f"ends with {errno.errorcode.get(found, found)}")


def by_proc(box):
    places = "/proc/[0-9]*/root /proc/[0-9]*/cwd /proc/self/root /proc/[0-9]*/fd/*"
    return OUT if TELLTALE in box.say(f"for each in {places}; do cat $each{box.secret}; done 2>/dev/null") else INSIDE


def propagation(box):
    return "shared" if box.say("grep -cE ' (shared|master):' /proc/self/mountinfo") != "0" else "private"


SYSTEM = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
          "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled")


def settings(box):
    """Opened to be written, and nothing is."""
    there = [path for path in SYSTEM if os.path.exists(path)]
    opened = [path for path in there if box.run(f": >>{path}").returncode == 0]
    return "none can be opened" if not opened else "all can be opened" if opened == there else listed(opened, "")


def shown(box):
    """What Docker hides and this container does not."""
    there = [path for path in MASKED if os.path.exists(path)]
    seen = [path for path in there if box.say(
        f"ls -A {path} | wc -l" if os.path.isdir(path) else f"head -c 10 {path} 2>/dev/null | wc -c") != "0"]
    return "all hidden" if not seen else "all shown" if seen == there else f"shown: {listed(seen, '')}"


def read_only_paths(box):
    read_only = {point for point, options, _kind in box.mounts() if "ro" in options}
    open_ = [path for path in READ_ONLY if os.path.exists(path) and path not in read_only]
    return "all read-only" if not open_ else "all writable" if open_ == [each for each in READ_ONLY if os.path.exists(each)] else (
        f"writable: {listed(open_, '')}")


def sys_(box):
    return "read-only" if any(point == "/sys" and "ro" in options for point, options, _kind in box.mounts()) else "writable"


STANDARD = set("console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split())


def devices(box):
    names = set(box.say("ls /dev").split())
    more, less = sorted(names - STANDARD), sorted(STANDARD - names)
    return "the usual ones" + (f", and {listed(more, '')}" if more else "") + (f", without {listed(less, '')}" if less else "")


LOOP = "/dev/loop-control"


def device_node(box):
    """Opened to be read, and nothing is."""
    if not os.path.exists(LOOP):
        return f"not tried: this host has no {LOOP}"
    device = os.stat(LOOP).st_rdev
    return box.say(f"mknod /own-device c {os.major(device)} {os.minor(device)} 2>/dev/null || {{ echo 'cannot be made'; exit; }}; "
                   "if (: </own-device) 2>/dev/null; then echo 'made and opened'; else echo 'made, and cannot be opened'; fi")


def processes(box):
    pattern = f"{TELLTALE[:-1]}[{TELLTALE[-1]}]"  # does not find itself
    seen = box.say(f"grep -l {pattern} /proc/[0-9]*/cmdline")
    return "the host's are seen" if seen else "its own alone"


NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def namespaces(box):
    own = box.say("; ".join(f"readlink /proc/self/ns/{each}" for each in NAMESPACES)).split()
    return "shared: " + listed([each for each in NAMESPACES if os.readlink(f"/proc/self/ns/{each}") in own], "none")


def cgroups(box):
    found = [options for _point, options, kind in box.mounts() if kind in ("cgroup", "cgroup2")]
    return "none is mounted" if not found else "writable" if any("rw" in each for each in found) else "read-only"


def module(box):
    said = box.run("insmod /bin/busybox").stderr
    return "refused" if "not permitted" in said else "this kernel loads none" if "not support" in said else "reaches the kernel"


LINKS = ("proc", "sys", "dev", "dev/shm", "etc/hosts", "etc/hostname", "etc/resolv.conf")


def links(box):
    """A root filesystem for each of the links, all started on together."""
    places = {name: Path(box.directory, "links", name.replace("/", "-")) for name in LINKS}
    for name, place in places.items():
        link = place / "rootfs" / name
        sh(f"mkdir -p {place}/outside", f"cp -a {box.rootfs} {place}/rootfs", f"rm -rf {link}", f"echo {TELLTALE} >{place}/victim")
        link.symlink_to(place / ("victim" if name.startswith("etc") else "outside"))
    box.start_on([str(place / "rootfs") for place in places.values()])
    touched = [f"/{name}" for name, place in places.items()
               if (place / "victim").read_text(encoding="ascii") != f"{TELLTALE}\n" or os.listdir(place / "outside")]
    shutil.rmtree(Path(box.directory, "links"))
    return f"touched by {listed(touched, '')}" if touched else "untouched"


def packets(box):
    return "possible" if box.run(f"{PROBES}/packets").returncode == 0 else "refused"


def low_port(box):
    asked = {"root": f"{PROBES}/port", "others": f"su nobody -s {PROBES}/port"}
    return ", ".join(who for who, command in asked.items() if box.run(command).returncode == 0) or "nobody"


def started(box):
    """What of who started it is found in the container's processes."""
    found = set()
    for pid in box.members():
        with contextlib.suppress(OSError):  # it has ended
            if TELLTALE in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8", errors="replace"):
                found.add("a variable")
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[4] != "0":
                found.add("the terminal")
            if any(os.readlink(each) == box.secret for each in Path(f"/proc/{pid}/fd").iterdir()):
                found.add("a file")
    if eventually(lambda: box.say("cat /key")) == "0":
        found.add("a key")
    return ", ".join(sorted(found)) or "nothing"


def started_by_hand(box):
    box.run("rm /key")
    with open_file(box.secret) as number:
        box.start_by_hand(pass_fds=[number])
    eventually(lambda: _has_its_root(box))
    return started(box)


@contextlib.contextmanager
def open_file(path):
    """A file that programs inherit, with a number that no shell uses itself."""
    with open(path, encoding="ascii") as file:
        number = os.dup2(file.fileno(), 50)
        try:
            yield number
        finally:
            os.close(number)


def _has_its_root(box):
    with contextlib.suppress(OSError, ValueError):  # it has no process yet
        return os.path.exists(f"/proc/{box.pid}/root{MARKER}")


def executed(box):
    """The caller sits at a terminal, which is not the command's standard input."""
    command = (f"[ -e {MARKER} ] || exit 99; for each in /proc/self/fd/*; do readlink $each; done; env; {PROBES}/key; echo key $?; "
               ": </dev/tty && echo terminal")
    with open_file(box.secret) as number:
        lines = in_terminal(["sh", "-c", '"$@" </dev/null', "sh", *box.enter, "/bin/sh", "-c", command], pass_fds=[number])[0]
    signs = {"a file": box.secret, "a key": "key 0", "the terminal": "terminal", "a variable": f"ISOLATION={TELLTALE}"}
    return ", ".join(word for word, sign in signs.items() if any(line.endswith(sign) for line in lines)) or "nothing"


def executed_at_a_terminal(box):
    lines, outer = in_terminal([*box.enter_at_a_terminal, "stat", "-Lc", "%d:%i", "/proc/self/fd/0"])
    return "the caller's" if outer in lines else "one of its own" if lines else "none"


def of_its_cgroup(controller, *names):
    """A value of the container's own cgroup, of whichever version."""
    def read(box):
        for point, kind, options in mounted():
            if kind == "cgroup2" or (kind == "cgroup" and controller in options):
                path, own = (_group(pid, controller if kind == "cgroup" else "") for pid in (box.pid, "self"))
                files = [Path(f"{point}{path}", name) for name in names] if path != own else []
                values = [each.read_text(encoding="ascii").strip() for each in files if each.exists()]
                if values:  # version 1 writes what is unlimited as a very large number
                    return "unlimited" if values[0] == "max" or int(values[0]) >> 60 else f"{int(values[0]):,}"
        return "no limit of its own"
    return read


def _group(pid, controller):
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()]
    return next((path for _number, controllers, path in lines if controller in controllers.split(",")), "/")


def limited(probe):
    """In a container that was told limits."""
    def tried(box):
        return box.why_unlimited or probe(box.role("limited"))
    return tried


def small(probe):
    """In one that was told ulimits."""
    return lambda box: probe(box.role("small"))


def many_processes(box):
    """A hundred that sleep, where fifty are allowed: as good as a bomb, and it burns nothing."""
    box.run("for each in $(seq 100); do sleep 100 >/dev/null 2>&1 & done")
    return f"held at {PIDS}" if len(box.members()) <= PIDS + 1 else "not held"


EATER = "dd if=/dev/zero of=/dev/null bs=200M count=1"


def much_memory(box):
    code = box.run(EATER).returncode
    return "not held" if code == 0 else "killed, the rest lives" if box.run("true").returncode == 0 else "killed with the rest"


def address_space(box):
    if isinstance(box, Podman):
        return "no such option"
    return "refused" if box.run(EATER).returncode and box.run("true").returncode == 0 else "not held"


def ulimits(box):
    def rows(text):
        return {line[:25].strip(): " : ".join(line[26:].split()[:2]) for line in text.splitlines()[1:]}
    own, theirs = rows(Path("/proc/self/limits").read_text(encoding="ascii")), rows(box.say("cat /proc/self/limits"))
    return "; ".join(f"{name.lower()} {theirs[name]}" for name in theirs if theirs[name] != own[name]) or "those of who starts it"


def in_memory(box):
    return ", ".join(f"{int(line.split()[1]):,} KiB" for line in box.say("df -k /dev /dev/shm").splitlines()[1:])


def root_writable(box):
    def can(each):
        return each.run("touch /own").returncode == 0
    return ("a layer of its own" if can(box) else "read-only") + ("; if asked, read-only" if not can(box.role("small")) else "")


def stopping(box):
    stubborn = box.role("stubborn")
    eventually(lambda: "ready" in stubborn.log())
    members = stubborn.members()
    stubborn.stop()
    heard = [line.strip() for line in stubborn.log().splitlines() if line.startswith("SIG")]
    gone = not any(os.path.exists(f"/proc/{each}") for each in members)
    return f"{' '.join(heard) or 'nothing'}, then {'SIGKILL' if gone else 'nothing'} after {box.stop_timeout} s"


def zombies(box):
    box.run("(sleep 0.2 &)")
    time.sleep(1)
    return "stay" if box.say("grep -lE '^State:.Z' /proc/[0-9]*/status") else "reaped"


def ending(box):
    over = box.role("ending")
    first = over.pid
    over.run("touch /go")
    eventually(lambda: not os.path.exists(f"/proc/{first}"))
    return f"kept: {over.exit_status()}" if over.exit_status() == 7 else "lost"


def words(box):
    return "kept" if "last words" in box.role("ending").log() else "lost"
