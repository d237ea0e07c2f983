# SPDX-License-Identifier: GPL-3.0-or-later
"""Call the system calls that Python does not offer before 3.12, each by a function of the same name.

Each raises OSError, whose text names the call and its argument. Constants are grouped by the call whose manual page explains them.
The newer calls have the same number on all machines, and glibc does not wrap all of them.
"""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_MACHINE = 0 if os.uname().machine == "x86_64" else 1

# syscalls(2), where the numbers differ: on x86_64, on aarch64
PIVOT_ROOT, KEYCTL = (155, 41), (250, 219)
# and where they do not
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, CLOSE_RANGE, OPENAT2, MOUNT_SETATTR = 428, 429, 430, 431, 432, 436, 437, 442

# clone(2), namespaces(7)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
# mount(2), umount2(2)
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
# mount_setattr(2)
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_IDMAP = 0x00100000
# open_tree(2), open(2)
OPEN_TREE_CLONE, AT_EMPTY_PATH, AT_RECURSIVE, AT_FDCWD = 1, 0x1000, 0x8000, -100
# move_mount(2)
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40
# fsopen(2), fsconfig(2), fsmount(2)
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
# openat2(2)
RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x04, 0x10
# prctl(2)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER = 2
# keyctl(2)
KEYCTL_JOIN_SESSION_KEYRING = 1
# capget(2)
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def _checked(found, call, about):
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call} {about}: {os.strerror(number)}")
    return found


def _word(value):
    return ctypes.c_long(value) if isinstance(value, int) else value


def _syscall(number, call, about, *words):
    return _checked(_libc.syscall(ctypes.c_long(number), *map(_word, words)), call, about)


def _bytes(path):
    return os.fsencode(path)


def _named(prefix, flags):
    """Return the names of the flags that are set."""
    return "|".join(name for name, value in globals().items() if name.startswith(prefix) and value & flags)


def unshare(flags):
    """Call unshare(2)."""
    _checked(_libc.unshare(flags), "unshare", _named("CLONE_", flags))


def setns(namespace, flags=0):
    """Call setns(2) on a descriptor of a namespace."""
    _checked(_libc.setns(namespace, flags), "setns", _named("CLONE_", flags))


def mount(source, target, kind, flags, data=None):
    """Call mount(2)."""
    done = _libc.mount(_bytes(source), _bytes(target), kind.encode(), ctypes.c_ulong(flags), data and _bytes(data))
    _checked(done, "mount", target)


def umount2(target, flags):
    """Call umount2(2)."""
    _checked(_libc.umount2(_bytes(target), flags), "umount2", target)


def pivot_root(new, old):
    """Call pivot_root(2)."""
    _syscall(PIVOT_ROOT[_MACHINE], "pivot_root", new, _bytes(new), _bytes(old))


def open_tree(directory, path, flags):
    """Return a descriptor of a mount; with OPEN_TREE_CLONE, of a detached copy of it."""
    return _syscall(OPEN_TREE, "open_tree", path, directory, _bytes(path), flags | os.O_CLOEXEC)


def move_mount(mounted, target, path=""):
    """Attach a mount, a descriptor, to a mount point: a descriptor, or a path relative to it."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    _syscall(MOVE_MOUNT, "move_mount", path, mounted, b"", target, _bytes(path), flags)


def mount_setattr(mounted, recursive, to_set, users=0):
    """Call mount_setattr(2) on a descriptor; ``users`` is a descriptor of a user namespace, for an idmapped mount."""
    attributes = struct.pack("4Q", to_set, 0, 0, users)
    _syscall(MOUNT_SETATTR, "mount_setattr", _named("MOUNT_ATTR_", to_set), mounted, b"",
             AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), attributes, len(attributes))


def fsopen(kind):
    """Return a file system context of fsopen(2)."""
    return _syscall(FSOPEN, "fsopen", kind, kind.encode(), FSOPEN_CLOEXEC)


def fsconfig(context, command, key=None, value=None):
    """Call fsconfig(2) on a file system context."""
    _syscall(FSCONFIG, "fsconfig", f"{key}={value}", context, command, key and key.encode(), value and _bytes(value), 0)


def fsmount(context, attributes):
    """Return a descriptor of the detached mount of a context."""
    return _syscall(FSMOUNT, "fsmount", _named("MOUNT_ATTR_", attributes), context, FSMOUNT_CLOEXEC, attributes)


def openat2(directory, path, flags, resolve, mode=0):
    """Return a descriptor of openat2(2), with the RESOLVE flags ``resolve``."""
    how = struct.pack("3Q", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall(OPENAT2, "openat2", path, directory, _bytes(path), how, len(how))


def close_range(first, last=0xFFFFFFFF):
    """Close all descriptors from the first to the last. Linux before 5.9 has no such system call."""
    if _libc.syscall(ctypes.c_long(CLOSE_RANGE), ctypes.c_long(first), ctypes.c_long(last), ctypes.c_long(0)) < 0:
        os.closerange(first, min(last, max(map(int, os.listdir("/proc/self/fd")))) + 1)


def close_all_but(*kept):
    """Close all descriptors but 0, 1, 2 and those given."""
    first = 3
    for descriptor in sorted({each for each in kept if each > 2}):
        if descriptor > first:
            close_range(first, descriptor - 1)
        first = descriptor + 1
    close_range(first)


def prctl(option, *words):
    """Call prctl(2) with up to four arguments. Return its result."""
    arguments = [ctypes.c_ulong(word) if isinstance(word, int) else word for word in [*words, 0, 0, 0, 0][:4]]
    return _checked(_libc.prctl(option, *arguments), "prctl", option)


def capset(permitted, inheritable):
    """Set the permitted, effective and inheritable capabilities of this thread, as bit masks; effective is as permitted."""
    header = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack("6I", permitted & low, permitted & low, inheritable & low,
                       permitted >> high, permitted >> high, inheritable >> high)
    _checked(_libc.capset(header, data), "capset", f"{permitted:#x}")


def capget():
    """Return the permitted capabilities of this thread as a bit mask."""
    header, data = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0), ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, data), "capget", "")
    words = struct.unpack("6I", data.raw)
    return words[1] | words[4] << 32


def set_fs_ids(number):
    """Set the uid and gid of files that this thread creates, with setfsuid(2) and setfsgid(2), and keep its capabilities."""
    _libc.setfsgid(number)
    _libc.setfsuid(number)
    capset(capget(), 0)


def load_filter(program):
    """Load a seccomp(2) filter, an array of struct sock_filter, for this thread and its descendants."""
    buffer = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(descriptor))


def new_session_keyring():
    """Join a new session keyring, so that the container sees no key of the caller. Some kernels have no keys."""
    _libc.syscall(ctypes.c_long(KEYCTL[_MACHINE]), ctypes.c_long(KEYCTL_JOIN_SESSION_KEYRING), None)
