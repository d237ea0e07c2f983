# SPDX-License-Identifier: GPL-3.0-or-later
"""Define a container as data: its options, and the bundle that they make. Nothing here touches the host."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace
from typing import Any, Dict, NamedTuple, Optional, Tuple

from ..core import validate
from ..core.errors import OptionError
from ..core.resource import OWNER, Item, fixed, identity, nullable, observed_only, settable
from .launcher.bundle import DEVICES, LAYER, PATH, RUNTIME, STOP_TIMEOUT, WAITS
from .launcher.confine import CAPABILITIES as ALL_CAPABILITIES
from .launcher.confine import RLIMITS
from .launcher.confine import UNLIMITED as NO_LIMIT
from .launcher.record import STATE, USERS
from .launcher.seccomp import profile

STARTED, STOPPED, RESTARTED = "started", "stopped", "restarted"
AUTO, HOST = "auto", "host"
ON_ROOTFS_CHANGE = "on_rootfs_change"
# What podman leaves to root in a container. All others are out of reach for good.
CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service",
                "sys_chroot", "setfcap")
ALL = "all"
ULIMITS = tuple(sorted(each.lower() for each in RLIMITS))
RANGE = 65536  # user ids of a container
SHELL, NO_INIT = "shell", "none"
INITS = ("catatonit", "tini")  # static programs of the host
OWN_RUNTIME, RUNTIMES = "ns-container", ("crun", "runc")
INIT_INSIDE = "/dev/init"
SETTINGS = "fromscratch.settings"  # an annotation: what the bundle was made from
# What is the whole host's in /proc and /sys: Docker hides the first ones, and the second can only be read.
MASKED = ("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
          "/sys/firmware")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# Process 1 in the container's own shell: it passes the signals on that ask a container to end, reaps what its children leave
# behind, and says how its command ended.
INIT = """\
child=
asked=
trap 'asked=1; [ -z "$child" ] || kill -TERM "$child"' TERM INT QUIT HUP
"$@" &
child=$!
[ -z "$asked" ] || kill -TERM "$child"
while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done
echo "ended with status $status"
exit $status"""


class Ulimit(NamedTuple):
    """Hold a limit of setrlimit(2), named as in prlimit(1); None is unlimited."""

    name: str
    soft: Optional[int] = None
    hard: Optional[int] = None

    def __str__(self):
        return f"{self.name}=" + ":".join("unlimited" if limit is None else str(limit) for limit in (self.soft, self.hard))


class Bind(NamedTuple):
    """Hold a bind mount: a file or directory of the host, and where the container sees it."""

    source: str
    dest: str
    read_only: bool = False

    def __str__(self):
        return f"{self.source}:{self.dest}" + (":ro" if self.read_only else "")


@dataclass(frozen=True)
class Container(Item):
    """Hold a container, desired or observed.

    ``namespace`` is whether its network namespace is pinned under its name, ``lo`` whether the loopback device in it is up,
    ``bundle`` whether config.json and the unit are what the settings make, ``service`` whether systemd runs it, and ``enabled``
    whether it does at boot. ``userns`` is whether it has a user namespace, ``first_uid`` the host's uid of its root, and
    ``userns_reason`` why it has none; ``seccomp`` likewise. ``rootfs_id`` identifies the tree, or the directory, that was its root
    filesystem when it started.

    All settings are read when the container starts, so a difference restarts it; its network namespace stays, with all that is in
    it.
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
    seccomp: Optional[bool] = fixed()
    seccomp_reason: Optional[str] = observed_only(shown=True)
    userns: Optional[bool] = fixed()
    first_uid: Optional[int] = fixed()
    userns_reason: Optional[str] = observed_only(shown=True)
    user: Optional[str] = fixed()
    ulimits: Optional[Tuple[Ulimit, ...]] = fixed()
    init: Optional[str] = fixed()
    runtime: Optional[str] = fixed()
    stop_timeout: Optional[int] = settable()
    restart: Optional[str] = settable()
    memory: Optional[str] = nullable()
    cpus: Optional[float] = nullable()
    pids: Optional[int] = nullable()
    recreate: Optional[str] = nullable()
    rootfs_id: Optional[str] = fixed()
    service: Optional[bool] = fixed()
    enabled: Optional[bool] = settable()
    bundle: Optional[bool] = settable()
    namespace: Optional[bool] = settable()
    lo: Optional[bool] = settable()
    state: Optional[str] = settable()
    exit_status: Optional[int] = observed_only(shown=True)
    output: Optional[str] = observed_only(shown=True)
    pid: Optional[int] = observed_only()
    owner: Optional[str] = observed_only()

    def expected_after_apply(self):
        """Return the container without its rootfs_id, which is not known where its root filesystem was created in the same run."""
        return replace(self, rootfs_id=None, state=STARTED if self.state == RESTARTED else self.state)

    @property
    def directory(self):
        """Return the path of the container's state directory."""
        return f"{STATE}/{self.name}"


OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": [STARTED, STOPPED, RESTARTED, "absent"], "default": STARTED},
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
    "user": {"type": "str"},
    "userns": {"type": "str", "choices": [AUTO, HOST]},
    "ulimits": {"type": "dict", "default": {}},
    "recreate": {"type": "str", "choices": [ON_ROOTFS_CHANGE]},
    "init": {"type": "str", "default": "true"},
    "runtime": {"type": "str", "default": OWN_RUNTIME},
    "stop_timeout": {"type": "int", "default": 10},
    "restart": {"type": "str", "choices": ["no", "on-failure", "always"], "default": "no"},
    "memory": {"type": "str"},
    "cpus": {"type": "float"},
    "pids": {"type": "int"},
}
RULES = {"required_if": [("state", state, ("rootfs",)) for state in (STARTED, STOPPED, RESTARTED)]}


def container(options: Dict[str, Any]) -> Container:
    """Return the desired Container of one item's options. Raise OptionError."""
    name = validate.thing_name("name", options["name"])
    if options["state"] == "absent":
        return Container(name=name)
    hostname = validate.thing_name("hostname", options["hostname"]) or name
    env = {"HOME": "/root", "PATH": PATH, "HOSTNAME": hostname, **validate.environment("env", options["env"])}
    privileged = options["privileged"]
    wanted = Container(
        name=name, hostname=hostname, namespace=True, lo=True, state=options["state"], bundle=True,
        rootfs=validate.path("rootfs", options["rootfs"]),
        command=validate.command("command", options["command"]),
        env=validate.arguments("env", [f"{key}={value}" for key, value in sorted(env.items())]),
        workdir=validate.path("workdir", options["workdir"]),
        binds=tuple(sorted((Bind(validate.path("binds.source", bind["source"]),
                                 validate.path("binds.dest", bind["dest"], below="/"), bind["read_only"])
                            for bind in options["binds"]), key=lambda bind: bind.dest)),
        tmpfs=tuple(sorted(_tmpfs(each, privileged) for each in options["tmpfs"])),
        stop_timeout=validate.in_range("stop_timeout", options["stop_timeout"], 0, 3600),
        memory=_memory(options["memory"]), cpus=validate.in_range("cpus", options["cpus"], 0.01, 1024),
        pids=validate.in_range("pids", options["pids"], 1, 4194304),
        capabilities=_capabilities(options["capabilities"] or {"add": [], "drop": []}, privileged),
        seccomp=options["seccomp"] and not privileged, userns={AUTO: True, HOST: False, None: None}[options["userns"]],
        ulimits=tuple(_ulimit(str(name).lower(), value) for name, value in sorted(options["ulimits"].items())),
        recreate=options["recreate"], init=_init(options["init"]), user=_user(options["user"]),
        runtime=_runtime(options["runtime"]),
        **{key: options[key] for key in ("layer", "read_only", "privileged", "restart", "no_new_privs")})
    memory = [each.partition(":")[0] for each in wanted.tmpfs or ()]
    validate.refuse_duplicates("binds and tmpfs", [bind.dest for bind in wanted.binds or ()] + memory)
    for path in memory:
        for bind in wanted.binds or ():
            if path.startswith(bind.dest + "/"):
                raise OptionError("tmpfs", path, f"the bind to {bind.dest} would hide it: bind what it needs of that one by one")
    return wanted


def _memory(value):
    if value is not None and not re.fullmatch(r"[1-9]\d*[KMGT]?", value):
        raise OptionError("memory", value, "it is a number of bytes, or one with K, M, G or T after it, such as 64M")
    return value


def _tmpfs(value, privileged):
    found = validate.tmpfs("tmpfs", value)
    for flag in ("dev", "suid") if not privileged else ():
        if flag in found.partition(":")[2].split(","):
            raise OptionError("tmpfs", value, f"{flag} lifts what keeps the container apart from the host: leave it out, or set "
                              "privileged")
    return found


def _init(value):
    if value.lower() in ("true", "yes", "on", "1"):
        return SHELL
    if value.lower() in ("false", "no", "off", "0"):
        return NO_INIT
    if value in INITS or value.startswith("/"):
        return validate.path("init", value if value.startswith("/") else f"/usr/bin/{value}")
    raise OptionError("init", value, f"it is true, false, {' or '.join(INITS)}, or the path of such a program on the host")


