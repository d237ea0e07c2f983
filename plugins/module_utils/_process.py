# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers on this host: what runs, and how it is started and stopped.

A pid is soon somebody else's, so a container is known by its process 1, by the time that started, and by the boot. The
processes themselves are the business of the container's script; this file writes it, runs it and looks at the result.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import _cgroup, _idmap, _netns, _seccomp, _service
from ._container import (
    AUTO,
    HOST,
    OFF,
    ON_ROOTFS_CHANGE,
    OPTIONS,
    PATH,
    RESTARTED,
    STARTED,
    STOPPED,
    Container,
    container,
    digest,
    files_of,
    from_json,
)
from ._errors import Invalid, Problem
from ._files import write
from ._kind import Kind
from ._model import OWNER
from ._paths import FILTER, RUN, STATE, USERS, tidy
from ._plan import DELETE, RECREATE
from ._script import namespace_line

GRACE = 0.1  # seconds that a command has to prove that it does not die at once
SETUP = 60  # seconds that making the namespaces and mounts may take on a loaded host
OUTPUT = 2000  # characters of a dead container's last output that an error shows
MODES = {"container": 0o700, "fstab": 0o600, "container.json": 0o600}
UNIT_MODE = 0o644
KEYCTL = {"x86_64": 250, "aarch64": 219}
JOIN_SESSION_KEYRING = 1


def boot_id():
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def running(name):
    """The pid of the container's process 1, or None where it does not run."""
    try:
        pid, start, boot = Path(RUN, name).read_text(encoding="ascii").split()
        stat = Path("/proc", str(int(pid)), "stat").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    fields = stat.rpartition(")")[2].split()
    alive = fields[0] not in "ZX" and fields[19] == start and boot == boot_id()
    return int(pid) if alive else None


def _users(name):
    return f"{USERS}/{name}"


def _files_of(container):
    """All its files as text, the filter of system calls among them."""
    files = files_of(container, container.service)
    return {**files, FILTER: _seccomp.program().decode("latin-1")} if container.filtered else files


def _without_userns(item):
    """Why root inside is root outside as well; None where it need not be."""
    if item.privileged:
        return "the container is privileged"
    if item.layer == "none":
        return "it writes to the root filesystem itself"
    if any(not each.read_only for each in item.binds):
        return "it writes to files of the host"
    return _idmap.refusal(item.rootfs)


def _ranges():
    """(name, first user id) of all containers that have some of their own."""
    for name in os.listdir(STATE) if os.path.isdir(STATE) else ():
        text = _read(f"{STATE}/{name}/container.json")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            first = from_json(text or "").first_id
            if first:
                yield name, first


