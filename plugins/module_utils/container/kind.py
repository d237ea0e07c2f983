# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers on this host: what is there, and how it becomes what is wanted."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from pathlib import Path

from .. import _netns
from .._argspec import NAME
from .._errors import Invalid, Problem
from .._files import mounts_below, remove_tree, unlink, write
from .._kind import Kind
from .._model import OWNER
from .._paths import tidy
from .._plan import DELETE, RECREATE
from ..rootfs import store
from . import ended, install, service
from .isolation import Isolation, refuse_binds, refuse_limits
from .launcher import cgroups, namespaces, record, runtime
from .launcher.bundle import Refused
from .launcher.guard import PROGRAM
from .launcher.record import RUN, STATE, USERS, running
from .launcher.start import Lock
from .launcher.stop import stop_all
from .recorded import BUNDLE, files_of_a_script, read, recorded, tidy_after_scripts
from .spec import LIMITS, ON_ROOTFS_CHANGE, OPTIONS, RANGE, RESTARTED, RUNTIMES, STARTED, STOPPED, Container, container, to_bundle

UNIT_MODE, BUNDLE_MODE = 0o644, 0o600
OLDEST_LINUX = 5, 12  # the first that has mount_setattr(2)
GRACE = 0.1  # seconds that a command has to prove that it does not die at once


def require_linux(release):
    """Raise Problem where the kernel is too old to start a container."""
    version = tuple(map(int, re.match(r"(\d+)\.(\d+)", release).groups()))
    if version < OLDEST_LINUX:
        raise Problem(f"Containers need Linux {'.'.join(map(str, OLDEST_LINUX))} or newer, and this host runs {release}: "
                      "boot a newer kernel, such as that of Debian's backports")


