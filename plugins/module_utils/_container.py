# SPDX-License-Identifier: GPL-3.0-or-later
"""A container as data: what an option may say, what is recorded, and which files it consists of. Nothing here touches the host."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from typing import NamedTuple, Optional, Tuple

from . import _argspec as rule
from ._errors import Invalid
from ._model import OWNER, Item, fact, fixed, identity, settable, told
from ._paths import STATE
from ._script import fstab, script
from ._service import TEMPLATE, TEMPLATE_TEXT, drop_in, drop_in_text

STARTED, STOPPED, RESTARTED = "started", "stopped", "restarted"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AUTO, HOST = "auto", "host"
ON_ROOTFS_CHANGE = "on_rootfs_change"
# What Docker leaves to root in a container. All others are out of reach for good.
CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service",
                "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap")
ALL = "all"
ALL_CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable",
    "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot",
    "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease",
    "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read",
    "perfmon", "bpf", "checkpoint_restore")
# The last step of a start is chroot(1), which cannot give up what it needs itself.
KEPT = "sys_chroot"
ULIMITS = ("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
           "rttime", "sigpending", "stack")


class Bind(NamedTuple):
    """A file or directory of the host that the container sees at ``dest``."""

    source: str
    dest: str
    read_only: bool = False

    def __str__(self):
        return f"{self.source}:{self.dest}" + (":ro" if self.read_only else "")


@dataclass(frozen=True)
class Container(Item):
    """``namespace``: whether its network namespace is pinned below its name; ``lo``: whether the loopback device in there is up;
    ``files``: a digest of script, fstab and unit; ``service``: whether systemd runs it; ``enabled``: whether at boot, too.
    ``userns``: the first of its user ids outside, or why it has no user namespace; ``mapped_by``: what shows it the root
    filesystem as its own; ``halfway``: whether what it has written is on its way to other owners. ``seccomp``: what keeps it from
    system calls. ``rootfs_id``: the directory that was its root filesystem when it started.

    Every setting is read when the container starts, so a difference starts it anew; its network namespace stays, with
    all that is in it.
    """

    word = "container"

    name: str = identity()
    rootfs: Optional[str] = fixed()
    command: Optional[Tuple[str, ...]] = fixed()
    env: Optional[Tuple[str, ...]] = fixed()
    hostname: Optional[str] = fixed()
    workdir: Optional[str] = fixed()
    layer: Optional[str] = fixed()
    binds: Optional[Tuple[Bind, ...]] = fixed()
    tmpfs: Optional[Tuple[str, ...]] = fixed()
    read_only: Optional[bool] = fixed()
    privileged: Optional[bool] = fixed()
    capabilities: Optional[Tuple[str, ...]] = fixed()
    no_new_privs: Optional[bool] = fixed()
    seccomp: Optional[str] = fixed()
    userns: Optional[str] = fixed()
    mapped_by: Optional[str] = fixed()
    halfway: Optional[str] = fixed()
    ulimits: Optional[Tuple[str, ...]] = fixed()
    init: Optional[bool] = fixed()
    stop_timeout: Optional[int] = settable()
    restart: Optional[str] = settable()
    memory: Optional[str] = settable()
    cpus: Optional[float] = settable()
    pids: Optional[int] = settable()
    recreate: Optional[str] = settable()
    rootfs_id: Optional[str] = fixed()
    service: Optional[bool] = fixed()
    enabled: Optional[bool] = settable()
    files: Optional[str] = settable()
    namespace: Optional[bool] = settable()
    lo: Optional[bool] = settable()
    state: Optional[str] = settable()
    exit_status: Optional[int] = told()
    output: Optional[str] = told()
    pid: Optional[int] = fact()
    owner: Optional[str] = fact()

    def settled(self):
        """The root filesystem may have been made anew in the same run, of which nobody knew its number."""
        return self.with_(rootfs_id=None, **({"state": STARTED} if self.state == RESTARTED else {}))

    def with_(self, **updates):
        return type(self)(**{**{each.name: getattr(self, each.name) for each in fields(self)}, **updates})

    def shown(self):
        return {name: value for name, value in super().shown().items() if name != "halfway" or value}

    @property
    def directory(self):
        return f"{STATE}/{self.name}"

    @property
    def script(self):
        return f"{self.directory}/container"

    @property
    def first_id(self):
        """What root inside is outside; None where it is root."""
        return int(self.userns) if self.userns and self.userns.isdigit() else None

    @property
    def filtered(self):
        """Whether the script itself loads a filter of system calls."""
        return (self.seccomp or "").startswith("setpriv")

    @property
    def limits(self):
        """The controllers of cgroups that it needs."""
        return [name for name, value in (("cpu", self.cpus), ("memory", self.memory), ("pids", self.pids)) if value]


OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "stopped", "restarted", "absent"], "default": "started"},
    "rootfs": {"type": "path"},
    "command": {"type": "raw", "default": ["sleep", "infinity"]},
    "env": {"type": "dict", "default": {}},
    "hostname": {"type": "str"},
    "workdir": {"type": "path", "default": "/"},
    "layer": {"type": "str", "choices": ["none", "disk", "tmpfs"], "default": "disk"},
    "binds": {"type": "list", "elements": "dict", "default": [], "options": {
        "source": {"type": "path", "required": True},
        "dest": {"type": "path", "required": True},
        "read_only": {"type": "bool", "default": False}}},
    "tmpfs": {"type": "list", "elements": "str", "default": []},
    "read_only": {"type": "bool", "default": False},
    "privileged": {"type": "bool", "default": False},
    "capabilities": {"type": "dict", "options": {
        "add": {"type": "list", "elements": "str", "default": []},
        "drop": {"type": "list", "elements": "str", "default": []}}},
    "no_new_privs": {"type": "bool", "default": True},
    "seccomp": {"type": "bool", "default": True},
    "userns": {"type": "str", "choices": [AUTO, HOST]},
    "ulimits": {"type": "dict", "default": {}},
    "recreate": {"type": "str", "choices": [ON_ROOTFS_CHANGE]},
    "init": {"type": "bool", "default": True},
    "stop_timeout": {"type": "int", "default": 10},
    "restart": {"type": "str", "choices": ["no", "on-failure", "always"], "default": "no"},
    "memory": {"type": "str"},
    "cpus": {"type": "float"},
    "pids": {"type": "int"},
}


def container(options):
    """The wanted container from the options of one item. Raises Invalid."""
    name = rule.thing_name("name", options["name"])
    if options["state"] == "absent":
        return Container(name=name)
    hostname = rule.thing_name("hostname", options["hostname"]) or name
    env = {"HOME": "/root", "PATH": PATH, "HOSTNAME": hostname, **rule.environment("env", options["env"])}
    wanted = Container(
        name=name, hostname=hostname, namespace=True, lo=True, state=options["state"],
        rootfs=rule.path("rootfs", rule.required("rootfs", options["rootfs"])),
        command=rule.command("command", options["command"]),
        env=rule.arguments("env", [f"{key}={value}" for key, value in sorted(env.items())]),
        workdir=rule.path("workdir", options["workdir"]),
        binds=tuple(sorted((Bind(rule.path("binds.source", each["source"]), rule.path("binds.dest", each["dest"], below="/"),
                                 each["read_only"]) for each in options["binds"]), key=lambda bind: bind.dest)),
        tmpfs=tuple(sorted(rule.tmpfs("tmpfs", each) for each in options["tmpfs"])),
        stop_timeout=rule.in_range("stop_timeout", options["stop_timeout"], 0, 3600),
        memory=_memory(options["memory"]) or UNLIMITED, cpus=rule.in_range("cpus", options["cpus"], 0.01, 1024) or UNLIMITED,
        pids=rule.in_range("pids", options["pids"], 1, 4194304) or UNLIMITED,
        capabilities=_capabilities(options["capabilities"] or {"add": [], "drop": []}, options["privileged"]),
        seccomp="" if options["seccomp"] and not options["privileged"] else OFF, userns=options["userns"] or "",
        ulimits=tuple(_ulimit(str(name).lower(), value) for name, value in sorted(options["ulimits"].items())),
        recreate=options["recreate"] or "", mapped_by="", halfway="",
        **{key: options[key] for key in ("layer", "read_only", "privileged", "init", "restart", "no_new_privs")})
    memory = [each.partition(":")[0] for each in wanted.tmpfs]
    rule.refuse_duplicates("binds and tmpfs", [each.dest for each in wanted.binds] + memory)
    for each in memory:
        for bind in wanted.binds:
            if each.startswith(bind.dest + "/"):
                raise Invalid("tmpfs", each, f"the bind to {bind.dest} would hide it: bind what it needs of that one by one")
    return wanted


def _memory(value):
    if value is not None and not re.fullmatch(r"[1-9]\d*[KMGT]?", value):
        raise Invalid("memory", value, "it is a number of bytes, or one with K, M, G or T after it, such as 64M")
    return value


OFF = "off"  # and nothing else to be said
UNLIMITED = ""
LIMITS = ("memory", "cpus", "pids")


def _capabilities(options, privileged):
    """Those that root inside can have, in the kernel's order."""
    given = {key: [str(each).lower()[4 if str(each).lower().startswith("cap_") else 0:] for each in options[key] or []]
             for key in ("add", "drop")}
    for key, names in given.items():
        for each in names:
            if each not in (*ALL_CAPABILITIES, ALL):
                raise Invalid(f"capabilities.{key}", each, "it is no capability of capabilities(7), nor all")
            if privileged:
                raise Invalid(f"capabilities.{key}", each, "a privileged container has them all: leave out one of the two options")
    if KEPT in given["drop"]:
        raise Invalid("capabilities.drop", KEPT, "the launcher itself needs it to the last; all leaves it out")
    base = set(ALL_CAPABILITIES if privileged or ALL in given["add"] else CAPABILITIES)
    kept = (base if ALL not in given["drop"] else {KEPT}) - set(given["drop"]) | set(given["add"]) - {ALL}
    return tuple(each for each in ALL_CAPABILITIES if each in kept)


