# SPDX-License-Identifier: GPL-3.0-or-later
"""Delegate to another OCI runtime, such as crun or runc, in place of the launcher's own system calls.

The runtime mounts, confines and executes from the same bundle. What surrounds a container stays here: the namespaces that outlive
it, its layer, log, record and stop.

Such a runtime enters the root filesystem as root of the container. That is therefore mounted below directories that everybody may
traverse, but in a mount namespace of its own: other users of the host cannot reach it, nor its set-user-ID programs.
"""

from __future__ import annotations

import json
import os
import signal
import stat

from . import cgroups, confine, mounts, record, syscalls
from .bundle import PATH, RUNTIME, Refused, annotation, mapped, privileged, words

HOME = "/run/fromscratch/runtimes"
CGROUPS = "/sys/fs/cgroup"
ATTRIBUTES = (("ro", os.ST_RDONLY), ("nosuid", os.ST_NOSUID), ("nodev", os.ST_NODEV), ("noexec", os.ST_NOEXEC))
FAILED = 125  # the exit status where the runtime could not be run


def find(config):
    """Return the path of the runtime, or None where it is not installed."""
    found = annotation(config, RUNTIME)
    return next((path for path in (os.path.join(each, found) for each in PATH.split(":")) if os.access(path, os.X_OK)), None)


def is_crun(runtime):
    """Return whether a runtime, by name or path, accepts to leave cgroups alone. Others create one for each container."""
    return os.path.basename(runtime).startswith("crun")


