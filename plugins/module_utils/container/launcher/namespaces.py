# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces that outlive the processes in them: the network namespace of a container, as ``ip netns`` keeps it, and the user
namespace that this belongs to. Each is pinned by a mount of its file in /proc.
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
    """Whether a file pins a namespace: it is on nsfs then, and not in the directory that it was made in."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def belongs_to(namespace, users):
    """Whether a network namespace is that of the user namespace of this file; or of the host's own, for None."""
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
    """Make the namespaces of a container where they are not there; ``first`` of its user ids outside, if it has any of its own."""
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
    """Be in new namespaces until they are pinned."""
    code = 1
    try:
        for each in others:
            os.close(each)
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
    """``ip link set lo up``, in the network namespace that this process is in."""
    import socket
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def attach(name, namespace):
    """``ip netns attach``: pin the network namespace of that file, such as /proc/PID/ns/net, below the name."""
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
    """Let go of a container's namespaces; where there is none, that is fine."""
    unpin(f"{RUN_NETNS}/{name}")
    unpin(f"{USERS}/{name}")
    tidy()


def pin(namespace, path):
    """Keep the namespace of a file such as /proc/PID/ns/user alive at this path."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    syscalls.mount(namespace, path, "none", syscalls.MS_BIND)


def unpin(path):
    """Let go of what is pinned there, and remove the file; none is fine."""
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
    """Keep other starts and stops from /run/netns: what one pins while another mounts there would be below that mount."""
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
    """/run/netns is a shared mount, as ``ip netns`` makes it, so that a removal reaches every mount namespace."""
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
    """Take the mount on /run/netns, and the directory, away with the last namespace, where they were not there before."""
    with one_at_a_time():
        take_away()


def take_away():
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
