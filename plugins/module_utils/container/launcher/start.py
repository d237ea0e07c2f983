# SPDX-License-Identifier: GPL-3.0-or-later
"""The start of a container, step by step: ``process_1`` reads as one would do it by hand, with unshare, mount, pivot_root and exec.

Three processes take part. Who asks for the start forks one that prepares it (``_prepare``) and this forks process 1, in a new pid
namespace in which nobody else is before the container's own program has begun. All that could be given away is gone by then: the
order is what makes it safe.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time

from . import cgroups, confine, guard, mounts, namespaces, record, syscalls
from .bundle import DEVICES, LAYER, RUNTIME, WAITS, Refused, annotation, directory, load, mapped, words
from .confine import execute, find_program, user_of
from .parallel import together

LOCKED = 60  # seconds to wait for another start of the same container
WORKERS = 4  # for each processor: a start waits for the kernel most of its time
READY = 2  # seconds that the init has to be ready for signals
NAMESPACES = {"mount": syscalls.CLONE_NEWNS, "uts": syscalls.CLONE_NEWUTS, "ipc": syscalls.CLONE_NEWIPC,
              "cgroup": syscalls.CLONE_NEWCGROUP}


def start_all(names, unit=False):
    """Start containers, as many at a time as the processors can; what went wrong, in words, by name."""
    return together(names, WORKERS * (os.cpu_count() or 1), lambda name, writer: prepare_and_exit(name, writer, unit))


def prepare_and_exit(name, writer, unit):
    """In a child of who wants the start: it may be killed, and this goes on."""
    code = 1
    try:
        confine.hide()
        guard.own_program(load(name), ["start", *["--unit"] * unit, name], {guard.TOLD: str(writer)}, writer)
        os.set_inheritable(writer, False)
        syscalls.close_all_but(writer)
        if os.getsid(0) != os.getpid():
            os.setsid()
        os.umask(0o022)
        confine.default_signals()
        _prepare(name, unit)
        code = 0
    except Exception as error:
        os.write(writer, words(error).encode("utf-8", "replace"))
    finally:
        os._exit(code)


class Lock:
    """One start of a container at a time; who only holds it keeps all from starting it."""

    def __init__(self, name, seconds=LOCKED):
        self.name, self.seconds = name, seconds

    def __enter__(self):
        where = directory(self.name)
        deadline = time.monotonic() + self.seconds
        while True:
            self.descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self.descriptor), os.stat(where)):
                    return self
                os.close(self.descriptor)  # that of a container that was removed meanwhile
            except BlockingIOError:
                os.close(self.descriptor)
                if time.monotonic() > deadline:
                    raise Refused(f"a start of the container in {where} has not come to an end for {self.seconds} s: find out why "
                                  f"with fuser --verbose {where}, and try again") from None
                time.sleep(0.02)

    def __exit__(self, *unused):
        os.close(self.descriptor)


def _prepare(name, unit):
    """What is outside of the container: its namespaces that stay, its limits, its log, and the record that it runs."""
    with Lock(name) as lock:
        if record.running(name):
            return
        config = load(name)
        first, count = ids(config)
        tree = hold(config["root"]["path"])
        if os.path.samestat(os.stat(tree), os.stat("/")) and annotation(config, LAYER) == "none":
            raise Refused(f"the root of {name} would be the host's: choose a directory of its own as rootfs, or another layer")
        namespaces.provide(name, first, count)
        _directories(name, config, first)
        if not unit:
            _standard_streams(name, first)
        else:
            os.dup2(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), 0)
        try:
            pid = (_by_runtime if annotation(config, RUNTIME) else _by_itself)(name, config, tree, unit, lock)
        except Exception:
            record.remove(name)
            cgroups.remove(name)
            raise
        if annotation(config, WAITS):
            _wait_until_ready(pid)


def _by_itself(name, config, tree, unit, lock):
    """Fork process 1, which goes on once it is recorded; its pid. Raises Refused."""
    if not unit:
        cgroups.confine(name, config["linux"].get("resources", {}))
    told, tells = os.pipe(), os.pipe()
    syscalls.unshare(syscalls.CLONE_NEWPID)  # for the next child alone
    pid = os.fork()
    if pid == 0:
        for each in told[0], tells[1], lock.descriptor:
            os.close(each)
        process_1(name, config, tree, told[1], tells[0])
    os.close(told[1])
    os.close(tells[0])
    said = os.read(told[0], 65536)
    if said == b"ready":
        record.write(name, pid, tree)
        os.write(tells[1], b"go")
        said = os.read(told[0], 65536)
    if said:
        os.waitpid(pid, 0)
        raise Refused(said.decode("utf-8", "replace"))
    return pid


def _by_runtime(name, config, tree, unit, unused):
    """The same by the program that the bundle names."""
    from . import runtime
    pid = runtime.start(name, config, unit, lambda users: mount_root(name, config, tree, users))
    record.write(name, pid, tree)
    return pid


def hold(path):
    """The tree that a name of a root filesystem leads to. It is not swept from its store as long as this process lives: until what
    runs on it is recorded, a shared lock, see flock(2), tells that somebody has a use for it."""
    while True:
        tree = os.path.realpath(path)
        if os.path.basename(os.path.dirname(tree)) != record.STORE:
            return tree
        try:
            opened = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(opened, fcntl.LOCK_SH)
            if os.path.realpath(path) == tree and os.path.samestat(os.fstat(opened), os.stat(tree)):
                return tree
            os.close(opened)
        except FileNotFoundError:
            if os.path.realpath(path) == tree:
                raise Refused(f"{path} leads to {tree}, which is not there: make it anew with alpine_rootfs") from None


def ids(config):
    """The first of the container's user ids outside, and how many they are."""
    mappings = config["linux"].get("uidMappings")
    return (mappings[0]["hostID"], mappings[0]["size"]) if mappings else (None, None)


