# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan containers: observe this host, and plan what makes it as desired."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import List

from ..core.errors import ModuleError, OptionError
from ..core.files import mounts_below
from ..core.kind import Kind, Operation
from ..core.operations import Attempt, RemoveFile, Run
from ..core.plan import DELETE, RECREATE
from ..core.resource import OWNER
from ..core.validate import NAME
from ..network import namespaces as network_namespaces
from ..rootfs import store
from . import ended, install, service
from .isolation import Isolation, linux_version, refuse_binds, refuse_limits
from .launcher import namespaces
from .launcher.guard import PROGRAM
from .launcher.record import STATE, running
from .operations import (
    End,
    NameNamespaces,
    Prepare,
    RemoveNamespaces,
    RemoveTraces,
    RemoveTree,
    Start,
    Stop,
    locked,
    users,
    written,
)
from .recorded import BUNDLE, FORMER_FILTER, files_of_a_script, is_script_left, read, recorded
from .spec import (
    LIMITS,
    ON_ROOTFS_CHANGE,
    OPTIONS,
    RESTARTED,
    RULES,
    RUNTIMES,
    STARTED,
    STOPPED,
    Container,
    container,
    to_bundle,
)

UNIT_MODE, BUNDLE_MODE = 0o644, 0o600
OLDEST_LINUX = 5, 12  # the first that has mount_setattr(2)


def require_linux(release):
    """Raise ModuleError where the kernel is too old to start a container."""
    if linux_version(release) < OLDEST_LINUX:
        raise ModuleError(f"Containers need Linux {'.'.join(map(str, OLDEST_LINUX))} or newer, and this host runs {release}: "
                          "boot a newer kernel, such as that of Debian's backports")


