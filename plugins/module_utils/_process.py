# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers on this host: what runs, and how it is started and stopped.

A pid is soon somebody else's, so a container is known by its process 1, by the time that started, and by the boot. The
processes themselves are the business of the container's script; this file writes it, runs it and looks at the result.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import _netns, _service
from ._container import (
    OPTIONS,
    PATH,
    RESTARTED,
    RUN,
    STARTED,
    STATE,
    STOPPED,
    Container,
    container,
    digest,
    files_of,
    from_json,
    namespace_line,
)
from ._errors import Invalid, Problem
from ._files import write
from ._kind import Kind
from ._model import OWNER
from ._paths import tidy
from ._plan import DELETE, RECREATE

GRACE = 0.1  # seconds that a command has to prove that it does not die at once
SETUP = 60  # seconds that making the namespaces and mounts may take on a loaded host
OUTPUT = 2000  # characters of a dead container's last output that an error shows
MODES = {"container": 0o700, "fstab": 0o600, "container.json": 0o600}
UNIT_MODE = 0o644


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


NEEDS = "it needs systemd, which does not run this host"


class Containers(Kind):
    options = OPTIONS
    parse = staticmethod(container)

    def observe(self, wanted, prune):
        names = [item.name for item in wanted]
        if prune and os.path.isdir(STATE):
            names += sorted(set(os.listdir(STATE)) - set(names))
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
        return recorded.with_(
            state=STARTED if pid else STOPPED, files=digest(files), namespace=pinned, pid=pid,
            service=_service.runs_in_unit(name, pid) if pid else service,
            enabled=os.path.islink(_service.link(name)) if service else None)

    def complete(self, item):
        """As a service, where systemd runs the host."""
        if _service.manages_host():
            return item.with_(service=True, enabled=item.state != STOPPED, files=digest(files_of(item, True)))
        for option in "memory", "cpus", "pids":
            if getattr(item, option) is not None:
                raise Invalid(option, getattr(item, option), f"{NEEDS}; leave it out")
        if item.restart not in (None, _service.NO):
            raise Invalid("restart", item.restart, f"{NEEDS}; leave it out, or set it to no")
        return item.with_(service=False)

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

    def commands(self, plan):
        return [line for change in plan.changes for line in self._commands(change)]

    def _commands(self, change):
        before, after = change.before, change.after
        lines = []
        if _stops(change):
            lines.append(_verb(before, "stop"))
        if change.action == DELETE:
            lines += [f"systemctl disable {_service.unit(before.name)}"] * bool(before.enabled)
            return lines + [f"ip netns delete {before.name}"] * before.namespace + [f"rm -r {before.directory}"]
        if not (before and before.namespace):
            lines += [f"ip netns delete {after.name}"] * _netns.exists(after.name)
            lines += [f"ip netns attach {after.name} {before.pid}"] if _keeps_running(change) and before.pid else [
                f"ip netns add {after.name}", f"ip -n {after.name} link set lo up"]
        if after.service and bool(before and before.enabled) != after.enabled:
            lines.append(f"systemctl {'enable' if after.enabled else 'disable'} {_service.unit(after.name)}")
        if after.state != STOPPED and not (before and _keeps_running(change)):
            lines.append(_verb(after, "start"))
        return lines

    def boot(self, items):
        return [namespace_line(shlex.quote(item.name)) for item in items]

    def apply(self, plan):
        """All that have to stop, stop together; all that have to start, start together."""
        _keep_descriptors()
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
            f"{each.key}: it ended at once. Its command: {' '.join(each.command)}. Its last output: "
            f"{_last_output(each)}" if running(each.name) is None else None) for each in start)

    @staticmethod
    def _together(verb, containers, alone, workers):
        """What went wrong, in words, by the container's name."""
        units = [_service.unit(each.name) for each in containers if each.service]
        if units:
            with contextlib.suppress(Problem):  # what came of each is looked at by itself
                _service.systemctl(verb, *units)
        with ThreadPoolExecutor(workers) as pool:
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
        code = os.waitpid(_script(container, "stop", os.O_APPEND), 0)[1]
        return f"{container.key}: stopping it failed: {_last_output(container)}" if code else None

    def _remove(self, container):
        if container.namespace:
            _netns.remove(container.name)
        Path(RUN, container.name).unlink(missing_ok=True)  # of one that ended by itself
        shutil.rmtree(container.directory)
        tidy(STATE)
        tidy(RUN)
        self._write_unit(_service.drop_in(container.name), None)
        if _service.manages_host():
            with contextlib.suppress(Problem):  # it did not fail
                _service.systemctl("reset-failed", _service.unit(container.name))
        if not os.path.isdir(STATE):
            self._write_unit(_service.TEMPLATE, None)

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
        for directory in (STATE, container.directory):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        for name, text in files_of(container, container.service).items():
            if name in MODES:
                write(os.path.join(container.directory, name), text, MODES[name])
            else:
                self._write_unit(name, text)
        if change.before and change.before.namespace:
            return
        _netns.remove(container.name)
        if _keeps_running(change) and change.before.pid:
            _netns.attach(container.name, f"/proc/{change.before.pid}/ns/net")  # it and its links are still there
        else:
            _netns.create(container.name)

    def _start(self, container):
        """Runs the script and waits until the container's process 1 takes over, or is gone; what went wrong, in words."""
        over, held = os.pipe()
        try:
            pid = _script(container, "start", os.O_TRUNC, held)
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


def _script(container, verb, how, standard_input=None):
    """Starts the container's script, its output in the container's log; the pid. An old link in the log's place is not followed."""
    log = (os.POSIX_SPAWN_OPEN, 1, f"{container.directory}/log", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | how, 0o600)
    first = ((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if standard_input is None
             else (os.POSIX_SPAWN_DUP2, standard_input, 0))
    return os.posix_spawn(container.script, [container.script, verb], {"PATH": PATH}, setsid=True,
                          file_actions=[first, log, (os.POSIX_SPAWN_DUP2, 1, 2)])


def _raise_all(failures):
    failures = [each for each in failures if each]
    if failures:
        raise Problem("; ".join(failures))


def _keeps_running(change):
    """Whether the change leaves the container's processes alone."""
    if change.after is None or change.action == RECREATE or change.after.state == RESTARTED:
        return False
    return change.before is not None and change.before.state == change.after.state


def _stops(change):
    """Whether something has to stop. A service that waits to be started again counts as well when it goes."""
    before = change.before
    return (before is not None and not _keeps_running(change)
            and (before.state == STARTED or bool(before.service and change.action == DELETE)))


def _last_output(container):
    text = _service.journal(container.name) if container.service else (_read(f"{container.directory}/log") or "").strip()
    return text[-OUTPUT:] or "none"


def _verb(container, verb):
    return f"systemctl {verb} {_service.unit(container.name)}" if container.service else f"{container.script} {verb}"


def _read(path):
    """The text of a file; None where it is not there."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
