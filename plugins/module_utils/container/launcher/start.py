# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a container. ``process_1`` reads like the start by hand: unshare, mount, pivot_root, exec.

Three processes take part. The caller forks one that prepares the container (``_prepare``), which forks process 1 into a new pid
namespace, where nobody else is before the container's own program runs. By then everything that could leak is closed: the order is
what makes it safe.
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
    """Start containers concurrently. Return the failures as text, by name."""
    return together(names, WORKERS * (os.cpu_count() or 1), lambda name, writer: prepare_and_exit(name, writer, unit))


def prepare_and_exit(name, writer, unit):
    """Start one container in a forked process, which survives the caller. Write an error to ``writer``; never return."""
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
    """Lock a container against concurrent starts and changes. Raise Refused after ``seconds``."""

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

    def __exit__(self, *_exception):
        os.close(self.descriptor)


def _prepare(name, unit):
    """Prepare what is outside of the container: persistent namespaces, limits, log, and the record that it runs."""
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
    """Fork process 1, which continues once it is recorded. Return its pid. Raise Refused."""
    if not unit:
        cgroups.confine(name, config["linux"].get("resources", {}))
    from_init, to_init = os.pipe(), os.pipe()
    syscalls.unshare(syscalls.CLONE_NEWPID)  # for the next child alone
    pid = os.fork()
    if pid == 0:
        for descriptor in from_init[0], to_init[1], lock.descriptor:
            os.close(descriptor)
        process_1(name, config, tree, from_init[1], to_init[0])
    os.close(from_init[1])
    os.close(to_init[0])
    message = os.read(from_init[0], 65536)
    if message == b"ready":
        record.write(name, pid, tree)
        os.write(to_init[1], b"go")
        message = os.read(from_init[0], 65536)
    if message:
        os.waitpid(pid, 0)
        raise Refused(message.decode("utf-8", "replace"))
    return pid


def _by_runtime(name, config, tree, unit, _lock):
    """Start process 1 by the runtime that the bundle names. Return its pid. Raise Refused."""
    from . import runtime
    pid = runtime.start(name, config, unit, lambda users: mount_root(name, config, tree, users))
    record.write(name, pid, tree)
    return pid


def hold(path):
    """Return the tree that the name of a root filesystem resolves to, and protect it from removal while this process lives.

    A shared flock(2) marks it as used until a running container is recorded on it. Raise Refused where the tree is missing.
    """
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
    """Return (first host uid, count) of the container's user namespace; (None, None) without one."""
    mappings = config["linux"].get("uidMappings")
    return (mappings[0]["hostID"], mappings[0]["size"]) if mappings else (None, None)


def _directories(name, config, first):
    """Create the directories of the layer, and the mount point of the root."""
    home = directory(name)
    for folder in "root", "lower", "layer":
        os.makedirs(f"{home}/{folder}", mode=0o700, exist_ok=True)
    if annotation(config, LAYER) == "disk" and not os.path.isdir(f"{home}/layer/work"):
        layer(f"{home}/layer", first)


def layer(where, first):
    """Create the directories of an overlay. ``work`` comes last: its presence says that ``upper`` is complete."""
    os.makedirs(f"{where}/upper", mode=0o755, exist_ok=True)
    os.chmod(f"{where}/upper", 0o755)
    os.chown(f"{where}/upper", first or 0, first or 0)
    os.mkdir(f"{where}/work", 0o755)


def _standard_streams(name, first):
    """Redirect standard input to /dev/null and output to the log, which the container owns: it may reopen /dev/stdout by name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC
    log = os.open(f"{directory(name)}/log", flags, 0o600)
    os.fchown(log, first or 0, first or 0)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, stream in (null, 0), (log, 1), (log, 2):
        os.dup2(source, stream)
    os.close(null)
    os.close(log)


def _wait_until_ready(pid):
    """Wait until process 1 catches SIGTERM; until then the kernel drops signals that would end it."""
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

def process_1(name, config, tree, writer, reader):
    """Become the container's program; never return. Write errors to ``writer``, and execute once ``reader`` says so."""
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
        syscalls.close_all_but(writer, reader, *[users] * (users is not None), *settings)
        syscalls.new_session_keyring()
        confine.limit(config["process"].get("rlimits", []))
        if users is not None:
            confine.become_root_of(users)
            os.close(users)
        apply_settings(settings)
        confine.give_up(config["process"], last, user_of(config["process"]), config["linux"].get("seccomp"))
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # which is gone with the owner that this process had
        program = find_program(config["process"]["args"][0], config["process"]["env"], config["process"]["cwd"])
        os.write(writer, b"ready")
        if os.read(reader, 2) != b"go":
            os._exit(1)  # who would have recorded it is gone
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
        execute(program, config["process"]["args"], config["process"]["env"])
    except Exception as error:
        os.write(writer, words(error).encode("utf-8", "replace"))
    finally:
        os._exit(1)


def unshare_namespaces(name):
    """Enter new namespaces of all kinds but the network, which exists, and users, which comes last."""
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
    """Set the hostname of the container's UTS namespace."""
    with open("/proc/sys/kernel/hostname", "w", encoding="utf-8") as file:
        file.write(config["hostname"])


def mount_root(name, config, tree, users):
    """Mount the container's root: an overlay of its layer over a read-only tree, or the directory itself. Return a Root."""
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
    """Mount all that is below the root, then mask what /proc and /sys show of the host. Return the sysctls, {open file: value}."""
    nodes = annotation(config, DEVICES) == "nodes"
    for entry in config["mounts"]:
        path, options, kind = entry["destination"], entry["options"], entry["type"]
        try:
            if kind == "bind":
                bind(root, entry, users)
            elif path == "/dev":
                root.mount(mounts.devices(options if nodes else [*options, "nodev"], root.owner, nodes), path)
            else:
                root.mount(mounts.file_system(kind, options, entry["source"], root.owner), path)
                if path == "/dev/pts" and not nodes:
                    mounts.show_nodes(root)
        except OSError as error:
            raise Refused(f"{words(error)}, of the {kind} {entry['source']} at {path} with {','.join(options)}: change what is "
                          "mounted there, or leave it out") from None
    linux = config["linux"]
    settings = open_settings(root, linux.get("sysctl", {}))
    mounts.hide(root, linux.get("maskedPaths", []))
    mounts.freeze(root, linux.get("readonlyPaths", []))
    if config["root"].get("readonly"):
        syscalls.mount_setattr(root.descriptor, False, syscalls.MOUNT_ATTR_RDONLY)
    return settings


def bind(root, entry, users):
    """Mount a bind of the bundle. A file replaces a symbolic link at its destination."""
    mounted, is_directory = mounts.bound(entry, users)
    root.mount(mounted, entry["destination"], is_directory, replace_link=not is_directory)


def open_settings(root, sysctls):
    """Open sysctls below /proc/sys before it becomes read-only.

    Return {open file: value}. Raise Refused for one of the whole host.
    """
    found = {}
    for key, value in sysctls.items():
        if not key.startswith("net."):
            raise Refused(f"linux.sysctl: {key} is the whole host's: leave it out, or set it on the host")
        there = root.open("/proc/sys/" + key.replace(".", "/"), os.O_WRONLY)
        if there is not None:
            found[there] = value
    return found


def apply_settings(settings):
    """Write the sysctls, as root of the container, and close them."""
    for descriptor, value in settings.items():
        os.write(descriptor, value.encode())
        os.close(descriptor)


def pivot_root(root):
    """Change the root with pivot_root(2), stacking the old root on the new one, and detach the old."""
    os.fchdir(root.descriptor)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")
