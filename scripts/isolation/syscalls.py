# SPDX-License-Identifier: GPL-3.0-or-later
"""Single system calls, as programs of a few instructions that are put together here: containers have no compiler and no Python."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import seccomp

PROBES = "/probes"  # where the programs lie in a container
TELLTALE = "fromscratch-isolation"  # of the host alone: the text of a file, a variable, a key, and an argument of a process

# Numbers on x86_64 and aarch64 of those that no filter of ours names.
NUMBERS = {**seccomp.NUMBERS,
           "bind": (49, 200), "chdir": (80, 49), "chroot": (161, 51), "exit": (60, 93), "fchdir": (81, 50),
           "get_mempolicy": (239, 236), "openat": (257, 56), "personality": (135, 92), "pidfd_getfd": (438, 438),
           "prctl": (157, 167), "socket": (41, 198)}
MACHINES = {"x86_64": (0, 62), "aarch64": (1, 183)}  # the column above, and ELF's name
LOADED = 0x400000
HEADERS = 64 + 56
DATA = LOADED + HEADERS  # where a program finds its data
AT_FDCWD, NEW_USERS, NEW_MOUNTS, SIGCHLD = -100, 0x10000000, 0x20000, 17

# All that our filter knows, with zeros, which do no harm where they are let through; and calls with these arguments.
ATTEMPTS = {
    **{name: (name, ()) for name in seccomp.NUMBERS if name not in ("unshare", "clone")},
    "clone (new user namespace)": ("clone", (NEW_USERS | SIGCHLD,)),
    "pidfd_getfd": ("pidfd_getfd", (-1, -1)),
    "personality (fixed addresses)": ("personality", (0x40000,)),
    "socket (AF_ALG)": ("socket", (38, 5)),
    "socket (AF_VSOCK)": ("socket", (40, 1)),
    "unshare (mounts)": ("unshare", (NEW_MOUNTS,)),
    "unshare (user namespace)": ("unshare", (NEW_USERS,)),
}
DOCKER_CALLS = {"adjtimex": "allowed", "clock_adjtime": "allowed", "clone3": "no such call"}  # it refuses all others of these


def program(*calls, data=b"", machine=None):
    """An executable that makes the calls, each (name, arguments), and ends with the error number of the last one, or with 0."""
    column, elf = MACHINES[machine or platform.machine()]
    data += b"\0" * (-len(data) % 8)
    words = [[NUMBERS[name][column], *arguments, *[0] * (6 - len(arguments))] for name, arguments in calls]
    code = b"".join(map([_call_x86_64, _call_aarch64][column], words))
    if column == 0:  # edi = eax < 0 ? -eax : 0
        code += bytes.fromhex("31f6 89c7 f7df 0f48fe b83c000000 0f05")
    else:  # w0 = w0 > 0 ? 0 : -w0
        code += struct.pack("<5I", 0x4B0003E0, 0x7100001F, 0x1A80B3E0, 0x52800000 | NUMBERS["exit"][column] << 5 | 8, 0xD4000001)
    size = HEADERS + len(data) + len(code)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, elf, 1, DATA + len(data), 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, LOADED, LOADED, size, size, 0x10000) + data + code


def _call_x86_64(words):
    moves = ("b8", "bf", "be", "ba", "41ba", "41b8", "41b9")  # to eax, edi, esi, edx, r10d, r8d, r9d
    return b"".join(bytes.fromhex(move) + struct.pack("<I", word & 0xFFFFFFFF) for move, word in zip(moves, words)) + b"\x0f\x05"


def _call_aarch64(words):
    moves = [base | (word >> shift & 0xFFFF) << 5 | register for register, word in zip((8, 0, 1, 2, 3, 4, 5), words)
             for base, shift in ((0x52800000, 0), (0x72A00000, 16))]
    return struct.pack("<15I", *moves, 0xD4000001)


def texts(*strings):
    """Data of strings, and the address of each."""
    places, data = [], b""
    for string in strings:
        places.append(DATA + len(data))
        data += string.encode() + b"\0"
    return places, data


def probes(secret):
    """The programs by name."""
    # The filter is loaded as the launcher does it: after no_new_privs, from a struct sock_fprog, which is in front of it.
    rules = seccomp.program(seccomp.profile())
    data = struct.pack("<HxxxxxxQ", len(rules) // 8, DATA + 16) + rules
    found = {}
    for name, call in ATTEMPTS.items():
        if NUMBERS[call[0]][MACHINES[platform.machine()][0]] is not None:
            found[f"call {name}"] = program(call)
            found[f"filtered {name}"] = program(("prctl", (38, 1)), ("prctl", (22, 2, DATA)), call, data=data)
    places, data = texts("user", TELLTALE)
    found["key"] = program(("keyctl", (10, -3, *places)), data=data)
    (root, elsewhere, up, here, wanted), data = texts("/", PROBES, "..", ".", secret)
    found["walk"] = program(("openat", (AT_FDCWD, root)), ("chroot", (elsewhere,)), ("fchdir", (3,)), *[("chdir", (up,))] * 9,
                            ("chroot", (here,)), ("openat", (AT_FDCWD, wanted)), data=data)
    found["packets"] = program(("socket", (17, 3, 0x300)))
    found["port"] = program(("socket", (2, 1)), ("bind", (3, DATA, 16)), data=struct.pack(">HH12x", 0x0200, 80))
    return found


def own_key():
    """A session of this run alone, with a key."""
    libc, column = ctypes.CDLL(None, use_errno=True), MACHINES[platform.machine()][0]
    libc.syscall(NUMBERS["keyctl"][column], 1, None)
    if libc.syscall(NUMBERS["add_key"][column], b"user", TELLTALE.encode(), b"x", 1, -3) < 0:
        sys.exit(f"add_key: {os.strerror(ctypes.get_errno())}")