class Containers(Kind):
    tools = ("ip",)
    options = OPTIONS
    parse = staticmethod(container)

    def __init__(self, ahead=None):
        super().__init__(ahead)
        self._isolation = Isolation()

    def requirements(self, options):
        runtimes = {each.get("runtime") for each in options if each.get("state") != "absent"}
        return [*super().requirements(options), *sorted(runtimes.intersection(RUNTIMES))]

    def observe(self, wanted, prune):
        names = [item.name for item in wanted]
        if prune and os.path.isdir(STATE):
            names += sorted(name for name in set(os.listdir(STATE)) - set(names) if _is_ours(name))
        self._stale = service.not_loaded() if service.manages_host() else ()
        self._program = any(os.path.isdir(f"{STATE}/{name}") for name in names) and install.is_current()
        found = (self._look(name) for name in names)
        gone = {item.name for item in wanted if item.rootfs is None}  # where another program's namespace may well be
        found = (item for item in found if item is None or item.owner == OWNER or item.name not in gone)
        return {item.key: item for item in found if item is not None}

    def _look(self, name):
        directory = Path(STATE, name)
        try:
            with _lock(name):  # another run may just be at it, or have been killed meanwhile
                pass
        except (FileNotFoundError, NotADirectoryError):
            return Container(name=name, owner="another program") if _netns.exists(name) else None
        pid, pinned = running(name), _netns.exists(name)
        if pid and pinned:
            try:
                pinned = _netns.same(name, f"/proc/{pid}/ns/net")
            except FileNotFoundError:
                pid = None  # it ended just now
        try:
            known, text = recorded(name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Problem(f"{directory}/{BUNDLE} is not the record of a container ({error!r}): "
                          f"restore it, or remove {directory} to have the container made anew") from error
        known = known or Container(name=name, owner=OWNER)  # of a run that was killed before it wrote the record
        pinned = pinned and namespaces.belongs_to(_netns.path_of(name), _users(name) if known.userns else None)
        lo = bool(pid or pinned) and _netns.lo_is_up(f"/proc/{pid}/ns/net" if pid else name)
        by_systemd = service.manages_host()
        return known.with_(
            state=STARTED if pid else STOPPED, namespace=pinned, lo=lo, pid=pid, bundle=self._is_whole(name, known, text),
            service=service.runs_in_unit(name, pid) if pid else by_systemd,
            enabled=os.path.islink(service.link(name)) if by_systemd else None,
            **(ended.how(name, by_systemd) if not pid and known.rootfs else {}))

    def _is_whole(self, name, known, text):
        """Whether all that is written of a container is what its settings make."""
        if text is None or not self._program or service.unit(name) in self._stale:
            return False
        units = {path: content for path, content in _units_of(known).items() if service.manages_host()}
        return text == to_bundle(known) and all(read(path) == content for path, content in units.items())

    def complete(self, item):
        """As a service, where systemd runs the host; and as far apart from the host as that can have it."""
        require_linux(os.uname().release)
        by_systemd = service.manages_host()
        self.warnings += refuse_limits(item, by_systemd)
        apart, told = self._isolation.of(item)
        self.warnings += told
        refuse_binds(item, apart["userns"])
        if item.layer == "none" and not item.read_only and (
                item.rootfs in self.ahead.trees or store.is_store_tree(item.rootfs)):
            raise Invalid("layer", item.layer, f"{item.rootfs} is shared, and nobody writes to it: set read_only to true, or "
                                               "take a directory of your own")
        for option, path in ("init", item.init), ("runtime", item.runtime):
            if path.startswith("/") and not os.access(path, os.X_OK):
                raise Invalid(option, path, "there is no such program on the host: install it, or leave the option out")
        return item.with_(service=by_systemd, enabled=item.state != STOPPED if by_systemd else None,
                          rootfs_id=store.tree_of(item.rootfs, self.ahead) if item.recreate == ON_ROOTFS_CHANGE else None, **apart)

    def missing(self, plan):
        wanted = [change.after for change in plan.changes if change.after]
        roots = [f"{item.key}: there is no root filesystem in {item.rootfs} (make it with alpine_rootfs)"
                 for item in wanted if not (os.path.isdir(item.rootfs) or item.rootfs in self.ahead.made)]
        binds = [f"{item.key}: there is no {bind.source} to bind to {bind.dest}"
                 for item in wanted for bind in item.binds
                 if not (os.path.exists(bind.source) or bind.source in self.ahead.made)]
        mounted = [f"{change.item}: a directory without mounts, but {point} is a mount point (umount it)" for change in plan.changes
                   if change.action == DELETE for point in mounts_below(change.before.directory)]
        return roots + binds + mounted + [
            f"{change.item}: files in its layer that belong to the user ids that it has, and userns would change these: start it "
            f"with a fresh layer (state: absent, or rm -r {change.before.directory}/layer while it is stopped)"
            for change in plan.changes if _loses_its_files(change)]

    def expect(self, plan):
        self.warnings += [
            f"{change.item} runs, but was not started by {service.unit(change.after.name)}: it is stopped, and started anew by "
            "that; start and stop it by systemctl" for change in plan.changes if _taken_over(change)]
        self.ahead.made.update(("netns", change.after.name) for change in plan.changes if change.after)
        self.ahead.gone.update(("netns", change.item.split()[-1]) for change in plan.changes
                               if change.before and not _keeps_namespace(change))

    def commands(self, plan):
        return [line for change in plan.changes for line in self._commands(change)] + [
            store.releasing(parent) for parent in store.waiting(_left(plan), self.ahead)]

    def _commands(self, change):
        before, after = change.before, change.after
        lines = self._name_commands(change) if _renames(change) else []
        if _stops(change):
            lines.append(_verb(before, "stop"))
        if change.action == DELETE:
            lines += [f"systemctl disable {service.unit(before.name)}"] * bool(before.enabled)
            lines += [f"ip netns delete {before.name}"] * before.namespace
            lines += [f"umount {_users(before.name)}", f"rm {_users(before.name)}"] * os.path.exists(_users(before.name))
            group = _group(before.name) if before.pid is None else None
            lines += [f"rmdir {group}", f"rmdir --ignore-fail-on-non-empty {os.path.dirname(group)}"] if group else []
            return lines + [f"rm -r {before.directory}"]
        if not _keeps_namespace(change):
            lines += [f"ip netns delete {after.name}"] * _netns.exists(after.name)
            lines += [f"{PROGRAM} namespace {after.name}"] * (after.state == STOPPED)  # else it is the first step of a start
        elif not before.lo:
            lines.append(f"ip -n {after.name} link set lo up")
        if after.service and bool(before and before.enabled) != after.enabled:
            lines.append(f"systemctl {'enable' if after.enabled else 'disable'} {service.unit(after.name)}")
        if after.state != STOPPED and not (before and _keeps_running(change)):
            lines.append(_verb(after, "start"))
        return lines

    @staticmethod
    def _name_commands(change):
        name, pid, pin = change.after.name, change.before.pid, _users(change.after.name)
        lines = [f"ip netns delete {name}"] * _netns.exists(name)
        if change.after.userns and not os.path.exists(pin):
            lines += [f"install -D /dev/null {pin}", f"mount --bind /proc/{pid}/ns/user {pin}"]
        return [*lines, f"ip netns attach {name} {pid}"]

    def boot(self, items):
        return [f"{PROGRAM} namespace {shlex.join(item.name for item in items)}"] if items else []

    def apply(self, plan):
        """All that have to stop, stop together; all that have to start, start together."""
        for change in plan.changes:
            if _renames(change):
                self._name_again(change.after, f"/proc/{change.before.pid}/ns")
        self._stop([change.before for change in plan.changes if _stops(change)])
        if any(change.after for change in plan.changes):
            install.install()
        for change in plan.changes:
            if change.action == DELETE:
                self._remove(change.before)
            else:
                self._prepare(change)
        tidy_after_scripts()
        self._enable(plan)
        self._left = _left(plan)
        self._start([change.after for change in plan.changes
                     if change.after and change.after.state != STOPPED and not _keeps_running(change)])

    @staticmethod
    def _by_systemd(verb, items):
        units = [service.unit(item.name) for item in items if item.service]
        if units:
            with contextlib.suppress(Problem):  # what came of each is looked at by itself
                service.systemctl(verb, *units)

    def _stop(self, items):
        self._by_systemd("stop", items)
        failures = [f"{item.key}: stopping it failed: {ended.output(item.name, True)}"
                    for item in items if item.service and running(item.name)]
        by_hand = {item.name: item for item in items if not item.service}
        told = stop_all({name: 10 if item.stop_timeout is None else item.stop_timeout for name, item in by_hand.items()})
        _raise_all(failures + [f"{by_hand[name].key}: stopping it failed: {text}" for name, text in told.items()])

    def _start(self, items):
        self._by_systemd("start", items)
        found = service.start_by_hand([item.name for item in items if not item.service])
        for rootfs in self._left:
            store.release(rootfs)
        if items:
            time.sleep(GRACE)
        failures = [f"{item.key}: starting it failed: {found[item.name]}" if item.name in found else
                    f"{item.key}: {ended.at_once(item)}" if running(item.name) is None else None for item in items]
        _raise_all(failures)

    @staticmethod
    def _enable(plan):
        """What systemd has to know: new units, and which of them start at boot."""
        if not any((change.after or change.before).service for change in plan.changes):
            return
        service.systemctl("daemon-reload")
        for wanted, verb in (True, "enable"), (False, "disable"):
            units = [service.unit(change.item.split()[-1]) for change in plan.changes
                     if bool(change.after and change.after.enabled) == wanted
                     and bool(change.before and change.before.enabled) != wanted]
            if units:
                service.systemctl("--quiet", verb, *units)

    def _remove(self, item):
        if item.namespace:  # not somebody else's of that name
            namespaces.unpin(_netns.path_of(item.name))
            namespaces.tidy()
        namespaces.unpin(_users(item.name))
        tidy(USERS)
        cgroups.remove(item.name)  # of one that ended by itself
        record.remove(item.name)
        runtime.forget(item.name)
        remove_tree(item.directory)
        tidy(runtime.HOME)
        tidy(STATE)
        tidy(RUN)
        _write_unit(service.drop_in(item.name), None)
        if service.manages_host():
            with contextlib.suppress(Problem):  # it did not fail
                service.systemctl("reset-failed", service.unit(item.name))
        if not os.path.isdir(STATE):
            _write_unit(service.TEMPLATE, None)
            install.uninstall()
            if service.manages_host():
                with contextlib.suppress(Problem):  # there was none
                    service.systemctl("stop", service.SLICE)

    def _prepare(self, change):
        """The state directory comes first: it says whose the namespace is."""
        item = change.after
        if not _keeps_running(change):
            item = item.with_(rootfs_id=store.tree_of(item.rootfs))
        for directory in STATE, item.directory:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        with _lock(item.name):
            if not _keeps_running(change) and running(item.name):
                raise Problem(f"{item.key} was started concurrently with its old configuration; run the task again")
            write(f"{item.directory}/{BUNDLE}", to_bundle(item), BUNDLE_MODE)
            for path, text in _units_of(item).items() if item.service else ():
                _write_unit(path, text)
            for path in files_of_a_script(item.name):
                remove_tree(path)
            if not _keeps_namespace(change):
                namespaces.remove(item.name)
                tidy(USERS)
                if item.state == STOPPED:
                    namespaces.provide(item.name, *((item.first_uid, RANGE) if item.userns else ()))
            elif not change.before.lo:
                _netns.lo_up(item.name)

    @staticmethod
    def _name_again(item, of_process):
        namespaces.unpin(_netns.path_of(item.name))
        if item.userns:
            namespaces.unpin(_users(item.name))
            os.makedirs(USERS, exist_ok=True)
            namespaces.pin(f"{of_process}/user", _users(item.name))
        namespaces.attach(item.name, f"{of_process}/net")


@contextlib.contextmanager
def _lock(name):
    try:
        with Lock(name):
            yield
    except Refused as error:
        raise Problem(str(error)) from None


def _units_of(item):
    return {service.TEMPLATE: service.TEMPLATE_TEXT, service.drop_in(item.name): service.drop_in_text(item)}


def _write_unit(path, text):
    """The file, in its directory where that is its own; or neither of them, for None."""
    if text is not None:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write(path, text, UNIT_MODE)
    elif os.path.isdir(os.path.dirname(path)):
        unlink(path)
        if path != service.TEMPLATE:
            with contextlib.suppress(OSError):  # an administrator has more in it
                os.rmdir(os.path.dirname(path))


def _users(name):
    """Where the user namespace of a container is pinned."""
    return f"{USERS}/{name}"


def _group(name):
    """The cgroup that was made here for its limits; None where there is none."""
    point = cgroups.mount_point()
    group = f"{point}/{cgroups.PARENT}/{name}"
    return group if point and os.path.isdir(group) else None


def _is_ours(name):
    """Whether a directory is a container's: it may be empty as yet."""
    return NAME.fullmatch(name) and os.path.isdir(f"{STATE}/{name}") and (
        not os.listdir(f"{STATE}/{name}") or os.path.exists(f"{STATE}/{name}/{BUNDLE}") or bool(files_of_a_script(name)))


def _raise_all(failures):
    failures = [text for text in failures if text]
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
    return bool(before and after and (before.namespace or before.pid) and (before.first_uid or 0) == after.first_uid)


def _loses_its_files(change):
    """Whether the container has written files that would be those of users that it will not have."""
    before, after = change.before, change.after
    if before is None or after is None or before.first_uid is None or before.first_uid == after.first_uid or after.layer != "disk":
        return False
    upper = f"{after.directory}/layer/upper"
    return os.path.isdir(upper) and bool(os.listdir(upper))


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
            and (before.state == STARTED or bool(before.service and change.action == DELETE)))


def _verb(item, verb):
    return f"systemctl {verb} {service.unit(item.name)}" if item.service else f"{PROGRAM} {verb} {item.name}"