def _ulimit(name, value):
    """``nofile=1024:4096``, in the words of prlimit(1)."""
    if name not in ULIMITS:
        raise Invalid("ulimits", name, f"it is one of {', '.join(ULIMITS)}")
    if not re.fullmatch(r"(\d+|unlimited)(:(\d+|unlimited))?", str(value)):
        raise Invalid(f"ulimits.{name}", value, "it is a number or unlimited, or a soft and a hard one such as 1024:4096")
    soft, unused, hard = str(value).partition(":")
    if hard not in ("", "unlimited") and (soft == "unlimited" or int(soft) > int(hard)):
        raise Invalid(f"ulimits.{name}", value, "the soft limit is above the hard one")
    return f"{name}={soft}:{hard or soft}"


# What is recorded of a container: all that its files are made from.
RECORDED = tuple(each.name for each in fields(Container)
                 if each.name not in ("files", "halfway", "namespace", "lo", "service", "enabled", "state", "exit_status", "output",
                                      "pid", "owner"))


ESSENTIAL = ("name", "rootfs", "command", "env", "binds", "tmpfs")


def to_json(container):
    """The record of a container, one readable file."""
    return json.dumps({name: getattr(container, name) for name in RECORDED}, indent=2) + "\n"


def from_json(text):
    """The container of a record. Raises ValueError, KeyError or TypeError where it is not one."""
    found = json.loads(text)
    # An older release may have known fewer settings.
    values = {name: found[name] if name in ESSENTIAL else found.get(name) for name in RECORDED}
    for name in "command", "env", "tmpfs", "capabilities", "ulimits":
        values[name] = tuple(values[name] or ())
    for name in LIMITS:
        values[name] = values[name] or UNLIMITED
    values["binds"] = tuple(Bind(*each) for each in values["binds"])
    return Container(owner=OWNER, **values)


def files_of(container, service=False):
    """The container's files as text, by name or path; None for one that is not wanted."""
    units = {TEMPLATE: TEMPLATE_TEXT, drop_in(container.name): drop_in_text(container)} if service else {}
    return {"container": script(container), "fstab": fstab(container), "container.json": to_json(container), **units}


def digest(files):
    """A short name of the files that the record does not already tell about."""
    text = "\0".join(files[name] or "" for name in sorted(files) if name != "container.json")
    return hashlib.sha256(text.encode()).hexdigest()[:12]