def _runtime(value):
    if value in (OWN_RUNTIME, *RUNTIMES):
        return value
    if not value.startswith("/"):
        raise OptionError("runtime", value,
                          f"it is {', '.join((OWN_RUNTIME, *RUNTIMES))}, or the path of such a program on the host")
    return validate.path("runtime", value)


def _user(value):
    if value is not None and not (re.fullmatch(r"\d{1,5}(:\d{1,5})?", value) and max(map(int, value.split(":"))) < RANGE):
        raise OptionError("user", value, f"it is UID or UID:GID, numbers below {RANGE}, such as 1000:1000")
    return value or "0"


LIMITS = ("memory", "cpus", "pids")


def _capabilities(options, privileged):
    """Return the capabilities of the bounding set, in the kernel's order. Raise OptionError."""
    given = {key: [str(each).lower()[4 if str(each).lower().startswith("cap_") else 0:] for each in options[key] or []]
             for key in ("add", "drop")}
    for key, names in given.items():
        for name in names:
            if name not in (*ALL_CAPABILITIES, ALL):
                raise OptionError(f"capabilities.{key}", name, "it is no capability of capabilities(7), nor all")
            if privileged:
                raise OptionError(f"capabilities.{key}", name,
                                  "a privileged container has them all: leave out one of the two options")
    base = set(ALL_CAPABILITIES if privileged or ALL in given["add"] else CAPABILITIES)
    kept = (base if ALL not in given["drop"] else set()) - set(given["drop"]) | set(given["add"]) - {ALL}
    return tuple(each for each in ALL_CAPABILITIES if each in kept)


def _ulimit(name: str, value: Any) -> Ulimit:
    """Return the Ulimit of an option such as ``nofile: 1024:4096``. Raise OptionError."""
    if name not in ULIMITS:
        raise OptionError("ulimits", name, f"it is one of {', '.join(ULIMITS)}")
    if not re.fullmatch(r"(\d+|unlimited)(:(\d+|unlimited))?", str(value)):
        raise OptionError(f"ulimits.{name}", value, "it is a number or unlimited, or a soft and a hard one such as 1024:4096")
    limits = [None if limit == "unlimited" else int(limit) for limit in str(value).split(":")]
    soft, hard = limits[0], limits[-1]
    if hard is not None and (soft is None or soft > hard):
        raise OptionError(f"ulimits.{name}", value, "the soft limit is above the hard one")
    return Ulimit(name, soft, hard)


# What is recorded of a container: all that its bundle is made from.
RECORDED = tuple(field.name for field in fields(Container)
                 if field.name not in ("bundle", "namespace", "lo", "service", "enabled", "state", "exit_status", "output", "pid",
                                       "owner"))
ESSENTIAL = ("name", "rootfs", "command", "env", "binds", "tmpfs", "userns", "capabilities")


def from_settings(found: Dict[str, Any]) -> Container:
    """Return the Container of recorded settings, a dict. Raise ValueError, KeyError or TypeError where they are not valid."""
    values: Dict[str, Any] = {name: found[name] if name in ESSENTIAL else found.get(name) for name in RECORDED}
    for name in "command", "env", "tmpfs", "capabilities":
        values[name] = tuple(values[name] or ())
    for name in (*LIMITS, "recreate"):
        values[name] = values[name] or None  # "" in the records of earlier releases
    values["runtime"] = values["runtime"] or OWN_RUNTIME
    values["binds"] = tuple(Bind(*each) for each in values["binds"])
    values["ulimits"] = tuple(_ulimit(*limit.split("=")) if isinstance(limit, str) else Ulimit(*limit)  # of an earlier release
                              for limit in values["ulimits"] or ())
    return Container(owner=OWNER, **values)


def from_bundle(text: str) -> Container:
    """Return the Container that a config.json was made from."""
    return from_settings(json.loads(json.loads(text)["annotations"][SETTINGS]))