def _setpriv_filters():
    return "--seccomp-filter" in subprocess.run(["setpriv", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                                check=False).stdout


def _how_it_ended(container):
    """The status and the last output of a container that does not run; its init says the status."""
    lines = (_service.journal(container.name) if container.service else _read(f"{container.directory}/log") or "").splitlines()
    said = [each for each in map(re.compile(r"ended with status (\d+)").fullmatch, lines) if each]
    output = "\n".join(line for line in lines if not any(line == each[0] for each in said)).strip()[-OUTPUT:]
    status = int(said[-1][1]) if said else _service.exit_status(container.name) if container.service else None
    return {"exit_status": status, "output": output or None}


class Containers(Kind):
    options = OPTIONS
    parse = staticmethod(container)

    def __init__(self, ahead=None):
        super().__init__(ahead)
        self._ranges = None  # where the user ids of each container begin, by name
        self._tools = {}  # what the host's util-linux can

    def observe(self, wanted, prune):
        names = [item.name for item in wanted]
        if prune and os.path.isdir(STATE):
            names += sorted(set(os.listdir(STATE)) - set(names))
        self._stale = _service.not_loaded() if _service.manages_host() else ()
        found = (self._look(name) for name in names)
        return {each.key: each for each in found if each is not None}

    def _look(self, name):
        directory = Path(STATE, name)
        if not directory.is_dir():
            return Container(name=name, owner="another program") if _netns.exists(name) else None
        pid, pinned = running(name), _netns.exists(name)
        if pid and pinned:
            try:
                pinned = _netns.same(name, f"/proc/{pid}/ns/net")
            except FileNotFoundError:
                pid = None  # it ended just now
        files = {each: _read(directory / each) for each in MODES}
        if "--seccomp-filter" in (files["container"] or ""):
            files[FILTER] = _read(FILTER, "latin-1")
        service = _service.manages_host()
        if service:
            files.update({each: _read(each) for each in (_service.TEMPLATE, _service.drop_in(name))})
        recorded = Container(name=name, owner=OWNER)  # of a run that was killed before it wrote the record
        if files["container.json"] is not None:
            try:
                recorded = from_json(files["container.json"])
            except (ValueError, KeyError, TypeError) as error:
                raise Problem(f"{directory}/container.json is not the record of a container ({error!r}): "
                              f"restore it, or remove {directory} to have the container made anew") from error
        pinned = pinned and _netns.belongs_to(name, _users(name) if recorded.first_id else None)
        ended = _how_it_ended(recorded.with_(service=service)) if not pid and files["container"] else {}
        return recorded.with_(
            state=STARTED if pid else STOPPED, namespace=pinned, pid=pid, **ended,
            files="of which systemd does not know" if _service.unit(name) in self._stale else digest(files),
            service=_service.runs_in_unit(name, pid) if pid else service,
            enabled=os.path.islink(_service.link(name)) if service else None)

    def complete(self, item):
        """As a service, where systemd runs the host; and as far apart from the host as that can have it."""
        service = _service.manages_host()
        limits = [option for option in _cgroup.CONTROLLERS if getattr(item, option) is not None]
        if not service:
            for option in _cgroup.without(limits):
                raise Invalid(option, getattr(item, option), "it needs systemd, or cgroup v2 with the controller "
                              f"{_cgroup.CONTROLLERS[option]}, and this host has neither; leave it out")
            if item.restart not in (None, _service.NO):
                raise Invalid("restart", item.restart,
                              "it needs systemd, which does not run this host; leave it out, or set it to no")
        self.warnings += [f"{item.key}: the kernel has no controller {_cgroup.CONTROLLERS[option]} in its cgroups: {option} does "
                           "not hold" for option in _cgroup.systemd_cannot(limits)]
        item = item.with_(service=service, enabled=item.state != STOPPED if service else None,
                          userns=self._userns(item), seccomp=self._seccomp(item, service),
                          rootfs_id=self._rootfs_id(item.rootfs) if item.recreate == ON_ROOTFS_CHANGE else None)
        item = item.with_(mapped_by=self._told("mount", _idmap.mapped_by) if item.first_id else "")
        return item.with_(files=digest(_files_of(item)))

    def _told(self, tool, ask):
        if tool not in self._tools:
            self._tools[tool] = ask()
        return self._tools[tool]

    def _userns(self, item):
        """Where its range of user ids begins, or why it has none."""
        if item.userns == HOST:
            return OFF
        why = _without_userns(item)
        if why and item.userns == AUTO:
            raise Invalid("userns", AUTO, f"{why}; leave it out, or set it to {HOST}")
        if why:
            return f"{OFF}: {why}"
        if self._ranges is None:
            self._ranges = dict(_ranges())
        if item.name not in self._ranges:
            self._ranges[item.name] = _idmap.first_id(item.name, [
                *_idmap.delegated(), *((first, first + _idmap.RANGE) for first in self._ranges.values())])
        return str(self._ranges[item.name])

    def _seccomp(self, item, service):
        """What filters its system calls, or why nothing does."""
        if item.seccomp == OFF:
            return OFF
        by = ["setpriv"] if _seccomp.known_here() and self._told("setpriv", _setpriv_filters) else []
        by += ["unit"] if service else []
        return ", ".join(by) or f"{OFF}: it needs systemd, or setpriv of util-linux 2.41"

    def _rootfs_id(self, rootfs):
        """What tells the directory from the one that takes its place."""
        if rootfs in self.ahead.made:
            return "new"
        try:
            found = os.stat(rootfs)
        except OSError:
            return None
        return f"{found.st_dev}:{found.st_ino}"

    def missing(self, plan):
        wanted = [change.after for change in plan.changes if change.after]
        roots = [f"{each.key}: there is no root filesystem in {each.rootfs} (make it with alpine_rootfs)"
                 for each in wanted if not (os.path.isdir(each.rootfs) or each.rootfs in self.ahead.made)]
        binds = [f"{each.key}: there is no {bind.source} to bind to {bind.dest}"
                 for each in wanted for bind in each.binds
                 if not (os.path.exists(bind.source) or bind.source in self.ahead.made)]
        return roots + binds

    def expect(self, plan):
        self.ahead.made.update(("netns", change.after.name) for change in plan.changes if change.after)
        self.ahead.gone.update(("netns", change.item.split()[-1]) for change in plan.changes
                               if change.before and change.before.namespace and not _keeps_namespace(change))

    def commands(self, plan):
        return [line for change in plan.changes for line in self._commands(change)]

    def _commands(self, change):
        before, after = change.before, change.after
        lines = []
        if _stops(change):
            lines.append(_verb(before, "stop"))
        if change.action == DELETE:
            lines += [f"systemctl disable {_service.unit(before.name)}"] * bool(before.enabled)
            lines += [f"ip netns delete {before.name}"] * before.namespace
            lines += [f"umount {_users(before.name)}", f"rm {_users(before.name)}"] * bool(before.first_id)
            return lines + [f"rm -r {before.directory}"]
        if not _keeps_namespace(change):
            lines += [f"ip netns delete {after.name}"] * _netns.exists(after.name)
            lines += self._namespace(change)
        if after.service and bool(before and before.enabled) != after.enabled:
            lines.append(f"systemctl {'enable' if after.enabled else 'disable'} {_service.unit(after.name)}")
        if after.state != STOPPED and not (before and _keeps_running(change)):
            lines.append(_verb(after, "start"))
        return lines

    @staticmethod
    def _namespace(change):
        """What makes the namespace, or gives that of the running container its name back."""
        name = change.after.name
        if _keeps_running(change) and change.before.pid:
            users = [f"mount --bind /proc/{change.before.pid}/ns/user {_users(name)}"] if change.after.first_id else []
            return [*users, f"ip netns attach {name} {change.before.pid}"]
        if change.after.first_id:  # which is the first step of a start
            return [f"{change.after.script} namespace"] * (change.after.state == STOPPED)
        return [f"ip netns add {name}", f"ip -n {name} link set lo up"]

    def boot(self, items):
        return [f"{shlex.quote(item.script)} namespace" if item.first_id else namespace_line(shlex.quote(item.name))
                for item in items]

    def apply(self, plan):
        """All that have to stop, stop together; all that have to start, start together."""
        _keep_descriptors()
        _own_keyring()
        stop = [change.before for change in plan.changes if _stops(change)]
        self._together("stop", stop, self._stop, 32)  # stopping is waiting
        for change in plan.changes:
            if change.action == DELETE:
                self._remove(change.before)
            else:
                self._prepare(change)
        self._enable(plan)
        start = [change.after for change in plan.changes
                 if change.after and change.after.state != STOPPED and not _keeps_running(change)]
        failures = self._together("start", start, self._start, 2 * (os.cpu_count() or 1))
        if start:
            time.sleep(GRACE)
        _raise_all(failures.get(each.name) or (
            _ended_at_once(each) if running(each.name) is None else None) for each in start)

    @staticmethod
    def _together(verb, containers, alone, workers):
        """What went wrong, in words, by the container's name."""
        units = [_service.unit(each.name) for each in containers if each.service]
        if units:
            with contextlib.suppress(Problem):  # what came of each is looked at by itself
                _service.systemctl(verb, *units)
        # The mounts that a start is spared by making them here are nobody else's.
        with ThreadPoolExecutor(workers, initializer=_netns.own_mounts if verb == "start" else None) as pool:
            alone_ones = [each for each in containers if not each.service]
            failures = dict(zip((each.name for each in alone_ones), pool.map(alone, alone_ones)))
        if verb == "stop":
            failures.update({each.name: f"{each.key}: stopping it failed: {_last_output(each)}"
                             for each in containers if each.service and running(each.name)})
            _raise_all(failures.values())
        return failures

    @staticmethod
    def _enable(plan):
        """What systemd has to know: new units, and which of them start at boot."""
        if not any((change.after or change.before).service for change in plan.changes):
            return
        _service.systemctl("daemon-reload")
        for wanted, verb in (True, "enable"), (False, "disable"):
            units = [_service.unit(change.item.split()[-1]) for change in plan.changes
                     if bool(change.after and change.after.enabled) == wanted
                     and bool(change.before and change.before.enabled) != wanted]
            if units:
                _service.systemctl("--quiet", verb, *units)

    def _stop(self, container):
        """What went wrong, in words."""
        code = os.waitpid(_script(container, "stop"), 0)[1]
        return f"{container.key}: stopping it failed: {_last_output(container)}" if code else None

    def _remove(self, container):
        if container.namespace or container.first_id:
            self._remove_namespace(container.name)
        Path(RUN, container.name).unlink(missing_ok=True)  # of one that ended by itself
        shutil.rmtree(container.directory)
        if not os.listdir(STATE):
            Path(FILTER).unlink(missing_ok=True)
        tidy(STATE)
        tidy(RUN)
        self._write_unit(_service.drop_in(container.name), None)
        if _service.manages_host():
            with contextlib.suppress(Problem):  # it did not fail
                _service.systemctl("reset-failed", _service.unit(container.name))
        if not os.path.isdir(STATE):
            self._write_unit(_service.TEMPLATE, None)

    @staticmethod
    def _remove_namespace(name):
        _netns.remove(name)
        _netns.unpin(_users(name))
        tidy(USERS)

    @staticmethod
    def _write_unit(path, text):
        """The file, in its directory where that is its own; or neither of them, for None."""
        own = path != _service.TEMPLATE
        if text is not None:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            write(path, text, UNIT_MODE)
            return
        if os.path.exists(path):
            os.unlink(path)
            if own:
                os.rmdir(os.path.dirname(path))

    def _prepare(self, change):
        """The state directory comes first: it says whose the namespace is."""
        container = change.after
        if not _keeps_running(change):
            container = container.with_(rootfs_id=self._rootfs_id(container.rootfs))
        for directory in (STATE, container.directory, *[f"{container.directory}/lower"] * bool(container.first_id)):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        _log_for(container)
        if container.first_id and container.layer == "disk":
            _layer_for(container)
        for name, text in _files_of(container).items():
            if name in MODES:
                write(os.path.join(container.directory, name), text, MODES[name])
            elif name == FILTER:
                write(name, text, UNIT_MODE, encoding="latin-1")
            else:
                self._write_unit(name, text)
        if _keeps_namespace(change):
            return
        if _keeps_running(change) and change.before.pid:
            self._name_again(container, f"/proc/{change.before.pid}/ns")  # it and its links are still there
            return
        self._remove_namespace(container.name)
        if container.first_id:
            _netns.create_mapped(container.name, _users(container.name), container.first_id, _idmap.RANGE)
        else:
            _netns.create(container.name)

    @staticmethod
    def _name_again(container, namespaces):
        _netns.remove(container.name)
        if container.first_id:
            _netns.unpin(_users(container.name))
            os.makedirs(USERS, exist_ok=True)
            _netns.pin(f"{namespaces}/user", _users(container.name))
        _netns.attach(container.name, f"{namespaces}/net")

    def _start(self, container):
        """Runs the script and waits until the container's process 1 takes over, or is gone; what went wrong, in words."""
        over, held = os.pipe()
        try:
            if container.first_id:
                _idmap.idmapped(container.rootfs, f"{container.directory}/lower", _users(container.name))
            pid = _script(container, "start", held, os.O_TRUNC)
            os.close(held)
            if not select.select([over], [], [], SETUP)[0]:
                os.killpg(pid, signal.SIGKILL)
            code = os.waitpid(pid, 0)[1]
        finally:
            os.close(over)
        return f"{container.key}: starting it failed: {_last_output(container)}" if code else None


def _keep_descriptors():
    """What this process has open, and may itself have been given, is not for containers."""
    for each in os.listdir("/proc/self/fd"):
        if int(each) > 2:
            try:
                os.set_inheritable(int(each), False)
            except OSError:  # that of the listing itself
                pass


def _own_keyring():
    """The keys of who runs this are not for containers either: keyctl_join_session_keyring(3), which no module offers."""
    number = KEYCTL.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, JOIN_SESSION_KEYRING, None)


