# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep namespaces that outlive their processes.

The network namespace of a container is kept as ``ip netns`` does, and so is the user namespace that owns it. Each is pinned by a
bind mount of its file in /proc.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from . import syscalls
from .record import STATE, USERS

RUN_NETNS = "/run/netns"
MADE = "/run/fromscratch/netns"  # says that the directory, or only the mount on it, was made here
NESTED = "/proc/sys/user/max_user_namespaces"
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)
NS_GET_USERNS = 0xb701  # ioctl_ns(2)


def exists(path):
    """Return whether a file pins a namespace: then it is on nsfs, and not on the file system of its directory."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def belongs_to(namespace, users):
    """Return whether a network namespace is owned by the user namespace of the file ``users``; for None, by this process's own."""
    try:
        with open(namespace, "rb") as file:
            owner = fcntl.ioctl(file.fileno(), NS_GET_USERNS)
        try:
            return os.path.samestat(os.fstat(owner), os.stat(users or "/proc/self/ns/user"))
        finally:
            os.close(owner)
    except OSError:  # no such file, or the owner is above this process's own
        return False


def provide(name, first=None, count=None):
    """Create the namespaces of a container where they are missing. Raise OSError.

    ``first`` is the host's uid and gid of the container's root, ``count`` the size of the range; None without a user namespace.
    """
    users, network = f"{USERS}/{name}", f"{RUN_NETNS}/{name}"
    if exists(network) and (first is None or exists(users)):
        return
    remove(name)
    there, here = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _hold(first is not None, there[0], here[1], (there[1], here[0]))
    try:
        os.close(there[0])
        os.close(here[1])
        code = os.read(here[0], 16)
        if code != b"made":
            number = int(code or errno.EPERM)
            raise OSError(number, f"unshare of the namespaces of {name}: {os.strerror(number)}: see {NESTED}, and "
                                  "max_net_namespaces beside it")
        if first is not None:
            for kind in "uid", "gid":
                with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as file:
                    file.write(f"0 {first} {count}")
            os.makedirs(USERS, mode=0o755, exist_ok=True)
            pin(f"/proc/{pid}/ns/user", users)
        attach(name, f"/proc/{pid}/ns/net")
    finally:
        os.close(there[1])
        os.close(here[0])
        os.waitpid(pid, 0)


def _hold(mapped, reader, writer, others):
    """Enter new namespaces and keep them alive until they are pinned."""
    code = 1
    try:
        for descriptor in others:
            os.close(descriptor)
        syscalls.unshare(syscalls.CLONE_NEWNET | (syscalls.CLONE_NEWUSER if mapped else 0))
        if mapped:  # root inside gets none of its own, in which it could mount
            with open(NESTED, "w", encoding="ascii") as file:
                file.write("0")
        lo_up()
        os.write(writer, b"made")
        os.read(reader, 1)
        code = 0
    except OSError as error:
        os.write(writer, str(error.errno).encode())
    finally:
        os._exit(code)


def lo_up():
    """Set the loopback device of this process's network namespace up: ``ip link set lo up``."""
    import socket
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def attach(name, namespace):
    """Pin the network namespace of a file such as /proc/PID/ns/net under a name: ``ip netns attach``."""
    path = f"{RUN_NETNS}/{name}"
    with one_at_a_time():
        share_run_netns()
        if os.path.exists(path) and not exists(path):
            os.unlink(path)  # the file of a namespace that died with the machine or with its mount
        try:
            pin(namespace, path)
        except OSError:
            unpin(path)
            take_away()
            raise


def remove(name):
    """Unpin the namespaces of a container; do nothing where there are none."""
    unpin(f"{RUN_NETNS}/{name}")
    unpin(f"{USERS}/{name}")
    tidy()


def pin(namespace, path):
    """Pin the namespace of a file such as /proc/PID/ns/user by a bind mount at a path that must not exist."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    syscalls.mount(namespace, path, "none", syscalls.MS_BIND)


def unpin(path):
    """Unmount a pinned namespace and remove the file; do nothing where there is none."""
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


@contextlib.contextmanager
def one_at_a_time():
    """Lock /run/netns against other starts and stops: a pin made while another mounts there would be hidden below that mount."""
    try:
        lock = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # there is no container that could be another
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def share_run_netns():
    """Make /run/netns a shared mount, as ``ip netns`` does, so that an unmount reaches every mount namespace."""
    existed = os.path.isdir(RUN_NETNS)
    os.makedirs(RUN_NETNS, mode=0o755, exist_ok=True)
    try:
        syscalls.mount("none", RUN_NETNS, "none", syscalls.MS_SHARED | syscalls.MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
            raise
        syscalls.mount(RUN_NETNS, RUN_NETNS, "none", syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.mount("none", RUN_NETNS, "none", syscalls.MS_SHARED | syscalls.MS_REC)
        if not os.listdir(RUN_NETNS):
            os.makedirs(os.path.dirname(MADE), mode=0o755, exist_ok=True)
            with open(MADE, "w", encoding="ascii") as file:
                file.write("mount" if existed else "directory")


def tidy():
    """Remove the mount on /run/netns, and the directory, after the last namespace, where this program created them."""
    with one_at_a_time():
        take_away()


def take_away():
    """Remove the mount and directory; the caller holds the lock."""
    if not os.path.exists(MADE) or os.listdir(RUN_NETNS):
        return
    with open(MADE, encoding="ascii") as file:
        made = file.read()
    os.unlink(MADE)
    syscalls.umount2(RUN_NETNS, syscalls.MNT_DETACH)
    for directory in [RUN_NETNS] * (made == "directory") + [os.path.dirname(MADE)]:
        try:
            os.rmdir(directory)
        except OSError:
            pass
