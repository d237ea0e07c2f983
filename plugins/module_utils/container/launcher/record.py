# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers run: a file for each below /run, that says which process is its process 1.

A pid is soon somebody else's, so the time that the process started and the boot stand beside it. The first line is the pid
alone, as systemd wants it of a PIDFile.
"""

from __future__ import annotations

import os

STATE = "/var/lib/fromscratch/containers"
RUN = "/run/fromscratch/containers"
USERS = "/run/fromscratch/users"  # user namespaces, each by the container's name
STORE = ".store"  # beside the names of root filesystems: where their trees lie


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def lines(name):
    """What is recorded of a container: pid, start time, boot, and the tree that it runs on, by its path and by its inode, as it may
    be moved aside; nothing of one that does not run."""
    try:
        with open(f"{RUN}/{name}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().rstrip("\n").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return []


def start_time(pid):
    """When a process started, in ticks since the boot; None where it has ended, or only waits to be looked at."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def running(name):
    """The pid of the container's process 1, or None where it does not run."""
    found = lines(name)
    if len(found) < 3 or not (found[0].isascii() and found[0].isdigit()):
        return None
    pid, start, boot = found[:3]
    return int(pid) if int(pid) and start_time(int(pid)) == start and boot == boot_id() else None


def inode(tree):
    """The number of a directory as descriptors of it tell it, which on an overlay is not what stat(2) does; None without any."""
    try:
        opened = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(f"/proc/self/fdinfo/{opened}", encoding="ascii") as file:
            found = [line.split()[1] for line in file if line.startswith("ino:")]
        return found[0] if found else str(os.fstat(opened).st_ino)
    finally:
        os.close(opened)


def write(name, pid, tree):
    """Record that a process runs the container on a tree."""
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    path = f"{RUN}/{name}"
    with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "w",
              encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{pid}\n{start_time(pid)}\n{boot_id()}\n{tree}\n{inode(tree)}\n")
    os.rename(f"{path}.new", path)


def end_of_log(name, size):
    """The last bytes of what a container has written, as text; None where there is no log."""
    try:
        with open(f"{STATE}/{name}/log", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return None


def remove(name):
    try:
        os.unlink(f"{RUN}/{name}")
    except FileNotFoundError:
        pass