def _directories(name, config, first):
    """Where the layer is, and where the root is mounted in a mount namespace of the container's own."""
    home = directory(name)
    for each in "root", "lower", "layer":
        os.makedirs(f"{home}/{each}", mode=0o700, exist_ok=True)
    if annotation(config, LAYER) == "disk" and not os.path.isdir(f"{home}/layer/work"):
        layer(f"{home}/layer", first)


def layer(where, first):
    """What an overlay writes to. ``work`` comes last: it says that the other is as it has to be."""
    os.makedirs(f"{where}/upper", mode=0o755, exist_ok=True)
    os.chmod(f"{where}/upper", 0o755)
    os.chown(f"{where}/upper", first or 0, first or 0)
    os.mkdir(f"{where}/work", 0o755)


def _standard_streams(name, first):
    """Nothing to read, and the log to write to. It is the container's own, as it may open its standard output by a name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC
    log = os.open(f"{directory(name)}/log", flags, 0o600)
    os.fchown(log, first or 0, first or 0)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, stream in (null, 0), (log, 1), (log, 2):
        os.dup2(source, stream)
    os.close(null)
    os.close(log)


def _wait_until_ready(pid):
    """Until then the kernel drops a signal that would end process 1."""
    deadline, nap = time.monotonic() + READY, 0.0005
    while time.monotonic() < deadline and record.start_time(pid):
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                caught = next((int(line.split()[1], 16) for line in file if line.startswith("SigCgt:")), 0)
        except (FileNotFoundError, ProcessLookupError):
            return
        if caught >> signal.SIGTERM - 1 & 1:
            return
        time.sleep(nap)
        nap = min(2 * nap, 0.02)


# Process 1

def process_1(name, config, tree, tells, told):
    """Become the container's program: never returns. What goes wrong is told through the pipe."""
    try:
        confine.hide()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # as long as nothing is recorded
        users = os.open(f"{record.USERS}/{name}", os.O_RDONLY | os.O_CLOEXEC) if mapped(config) else None
        unshare_namespaces(name)
        hostname(config)
        root = mount_root(name, config, tree, users)
        settings = mount_file_systems(config, root, users)
        last = confine.last_capability()
        pivot_root(root)
        syscalls.close_all_but(tells, told, *[users] * (users is not None), *settings)
        syscalls.new_session_keyring()
        confine.limit(config["process"].get("rlimits", []))
        if users is not None:
            confine.become_root_of(users)
            os.close(users)
        apply_settings(settings)
        confine.give_up(config["process"], last, user_of(config["process"]), config["linux"].get("seccomp"))
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # which is gone with the owner that this process had
        program = find_program(config["process"]["args"][0], config["process"]["env"], config["process"]["cwd"])
        os.write(tells, b"ready")
        if os.read(told, 2) != b"go":
            os._exit(1)  # who would have recorded it is gone
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
        execute(program, config["process"]["args"], config["process"]["env"])
    except Exception as error:
        os.write(tells, words(error).encode("utf-8", "replace"))
    finally:
        os._exit(1)


