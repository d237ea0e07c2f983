# SPDX-License-Identifier: GPL-3.0-or-later
"""The system calls that containers have no use for, as a filter of the kernel's: one that setpriv(1) loads, and a unit's words.

They are those that Docker's default profile keeps from a container with Docker's capabilities. Numbers are those of the
kernel's tables of system calls, which never change.
"""

from __future__ import annotations

import os
import struct

# By name: the numbers on x86_64 and on aarch64, None where the machine has none. Nothing that starts a container needs these.
CALLS = {
    "_sysctl": (156, None), "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "create_module": (174, None), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "finit_module": (313, 273), "get_kernel_syms": (177, None), "get_mempolicy": (239, 236),
    "init_module": (175, 105), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425),
    "ioperm": (173, None), "iopl": (172, None), "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104),
    "keyctl": (250, 219), "lookup_dcookie": (212, 18), "mbind": (237, 235), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "nfsservctl": (180, 42), "open_by_handle_at": (304, 265), "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "query_module": (178, None), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "request_key": (249, 218), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450), "setdomainname": (171, 162), "sethostname": (170, 161), "settimeofday": (164, 170),
    "swapoff": (168, 225), "swapon": (167, 224), "sysfs": (139, None), "syslog": (103, 116), "uselib": (134, None),
    "userfaultfd": (323, 282), "ustat": (136, None), "vhangup": (153, 58)}
# What starts a container needs these; what runs in it does not.
LAUNCHING = {
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "open_tree": (428, 428), "open_tree_attr": (467, 467),
    "pivot_root": (155, 41), "setns": (308, 268), "umount2": (166, 39), "unshare": (272, 97)}
CLONE, CLONE3 = (56, 220), (435, 435)
NEW_NAMESPACES = 0x7E020080  # the flags of clone(2) that make one
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # and the kernel's own name of each
X32 = 0x40000000  # calls of x86_64 with 32-bit pointers begin here

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38


def unit_words():
    """For SystemCallFilter= of a unit, whose main process is what starts the container. Systemd does not know the oldest ones."""
    return "~" + " ".join(sorted(CALLS.keys() - {"create_module", "get_kernel_syms", "query_module", "nfsservctl", "_sysctl"}))


def known_here():
    """Whether there is a filter for this machine."""
    return os.uname().machine in MACHINES


def program(machine=None):
    """The filter as an array of struct sock_filter: denied calls fail with EPERM, clone3 with ENOSYS, so that clone is tried."""
    column, architecture = MACHINES[machine or os.uname().machine]
    denied = sorted(numbers[column] for numbers in (*CALLS.values(), *LAUNCHING.values()) if numbers[column] is not None)
    head = [(LOAD, 0, 0, 4), (EQUAL, 0, "deny", architecture), (LOAD, 0, 0, 0), (AT_LEAST, "deny", 0, X32)]
    body = [(EQUAL, "deny", 0, number) for number in denied]
    tail = [(EQUAL, "absent", 0, CLONE3[column]), (EQUAL, 0, "allow", CLONE[column]), (LOAD, 0, 0, 16),
            (ANY_BIT, "deny", "allow", NEW_NAMESPACES)]
    ends = {"allow": ALLOW, "deny": FAIL | EPERM, "absent": FAIL | ENOSYS}
    lines = head + body + tail
    places = {name: len(lines) + at for at, name in enumerate(ends)}
    lines += [(RETURN, 0, 0, value) for value in ends.values()]
    return b"".join(struct.pack("=HBBI", code, *(
        places[jump] - at - 1 if jump in places else jump for jump in (yes, no)), value)
        for at, (code, yes, no, value) in enumerate(lines))
