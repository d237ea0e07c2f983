# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process of a container gives up before its program runs, in the order in which it can, and how it runs that: the same at
a start and for a command that is run inside.
"""

from __future__ import annotations

import errno
import os
import resource
import signal

from . import syscalls
from .bundle import PATH, Refused
from .seccomp import program

CAPABILITIES = (  # capabilities(7), by the kernel's numbers
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable",
    "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot",
    "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease",
    "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read",
    "perfmon", "bpf", "checkpoint_restore")
RLIMITS = {  # setrlimit(2): asm-generic/resource.h
    "CPU": 0, "FSIZE": 1, "DATA": 2, "STACK": 3, "CORE": 4, "RSS": 5, "NPROC": 6, "NOFILE": 7, "MEMLOCK": 8, "AS": 9, "LOCKS": 10,
    "SIGPENDING": 11, "MSGQUEUE": 12, "NICE": 13, "RTPRIO": 14, "RTTIME": 15}
UNLIMITED = 2 ** 64 - 1


def hide():
    """Nobody with lesser rights looks into this process, its memory and its files: PR_SET_DUMPABLE of prctl(2)."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def default_signals():
    """What this program ignores, or holds back, is no habit of the container's."""
    for each in signal.valid_signals():
        if signal.getsignal(each) not in (signal.SIG_DFL, None):
            try:
                signal.signal(each, signal.SIG_DFL)
            except OSError:
                pass  # those that nobody can ignore
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def bits(names):
    """Capabilities as the kernel has them, from names such as CAP_CHOWN."""
    return sum(1 << CAPABILITIES.index(name[len("CAP_"):].lower()) for name in names)


def limit(rlimits):
    for each in rlimits:
        soft, hard = (-1 if each[kind] == UNLIMITED else each[kind] for kind in ("soft", "hard"))
        try:
            resource.setrlimit(RLIMITS[each["type"][len("RLIMIT_"):]], (soft, hard))
        except (OSError, ValueError) as error:  # Python's for EPERM and EINVAL
            raise Refused(f"setrlimit {each['type']} {each['soft']}:{each['hard']}: {error}: choose lower ulimits; of nofile, "
                          "sysctl fs.nr_open is the highest") from None


def become_root_of(users):
    """Enter a user namespace, in which root has all capabilities, and outside of which it is nobody."""
    syscalls.setns(users, syscalls.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    hide()  # a change of owner makes a process dumpable, or not, as the host likes it


def last_capability():
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def give_up(process, last, user, seccomp):
    """Rights that root inside does not have, for good; then the filter of system calls, and root itself where it is another user.

    ``last`` is the kernel's last capability, as nothing is asked of a file here. The filter comes as late as it can: to load it
    takes CAP_SYS_ADMIN, where no_new_privs is not set.
    """
    kept = {kind: bits(names) for kind, names in process["capabilities"].items()}
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(last + 1):
        if not kept["bounding"] >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    if process["noNewPrivileges"]:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if seccomp:
        syscalls.load_filter(program(seccomp))
    uid, gid, groups = user
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid == 0:
        syscalls.capset(kept["permitted"] & syscalls.capget(), 0)
    hide()


def user_of(process):
    user = process["user"]
    return user["uid"], user["gid"], user.get("additionalGids", [])


def find_program(name, env, cwd):
    """The path of a program inside, as execvp(3) finds it, from the directory that it is to run in. Raises Refused."""
    try:
        os.chdir(cwd)
    except OSError as error:
        raise Refused(f"chdir {cwd}: {error.strerror}: choose a directory that is there as workdir") from None
    if "/" in name:
        candidates = [name]
    else:
        search = next((each[len("PATH="):] for each in env if each.startswith("PATH=")), PATH)
        candidates = [f"{each or '.'}/{name}" for each in search.split(":")]
    denied = False
    for each in candidates:
        if os.access(each, os.X_OK, effective_ids=True) and not os.path.isdir(each):
            return each
        denied = denied or os.path.lexists(each)
    raise NotRun(name, errno.EACCES if denied else errno.ENOENT)


class NotRun(Refused):
    """A program that cannot be run, for the reason of a ``number`` of errno(3)."""

    REMEDIES = {
        errno.EACCES: "permission denied: give the path of a file that may be executed",
        errno.ENOENT: "not found: give the path of a program inside, or add its directory to PATH; a script needs its interpreter",
        errno.ENOEXEC: "not a program of this machine, nor a script that begins with #!"}

    def __init__(self, name, number):
        super().__init__(f"{name}: {self.REMEDIES.get(number, os.strerror(number))}")
        self.code = 127 if number == errno.ENOENT else 126  # as other tools have it


def execute(program, args, env):
    """exec: the environment is in memory alone, and no descriptor but 0, 1 and 2 is left."""
    try:
        os.execve(program, args, dict(each.split("=", 1) for each in env))  # noqa: S606
    except OSError as error:
        raise NotRun(args[0], error.errno) from None
