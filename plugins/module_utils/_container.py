# SPDX-License-Identifier: GPL-3.0-or-later
"""A container as data, and the two files that it consists of: a shell script and an fstab.

The script is the container: it starts it, stops it and enters it, with nothing but util-linux and coreutils, and can
be read and run by hand. Nothing here touches the host.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass, fields
from typing import NamedTuple, Optional, Tuple

from . import _argspec as rule
from ._errors import Invalid
from ._model import OWNER, Item, fact, fixed, identity, settable
from ._service import TEMPLATE, TEMPLATE_TEXT, drop_in, drop_in_text

STATE = "/var/lib/fromscratch/containers"
RUN = "/run/fromscratch/containers"
STARTED, STOPPED, RESTARTED = "started", "stopped", "restarted"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What Docker leaves to root in a container, but for mknod: no device cgroup stands between a device node and the host's
# disks here. All others are out of reach for good.
CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service",
                "net_raw", "sys_chroot", "audit_write", "setfcap")


class Bind(NamedTuple):
    """A file or directory of the host that the container sees at ``dest``."""

    source: str
    dest: str
    read_only: bool = False

    def __str__(self):
        return f"{self.source}:{self.dest}" + (":ro" if self.read_only else "")


@dataclass(frozen=True)
class Container(Item):
    """``namespace``: whether its network namespace is pinned below its name; ``files``: a digest of script, fstab and unit;
    ``service``: whether systemd runs it; ``enabled``: whether at boot, too.

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
    init: Optional[bool] = fixed()
    stop_timeout: Optional[int] = settable()
    restart: Optional[str] = settable()
    memory: Optional[str] = settable()
    cpus: Optional[float] = settable()
    pids: Optional[int] = settable()
    service: Optional[bool] = fixed()
    enabled: Optional[bool] = settable()
    files: Optional[str] = settable()
    namespace: Optional[bool] = settable()
    state: Optional[str] = settable()
    pid: Optional[int] = fact()
    owner: Optional[str] = fact()

    def settled(self):
        return self.with_(state=STARTED) if self.state == RESTARTED else self

    def with_(self, **updates):
        return type(self)(**{**{each.name: getattr(self, each.name) for each in fields(self)}, **updates})

    @property
    def directory(self):
        return f"{STATE}/{self.name}"

    @property
    def script(self):
        return f"{self.directory}/container"


OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "stopped", "restarted", "absent"], "default": "started"},
    "rootfs": {"type": "path"},
    "command": {"type": "list", "elements": "str", "default": ["sleep", "infinity"]},
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
        name=name, hostname=hostname, namespace=True, state=options["state"],
        rootfs=rule.path("rootfs", rule.required("rootfs", options["rootfs"])),
        command=rule.arguments("command", options["command"]),
        env=rule.arguments("env", [f"{key}={value}" for key, value in sorted(env.items())]),
        workdir=rule.path("workdir", options["workdir"]),
        binds=tuple(Bind(rule.path("binds.source", each["source"]), rule.path("binds.dest", each["dest"], below="/"),
                         each["read_only"]) for each in options["binds"]),
        tmpfs=tuple(rule.tmpfs("tmpfs", each) for each in options["tmpfs"]),
        stop_timeout=rule.in_range("stop_timeout", options["stop_timeout"], 0, 3600),
        memory=_memory(options["memory"]), cpus=rule.in_range("cpus", options["cpus"], 0.01, 1024),
        pids=rule.in_range("pids", options["pids"], 1, 4194304),
        **{key: options[key] for key in ("layer", "read_only", "privileged", "init", "restart")})
    rule.refuse_duplicates("binds and tmpfs", [each.dest for each in wanted.binds] + [
        each.partition(":")[0] for each in wanted.tmpfs])
    return wanted.with_(files=digest(files_of(wanted)))


def _memory(value):
    if value is not None and not re.fullmatch(r"[1-9]\d*[KMGT]?", value):
        raise Invalid("memory", value, "it is a number of bytes, or one with K, M, G or T after it, such as 64M")
    return value


# What is recorded of a container: all that its files are made from.
RECORDED = tuple(each.name for each in fields(Container)
                 if each.name not in ("files", "namespace", "service", "enabled", "state", "pid", "owner"))


def to_json(container):
    """The record of a container, one readable file."""
    return json.dumps({name: getattr(container, name) for name in RECORDED}, indent=2) + "\n"


def from_json(text):
    """The container of a record. Raises ValueError, KeyError or TypeError where it is not one."""
    found = json.loads(text)
    values = {name: found[name] for name in RECORDED}
    for name in "command", "env", "tmpfs":
        values[name] = tuple(values[name])
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


