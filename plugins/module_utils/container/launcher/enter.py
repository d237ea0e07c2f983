# SPDX-License-Identifier: GPL-3.0-or-later
"""Execute a command in a running container: nsenter(1), with every restriction that process 1 has.

The order of entry is fixed: namespaces, root, limits, user, capabilities, filter. Only a confined process forks into the
container's pid namespace, where others see it, and the child executes the command at once. It exposes nothing of the host: not its
root, not its files, no descriptor but those passed to the command, and no memory that a tracer inside could read.
"""

from __future__ import annotations

import fcntl
import os
import signal

from . import cgroups, confine, record, syscalls
from .bundle import RUNTIME, Refused, annotation, load, mapped, words
from .confine import execute, find_program, user_of
from .terminal import PASSED, Streams

ORDER = (("ipc", syscalls.CLONE_NEWIPC), ("uts", syscalls.CLONE_NEWUTS), ("net", syscalls.CLONE_NEWNET),
         ("cgroup", syscalls.CLONE_NEWCGROUP), ("pid", syscalls.CLONE_NEWPID), ("mnt", syscalls.CLONE_NEWNS))
TIOCGPTPEER, TIOCSPTLCK, TIOCSCTTY = 0x5441, 0x40045431, 0x540E  # ioctl_tty(2)
AWAITED = {*PASSED, signal.SIGCHLD}
NOT_POSSIBLE, NOT_EXECUTABLE, BY_SIGNAL = Refused.code, 126, 128  # exit statuses, as other tools have them


class Stopped(Refused):
    """Report a container that is not running."""

    def __init__(self, name):
        super().__init__(f"{name} does not run: start it with ns-container start {name}")


def running(name):
    """Return the pid of a container's process 1. Raise Refused where it is stopped or still starting."""
    pid = record.running(name)
    if pid is None:
        raise Stopped(name)
    try:
        starting = os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/"))
    except OSError:
        raise Stopped(name) from None
    if starting:
        raise Refused(f"{name} is only just starting: try again")
    return pid


def confined(name, config, process, user, act, *kept):
    """Fork a process, confine it like the container's own but for its pid namespace, and call ``act`` there. Return its pid.

    ``kept`` are descriptors that stay open. The return value of ``act`` is the exit status; an exception is written to ``kept[0]``.
    """
    pid = running(name)
    entered = [(flag, os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
               for kind, flag in ORDER if os.path.exists(f"/proc/{pid}/ns/{kind}")]
    users = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC) if mapped(config) else None
    if record.running(name) != pid:  # else the descriptors may be those of somebody else
        raise Stopped(name)
    caller = os.getpid()
    child = os.fork()
    if child:
        for _flag, namespace in entered:
            os.close(namespace)
        if users is not None:
            os.close(users)
        return child
    code = NOT_POSSIBLE
    try:
        confine.hide()
        syscalls.close_all_but(*kept, *(namespace for _flag, namespace in entered), *[users] * (users is not None))
        os.setsid()
        syscalls.new_session_keyring()
        last = confine.last_capability()
        if config["linux"].get("resources"):
            cgroups.join(pid)
        for flag, namespace in entered:
            syscalls.setns(namespace, flag)
            os.close(namespace)
        os.chdir("/")
        confine.limit(process.get("rlimits", []))
        if users is not None:
            confine.become_root_of(users)
            os.close(users)
        who = look_up(user) if user else user_of(process)
        confine.give_up(process, last, who, config["linux"].get("seccomp"))
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != caller:
            os._exit(NOT_POSSIBLE)
        code = act()
    except Exception as error:
        code = getattr(error, "code", code)
        os.write(kept[0], words(error).encode("utf-8", "replace"))
    finally:
        os._exit(code)


def look_up(user):
    """Return (uid, gid, supplementary gids) of USER[:GROUP], names of the container's own files or numbers. Raise Refused."""
    name, _colon, group = user.partition(":")
    found = _entry("/etc/passwd", name)
    if not (name.isdigit() or found):
        raise Refused(f"{name}: there is no such user in /etc/passwd of the container: give one of those, or a number")
    uid = int(found[2] if found else name)
    gid = int(found[3]) if found else 0
    if group:
        entry = _entry("/etc/group", group)
        if not (group.isdigit() or entry):
            raise Refused(f"{group}: there is no such group in /etc/group of the container: give one of those, or a number")
        gid = int(entry[2] if entry else group)
    members = []
    if found and not group:
        members = [int(each[2]) for each in _entries("/etc/group") if len(each) > 3 and found[0] in each[3].split(",")]
    return uid, gid, members


def _entry(path, name):
    return next((each for each in _entries(path) if len(each) > 2 and name in (each[0], each[2])), None)


def _entries(path):
    try:  # the container may have made a FIFO of it
        with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            text = file.read(1 << 20) or b""
    except OSError:
        return []
    return [line.split(":") for line in text.decode("utf-8", "replace").splitlines()]


