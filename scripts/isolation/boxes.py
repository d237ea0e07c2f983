# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers in which all is tried: ours, by the collection's module, and podman's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from syscalls import PROBES, TELLTALE

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.record import RUN, STATE

ROOT = Path(__file__).resolve().parents[2]
MARKER = "/.root-of-isolation"
PATIENCE = 60  # seconds

# Ours, by the columns of the page.
KINDS: dict[str, dict[str, Any]] = {"default": {}, "host": {"userns": "host"}, "privileged": {"privileged": True}}


class Box:
    """A container by its column of the page, and by its role there."""

    directory = rootfs = secret = ""  # where the run has its files, the root filesystem, and the file that no container may read

    def __init__(self, kind, role=""):
        self.kind, self.name = kind, f"{kind}-{role}" if role else kind
        self.why_unlimited = None

    def run(self, command, **options):
        """A shell command inside; never elsewhere, should the container have another root than it should."""
        guarded = f"[ -e {MARKER} ] || {{ echo 'not the root of the container' >&2; exit 99; }}; {command}"
        done = subprocess.run([*self.enter, "/bin/sh", "-c", guarded], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, timeout=PATIENCE, **{"env": ENVIRONMENT, **options})
        if done.returncode == 99:
            sys.exit(f"{self.name}: {done.stderr}")
        return done

    def say(self, command, **options):
        return self.run(command, **options).stdout.strip()

    def mounts(self):
        """(mount point, options, type) of each mount."""
        rows = [line.split() for line in self.say("cat /proc/self/mountinfo").splitlines()]
        return [(row[4], row[5].split(","), row[row.index("-") + 1]) for row in rows]

    def members(self):
        """The pids of all its processes."""
        own = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has ended
                if os.readlink(f"/proc/{pid}/ns/pid") == own:
                    found.append(int(pid))
        return found

    def role(self, name):
        return type(self)(self.kind, name)


class Ours(Box):
    @property
    def enter(self):
        return [PROGRAM, "exec", self.name]

    enter_at_a_terminal = enter

    @property
    def record(self):
        return json.loads(Path(STATE, self.name, "config.json").read_text(encoding="utf-8"))

    @property
    def pid(self):
        return int(Path(RUN, self.name).read_text(encoding="ascii").split()[0])

    @property
    def stop_timeout(self):
        return int(self.record["annotations"]["fromscratch.stop-timeout"])

    def log(self):
        return Path(STATE, self.name, "log").read_text(encoding="utf-8")

    def stop(self):
        subprocess.run([PROGRAM, "stop", self.name], check=True)

    def start_by_hand(self, **options):
        self.stop()
        in_terminal([PROGRAM, "start", self.name], **options)

    def exit_status(self):
        """As the module tells it, of a container that has ended."""
        return ansible({**self.options("ending"), "state": "stopped"})["observed"][0]["exit_status"]

    def options(self, role, rootfs=None):
        return {"name": self.role(role).name, "rootfs": rootfs or self.rootfs, **SETTINGS[role], **KINDS[self.kind]}

    def start_limited(self):
        if "it needs systemd, or cgroup v2" in ansible(self.options("limited"), may_fail=True).get("msg", ""):
            self.why_unlimited = "cannot be asked for without systemd or controllers of cgroup v2"

    def start_on(self, roots):
        items = [{**self.options("linked", root), "name": f"linked-{number}"} for number, root in enumerate(roots)]
        ansible(*items, may_fail=True)
        ansible(*({"name": each["name"], "state": "absent"} for each in items))


