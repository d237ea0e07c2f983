# SPDX-License-Identifier: GPL-3.0-or-later
"""Define the operations on containers, beside those on files and programs. All stops run together, and so do all starts."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from typing import Tuple

from ..core.errors import ModuleError
from ..core.files import make_directory, remove_tree
from ..core.kind import Operation
from ..core.operations import Attempt, RemoveFile, WriteFile, emptied
from ..core.paths import tidy
from ..network import namespaces as network_namespaces
from ..rootfs import store
from . import ended, service
from .launcher import cgroups, namespaces, runtime
from .launcher.bundle import Refused
from .launcher.guard import PROGRAM
from .launcher.record import RUN, STATE, USERS, running
from .launcher.start import Lock
from .launcher.stop import stop, stop_all
from .recorded import read
from .spec import Container

GRACE = 0.1  # seconds that a command has to prove that it does not die at once


@dataclass(frozen=True)
class Stop:
    """Stop containers."""

    items: Tuple[Container, ...]

    def apply(self):
        _by_systemd("stop", self.items)
        failures = [f"{item.key}: stopping it failed: {service.journal(item.name)[-ended.OUTPUT:] or 'none'}"
                    for item in self.items if item.service and running(item.name)]
        by_hand = {item.name: item for item in self.items if not item.service}
        messages = stop_all({name: 10 if item.stop_timeout is None else item.stop_timeout for name, item in by_hand.items()})
        _raise_all(failures + [f"{by_hand[name].key}: stopping it failed: {text}" for name, text in messages.items()])

    def commands(self):
        return _verb("stop", self.items)


@dataclass(frozen=True)
class Start:
    """Start containers, and remove unused trees: of the root filesystems ``left``, in the directories ``parents``."""

    items: Tuple[Container, ...]
    left: Tuple[str, ...]
    parents: Tuple[str, ...]

    def apply(self):
        _by_systemd("start", self.items)
        found = service.start_by_hand([item.name for item in self.items if not item.service])
        for rootfs in self.left:
            store.release(rootfs)
        if self.items:
            time.sleep(GRACE)
        failures = [f"{item.key}: starting it failed: {found[item.name]}" if item.name in found else
                    f"{item.key}: {ended.at_once(item)}" if running(item.name) is None else None for item in self.items]
        _raise_all(failures)

    def commands(self):
        return _verb("start", self.items) + [store.releasing(parent) for parent in self.parents]


@dataclass(frozen=True)
class End:
    """Clean up after the last container of the host, unless another run has created one since."""

    operations: Tuple[Operation, ...]

    def apply(self):
        for operation in () if os.path.isdir(STATE) else self.operations:
            operation.apply()

    def commands(self):
        return [line for operation in self.operations for line in operation.commands()]


@dataclass(frozen=True)
class Prepare:
    """Write the files of a container while nobody can start it. Unless it ``goes_on`` running, it must not have been started."""

    item: Container
    goes_on: bool
    operations: Tuple[Operation, ...]

    def apply(self):
        make_directory(os.path.dirname(STATE))
        for directory in STATE, self.item.directory:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        with locked(self.item.name):
            if not self.goes_on and running(self.item.name):
                raise ModuleError(f"{self.item.key} was started concurrently with its old configuration; run the task again")
            for operation in self.operations:
                operation.apply()

    def commands(self):
        there = os.path.isdir(self.item.directory)
        return [f"install -d -m 0700 {STATE} {self.item.directory}"] * (not there) + [
            line for operation in self.operations for line in operation.commands()]


@dataclass(frozen=True)
class RemoveTree:
    """Remove a directory or a file, and the collection's own directories above it that are empty then."""

    path: str

    def apply(self):
        remove_tree(self.path)
        tidy(os.path.dirname(self.path))

    def commands(self):
        return [f"rm -r {self.path}", *emptied(os.path.dirname(self.path))]