def start(name, config, unit, mount_root):
    """Start a container with its runtime. Return the pid of process 1. Raise Refused.

    ``mount_root(users)`` mounts the root filesystem in this mount namespace, for the user namespace of a descriptor or None.
    """
    forget(name)
    home = f"{HOME}/{name}"
    for folder in "mounts/root", "state":  # runc requires the root's path to exist to execute a command
        os.makedirs(f"{home}/{folder}", exist_ok=True)
    for path, mode in (HOME, 0o711), (home, 0o711), (f"{home}/mounts", 0o711), (f"{home}/state", 0o700):
        os.chmod(path, mode)
    if not unit and is_crun(annotation(config, RUNTIME)):
        cgroups.confine(name, config["linux"].get("resources", {}))

    def inside():
        """Mount and write the bundle in the runtime's mount namespace."""
        made = _mount(name, config, mount_root)
        with open(os.open(f"{home}/config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w",
                  encoding="utf-8") as file:
            json.dump(_bundle(name, config, unit, made), file)

    _finish(name, config, ["run", "--detach", "--pid-file", f"{home}/pid", "--bundle", home, name], inside)
    with open(f"{home}/pid", encoding="ascii") as file:
        return int(file.read())


def _bundle(name, config, unit, made):
    """Return the bundle for the runtime, with the mounts that were made for it, and only the limits that it has to set."""
    place = f"{HOME}/{name}/mounts"
    entries = [{**entry, "source": f"{place}/{number}",
                "options": [*sorted({*entry["options"]} - {"idmap"}), *made[number]]} if number in made else entry
               for number, entry in enumerate(config["mounts"])]
    linux = {key: value for key, value in config["linux"].items() if key != "resources"}
    if not is_crun(annotation(config, RUNTIME)):
        linux["cgroupsPath"] = f"{cgroups.own()}/{name}" if unit else f"/{cgroups.PARENT}/{name}"
        linux["resources"] = {} if unit else config["linux"].get("resources", {})
        if privileged(config):
            linux["resources"] = {**linux["resources"], "devices": [{"allow": True, "access": "rwm"}]}
    return {**config, "root": {**config["root"], "path": f"{place}/root"}, "linux": linux, "mounts": entries,
            "process": _process(config)}


def _process(config):
    """Return the process of the bundle; without a user namespace, with no capability that this program lacks."""
    here, process = syscalls.capget() if not mapped(config) else -1, config["process"]
    return {**process, "capabilities": {kind: [each for each in names if confine.bits([each]) & here]
                                        for kind, names in process["capabilities"].items()}}


def _mount(name, config, mount_root):
    """Mount the root filesystem and binds in the runtime's mount namespace.

    Return the attributes of each bind by its number, because a runtime may clear those that it is not given.
    """
    place = f"{HOME}/{name}/mounts"
    users = os.open(f"{record.USERS}/{name}", os.O_RDONLY | os.O_CLOEXEC) if mapped(config) else None
    made: dict = {"root": (mount_root(users).descriptor, True)}
    made.update((number, mounts.bound(each, users)) for number, each in enumerate(config["mounts"]) if each["type"] == "bind")
    found = {number: [word for word, flag in ATTRIBUTES if os.fstatvfs(mounted).f_flag & flag]
             for number, (mounted, _directory) in made.items()}
    syscalls.move_mount(mounts.file_system("tmpfs", ["mode=711"], "mounts"), syscalls.AT_FDCWD, place)
    os.mknod(f"{place}/null", 0o600 | stat.S_IFCHR, os.makedev(*mounts.NODES["null"]))
    os.dup2(os.open(f"{place}/null", os.O_RDWR | os.O_CLOEXEC), 0)  # that of the host would become the container's user's own
    for path, (mounted, directory) in made.items():
        if directory:
            os.mkdir(f"{place}/{path}")
        else:
            os.close(os.open(f"{place}/{path}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        syscalls.move_mount(mounted, syscalls.AT_FDCWD, f"{place}/{path}")
    return found


def forget(name):
    """Remove a runtime's state of a container. One that it started and nobody recorded is killed."""
    home = f"{HOME}/{name}"
    if not os.path.isdir(home):
        return
    try:
        with open(f"{home}/config.json", encoding="utf-8") as file:
            config = json.load(file)
    except (FileNotFoundError, ValueError):  # of a start that was killed before
        config = {}
    if os.path.isdir(f"{home}/state/{name}") and find(config):
        _finish(name, config, ["delete", "--force", name])
    import shutil
    shutil.rmtree(home)


def _finish(name, config, command, inside=lambda: None):
    log = os.memfd_create("log")
    child = spawn(name, config, command, log, inside)
    if os.waitpid(child, 0)[1]:
        raise Refused(f"{annotation(config, RUNTIME)}: {'; '.join(errors(log)) or f'{command[0]} failed'}")
    os.close(log)


def spawn(name, config, command, log, inside):
    """Fork a process that calls ``inside`` in a new mount namespace and executes the runtime. Return its pid.

    ``log`` is a memfd; the runtime opens it through this process, and inherits no descriptor.
    """
    caller = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        program = find(config)
        if program is None:
            raise Refused("it is not installed here: install it, or run the playbook with another runtime")
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
        if not os.path.exists(f"{CGROUPS}/cgroup.controllers"):  # those of before, which crun refuses
            syscalls.mount("cgroup2", CGROUPS, "cgroup2", 0)
        inside()
        os.chdir("/")
        confine.default_signals()
        syscalls.close_all_but(log)
        manager = ["--cgroup-manager=disabled"] * is_crun(annotation(config, RUNTIME))
        os.execve(program, [program, "--root", f"{HOME}/{name}/state", "--log", f"/proc/{caller}/fd/{log}",  # noqa: S606
                            "--log-format", "json", *manager, *command], {"PATH": PATH})
    except Exception as error:
        os.write(log, json.dumps({"level": "error", "msg": words(error)}).encode())
    finally:
        os._exit(FAILED)


def errors(log):
    """Return the errors in a runtime's log, a list of messages."""
    found = []
    for line in os.pread(log, 1 << 16, 0).decode("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"level": "error", "msg": line}
        found += [entry.get("msg", "")] if entry.get("level") in ("error", "fatal") else []
    return found


def execute(name, config, process, streams, log):
    """Execute a command by the runtime, with ``process`` of the specification.

    Return the pid of the runtime, which waits for it.
    """
    specification = os.memfd_create("process")  # its environment may hold secrets
    os.write(specification, json.dumps({**_process({**config, "process": process}), "terminal": streams.terminal}).encode())

    def inside():
        """Detach from the caller's session and terminal."""
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)  # which it passes on
        os.setsid()
        streams.inside()
        if streams.terminal:
            streams.terminal_of_the_host()

    return spawn(name, config, ["exec", "--process", f"/proc/{os.getpid()}/fd/{specification}", name], log, inside)
