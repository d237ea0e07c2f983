# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a container: whether it runs, how it is started and stopped, and how it ended.

A pid is soon somebody else's, so a container is known by its process 1, by the time that started, and by the boot. The
processes themselves are the business of the container's script; this file runs it and looks at the result.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import select
import signal
import time
from pathlib import Path

from . import _idmap, _service
from ._container import PATH
from ._errors import Problem
from ._paths import RUN, USERS

GRACE = 0.1  # seconds that a command has to prove that it does not die at once
SETUP = 60  # seconds that making the namespaces and mounts may take on a loaded host
NAP = 0.05  # seconds between two looks at a lock
LOCK = 8  # the script's descriptor of it
LOG_END = 1 << 16  # bytes of its log that are looked at
OUTPUT = 2000  # characters of a dead container's last output that an error shows
KEYCTL = {"x86_64": 250, "aarch64": 219}
JOIN_SESSION_KEYRING = 1


def boot_id():
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def running(name):
    """The pid of the container's process 1, or None where it does not run."""
    try:
        pid, start, boot, *unused = Path(RUN, name).read_text(encoding="ascii").split()
        stat = Path("/proc", str(int(pid)), "stat").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    fields = stat.rpartition(")")[2].split()
    alive = fields[0] not in "ZX" and fields[19] == start and boot == boot_id()
    return int(pid) if alive else None


def users(name):
    """Where the user namespace of a container is pinned."""
    return f"{USERS}/{name}"


def group(name):
    """The cgroup that the container's script has made for its limits; None where there is none."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split() for line in file]
    found = [f"{point}/fromscratch/{name}" for unused, point, kind, *unused in mounts if kind == "cgroup2"][:1]
    return next((each for each in found if os.path.isdir(each)), None)


def keep_to_itself():
    """What this process has open, may itself have been given, and knows the keys of, is not for what it starts."""
    for each in os.listdir("/proc/self/fd"):
        if int(each) > 2:
            try:
                os.set_inheritable(int(each), False)
            except OSError:  # that of the listing itself
                pass
    number = KEYCTL.get(os.uname().machine)
    if number is not None:  # keyctl_join_session_keyring(3), which no module offers
        ctypes.CDLL(None).syscall(number, JOIN_SESSION_KEYRING, None)


@contextlib.contextmanager
def starting(directory):
    """The lock that a container's start holds, whose script goes on when the run that called it is killed; its descriptor."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for unused in range(round(SETUP / NAP)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(NAP)
        else:
            raise Problem(f"a start of the container in {directory} has not come to an end for {SETUP} s: find out why with "
                          f"fuser --verbose {directory}, and try again")
        yield lock
    finally:
        os.close(lock)


def start(container):
    """Runs the script and waits until the container's process 1 takes over, or is gone; what went wrong, in words."""
    try:
        with starting(container.directory) as lock:
            if container.first_id:  # spares the script a process
                _idmap.idmapped(container.rootfs, f"{container.directory}/lower", users(container.name))
            over, held = os.pipe()
            try:
                pid = _script(container, "start", os.O_TRUNC, {held: 0, lock: LOCK})
                os.close(held)
                if not select.select([over], [], [], SETUP)[0]:
                    os.killpg(pid, signal.SIGKILL)
                code = os.waitpid(pid, 0)[1]
            finally:
                os.close(over)
    except OSError as error:
        return f"{container.key}: starting it failed: {error.strerror}"
    except Problem as problem:
        return f"{container.key}: starting it failed: {problem}"
    return f"{container.key}: starting it failed: {last_output(container)}" if code else None


def stop(container):
    """Runs the script; what went wrong, in words."""
    code = os.waitpid(_script(container, "stop"), 0)[1]
    return f"{container.key}: stopping it failed: {last_output(container)}" if code else None


def _script(container, verb, how=0, given=None):
    """Starts the container's script, its output in the container's log; the pid. An old link in the log's place is not followed."""
    log = (os.POSIX_SPAWN_OPEN, 1, f"{container.directory}/log", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND | how,
           0o600)
    return os.posix_spawn(container.script, [container.script, verb], {"PATH": PATH}, setsid=True, file_actions=[
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), log, (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_DUP2, own, its) for own, its in (given or {}).items())])


def log_for(container):
    """Root inside may open its own standard output by a name such as /dev/stdout."""
    log = os.open(f"{container.directory}/log", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(log, container.first_id or 0, container.first_id or 0)
    finally:
        os.close(log)


def layer_for(container):
    """The script would make it as well, in three more processes."""
    upper, work = (f"{container.directory}/layer/{each}" for each in ("upper", "work"))
    if not os.path.isdir(work):
        os.makedirs(upper, mode=0o755, exist_ok=True)
        os.chown(upper, container.first_id, container.first_id)
        os.chmod(upper, 0o755)
        os.mkdir(work)


def last_output(container):
    return (_service.journal(container.name) if container.service else _log(container).strip())[-OUTPUT:] or "none"


def _log(container):
    """The end of it: it is the container's, who may have made it as long as it likes."""
    try:
        with open(f"{container.directory}/log", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_END))
            return file.read(LOG_END).decode("utf-8", "replace")
    except OSError:
        return ""


def how_it_ended(container):
    """The status and the last output of a container that does not run; its init says the status."""
    lines = (_service.journal(container.name) if container.service else _log(container)).splitlines()
    said = [each for each in map(re.compile(r"ended with status (\d+)").fullmatch, lines) if each]
    output = "\n".join(line for line in lines if not any(line == each[0] for each in said)).strip()[-OUTPUT:]
    status = int(said[-1][1]) if said else _service.exit_status(container.name) if container.service else None
    return {"exit_status": status, "output": output or None}


def ended_at_once(container):
    ended = how_it_ended(container)
    status = "" if ended["exit_status"] is None else f" with status {ended['exit_status']}"
    return (f"{container.key}: it ended at once{status}. Its command: {' '.join(container.command)}. Its last output: "
            f"{ended['output'] or 'none'}")


def read(path, encoding="utf-8"):
    """The text of a file; None where it is not there."""
    try:
        return Path(path).read_bytes().decode(encoding, "replace")
    except OSError:
        return None
