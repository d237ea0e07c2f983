# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter of system calls of a bundle (``linux.seccomp``) as a program for the kernel; see seccomp(2).

The subset: everything is allowed but what a rule names, which fails with an error; a rule may ask for bits of one argument.
"""

from __future__ import annotations

import os
import struct

# By name: the numbers on x86_64 and on aarch64, None where the machine has none. They never change.
NUMBERS = {
    "_sysctl": (156, None), "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220), "clone3": (435, 435),
    "create_module": (174, None), "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "get_kernel_syms": (177, None), "get_mempolicy": (239, 236), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioperm": (173, None), "iopl": (172, None),
    "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "mbind": (237, 235), "migrate_pages": (256, 238), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239), "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "open_tree_attr": (467, 467), "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438), "pivot_root": (155, 41), "process_madvise": (440, 440), "query_module": (178, None),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142), "request_key": (249, 218),
    "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450), "setdomainname": (171, 162),
    "sethostname": (170, 161), "setns": (308, 268), "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224),
    "sysfs": (139, None), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97), "uselib": (134, None),
    "userfaultfd": (323, 282), "ustat": (136, None), "vhangup": (153, 58)}
ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # the column above, and the kernel's name of each
X32 = 0x40000000  # calls of x86_64 with 32-bit pointers begin here

LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # linux/bpf_common.h
ALLOW, FAIL = 0x7FFF0000, 0x00050000  # linux/seccomp.h
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
EPERM = 1


def _rule(number, error, argument):
    """Return the BPF instructions that fail a system call and fall through for all others."""
    end = [(RETURN, 0, 0, FAIL | error)]
    if argument is not None:
        at, mask, value = argument
        end = [(LOAD, 0, 0, ARGUMENTS_AT + 8 * at), (AND, 0, 0, mask), (EQUAL, 0, 1, value), *end]
    back = [(LOAD, 0, 0, NUMBER_AT)] * (argument is not None)
    return [(EQUAL, 0, len(end) + len(back), number), *end, *back]


def program(seccomp, machine=None):
    """Return the filter as an array of struct sock_filter."""
    column, architecture = MACHINES[machine or os.uname().machine]
    lines = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, FAIL | EPERM),
             (LOAD, 0, 0, NUMBER_AT), (EQUAL if column else AT_LEAST, 0, 1, X32), (RETURN, 0, 0, FAIL | EPERM)]
    for rule in seccomp["syscalls"]:
        argument = next(((arg["index"], arg["value"], arg["valueTwo"]) for arg in rule.get("args", ())), None)
        for number in (NUMBERS[name][column] for name in rule["names"]):
            if number is not None:
                lines += _rule(number, rule.get("errnoRet", EPERM), argument)
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


NEW_NAMESPACES = (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)  # clone(2)
ENOSYS = 38


def known_here():
    """Return whether a filter exists for this machine."""
    return os.uname().machine in MACHINES


def profile():
    """Return the filter of the specification's ``seccomp``: what Docker's default profile denies with its capabilities.

    clone3 fails with ENOSYS, so that programs fall back to clone, whose flags a filter can inspect.
    """
    denied = sorted(NUMBERS.keys() - {"clone", "clone3"})
    one = {"action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [ARCHITECTURES[os.uname().machine]], "syscalls": [
        {"names": denied, **one}, {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        *({"names": ["clone"], **one, "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]}
          for flag in NEW_NAMESPACES)]}
