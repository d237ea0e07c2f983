# SPDX-License-Identifier: GPL-3.0-or-later
"""Named network namespaces, as ``ip netns`` keeps them: files in /run/netns that pin a namespace.

They are made and taken away by ``container.launcher.namespaces``. Looking never creates one: a name that is not there raises
FileNotFoundError.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from contextlib import contextmanager

RUN_NETNS = "/run/netns"
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, IFF_UP = 0x8913, 1

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


def names():
    """All names that pin a namespace."""
    return sorted(filter(exists, os.listdir(RUN_NETNS))) if os.path.isdir(RUN_NETNS) else []


def same(one, other):
    """Whether two namespace files pin the same namespace."""
    first, second = os.stat(path_of(one)), os.stat(path_of(other))
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


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


def lo_is_up(netns):
    """Whether the loopback device of the namespace is up, see netdevice(7); one that has just gone has none."""
    try:
        with entered(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            found = fcntl.ioctl(handle, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
    except FileNotFoundError:
        return False
    return bool(struct.unpack("16sH14x", found)[1] & IFF_UP)
