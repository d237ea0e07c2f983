# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers on this host: what is there, and how it becomes what is wanted."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import _idmap, _netns, _owners, _process, _seccomp, _service, _trees
from ._argspec import NAME
from ._confinement import Confinement, refuse_limits
from ._container import (
    LIMITS,
    ON_ROOTFS_CHANGE,
    OPTIONS,
    RESTARTED,
    STARTED,
    STOPPED,
    Container,
    container,
    digest,
    files_of,
    from_json,
)
from ._errors import Problem
from ._files import mounts_below, remove_tree, unlink, write
from ._kind import Kind
from ._model import OWNER
from ._paths import FILTER, RUN, STATE, USERS, tidy
from ._plan import DELETE, RECREATE
from ._process import read, running, users
from ._script import namespace_line, script

MODES = {"container": 0o700, "fstab": 0o600, "container.json": 0o600}
UNIT_MODE = 0o644


def _files_of(container):
    """All its files as text, the filter of system calls among them."""
    files = files_of(container, container.service)
    return {**files, FILTER: _seccomp.program().decode("latin-1")} if container.filtered else files


class Containers(Kind):
    tools = ("chroot", "flock", "ip", "mount", "nsenter", "pivot_root", "prlimit", "script", "setpriv",
             "setsid", "umount", "unshare")
    options = OPTIONS
    parse = staticmethod(container)

    def __init__(self, ahead=None):
        super().__init__(ahead)
        self._confinement = Confinement()

    def observe(self, wanted, prune):
        names = [item.name for item in wanted]
        if prune and os.path.isdir(STATE):
            names += sorted(name for name in set(os.listdir(STATE)) - set(names) if _is_ours(name))
        self._stale = _service.not_loaded() if _service.manages_host() else ()
        found = (self._look(name) for name in names)
        gone = {item.name for item in wanted if item.rootfs is None}  # where another program's namespace may well be
        found = (each for each in found if each is None or each.owner == OWNER or each.name not in gone)
        return {each.key: each for each in found if each is not None}

    def _look(self, name):
        directory = Path(STATE, name)
        try:
            with _process.starting(directory):  # another run may just be at it, or have been killed meanwhile
                pass
        except (FileNotFoundError, NotADirectoryError):
            return Container(name=name, owner="another program") if _netns.exists(name) else None
        pid, pinned = running(name), _netns.exists(name)
        if pid and pinned:
            try:
                pinned = _netns.same(name, f"/proc/{pid}/ns/net")
            except FileNotFoundError:
                pid = None  # it ended just now
        files = {each: read(directory / each) for each in MODES}
        if "--seccomp-filter" in (files["container"] or ""):
            files[FILTER] = read(FILTER, "latin-1")
        service = _service.manages_host()
        if service:
            files.update({each: read(each) for each in (_service.TEMPLATE, _service.drop_in(name))})
        recorded = Container(name=name, owner=OWNER)  # of a run that was killed before it wrote the record
        if files["container.json"] is not None:
            try:
                recorded = from_json(files["container.json"])
            except (ValueError, KeyError, TypeError) as error:
                raise Problem(f"{directory}/container.json is not the record of a container ({error!r}): "
                              f"restore it, or remove {directory} to have the container made anew") from error
        pinned = pinned and _netns.belongs_to(name, users(name) if recorded.first_id else None)
        lo = bool(pid or pinned) and _netns.lo_is_up(f"/proc/{pid}/ns/net" if pid else name)
        ended = _process.how_it_ended(recorded.with_(service=service)) if not pid and files["container"] else {}
        return recorded.with_(
            state=STARTED if pid else STOPPED, halfway=_halfway(name), namespace=pinned, lo=lo, pid=pid, **ended,
            files="of which systemd does not know" if _service.unit(name) in self._stale else digest(files),
            service=_service.runs_in_unit(name, pid) if pid else service,
            enabled=os.path.islink(_service.link(name)) if service else None)

    def complete(self, item):
        """As a service, where systemd runs the host; and as far apart from the host as that can have it."""
        service = _service.manages_host()
        self.warnings += refuse_limits(item, service)
        item = item.with_(service=service, enabled=item.state != STOPPED if service else None,
                          rootfs_id=self._rootfs_id(item.rootfs) if item.recreate == ON_ROOTFS_CHANGE else None,
                          **self._confinement.of(item, service))
        return item.with_(files=digest(_files_of(item)))

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
        return roots + binds + [
            f"{change.item}: a directory without mounts, but {point} is a mount point (umount it)" for change in plan.changes
            if change.action == DELETE for point in mounts_below(change.before.directory)]

    def expect(self, plan):
        self.warnings += [
            f"{change.item} runs, but was not started by {_service.unit(change.after.name)}: it is stopped, and started anew by "
            "that; start and stop it by systemctl" for change in plan.changes if _taken_over(change)]
        self.ahead.made.update(("netns", change.after.name) for change in plan.changes if change.after)
        self.ahead.gone.update(("netns", change.item.split()[-1]) for change in plan.changes
                               if change.before and not _keeps_namespace(change))

    def commands(self, plan):
        left = {os.path.dirname(rootfs): rootfs for rootfs in _left(plan)
                if _trees.kept(rootfs) or (rootfs in self.ahead.made and _trees.users(rootfs))}
        return [line for change in plan.changes for line in self._commands(change)] + [
            _trees.releasing(rootfs) for rootfs in left.values()]

    def _commands(self, change):
        before, after = change.before, change.after
        lines = self._name_commands(change) if _renames(change) else []
        if _stops(change):
            lines.append(_verb(before, "stop"))
        if change.action == DELETE:
            lines += [f"systemctl disable {_service.unit(before.name)}"] * bool(before.enabled)
            lines += [f"ip netns delete {before.name}"] * before.namespace
            lines += [f"umount {users(before.name)}", f"rm {users(before.name)}"] * os.path.exists(users(before.name))
            group = _process.group(before.name) if before.pid is None else None
            lines += [f"rmdir {group}", f"rmdir --ignore-fail-on-non-empty {os.path.dirname(group)}"] if group else []
            return lines + [f"rm -r {before.directory}"]
        lines += [_owners.command(*each) for each in _owners_steps(change)]
        if not _keeps_namespace(change):
            lines += [f"ip netns delete {after.name}"] * _netns.exists(after.name) + self._namespace(after)
        elif not before.lo:
            lines.append(f"ip -n {after.name} link set lo up")
        if after.service and bool(before and before.enabled) != after.enabled:
            lines.append(f"systemctl {'enable' if after.enabled else 'disable'} {_service.unit(after.name)}")
        if after.state != STOPPED and not (before and _keeps_running(change)):
            lines.append(_verb(after, "start"))
        return lines

    @staticmethod
    def _name_commands(change):
        name, pid, pin = change.after.name, change.before.pid, users(change.after.name)
        lines = [f"ip netns delete {name}"] * _netns.exists(name)
        if change.after.first_id and not os.path.exists(pin):
            lines += [f"install -D /dev/null {pin}", f"mount --bind /proc/{pid}/ns/user {pin}"]
        return [*lines, f"ip netns attach {name} {pid}"]

    @staticmethod
    def _namespace(container):
        if container.first_id:  # which is the first step of a start
            return [f"{container.script} namespace"] * (container.state == STOPPED)
        return [f"ip netns add {container.name}", f"ip -n {container.name} link set lo up"]

    def boot(self, items):
        return [_netns.MAKES] * bool(items) + [
            f"{shlex.quote(item.script)} namespace" if item.first_id else namespace_line(shlex.quote(item.name)) for item in items]

    def apply(self, plan):
        """All that have to stop, stop together; all that have to start, start together."""
        _process.keep_to_itself()
        for change in plan.changes:
            if _renames(change):
                self._name_again(change.after, f"/proc/{change.before.pid}/ns")
        stop = [change.before for change in plan.changes if _stops(change)]
        for each in stop:
            if each.rootfs is not None:  # by the script that its settings make, whatever has become of the file
                write(each.script, script(each), MODES["container"])
        self._together("stop", stop, _process.stop, 32)  # stopping is waiting
        for change in plan.changes:
            if change.action == DELETE:
                self._remove(change.before)
            else:
                self._prepare(change)
        self._enable(plan)
        start = [change.after for change in plan.changes
                 if change.after and change.after.state != STOPPED and not _keeps_running(change)]
        failures = self._together("start", start, _process.start, 2 * (os.cpu_count() or 1))
        for rootfs in _left(plan):
            _trees.release(rootfs)
        if start:
            time.sleep(_process.GRACE)
        _raise_all(failures.get(each.name) or (
            _process.ended_at_once(each) if running(each.name) is None else None) for each in start)

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
            failures.update({each.name: f"{each.key}: stopping it failed: {_process.last_output(each)}"
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

    def _remove(self, container):
        if container.namespace:  # not somebody else's of that name
            _netns.remove(container.name)
        _netns.unpin(users(container.name))
        tidy(USERS)
        group = _process.group(container.name)
        for each in [group, os.path.dirname(group)] if group else ():  # of one that ended by itself
            with contextlib.suppress(OSError):
                os.rmdir(each)
        Path(RUN, container.name).unlink(missing_ok=True)  # of one that ended by itself
        remove_tree(container.directory)
        if not os.listdir(STATE):
            unlink(FILTER)
        tidy(STATE)
        tidy(RUN)
        self._write_unit(_service.drop_in(container.name), None)
        if _service.manages_host():
            with contextlib.suppress(Problem):  # it did not fail
                _service.systemctl("reset-failed", _service.unit(container.name))
        if not os.path.isdir(STATE):
            self._write_unit(_service.TEMPLATE, None)
            if _service.manages_host():
                with contextlib.suppress(Problem):  # there was none
                    _service.systemctl("stop", _service.SLICE)

    @staticmethod
    def _remove_namespace(name):
        _netns.remove(name)
        _netns.unpin(users(name))
        tidy(USERS)

    @staticmethod
    def _write_unit(path, text):
        """The file, in its directory where that is its own; or neither of them, for None."""
        own = path != _service.TEMPLATE
        if text is not None:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            write(path, text, UNIT_MODE)
            return
        if os.path.isdir(os.path.dirname(path)):
            unlink(path)
            if own:
                with contextlib.suppress(OSError):  # an administrator has more in it
                    os.rmdir(os.path.dirname(path))

    def _prepare(self, change):
        """The state directory comes first: it says whose the namespace is."""
        container = change.after
        if not _keeps_running(change):
            container = container.with_(rootfs_id=self._rootfs_id(container.rootfs))
        for directory in (STATE, container.directory, *[f"{container.directory}/lower"] * bool(container.first_id)):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        with _process.starting(container.directory):
            if not _keeps_running(change) and running(container.name):
                raise Problem(f"{container.key}: somebody else has started it just now, with its former settings: try again")
            for each in _owners_steps(change):
                _owners.shift(*each)
            Path(_journal(container.name)).unlink(missing_ok=True)  # of a layer that is gone
            self._write_files(container)
            if not _keeps_namespace(change):
                self._remove_namespace(container.name)
                if container.first_id:
                    _netns.create_mapped(container.name, users(container.name), container.first_id, _idmap.RANGE)
                else:
                    _netns.create(container.name)
            elif not change.before.lo:
                _netns.lo_up(container.name)

    def _write_files(self, container):
        _process.log_for(container)
        if container.first_id and container.layer == "disk":
            _process.layer_for(container)
        for name, text in _files_of(container).items():
            if name in MODES:
                write(os.path.join(container.directory, name), text, MODES[name])
            elif name == FILTER:
                write(name, text, UNIT_MODE, encoding="latin-1")
            else:
                self._write_unit(name, text)

    @staticmethod
    def _name_again(container, namespaces):
        _netns.remove(container.name)
        if container.first_id:
            _netns.unpin(users(container.name))
            os.makedirs(USERS, exist_ok=True)
            _netns.pin(f"{namespaces}/user", users(container.name))
        _netns.attach(container.name, f"{namespaces}/net")


def _is_ours(name):
    """Whether a directory is a container's: it may be empty as yet."""
    return NAME.fullmatch(name) and not os.path.isfile(f"{STATE}/{name}") and (
        not os.listdir(f"{STATE}/{name}") or any(os.path.exists(f"{STATE}/{name}/{each}") for each in MODES))


def _raise_all(failures):
    failures = [each for each in failures if each]
    if failures:
        raise Problem("; ".join(failures))


def _keeps_running(change):
    """Whether the change leaves the container's processes alone."""
    if change.after is None or change.action == RECREATE or change.after.state == RESTARTED:
        return False
    if not change.after.service and change.differing() & set(LIMITS):
        return False  # its cgroup is made when it starts
    return change.before is not None and change.before.state == change.after.state


def _taken_over(change):
    """Whether a container that runs outside of its unit gets into it, for which systemd has to start it."""
    return bool(change.before and change.before.pid and not change.before.service and change.after and change.after.service)


def _keeps_namespace(change):
    """Whether the network namespace stays. One of another user namespace would be of no use to the container."""
    before, after = change.before, change.after
    return bool(before and after and (before.namespace or before.pid) and before.first_id == after.first_id)


def _owners_steps(change):
    """Whose the files become that the container has written, and what was begun of that: the arguments of each shift."""
    before, after = change.before, change.after
    if before is None or after is None or not os.path.isdir(f"{after.directory}/layer/upper"):
        return []
    written, journal = f"{after.directory}/layer/upper", _journal(after.name)
    begun = _owners.begun(journal)
    old, new = begun[1] if begun else before.first_id or 0, after.first_id or 0
    steps = [begun] * bool(begun) + [(old, new)] * (old != new)
    return [(written, journal, *each, _idmap.RANGE) for each in steps]


def _halfway(name):
    begun = _owners.begun(_journal(name))
    return f"from user id {begun[0]} to {begun[1]}" if begun else ""


def _journal(name):
    return f"{STATE}/{name}/owners.json"


def _left(plan):
    """The root filesystems that containers of the plan may have run on."""
    return sorted({os.path.realpath(change.before.rootfs) for change in plan.changes if change.before and change.before.rootfs})


def _renames(change):
    """Whether it has to get its name back, which it does before the process stops that alone holds it, and its links."""
    return _keeps_namespace(change) and not change.before.namespace


def _stops(change):
    """Whether something has to stop. A service that waits to be started again counts as well when it goes."""
    before = change.before
    return (before is not None and not _keeps_running(change)
            and (before.state == STARTED or bool(before.service and (change.action == DELETE or _owners_steps(change)))))


def _verb(container, verb):
    return f"systemctl {verb} {_service.unit(container.name)}" if container.service else f"{container.script} {verb}"
