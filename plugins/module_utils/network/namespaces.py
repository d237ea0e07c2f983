# SPDX-License-Identifier: GPL-3.0-or-later
"""Read named network namespaces, as ``ip netns`` keeps them: files in /run/netns that pin a namespace.

``container.launcher.namespaces`` creates and removes them. Reading never creates one: a name that does not exist raises
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
    """Return the file of a namespace given as a name, a path, or None for this process's own."""
    if netns is None:
        return "/proc/self/ns/net"
    return netns if netns.startswith("/") else os.path.join(RUN_NETNS, netns)


def inode(netns):
    """Return the inode number of the namespace, or None where there is none, as with a file left by a crash."""
    try:
        found = os.stat(path_of(netns))
        # Every namespace file is on nsfs, whose device differs from that of the directory that it is mounted in.
        return found.st_ino if found.st_dev == os.stat("/proc/self/ns/net").st_dev else None
    except OSError:
        return None


def exists(netns):
    """Return whether the name pins a namespace."""
    return inode(netns) is not None


def names():
    """Return all names that pin a namespace, sorted."""
    return sorted(filter(exists, os.listdir(RUN_NETNS))) if os.path.isdir(RUN_NETNS) else []


def same(one, other):
    """Return whether two namespace files pin the same namespace. Raise FileNotFoundError."""
    first, second = os.stat(path_of(one)), os.stat(path_of(other))
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


@contextmanager
def entered(netns):
    """Run the body in the namespace, of this thread only; sockets opened there stay in it."""
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
    """Return whether the loopback device of the namespace is up, see netdevice(7); False for a namespace that has just gone."""
    try:
        with entered(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            found = fcntl.ioctl(handle, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
    except FileNotFoundError:
        return False
    return bool(struct.unpack("16sH14x", found)[1] & IFF_UP)