def _script(container, verb, standard_input=None, how=0):
    """Starts the container's script, its output in the container's log; the pid. An old link in the log's place is not followed."""
    log = (os.POSIX_SPAWN_OPEN, 1, f"{container.directory}/log", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND | how,
           0o600)
    first = ((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if standard_input is None
             else (os.POSIX_SPAWN_DUP2, standard_input, 0))
    return os.posix_spawn(container.script, [container.script, verb], {"PATH": PATH}, setsid=True,
                          file_actions=[first, log, (os.POSIX_SPAWN_DUP2, 1, 2)])


def _log_for(container):
    """Root inside may open its own standard output by a name such as /dev/stdout."""
    log = os.open(f"{container.directory}/log", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(log, container.first_id or 0, container.first_id or 0)
    finally:
        os.close(log)


def _layer_for(container):
    """The script would make it as well, in three more processes."""
    upper, work = (f"{container.directory}/layer/{each}" for each in ("upper", "work"))
    if not os.path.isdir(work):
        os.makedirs(upper, mode=0o755, exist_ok=True)
        os.chown(upper, container.first_id, container.first_id)
        os.chmod(upper, 0o755)
        os.mkdir(work)


def _raise_all(failures):
    failures = [each for each in failures if each]
    if failures:
        raise Problem("; ".join(failures))


def _keeps_running(change):
    """Whether the change leaves the container's processes alone."""
    if change.after is None or change.action == RECREATE or change.after.state == RESTARTED:
        return False
    return change.before is not None and change.before.state == change.after.state


def _keeps_namespace(change):
    """Whether the network namespace stays as it is. One of another user namespace would be of no use to the container."""
    before, after = change.before, change.after
    return bool(before and after and before.namespace and before.first_id == after.first_id)


def _stops(change):
    """Whether something has to stop. A service that waits to be started again counts as well when it goes."""
    before = change.before
    return (before is not None and not _keeps_running(change)
            and (before.state == STARTED or bool(before.service and change.action == DELETE)))


def _last_output(container):
    text = _service.journal(container.name) if container.service else (_read(f"{container.directory}/log") or "").strip()
    return text[-OUTPUT:] or "none"


def _ended_at_once(container):
    ended = _how_it_ended(container)
    status = "" if ended["exit_status"] is None else f" with status {ended['exit_status']}"
    return (f"{container.key}: it ended at once{status}. Its command: {' '.join(container.command)}. Its last output: "
            f"{ended['output'] or 'none'}")


def _verb(container, verb):
    return f"systemctl {verb} {_service.unit(container.name)}" if container.service else f"{container.script} {verb}"


def _read(path, encoding="utf-8"):
    """The text of a file; None where it is not there."""
    try:
        return Path(path).read_bytes().decode(encoding, "replace")
    except OSError:
        return None