@dataclass(frozen=True)
class RemoveNamespaces:
    """Unpin a container's namespaces, without the network namespace where another program owns that name."""

    name: str
    network: bool = True

    def apply(self):
        if self.network:
            namespaces.unpin(network_namespaces.path_of(self.name))
            namespaces.tidy()
        namespaces.unpin(users(self.name))
        tidy(USERS)

    def commands(self):
        pin, mount, lines = users(self.name), namespaces.RUN_NETNS, []
        if self.network and network_namespaces.exists(self.name):
            lines.append(f"ip netns delete {self.name}")
        if os.path.exists(pin):
            lines += [f"umount {pin}", f"rm {pin}", *emptied(USERS)]
        if lines and os.path.exists(namespaces.MADE):
            directories = [mount] * (read(namespaces.MADE) == "directory") + [os.path.dirname(namespaces.MADE)]
            lines.append(f'[ "$(ls -A {mount})" ] || {{ umount -l {mount} && rm {namespaces.MADE}; '
                         f"rmdir --ignore-fail-on-non-empty {' '.join(directories)}; }}")
        return lines


@dataclass(frozen=True)
class NameNamespaces:
    """Let the namespaces of a running container be found by its name again."""

    name: str
    pid: int
    mapped: bool  # whether it has a user namespace

    def apply(self):
        if self.mapped:
            namespaces.unpin(users(self.name))
            make_directory(USERS)
            namespaces.pin(f"/proc/{self.pid}/ns/user", users(self.name))
        namespaces.unpin(network_namespaces.path_of(self.name))
        namespaces.attach(self.name, f"/proc/{self.pid}/ns/net")

    def commands(self):
        pin = users(self.name)
        of_users = [f"umount {pin} 2>/dev/null || :", f"install -D /dev/null {pin}", f"mount --bind /proc/{self.pid}/ns/user {pin}"]
        return [*of_users * self.mapped, f"ip netns delete {self.name} 2>/dev/null || :", f"ip netns attach {self.name} {self.pid}"]


@dataclass(frozen=True)
class RemoveTraces:
    """Remove the record, the cgroup and the runtime's state of a container that ended by itself, as a stop does."""

    name: str

    def apply(self):
        stop(self.name, 0)
        tidy(RUN)
        tidy(runtime.HOME)

    def commands(self):
        places = RUN, runtime.HOME, f"{cgroups.mount_point()}/{cgroups.PARENT}"
        left = any(os.path.exists(f"{place}/{self.name}") for place in places) and running(self.name) is None
        return [f"{PROGRAM} stop {self.name}"] * left + emptied(RUN) + emptied(runtime.HOME) * os.path.isdir(runtime.HOME)


@contextlib.contextmanager
def locked(name):
    """Lock a container against starts. Raise ModuleError where a start takes too long."""
    try:
        with Lock(name):
            yield
    except Refused as error:
        raise ModuleError(str(error)) from None


def written(path, text, mode):
    """Return the operations that write a file where its text or mode differs, or remove it where ``text`` is None."""
    if text is None:
        return [RemoveFile(path)] * os.path.lexists(path)
    same = read(path) == text and stat.S_IMODE(os.stat(path).st_mode) == mode
    return [] if same else [WriteFile(path, text.encode(), mode)]


def users(name):
    """Return the path at which the user namespace of a container is pinned."""
    return f"{USERS}/{name}"


def _by_systemd(verb, items):
    units = [service.unit(item.name) for item in items if item.service]
    if units:
        Attempt(("systemctl", verb, *units)).apply()  # what came of each is looked at by itself


def _raise_all(failures):
    failures = [text for text in failures if text]
    if failures:
        raise ModuleError("; ".join(failures))


def _verb(verb, items):
    """Return the commands for the containers that systemd runs, and for the others."""
    units = [service.unit(item.name) for item in items if item.service]
    names = [item.name for item in items if not item.service]
    return [f"systemctl {verb} {' '.join(units)}"] * bool(units) + [f"{PROGRAM} {verb} {' '.join(names)}"] * bool(names)