class Containers(Kind):
    tools = ("ip",)
    options = OPTIONS
    rules = RULES
    parse = staticmethod(container)

    def __init__(self):
        super().__init__()
        self._isolation = Isolation()
        self._names, self._stay = frozenset(), False  # the containers of the host, and whether one is to be there

    def requirements(self, options):
        runtimes = {each.get("runtime") for each in options if each.get("state") != "absent"}
        return [*super().requirements(options), *sorted(runtimes.intersection(RUNTIMES))]

    def observe(self, wanted, prune, state):
        names = [item.name for item in wanted]
        self._stay = any(item.rootfs for item in wanted)
        self._names = frozenset(os.listdir(STATE) if os.path.isdir(STATE) else ())
        if prune:
            names += sorted(name for name in self._names.difference(names) if _is_ours(name))
        self._stale = service.not_loaded() if service.manages_host() else ()
        self._program = any(os.path.isdir(f"{STATE}/{name}") for name in names) and not install.operations()
        found = (self._look(name) for name in names)
        gone = {item.name for item in wanted if item.rootfs is None}  # where another program's namespace may well be
        found = (item for item in found if item is None or item.owner == OWNER or item.name not in gone)
        return {item.key: item for item in found if item is not None}

    def _look(self, name):
        directory = Path(STATE, name)
        try:
            with locked(name):  # another run may just be at it, or have been killed meanwhile
                pass
        except (FileNotFoundError, NotADirectoryError):
            return Container(name=name, owner="another program") if network_namespaces.exists(name) else None
        pid, pinned = running(name), network_namespaces.exists(name)
        if pid and pinned:
            try:
                pinned = network_namespaces.same(name, f"/proc/{pid}/ns/net")
            except FileNotFoundError:
                pid = None  # it ended just now
        try:
            known, text = recorded(name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModuleError(f"{directory}/{BUNDLE} is not the record of a container ({error!r}): "
                              f"restore it, or remove {directory} to have the container made anew") from error
        known = known or Container(name=name, owner=OWNER)  # of a run that was killed before it wrote the record
        pinned = pinned and namespaces.belongs_to(network_namespaces.path_of(name), users(name) if known.userns else None)
        lo = bool(pid or pinned) and network_namespaces.lo_is_up(f"/proc/{pid}/ns/net" if pid else name)
        by_systemd = service.manages_host()
        return replace(
            known, state=STARTED if pid else STOPPED, namespace=pinned, lo=lo, pid=pid, bundle=self._is_whole(name, known, text),
            service=service.runs_in_unit(name, pid) if pid else by_systemd,
            enabled=os.path.islink(service.link(name)) if by_systemd else None,
            **(ended.how(name, by_systemd) if not pid and known.rootfs else {}))

    def _is_whole(self, name, known, text):
        """Return whether the files of a container are what its settings make."""
        if text is None or not self._program or service.unit(name) in self._stale:
            return False
        units = {service.TEMPLATE: service.TEMPLATE_TEXT, service.drop_in(name): service.drop_in_text(known)}
        return text == to_bundle(known) and (not service.manages_host() or all(read(path) == units[path] for path in units))

    def complete(self, item, state) -> Container:
        """As a service, where systemd runs the host; and as far apart from the host as that can have it."""
        require_linux(os.uname().release)
        by_systemd = service.manages_host()
        self.warnings += refuse_limits(item, by_systemd)
        apart, told = self._isolation.of(item)
        self.warnings += told
        refuse_binds(item, apart["userns"])
        if item.layer == "none" and not item.read_only and (
                item.rootfs in state.trees or store.is_store_tree(item.rootfs)):
            raise OptionError("layer", item.layer, f"{item.rootfs} is shared, and nobody writes to it: set read_only to true, or "
                              "take a directory of your own")
        for option, path in ("init", item.init), ("runtime", item.runtime):
            if path.startswith("/") and not os.access(path, os.X_OK):
                raise OptionError(option, path, "there is no such program on the host: install it, or leave the option out")
        return replace(item, service=by_systemd, enabled=item.state != STOPPED if by_systemd else None,
                       rootfs_id=store.tree_of(item.rootfs, state) if item.recreate == ON_ROOTFS_CHANGE else None, **apart)

    def plan(self, wanted, observed, prune, state):
        plan, after = super().plan(wanted, observed, prune, state)
        self.warnings += [
            f"{change.item} runs, but was not started by {service.unit(change.after.name)}: it is stopped, and started anew by "
            "that; start and stop it by systemctl" for change in plan.changes if _taken_over(change)]
        made = [("netns", change.after.name) for change in plan.changes if change.after]
        gone = [("netns", change.before.name) for change in plan.changes if change.before and not _keeps_namespace(change)]
        return replace(plan, unmet=tuple(_unmet(plan))), after.after(made, gone)

    def operations(self, plan):
        changes = plan.changes
        found: List[Operation] = [
            NameNamespaces(change.after.name, change.before.pid, bool(change.after.userns))
            for change in changes if _renames(change)]
        found.append(Stop(tuple(change.before for change in changes if _stops(change))))
        if any(change.after for change in changes):
            found += install.operations()
        if any(change.after and change.after.service for change in changes):
            found += written(service.TEMPLATE, service.TEMPLATE_TEXT, UNIT_MODE)
        for change in changes:
            found += self._removal(change.before) if change.action == DELETE else [self._preparation(change, plan.state)]
        if os.path.exists(FORMER_FILTER) and not is_script_left({change.subject.name for change in changes}):
            found.append(RemoveFile(FORMER_FILTER))
        if self._is_last(plan):
            slice_too = [Attempt(("systemctl", "stop", service.SLICE))] * service.manages_host()
            found.append(End((*[RemoveFile(service.TEMPLATE)] * os.path.lexists(service.TEMPLATE), *install.removal(), *slice_too)))
        found += _told_to_systemd(plan)
        # Else it is the first step of a start.
        stay = [change.after.name for change in changes
                if change.after and change.after.state == STOPPED and not _keeps_namespace(change)]
        found += [Run((PROGRAM, "namespace", *stay))] * bool(stay)
        left = _left(plan)
        found.append(Start(tuple(change.after for change in changes if change.after and change.after.state != STOPPED
                                 and not _keeps_running(change)), tuple(left), tuple(store.waiting(left, plan.state))))
        return found

    def _preparation(self, change, state):
        """Return the Prepare of a change. It creates the state directory first, which marks the namespace as the collection's."""
        item, keeps_running = change.after, _keeps_running(change)
        if not keeps_running:
            item = replace(item, rootfs_id=store.tree_of(item.rootfs, state))
        found = written(f"{item.directory}/{BUNDLE}", to_bundle(item), BUNDLE_MODE)
        found += written(service.drop_in(item.name), service.drop_in_text(item), UNIT_MODE) if item.service else []
        found += [RemoveTree(path) for path in files_of_a_script(item.name)]
        if not _keeps_namespace(change):
            found.append(RemoveNamespaces(item.name))
        elif not change.before.lo:
            found.append(Run(("ip", "-n", item.name, "link", "set", "lo", "up")))
        return Prepare(item, keeps_running, tuple(found))

    @staticmethod
    def _removal(item):
        found = [RemoveNamespaces(item.name, bool(item.namespace)), RemoveTraces(item.name), RemoveTree(item.directory)]
        found += written(service.drop_in(item.name), None, UNIT_MODE)
        return found + [Attempt(("systemctl", "reset-failed", service.unit(item.name)))] * service.manages_host()

    def _is_last(self, plan):
        """Return whether the plan, and this run, leave no container on the host."""
        going = {change.before.name for change in plan.changes if change.action == DELETE}
        return bool(going) and not self._stay and not self._names - going

    def boot(self, items):
        return [f"{PROGRAM} namespace {shlex.join(item.name for item in items)}"] if items else []


def _unmet(plan):
    """Return what a plan of containers needs that is not there, in words."""
    wanted = [change.after for change in plan.changes if change.after]
    roots = [f"{item.key}: there is no root filesystem in {item.rootfs} (make it with alpine_rootfs)"
             for item in wanted if not (os.path.isdir(item.rootfs) or item.rootfs in plan.state.made)]
    binds = [f"{item.key}: there is no {bind.source} to bind to {bind.dest}"
             for item in wanted for bind in item.binds
             if not (os.path.exists(bind.source) or bind.source in plan.state.made)]
    mounted = [f"{change.item}: a directory without mounts, but {point} is a mount point (umount it)" for change in plan.changes
               if change.action == DELETE for point in mounts_below(change.before.directory)]
    return roots + binds + mounted + [
        f"{change.item}: files in its layer that belong to the user ids that it has, and userns would change these: start it "
        f"with a fresh layer (state: absent, or rm -r {change.before.directory}/layer while it is stopped)"
        for change in plan.changes if _loses_its_files(change)]


def _told_to_systemd(plan):
    """Return the operations that reload changed units, and enable or disable them at boot."""
    if not any(change.subject.service for change in plan.changes):
        return []
    found = [Run(("systemctl", "daemon-reload"))]
    for wanted, verb in (True, "enable"), (False, "disable"):
        units = [service.unit(change.subject.name) for change in plan.changes
                 if bool(change.after and change.after.enabled) == wanted
                 and bool(change.before and change.before.enabled) != wanted]
        found += [Run(("systemctl", "--quiet", verb, *units))] * bool(units)
    return found


def _is_ours(name):
    """Return whether a directory belongs to a container; it may be empty yet."""
    return NAME.fullmatch(name) and os.path.isdir(f"{STATE}/{name}") and (
        not os.listdir(f"{STATE}/{name}") or os.path.exists(f"{STATE}/{name}/{BUNDLE}") or bool(files_of_a_script(name)))


def _keeps_running(change):
    """Return whether the container's processes survive a change."""
    if change.after is None or change.action == RECREATE or change.after.state == RESTARTED:
        return False
    if not change.after.service and change.differing() & set(LIMITS):
        return False  # its cgroup is made when it starts
    return change.before is not None and change.before.state == change.after.state


def _taken_over(change):
    """Return whether a container that runs outside of its unit moves into it, for which systemd has to start it."""
    return bool(change.before and change.before.pid and not change.before.service and change.after and change.after.service)


def _keeps_namespace(change):
    """Return whether the network namespace survives a change. One of another user namespace would not serve the container."""
    before, after = change.before, change.after
    return bool(before and after and (before.namespace or before.pid) and (before.first_uid or 0) == after.first_uid)


def _loses_its_files(change):
    """Return whether the container has written files whose owners would be outside of its new user namespace."""
    before, after = change.before, change.after
    if before is None or after is None or before.first_uid is None or before.first_uid == after.first_uid or after.layer != "disk":
        return False
    upper = f"{after.directory}/layer/upper"
    return os.path.isdir(upper) and bool(os.listdir(upper))


def _left(plan):
    """Return the root filesystems that containers of the plan may have run on."""
    return sorted({os.path.realpath(change.before.rootfs) for change in plan.changes if change.before and change.before.rootfs})


def _renames(change):
    """Return whether to pin the network namespace again, before the process stops that alone keeps it and its links alive."""
    return _keeps_namespace(change) and not change.before.namespace


def _stops(change):
    """Return whether processes have to stop. A service that waits for a restart has to as well, when it is removed."""
    before = change.before
    return (before is not None and not _keeps_running(change)
            and (before.state == STARTED or bool(before.service and change.action == DELETE)))