def unshare_namespaces(name):
    """New ones of all kinds, but for that of the network, which is there, and of users, which comes last."""
    flags = 0
    for kind, flag in NAMESPACES.items():
        if kind != "cgroup" or os.path.exists("/proc/self/ns/cgroup"):
            flags |= flag
    syscalls.unshare(flags)
    network = os.open(f"{namespaces.RUN_NETNS}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(network, syscalls.CLONE_NEWNET)
    os.close(network)
    syscalls.mount("none", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)


def hostname(config):
    with open("/proc/sys/kernel/hostname", "w", encoding="utf-8") as file:
        file.write(config["hostname"])


def mount_root(name, config, tree, users):
    """The container's root: an overlay of what it writes over a tree that nobody writes to, or a directory itself."""
    kind, first = annotation(config, LAYER), ids(config)[0]
    device = [] if annotation(config, DEVICES) == "nodes" else ["nodev"]
    os.chdir(directory(name))
    opened = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if kind == "none":
        made = mounts.copy_of(opened, "", device)
    else:
        syscalls.move_mount(mounts.copy_of(opened, "", [], users), syscalls.AT_FDCWD, "lower")
        if kind == "tmpfs":
            syscalls.move_mount(mounts.file_system("tmpfs", ["nosuid", "nodev", "mode=700"], "layer"), syscalls.AT_FDCWD, "layer")
            layer("layer", first)
        made = mounts.file_system("overlay", [*device, "lowerdir=lower", "upperdir=layer/upper", "workdir=layer/work"])
    syscalls.move_mount(made, syscalls.AT_FDCWD, "root")
    return mounts.Root(made, config["root"]["path"], first or 0, kind != "none")


def mount_file_systems(config, root, users):
    """All that is below the root; then what is the whole host's in /proc and /sys is hidden. Descriptors of settings to be made."""
    nodes = annotation(config, DEVICES) == "nodes"
    for each in config["mounts"]:
        path, options, kind = each["destination"], each["options"], each["type"]
        try:
            if kind == "bind":
                bind(root, each, users)
            elif path == "/dev":
                root.mount(mounts.devices(options if nodes else [*options, "nodev"], root.owner, nodes), path)
            else:
                root.mount(mounts.file_system(kind, options, each["source"], root.owner), path)
                if path == "/dev/pts" and not nodes:
                    mounts.show_nodes(root)
        except OSError as error:
            raise Refused(f"{words(error)}, of the {kind} {each['source']} at {path} with {','.join(options)}: change what is "
                          "mounted there, or leave it out") from None
    linux = config["linux"]
    settings = open_settings(root, linux.get("sysctl", {}))
    mounts.hide(root, linux.get("maskedPaths", []))
    mounts.freeze(root, linux.get("readonlyPaths", []))
    if config["root"].get("readonly"):
        syscalls.mount_setattr(root.descriptor, False, syscalls.MOUNT_ATTR_RDONLY)
    return settings


def bind(root, each, users):
    made, folder = mounts.bound(each, users)
    root.mount(made, each["destination"], folder, replace_link=not folder)


def open_settings(root, sysctls):
    """Files below /proc/sys, which is read-only soon; they are written to as root of the container."""
    found = {}
    for key, value in sysctls.items():
        if not key.startswith("net."):
            raise Refused(f"linux.sysctl: {key} is the whole host's: leave it out, or set it on the host")
        there = root.open("/proc/sys/" + key.replace(".", "/"), os.O_WRONLY)
        if there is not None:
            found[there] = value
    return found


def apply_settings(settings):
    for descriptor, value in settings.items():
        os.write(descriptor, value.encode())
        os.close(descriptor)


def pivot_root(root):
    """Change the root: the old one goes on top of the new one, and away."""
    os.fchdir(root.descriptor)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
