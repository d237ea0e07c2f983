# SPDX-License-Identifier: GPL-3.0-or-later
"""Record which containers run: one file each below /run, which identifies process 1.

A pid is reused, so the start time of the process and the boot id are recorded with it. The first line is the pid alone, as systemd
expects of a PIDFile.
"""

from __future__ import annotations

import os

STATE = "/var/lib/fromscratch/containers"
RUN = "/run/fromscratch/containers"
USERS = "/run/fromscratch/users"  # user namespaces, each by the container's name
STORE = ".store"  # beside the names of root filesystems: where their trees lie


def boot_id():
    """Return the kernel's id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def lines(name):
    """Return the record of a container: pid, start time, boot id, and its tree by path and by inode, as it may be moved.

    The list is empty where nothing is recorded.
    """
    try:
        with open(f"{RUN}/{name}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read().rstrip("\n").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return []


def start_time(pid):
    """Return the start time of a process in clock ticks since boot; None for one that has ended or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def running(name):
    """Return the pid of the container's process 1, or None where it does not run."""
    found = lines(name)
    if len(found) < 3 or not (found[0].isascii() and found[0].isdigit()):
        return None
    pid, start, boot = found[:3]
    return int(pid) if int(pid) and start_time(int(pid)) == start and boot == boot_id() else None


def inode(tree):
    """Return the inode number of a directory as its descriptors show it, or None; on an overlay stat(2) shows another."""
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
    """Record the process that runs a container, and its tree."""
    os.makedirs(RUN, mode=0o700, exist_ok=True)
    path = f"{RUN}/{name}"
    with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "w",
              encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{pid}\n{start_time(pid)}\n{boot_id()}\n{tree}\n{inode(tree)}\n")
    os.rename(f"{path}.new", path)


def end_of_log(name, size):
    """Return the last ``size`` bytes of a container's log as text, or None without a log."""
    try:
        with open(f"{STATE}/{name}/log", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return None


def remove(name):
    """Remove the record of a container, if any."""
    try:
        os.unlink(f"{RUN}/{name}")
    except FileNotFoundError:
        pass