class Podman(Box):
    """``podman run`` with its own storage, which goes with the directory."""

    command: list[str] = []
    run_options: list[str] = []
    group = "fromscratch-isolation"

    @classmethod
    def prepare(cls):
        """Whether there is one that runs containers. How it has to be run here is found out."""
        if not (shutil.which("podman") and shutil.which("crun")):
            return False
        cls.command = ["podman", "--root", f"{cls.directory}/storage", "--runroot", f"{cls.directory}/runroot", "--tmpdir",
                       f"{cls.directory}/tmp", "--runtime", "crun", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        cls.load(cls.rootfs, "isolation")
        for cgroups in ["--cgroup-parent", f"/{cls.group}"], ["--cgroups", "disabled"]:
            cls.run_options = ["--network", "none", *cgroups]
            if cls.podman("run", "--rm", *cls.run_options, "isolation", "true").returncode == 0:
                return True
        return False

    @classmethod
    def load(cls, rootfs, image):
        sh(f"tar -C {rootfs} -c . | {' '.join(cls.command)} import --quiet - {image}", stdout=subprocess.DEVNULL)

    @classmethod
    def podman(cls, *words, **options):
        return subprocess.run([*cls.command, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              **{"env": ENVIRONMENT, **options})

    @classmethod
    def close(cls):
        """All that it keeps outside of its directories: processes, and cgroups."""
        if not cls.command:
            return
        cls.podman("rm", "--all", "--force", "--time", "0")
        for group in sorted(Path("/sys/fs/cgroup").glob(f"**/{cls.group}/**/"), reverse=True):
            eventually(lambda group=group: _removed(group))
        sh(f"umount {cls.directory}/storage/overlay 2>/dev/null || :")

    @property
    def enter(self):
        return [*self.command, "exec", self.name]

    @property
    def enter_at_a_terminal(self):
        return [*self.command, "exec", "--interactive", "--tty", self.name]

    @property
    def pid(self):
        return int(self.inspect("{{.State.Pid}}"))

    @property
    def stop_timeout(self):
        return self.inspect("{{.Config.StopTimeout}}")

    def inspect(self, form):
        return self.podman("inspect", "--format", form, self.name).stdout.strip()

    def log(self):
        return self.podman("logs", self.name).stdout

    def stop(self):
        self.podman("stop", self.name)

    def start(self, role, *options):
        return self.podman(*self.detached(role), *options, "isolation", *SETTINGS[role]["command"]).returncode == 0

    def detached(self, role):
        return ["run", *self.run_options, "--detach", "--name", self.role(role).name]

    def start_by_hand(self, **options):
        self.podman("rm", "--force", "--time", "0", self.name)
        in_terminal([*self.command, *self.detached(""), "isolation", *SETTINGS[""]["command"]], **options)

    def exit_status(self):
        return int(self.inspect("{{.State.ExitCode}}"))

    def start_limited(self):
        if not self.start("limited", "--pids-limit", str(PIDS), "--memory", "64m"):
            self.why_unlimited = "cannot be asked for without controllers of cgroups"

    def start_on(self, roots):
        for root in roots:
            self.load(root, "linked")
            self.podman("run", "--rm", *self.run_options, "linked", "true")


def _removed(group):
    with contextlib.suppress(OSError):  # a process in it is not quite gone
        group.rmdir()
    return not group.exists()


# What each kind of container does beside the first of its kind, which looks for a key of the host and then waits.
PIDS = 50
SETTINGS: dict[str, dict[str, Any]] = {
    "": {"command": ["sh", "-c", f"{PROBES}/key; echo $? >/key; exec sleep 100000"]},
    "small": {"command": ["sleep", "100000"], "read_only": True, "ulimits": {"as": 64 << 20, "nproc": PIDS}},
    "ending": {"command": ["sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; echo last words; exit 7"]},
    "stubborn": {"command": ["sh", "-c", "trap 'echo SIGTERM' TERM; echo ready; while :; do sleep 0.1; done"], "stop_timeout": 1},
    "limited": {"command": ["sleep", "100000"], "pids": PIDS, "memory": "64M"},
    "linked": {"binds": [{"source": str(ROOT / "README.md"), "dest": dest, "read_only": True}
                         for dest in ("/etc/hosts", "/etc/resolv.conf")]},
}
TOGETHER = ("", "small", "ending", "stubborn")  # those that start at once
ENVIRONMENT: dict[str, str] = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ISOLATION": TELLTALE}


def ansible(*items, may_fail=False):
    """The module's result, as Ansible runs it."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible"), "localhost", "--inventory", "localhost,", "--connection", "local",
         "--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable}),
         "--module-name", "fromscratch.containers.ns_container", "--args", json.dumps({"config": list(items)})],
        cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if "=> " not in done.stdout or (done.returncode and not may_fail):
        sys.exit(f"ns_container failed: {done.stdout}{done.stderr}")
    return json.loads(done.stdout[done.stdout.index("=> ") + 3:])


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {PATIENCE} s in vain")
        time.sleep(0.1)
    return found


def in_terminal(command, **options):
    """What a command prints at a terminal of its own, in lines, and what tells that one from all others, as stat(1) writes it."""
    terminal, line = os.openpty()
    status = os.fstat(line)
    with subprocess.Popen(["setsid", "--ctty", "--wait", *command], stdin=line, stdout=line, stderr=line,
                          **{"env": ENVIRONMENT, **options}) as running:
        os.close(line)
        running.wait(PATIENCE)
        os.set_blocking(terminal, False)
        found = b""
        with contextlib.suppress(OSError):
            while part := os.read(terminal, 4096):
                found += part
    os.close(terminal)
    return found.decode().splitlines(), f"{status.st_dev}:{status.st_ino}"


def sh(*commands, **options):
    subprocess.run(["sh", "-ec", "; ".join(commands)], check=True, **options)


def mounted():
    """(mount point, type, options) of each mount here."""
    lines = [line.split() for line in Path("/proc/mounts").read_text(encoding="ascii").splitlines()]
    return [(point, kind, options.split(",")) for _source, point, kind, options, *_rest in lines]
