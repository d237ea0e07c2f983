# SPDX-License-Identifier: GPL-3.0-or-later
"""Drop the privileges of a container's process, in the only order that works, and execute its program.

A start and a command that is executed inside share this code.
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
    """Make this process, its memory and its files inaccessible to less privileged processes: PR_SET_DUMPABLE of prctl(2)."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def default_signals():
    """Reset the signal mask and all handlers, so that the container does not inherit what this program ignores or blocks."""
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            try:
                signal.signal(number, signal.SIG_DFL)
            except OSError:
                pass  # those that nobody can ignore
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def bits(names):
    """Return capability names such as CAP_CHOWN as a bit mask."""
    return sum(1 << CAPABILITIES.index(name[len("CAP_"):].lower()) for name in names)


def limit(rlimits):
    """Apply the resource limits of the specification with setrlimit(2). Raise Refused for one that the kernel rejects."""
    for entry in rlimits:
        soft, hard = (-1 if entry[kind] == UNLIMITED else entry[kind] for kind in ("soft", "hard"))
        try:
            resource.setrlimit(RLIMITS[entry["type"][len("RLIMIT_"):]], (soft, hard))
        except (OSError, ValueError) as error:  # Python's for EPERM and EINVAL
            raise Refused(f"setrlimit {entry['type']} {entry['soft']}:{entry['hard']}: {error}: choose lower ulimits; of nofile, "
                          "sysctl fs.nr_open is the highest") from None


def become_root_of(users):
    """Enter a user namespace as its root: all capabilities inside, an unprivileged user outside."""
    syscalls.setns(users, syscalls.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    hide()  # a change of owner makes a process dumpable, or not, as the host likes it


def last_capability():
    """Return the number of the highest capability that the kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def give_up(process, last, user, seccomp):
    """Drop capabilities for good, load the seccomp filter and switch to the user, a tuple of uid, gid and supplementary groups.

    ``last`` is the kernel's highest capability, because no file may be read here. The filter is loaded as late as possible: without
    no_new_privs, loading takes CAP_SYS_ADMIN.
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
    """Return (uid, gid, supplementary gids) of a process of the specification."""
    user = process["user"]
    return user["uid"], user["gid"], user.get("additionalGids", [])


def find_program(name, env, cwd):
    """Return the path of a program as execvp(3) finds it, with ``cwd`` as working directory. Raise Refused, or NotRun."""
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
    for candidate in candidates:
        if os.access(candidate, os.X_OK, effective_ids=True) and not os.path.isdir(candidate):
            return candidate
        denied = denied or os.path.lexists(candidate)
    raise NotRun(name, errno.EACCES if denied else errno.ENOENT)


class NotRun(Refused):
    """Report a program that cannot be executed, by an errno(3) ``number``."""

    REMEDIES = {
        errno.EACCES: "permission denied: give the path of a file that may be executed",
        errno.ENOENT: "not found: give the path of a program inside, or add its directory to PATH; a script needs its interpreter",
        errno.ENOEXEC: "not a program of this machine, nor a script that begins with #!"}

    def __init__(self, name, number):
        super().__init__(f"{name}: {self.REMEDIES.get(number, os.strerror(number))}")
        self.code = 127 if number == errno.ENOENT else 126  # as other tools have it


def execute(program, args, env):
    """Execute a program with ``env``, a list of KEY=VALUE; descriptors 0, 1 and 2 alone remain open. Raise NotRun."""
    try:
        os.execve(program, args, dict(each.split("=", 1) for each in env))  # noqa: S606
    except OSError as error:
        raise NotRun(args[0], error.errno) from None
