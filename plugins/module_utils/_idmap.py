# SPDX-License-Identifier: GPL-3.0-or-later
"""User namespaces of containers: which ranges of user ids they get, and whether a host can show files with other owners.

An idmapped mount shows the files of a root filesystem to one container as its own, and changes none of them; an overlay
can have such a mount as its lower layer since Linux 5.19. mount(8) makes one since util-linux 2.39, and where that is older,
the few system calls do.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import zlib

from ._files import number

RANGE = 65536
# As systemd-nspawn picks them, far from those of people and of /etc/subuid.
LOWEST, HIGHEST = 524288, 1878982656
SLOTS = (HIGHEST - LOWEST) // RANGE
OVERLAY_ON_IDMAPPED = (5, 19)
# Since which Linux a file system can be mounted so, by its name in /proc/filesystems.
SINCE = {"ext4": (5, 12), "xfs": (5, 12), "btrfs": (5, 15), "f2fs": (5, 18), "erofs": (5, 19), "tmpfs": (6, 3)}


def idmapped(source, target, users):
    """Mount a directory at another, with the owners that its files have in the user namespace of a file."""
    import ctypes
    import os
    import struct
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number, *words):
        found = libc.syscall(number, *words)
        if found < 0:
            raise OSError(ctypes.get_errno(), f"an idmapped mount of {source}: {os.strerror(ctypes.get_errno())}")
        return found

    # open_tree(2), mount_setattr(2) and move_mount(2) have the same numbers on all machines. A container that another thread
    # starts meanwhile must not get the tree.
    tree = call(428, -100, source.encode(), 1 | os.O_CLOEXEC)
    file = os.open(users, os.O_RDONLY)
    try:
        call(442, tree, b"", 0x1000, struct.pack("4Q", 0x100000, 0, 0, file), 32)
        call(429, tree, b"", -100, target.encode(), 4)
    finally:
        os.close(file)
        os.close(tree)


# The same for a shell script.
PROGRAM = f"{inspect.getsource(idmapped)}\nimport sys\nidmapped(*sys.argv[1:])\n"


def refusal(directory):
    """Why files of the directory, which need not be there yet, cannot have other owners in a container; None where they can."""
    if not os.path.exists("/proc/self/ns/user") or number("/proc/sys/user/max_user_namespaces") == 0:
        return "the kernel makes no user namespaces"
    if directory == "/":
        return "the root filesystem is the host's own"
    release = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups()))
    kind = _file_system(directory)
    needed = max(SINCE.get(kind, (99, 0)), OVERLAY_ON_IDMAPPED)
    if kind not in SINCE:
        return f"it lies on {kind}, whose files cannot be shown with other owners"
    if release < needed:
        return f"files on {kind} can be shown with other owners since Linux {needed[0]}.{needed[1]}"
    return None


def mapped_by():
    """What makes idmapped mounts on this host."""
    told = subprocess.run(["mount", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    found = re.search(r"util-linux (\d+)\.(\d+)", told)
    return "mount" if found and tuple(map(int, found.groups())) >= (2, 39) else "python3"


def slots(ranges):
    """The numbers of our ranges that have something in common with these, each (its first id, the one after its last)."""
    return {slot for begin, end in ranges
            for slot in range(max(begin - LOWEST, 0) // RANGE, (min(end, HIGHEST) - LOWEST + RANGE - 1) // RANGE)}


def first_id(name, taken):
    """Where the range of a container begins: one that depends on its name alone, unless that slot is among those ``taken``.
    None where all are."""
    preferred = zlib.crc32(name.encode())
    free = ((preferred + each) % SLOTS for each in range(SLOTS))
    return next((LOWEST + slot * RANGE for slot in free if slot not in taken), None)


def delegated():
    """The ranges that /etc/subuid and /etc/subgid give to users."""
    found = []
    for path in "/etc/subuid", "/etc/subgid":
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                rows = [line.split(":") for line in file]
        except OSError:
            continue
        found += [(int(row[1]), int(row[1]) + int(row[2])) for row in rows
                  if len(row) == 3 and row[1].strip().isdigit() and row[2].strip().isdigit()]
    return found


def _file_system(directory):
    """The name of the file system that a directory is on, or will be."""
    while directory not in ("", "/") and not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    device = os.stat(directory or "/").st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="replace") as file:
        kinds = [line.rpartition(" - ")[2].split()[0] for line in file if line.split()[2] == numbers]
    return kinds[0] if kinds else "an unknown file system"