def spawn(args, env, cwd, terminal, report):
    """Run a command as a child in the container's pid namespace. Return its exit status.

    ``terminal`` is None or a socket: the command then gets a pseudoterminal of the container's devpts, and the socket its other
    end. ``report`` is the descriptor for errors.
    """
    program = find_program(args[0], env, cwd)
    if terminal is not None:
        _terminal_of_the_container(terminal)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    child = os.fork()
    if child == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setsid()
            if terminal is not None:
                fcntl.ioctl(0, TIOCSCTTY, 0)
            confine.default_signals()
            execute(program, args, env)
        except Exception as error:
            os.write(report, words(error).encode("utf-8", "replace"))
            os._exit(getattr(error, "code", NOT_POSSIBLE))
        finally:
            os._exit(NOT_POSSIBLE)
    os.close(report)
    if terminal is not None:
        for stream in 0, 1, 2:  # who reads the other end sees its end with that of the command
            os.close(stream)
    while True:  # no handlers: what comes between Python's look for signals and waitpid(2) would wait for the end of the command
        number = signal.sigwait(AWAITED)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            return status(code)


def _terminal_of_the_container(terminal):
    import socket
    inner = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if os.fstat(inner).st_rdev != os.makedev(5, 2):
        raise Refused("/dev/pts/ptmx in the container makes no terminals: run the command without one (-T)")
    fcntl.ioctl(inner, TIOCSPTLCK, b"\0\0\0\0")
    line = fcntl.ioctl(inner, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    with socket.socket(fileno=terminal) as out:
        socket.send_fds(out, [b"x"], [inner])
    os.close(inner)
    for stream in 0, 1, 2:
        os.dup2(line, stream)
    os.close(line)


def status(code):
    """Return a wait status as the exit status that a shell reports."""
    code = os.waitstatus_to_exitcode(code)
    return BY_SIGNAL - code if code < 0 else code


def run(name, args, env=(), user=None, cwd=None, terminal=None):
    """Run a command in a container with this process's standard streams. Return its exit status. Raise Refused.

    A terminal of the caller is never passed on: the command gets one of the container's, or a pipe, and this process relays.
    ``env`` is a list of KEY=VALUE, ``user`` USER[:GROUP]; ``terminal`` is None for a terminal where the caller has one.
    """
    config = load(name)
    process = {**config["process"], "rlimits": config["process"].get("rlimits", [])}
    given = {each.split("=", 1)[0] for each in env}
    env = [*(each for each in process["env"] if each.split("=", 1)[0] not in given), *env]
    runtime = annotation(config, RUNTIME)
    streams = Streams(terminal, bool(runtime))
    errors, error_writer = os.pipe()
    if streams.terminal and "TERM" not in given and os.environ.get("TERM"):
        env.append(f"TERM={os.environ['TERM']}")

    def act():
        """Run the command from inside the container's namespaces."""
        streams.inside()
        return spawn(args, env, cwd or "/", streams.theirs if streams.terminal else None, error_writer)

    if runtime:
        return _by_runtime(name, config, {**process, "args": args, "env": env, "cwd": cwd or "/"}, user, streams)
    streams.hold_signals()
    child = confined(name, config, process, user, act, error_writer, *streams.for_the_child())
    os.close(error_writer)
    try:
        code = streams.relay(child)
    finally:
        streams.restore()
    message = os.read(errors, 65536).decode("utf-8", "replace")
    if message:
        raise Ended(message, code)
    return code


def _by_runtime(name, config, process, user, streams):
    """Run a command by the runtime that the bundle names."""
    import json

    from . import runtime
    answers, answer_writer = os.pipe()

    def look():
        """Resolve the program and the user inside the container."""
        find_program(process["args"][0], process["env"], process["cwd"])
        os.write(answer_writer, json.dumps({"uid": os.getuid(), "gid": os.getgid(), "additionalGids": os.getgroups()}).encode())
        return 0

    # Names of users, and what cannot be run, are the container's to tell.
    child = confined(name, config, process, user, look, answer_writer)
    os.close(answer_writer)
    code, answer = status(os.waitpid(child, 0)[1]), os.read(answers, 65536).decode("utf-8", "replace")
    if code:
        raise Ended(answer, code)
    log = os.memfd_create("log")
    streams.hold_signals()
    child = runtime.execute(name, config, {**process, "user": json.loads(answer)}, streams, log)
    try:
        code = streams.relay(child)
    finally:
        streams.restore()
    message = "\n".join(runtime.errors(log))  # also on its standard error
    if streams.terminal and runtime.is_crun(annotation(config, RUNTIME)):
        os.write(1, message.encode())  # crun takes for an error what a command leaves at its terminal that ends soon
        return code
    return (NOT_EXECUTABLE if "format error" in message.lower() else NOT_POSSIBLE) if code and message else code


class Ended(Refused):
    """Report a command that was not run: the message, and the exit status."""

    def __init__(self, words, code):
        super().__init__(words)
        self.code = code