def to_bundle(container) -> str:
    """Return the text of a container's config.json."""
    args = {SHELL: ["/bin/sh", "-c", INIT, "init"], NO_INIT: []}.get(container.init, [INIT_INSIDE, "--"]) + list(container.command)
    uid, _colon, gid = container.user.partition(":")
    capabilities = [f"CAP_{each.upper()}" for each in container.capabilities]
    annotations = {LAYER: container.layer, STOP_TIMEOUT: str(container.stop_timeout)}
    annotations.update({RUNTIME: container.runtime} if container.runtime != OWN_RUNTIME else {})
    annotations.update({WAITS: "yes"} if container.init == SHELL else {})
    annotations.update({DEVICES: "nodes"} if container.privileged else {})
    annotations[SETTINGS] = json.dumps({name: getattr(container, name) for name in RECORDED})
    bundle = {
        "ociVersion": "1.1.0", "hostname": container.hostname,
        "root": {"path": container.rootfs, "readonly": container.read_only},
        "process": {
            "terminal": False, "user": {"uid": int(uid), "gid": int(gid or 0)}, "args": args, "env": list(container.env),
            "cwd": container.workdir, "noNewPrivileges": container.no_new_privs and not container.privileged,
            "capabilities": {"bounding": capabilities, "permitted": capabilities, "effective": capabilities},
            "rlimits": [_rlimit(each) for each in container.ulimits]},
        "mounts": list(_mounts(container)), "linux": _linux(container), "annotations": annotations}
    return _text(bundle, 2) + "\n"


def _text(value, levels, indent=""):
    """Return JSON with one line per entry down to ``levels``, and in one line below: json.dumps is much faster there."""
    parts = []
    if levels and isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_text(part, levels - 1, indent + '  ')}" for key, part in value.items()]
    elif levels and isinstance(value, list):
        parts = list(map(json.dumps, value))
    if not parts:
        return json.dumps(value)
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return f"{begin}\n" + ",\n".join(f"{indent}  {part}" for part in parts) + f"\n{indent}{end}"


def _rlimit(limit):
    soft, hard = (NO_LIMIT if each is None else each for each in (limit.soft, limit.hard))
    return {"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard}


def _mounts(container):
    # Device nodes work nowhere, but in /dev: there the launcher mounts each by itself, with nodev around it, as others could not.
    device = [] if container.privileged else ["nodev"]
    for kind, path, options in (
            ("proc", "/proc", ["nosuid", "nodev", "noexec"]), ("sysfs", "/sys", ["ro", "nosuid", "nodev", "noexec"]),
            ("tmpfs", "/dev", ["nosuid", "mode=755", "size=64k", "nr_inodes=512"]),
            ("devpts", "/dev/pts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            ("tmpfs", "/dev/shm", ["nosuid", "nodev", "noexec", "mode=1777", "size=64m", "nr_inodes=16k"]),
            ("mqueue", "/dev/mqueue", ["nosuid", "nodev", "noexec"])):
        yield {"destination": path, "type": kind, "source": kind, "options": options}
    for entry in container.tmpfs:
        path, _colon, options = entry.partition(":")
        yield {"destination": path, "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "nodev", *filter(None, options.split(","))]}
    for bind in container.binds:
        # Mounts below the source stay out of a read-only bind.
        options = ["bind", "ro", *device] if bind.read_only else ["rbind", *device, *["idmap"] * container.userns]
        yield {"destination": bind.dest, "type": "bind", "source": bind.source, "options": options}
    if container.init not in (SHELL, NO_INIT):
        yield {"destination": INIT_INSIDE, "type": "bind", "source": container.init, "options": ["bind", "ro", "nosuid", *device]}


def _linux(container):
    spaces = [{"type": each} for each in ("pid", "mount", "uts", "ipc", "cgroup")]
    spaces.append({"type": "network", "path": f"/run/netns/{container.name}"})
    found: Dict[str, Any] = {"namespaces": spaces}
    if container.userns:
        spaces.append({"type": "user", "path": f"{USERS}/{container.name}"})
        mapping = [{"containerID": 0, "hostID": container.first_uid, "size": RANGE}]
        found.update(uidMappings=mapping, gidMappings=mapping)
    if not container.privileged:
        # So that ping needs no raw socket.
        found.update(maskedPaths=list(MASKED), readonlyPaths=list(READ_ONLY),
                     sysctl={"net.ipv4.ping_group_range": f"0 {RANGE - 1}"})
    if container.seccomp:
        found["seccomp"] = profile()
    resources = {}
    if container.memory:
        limit = in_bytes(container.memory)
        resources["memory"] = {"limit": limit, "swap": limit}
    if container.cpus:
        resources["cpu"] = {"quota": round(container.cpus * 100000), "period": 100000}
    if container.pids:
        resources["pids"] = {"limit": container.pids}
    if resources:
        found["resources"] = resources
    return found


def in_bytes(memory):
    """Return an amount of memory such as 64M in bytes."""
    factor = 1024 ** ("KMGT".index(memory[-1]) + 1) if memory[-1] in "KMGT" else 1
    return int(memory.rstrip("KMGT")) * factor
