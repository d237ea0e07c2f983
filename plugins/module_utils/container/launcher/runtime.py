# SPDX-License-Identifier: GPL-3.0-or-later
"""Another runtime of the OCI specification, such as crun or runc, in the place of this program's own calls.

It makes mounts, root and rights of the same bundle, and runs commands inside. What is around a container stays here: the namespaces
that outlive it, its layer, log, record and end.

Such a runtime enters the root filesystem as root of the container. So that lies below directories that everybody can traverse, but
in a mount namespace that nobody else is in: others of the host find nothing there, and a set-user-ID bit counts for none of them.
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
    """The path of the runtime; None where it is not installed."""
    found = annotation(config, RUNTIME)
    return next((path for path in (os.path.join(each, found) for each in PATH.split(":")) if os.access(path, os.X_OK)), None)


def is_crun(runtime):
    """Whether a runtime, by name or path, can be told to leave cgroups to others. Others make one for each container."""
    return os.path.basename(runtime).startswith("crun")


def start(name, config, unit, mount_root):
    """Have a container started; the pid of its process 1. ``mount_root`` mounts its root filesystem somewhere, for the user
    namespace of a descriptor, or None. Raises Refused."""
    forget(name)
    home = f"{HOME}/{name}"
    for each in "mounts/root", "state":  # runc wants the root to be there, if only by name, to run a command
        os.makedirs(f"{home}/{each}", exist_ok=True)
    for each, mode in (HOME, 0o711), (home, 0o711), (f"{home}/mounts", 0o711), (f"{home}/state", 0o700):
        os.chmod(each, mode)
    if not unit and is_crun(annotation(config, RUNTIME)):
        cgroups.confine(name, config["linux"].get("resources", {}))

    def inside():
        made = _mount(name, config, mount_root)
        with open(os.open(f"{home}/config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w",
                  encoding="utf-8") as file:
            json.dump(_bundle(name, config, unit, made), file)

    _finish(name, config, ["run", "--detach", "--pid-file", f"{home}/pid", "--bundle", home, name], inside)
    with open(f"{home}/pid", encoding="ascii") as file:
        return int(file.read())


def _bundle(name, config, unit, made):
    """The bundle as the runtime gets it: what it mounts lies elsewhere by then, and limits are this program's, or of a cgroup
    that the runtime makes."""
    place = f"{HOME}/{name}/mounts"
    found = [{**each, "source": f"{place}/{number}", "options": [*sorted({*each["options"]} - {"idmap"}), *made[number]]}
             if number in made else each for number, each in enumerate(config["mounts"])]
    linux = {key: value for key, value in config["linux"].items() if key != "resources"}
    if not is_crun(annotation(config, RUNTIME)):
        linux["cgroupsPath"] = f"{cgroups.own()}/{name}" if unit else f"/{cgroups.PARENT}/{name}"
        linux["resources"] = {} if unit else config["linux"].get("resources", {})
        if privileged(config):
            linux["resources"] = {**linux["resources"], "devices": [{"allow": True, "access": "rwm"}]}
    return {**config, "root": {**config["root"], "path": f"{place}/root"}, "linux": linux, "mounts": found,
            "process": _process(config)}


def _process(config):
    """The container's process; without a user namespace it gets no capability that this program does not have itself."""
    here, process = syscalls.capget() if not mapped(config) else -1, config["process"]
    return {**process, "capabilities": {kind: [each for each in names if confine.bits([each]) & here]
                                        for kind, names in process["capabilities"].items()}}


def _mount(name, config, mount_root):
    """Mount the root filesystem and what is bound, in the mount namespace of the runtime; the attributes that each bind has, by
    its number, as the runtime may take away what it is not told."""
    place = f"{HOME}/{name}/mounts"
    users = os.open(f"{record.USERS}/{name}", os.O_RDONLY | os.O_CLOEXEC) if mapped(config) else None
    made: dict = {"root": (mount_root(users).descriptor, True)}
    made.update((number, mounts.bound(each, users)) for number, each in enumerate(config["mounts"]) if each["type"] == "bind")
    found = {number: [word for word, flag in ATTRIBUTES if os.fstatvfs(mounted).f_flag & flag]
             for number, (mounted, unused) in made.items()}
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
    """Let go of what a runtime keeps of a container; one that it has started, and nobody has recorded, ends with that."""
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
    """Fork a process that runs the runtime, once ``inside`` has been called in its mount namespace; the pid. ``log`` is a file in
    memory; the runtime opens it by this process, and gets no descriptor."""
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
    """What the runtime has logged as an error."""
    found = []
    for line in os.pread(log, 1 << 16, 0).decode("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"level": "error", "msg": line}
        found += [entry.get("msg", "")] if entry.get("level") in ("error", "fatal") else []
    return found


def execute(name, config, process, streams, log):
    """Have a command run inside, as ``process`` of the specification says; the pid of the runtime, which waits for it."""
    told = os.memfd_create("process")  # its environment is for nobody else's eyes
    os.write(told, json.dumps({**_process({**config, "process": process}), "terminal": streams.terminal}).encode())

    def inside():
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)  # which it passes on
        os.setsid()
        streams.inside()
        if streams.terminal:
            streams.terminal_of_the_host()

    return spawn(name, config, ["exec", "--process", f"/proc/{os.getpid()}/fd/{told}", name], log, inside)
