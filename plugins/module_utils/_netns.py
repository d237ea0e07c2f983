# SPDX-License-Identifier: GPL-3.0-or-later
"""Named network namespaces, as ``ip netns`` keeps them: files in /run/netns that pin a namespace.

Looking never creates one: a name that is not there raises FileNotFoundError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from contextlib import contextmanager

RUN_NETNS = "/run/netns"
MADE = "/run/fromscratch/netns"  # says that the directory, or only the mount on it, was made here
# The same where the first namespace is made by iproute2, as a line of a shell script that comes before that.
MAKES = (f"mountpoint -q {RUN_NETNS} || {{ mkdir -p {os.path.dirname(MADE)} && if [ -d {RUN_NETNS} ]; then printf mount; "
         f"else printf directory; fi >{MADE}; }}")
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
NS_GET_USERNS = 0xb701
NESTED = "/proc/sys/user/max_user_namespaces"  # a container gets none: the root of one could mount
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED, MNT_DETACH = 0x1000, 0x4000, 1 << 18, 1 << 20, 2

_libc = ctypes.CDLL(None, use_errno=True)


def _call(function, *args):
    if getattr(_libc, function)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


def path_of(netns):
    """The file of a namespace given as a name, a path, or None for this process's own."""
    if netns is None:
        return "/proc/self/ns/net"
    return netns if netns.startswith("/") else os.path.join(RUN_NETNS, netns)


def inode(netns):
    """The number by which the kernel knows the namespace; None where there is none, as with a file left by a crash."""
    try:
        found = os.stat(path_of(netns))
        # Every namespace file is on nsfs, whose device differs from that of the directory that it is mounted in.
        return found.st_ino if found.st_dev == os.stat("/proc/self/ns/net").st_dev else None
    except OSError:
        return None


def exists(netns):
    """Whether the name pins a namespace."""
    return inode(netns) is not None


def same(one, other):
    """Whether two namespace files pin the same namespace."""
    first, second = os.stat(path_of(one)), os.stat(path_of(other))
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def belongs_to(netns, users):
    """Whether the namespace is that of the user namespace of this file; or of the host's own, for None."""
    try:
        with open(path_of(netns), "rb") as file:
            owner = fcntl.ioctl(file.fileno(), NS_GET_USERNS)
        try:
            return os.path.samestat(os.fstat(owner), os.stat(users or "/proc/self/ns/user"))
        finally:
            os.close(owner)
    except OSError:  # no such file, or the owner is above this process's own
        return False


@contextmanager
def entered(netns):
    """Runs the body in the namespace; sockets opened there stay in it. This thread only."""
    if netns is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path_of(netns), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _call("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)


def create(name):
    """``ip netns add`` and ``ip link set lo up``. In this process, since a fork for each costs 8 ms."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", CLONE_NEWNET)
        try:
            attach(name, "/proc/thread-self/ns/net")
            lo_up(None)
        finally:
            _call("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)


def create_mapped(name, users, first, count):
    """The same as that of a new user namespace, which is pinned at ``users`` and whose ids begin at ``first`` outside."""
    there, here = os.pipe(), os.pipe()
    holder = ["unshare", "--user", "--net", "--keep-caps", "--", "sh", "-c", f"echo 0 >{NESTED} && echo made && read -r _"]
    pid = os.posix_spawnp("unshare", holder, os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, there[0], 0), (os.POSIX_SPAWN_DUP2, here[1], 1)])
    try:
        os.close(there[0])
        os.close(here[1])
        if os.read(here[0], 1) == b"":  # what has become of it, it has said itself
            raise OSError(errno.EPERM, f"unshare --user --net: {os.strerror(errno.EPERM)}")
        for kind in "uid", "gid":
            with open(f"/proc/{pid}/{kind}_map", "w", encoding="ascii") as file:
                file.write(f"0 {first} {count}")
        os.makedirs(os.path.dirname(users), mode=0o755, exist_ok=True)
        pin(f"/proc/{pid}/ns/user", users)
        attach(name, f"/proc/{pid}/ns/net")
    finally:
        os.close(there[1])
        os.close(here[0])
        os.waitpid(pid, 0)
    lo_up(name)


def own_mounts():
    """What this thread mounts from here on, it and what it starts see alone."""
    _call("unshare", CLONE_NEWNS)
    _call("mount", b"none", b"/", b"none", MS_PRIVATE | MS_REC, None)


def attach(name, namespace):
    """``ip netns attach``: pin the namespace of that file, such as /proc/PID/ns/net, below the name."""
    share_run_netns()
    path = path_of(name)
    if os.path.exists(path) and not exists(name):
        os.unlink(path)  # the file of a namespace that died with the machine or with its mount
    try:
        pin(namespace, path)
    except OSError:
        remove(name)
        raise


def lo_up(netns):
    """``ip link set lo up``; see netdevice(7)."""
    _lo(netns, SIOCSIFFLAGS, IFF_UP)


def lo_is_up(netns):
    """Whether the loopback device of the namespace is up; one that has just gone has none."""
    try:
        return bool(_lo(netns, SIOCGIFFLAGS) & IFF_UP)
    except FileNotFoundError:
        return False


def _lo(netns, request, flags=0):
    """The flags of the loopback device after the request."""
    with entered(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        return struct.unpack("16sH14x", fcntl.ioctl(handle, request, struct.pack("16sH14x", b"lo", flags)))[1]


def remove(name):
    """``ip netns delete``; a name that is not there is fine."""
    unpin(path_of(name))
    _tidy()


def pin(namespace, path):
    """Keep the namespace of a file such as /proc/PID/ns/user alive at this path."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    _call("mount", namespace.encode(), path.encode(), b"none", MS_BIND, None)


def unpin(path):
    """Let go of what is pinned there, and remove the file; none is fine."""
    try:
        _call("umount2", path.encode(), MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _tidy():
    """Takes the mount on /run/netns, and the directory, away with the last namespace, where they were not there before."""
    if not os.path.exists(MADE) or os.listdir(RUN_NETNS):
        return
    with open(MADE, encoding="ascii") as file:
        made = file.read()
    os.unlink(MADE)
    _call("umount2", RUN_NETNS.encode(), MNT_DETACH)
    for directory in [RUN_NETNS] * (made == "directory") + [os.path.dirname(MADE)]:
        try:
            os.rmdir(directory)
        except OSError:
            pass


def share_run_netns():
    """/run/netns is a shared mount, as ``ip netns`` makes it, so that a removal reaches every mount namespace."""
    existed = os.path.isdir(RUN_NETNS)
    os.makedirs(RUN_NETNS, mode=0o755, exist_ok=True)
    target = RUN_NETNS.encode()
    try:
        _call("mount", b"none", target, b"none", MS_SHARED | MS_REC, None)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
            raise
        _call("mount", target, target, b"none", MS_BIND | MS_REC, None)
        _call("mount", b"none", target, b"none", MS_SHARED | MS_REC, None)
        if not os.listdir(RUN_NETNS):
            os.makedirs(os.path.dirname(MADE), mode=0o755, exist_ok=True)
            with open(MADE, "w", encoding="ascii") as file:
                file.write("mount" if existed else "directory")