def fstab(container):
    """The file systems below the container's root, in the order in which they are mounted."""
    root = f"{container.directory}/root"
    lines = [
        # Root may write to /proc/sys whatever its capabilities, and most of that is the whole host's.
        ("proc", "/proc", "proc", ("" if container.privileged else "ro,") + "nosuid,nodev,noexec"),
        ("sysfs", "/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("tmpfs", "/dev", "tmpfs", "nosuid,mode=755,size=64k"),
        ("devpts", "/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"),
        ("tmpfs", "/dev/shm", "tmpfs", "nosuid,nodev,noexec,mode=1777,size=64m"),
        ("mqueue", "/dev/mqueue", "mqueue", "nosuid,nodev,noexec"),
    ]
    for each in container.tmpfs:
        dest, unused, options = each.partition(":")
        lines.append(("tmpfs", dest, "tmpfs", ",".join(["nosuid", "nodev", *filter(None, [options])])))
    return f"# The file systems of {container.name}, in a mount namespace of its own. Made by {OWNER}.\n" + "".join(
        f"{source} {root}{dest} {kind} {options},X-mount.mkdir 0 0\n" for source, dest, kind, options in lines)


def namespace_line(name):
    """Shell that makes a container's network namespace where it is not there."""
    return f"[ -e /run/netns/{name} ] || {{ ip netns add {name} && ip -n {name} link set lo up; }}"


def script(container):
    """The container's own program."""
    quoted = {name: shlex.quote(value) for name, value in {
        "name": container.name, "dir": container.directory, "record": f"{RUN}/{container.name}",
        "hostname": container.hostname, "workdir": container.workdir, "rootfs": container.rootfs}.items()}
    # The container's environment and rights, and the present directory as its root. Two paths, because the PATH is already
    # the container's.
    become = ["env -i " + " ".join(shlex.quote(each) for each in container.env), "/usr/sbin/chroot ."]
    if not container.privileged:
        become.insert(1, "/usr/bin/setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,"
                      + ",".join(f"+{each}" for each in CAPABILITIES) + " --")
    device = "" if container.privileged else "nodev,"
    overlay = f'mount -t overlay -o "{device}{OVERLAY}" overlay "$root"'
    return SCRIPT.format(
        **quoted, owner=OWNER, timeout=container.stop_timeout, become=" \\\n        ".join(become),
        layer={"none": f'mount -o {device}bind "$rootfs" "$root"',
               "disk": '[ -d "$dir/layer/work" ] || mkdir -p "$dir/layer/upper" "$dir/layer/work"\n    ' + overlay,
               "tmpfs": 'mount -t tmpfs -o mode=700,X-mount.mkdir layer "$dir/layer"\n'
                        '    mkdir "$dir/layer/upper" "$dir/layer/work"\n    ' + overlay,
               }[container.layer],
        # Mounts below the source stay out of a read-only bind: they would be writable.
        binds="".join(f"\n    bind {shlex.quote(each.source)} {shlex.quote(each.dest)} {'bind,ro' if each.read_only else 'rbind'}"
                      for each in container.binds),
        freeze='\n    mount -o remount,bind,ro "$root"' if container.read_only else "",
        namespace=namespace_line('"$name"'), first=INIT if container.init else FIRST,
        command=" ".join(shlex.quote(each) for each in container.command))


OVERLAY = "lowerdir=$rootfs,upperdir=$dir/layer/upper,workdir=$dir/layer/work"

# Process 1: the end of descriptor 4 tells the host that the start is over.
FIRST = 'exec </dev/null 4<&- && cd "$1" && shift && exec "$@"'

# Process 1 with an init: it passes the signals on that ask a container to end, and reaps what its children leave behind.
INIT = r"""exec </dev/null 4<&-
cd "$1" || exit 127
shift
trap "kill -TERM \$child" TERM INT QUIT HUP
"$@" &
child=$!
while wait $child; status=$?; kill -0 $child 2>/dev/null; do :; done
exit $status"""

SCRIPT = r"""#!/bin/sh
# {name}: a container out of namespaces, made by {owner}. By hand:
#
#   container start           start it in the background
#   container stop            SIGTERM, and SIGKILL after {timeout} s
#   container exec COMMAND    run a command inside, with the container's own rights
#   container status          say whether it runs; the exit status is 0 when it does
set -eu
umask 022

name={name}
dir={dir}
record={record} # its process 1, the time that started, and the boot, a line each: a pid alone is soon somebody else's
rootfs={rootfs}
root=$dir/root
PATH=${{PATH-}}:/usr/sbin:/sbin

# Sets pid. A process that has ended but was not waited for does not run any more.
running() {{
    [ -r "$record" ] && {{ read -r pid && read -r start && read -r boot; }} <"$record" && [ -r "/proc/$pid/stat" ] || return 1
    read -r this_boot </proc/sys/kernel/random/boot_id
    stat=
    {{ while read -r line; do stat="$stat $line"; done <"/proc/$pid/stat"; }} 2>/dev/null || return 1
    # shellcheck disable=SC2086  # what follows the name in brackets, as words
    set -- ${{stat##*) }}
    [ "$boot" = "$this_boot" ] && [ "$start" = "${{20-}}" ] && [ "$1" != Z ] && [ "$1" != X ]
}}

# Whether the container ends within so many tenths of a second.
ends_within() {{
    left=$1
    nap=0.01 # most end at once
    while running; do
        [ "$left" -gt 0 ] || return 1
        sleep $nap
        nap=0.1
        left=$((left - 1))
    done
}}

# Refuses a mount point that a symbolic link in the container's files would lead elsewhere.
mount_point() {{
    path=$1
    while [ "$path" != "$root" ]; do
        [ ! -L "$path" ] || {{ echo "${{path#"$root"}} in $rootfs is a symbolic link: nothing is mounted there" >&2; exit 1; }}
        path=${{path%/*}}
    done
}}

# Shows the container $1 of the host at $2, with the mount options $3.
bind() {{
    mount_point "$root$2"
    if [ ! -d "$1" ] && [ ! -e "$root$2" ]; then
        mkdir -p "$root${{2%/*}}"
        : >"$root$2"
    fi
    mount -o "$3,X-mount.mkdir" "$1" "$root$2"
}}

# This script with a verb, in new namespaces but for that of processes, which the next process begins.
unshared() {{
    cgroup=
    [ ! -e /proc/self/ns/cgroup ] || cgroup=--cgroup
    exec nsenter --net="/run/netns/$name" -- unshare --mount --uts --ipc $cgroup --pid -- "$dir/container" "$@"
}}

# Process 1 of the container: it still sees the host's files, though its mounts are its own affair.
begin() {{
    read -r stat </proc/self/stat
    read -r boot </proc/sys/kernel/random/boot_id
    # shellcheck disable=SC2086  # what follows the name in brackets, as words
    set -- ${{stat##*) }}
    printf '%s\n' "${{stat%% *}}" "${{20}}" "$boot" >"$record"
    echo {hostname} >/proc/sys/kernel/hostname
    {layer}
    while read -r source point rest; do
        [ "$source" = "#" ] || mount_point "$point"
    done <"$dir/fstab"
    mount --all --fstab "$dir/fstab"
    cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty \
        /dev/fd /dev/stdin /dev/stdout /dev/stderr "$root/dev"
    ln -s pts/ptmx "$root/dev"{binds}{freeze}
    # From here the tools are found in the host's tree, and the present directory is the container's root: it has no name
    # there, which a shell complains about.
    PWD=/proc/self/cwd exec nsenter --root=/proc/self/fd/3 --wd="$root" -- "$dir/container" pivot
}}

case ${{1-}} in
start)
    if running; then exit 0; fi
    cd /
    {{ [ -d "${{record%/*}}" ] && [ -d "$root" ]; }} || mkdir -p "${{record%/*}}" "$root"
    {namespace} # a boot ago it was there
    # The host's tree, where the tools are; and the standard input, which a shell takes from what it starts by "&".
    exec 3</ 4<&0
    if [ "${{INVOCATION_ID-}}" ]; then # a unit of systemd counts as started when this ends
        rm -f "$record.begun"
        mkfifo "$record.begun"
        unshared fork 4>"$record.begun" &
        read -r _ <"$record.begun" || :
        exec rm "$record.begun"
    fi
    unshared fork
    ;;
fork)
    begin &
    ;;
pivot) # the old root goes on top of the new one, and away
    nsenter --mount=/proc/self/ns/mnt -- pivot_root "$root" "$root"
    umount --namespace /proc/self/ns/mnt --lazy /
    # shellcheck disable=SC3013  # every sh that is meant here has -ef
    [ ! . -ef / ] || {{ echo "the root of $name would be the host's" >&2; exit 1; }}
    exec {become} /bin/sh -c '{first}' \
        init {workdir} {command} 3<&-
    ;;
exec)
    shift
    running || {{ echo "$name does not run" >&2; exit 125; }}
    exec nsenter --target "$pid" --all --root=/ --wd="/proc/$pid/root" -- \
        setpriv --pdeathsig HUP -- {become} "$@"
    ;;
stop)
    running || exit 0
    kill -TERM "$pid" || : # it may be gone by now
    ends_within {timeout}0 || kill -KILL "$pid" || :
    ends_within 600 || {{ echo "$name: process $pid does not die" >&2; exit 1; }}
    rm -f "$record"
    ;;
status)
    if running; then echo "$name runs, process $pid"; else echo "$name does not run"; exit 3; fi
    ;;
*)
    echo "usage: $0 start|stop|status|exec COMMAND [ARGUMENT...]" >&2
    exit 64
    ;;
esac
"""
