# SPDX-License-Identifier: GPL-3.0-or-later
"""Relay the standard streams of a command in a container.

A terminal of the caller is not passed on: a program inside that outlives the command could read what is typed there. The command
gets a terminal of the container's own, or a pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def write(target, data):
    """Write all of the data to a descriptor."""
    while data:
        data = data[os.write(target, data):]


def pour(source, target):
    """Copy from one descriptor to another until the end of file, at most a pipe's capacity at a time."""
    while data := os.read(source, 65536):
        write(target, data)


class Streams:
    """Connect a command with the caller's standard streams.

    ``terminal`` is whether the command gets a terminal: by default, where standard input and output are one. ``none`` is whether it
    gets no file of the caller at all, for a runtime that would change the owner of such a file to the command's user.
    """

    def __init__(self, terminal=None, none=False):
        for stream in 0, 1, 2:
            try:
                os.fstat(stream)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        at_terminal = [os.isatty(each) for each in (0, 1, 2)]
        self.terminal = at_terminal[0] and at_terminal[1] if terminal is None else terminal
        self.pipes, self.mode = {}, None
        self.ours = self.theirs = self.inner = self.child = -1
        if self.terminal:
            import socket
            ours, theirs = socket.socketpair()
            self.ours, self.theirs = ours.detach(), theirs.detach()
        else:
            for stream, found in enumerate(at_terminal):
                if found or none:
                    reader, writer = os.pipe()
                    self.pipes[stream] = (writer, reader) if stream == 0 else (reader, writer)

    def for_the_child(self):
        """Return the descriptors that the command's process has to keep open."""
        return [self.theirs] if self.terminal else [theirs for _ours, theirs in self.pipes.values()]

    def inside(self):
        """Replace the caller's terminals by pipes, in the command's process."""
        for stream, (_ours, theirs) in self.pipes.items():
            os.dup2(theirs, stream)
            os.close(theirs)

    def terminal_of_the_host(self):
        """Replace the caller's terminal by a relayed one of the host, for a runtime that creates the command's terminal itself."""
        import fcntl
        import socket
        import termios
        import tty
        self.inner, line = os.openpty()
        self._size()
        tty.setraw(line)
        with socket.socket(fileno=self.theirs) as out:
            socket.send_fds(out, [b"x"], [self.inner])
        for stream in 0, 1, 2:
            os.dup2(line, stream)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def hold_signals(self):
        """Block the signals to pass on before the fork; `relay` passes on those that come until then."""
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)

    def relay(self, child):
        """Relay data and signals until the process has ended. Return its exit status."""
        from .enter import status
        self.child = child
        # A signal wakes select(2) by this pipe, also where it came after Python's last look for signals.
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        for signum in PASSED:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, lambda number, _frame: self._signal(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED)
        for _ours, theirs in self.pipes.values():
            os.close(theirs)
        ways = {}
        if self.terminal:
            os.close(self.theirs)
            self._receive()
            if self.inner != -1:
                ways = {0: self.inner, self.inner: 1}
                self._raw()
        else:
            ways = {ours: stream for stream, (ours, _theirs) in self.pipes.items() if stream}
            if 0 in self.pipes:  # by itself, as the command may read what it likes, and when
                import threading
                threading.Thread(target=self._feed, daemon=True).start()
        ended = os.pidfd_open(child)
        while True:
            ready = select.select([*ways, ended, woken], [], [])[0]
            for source in [each for each in ready if each in ways]:
                self._copy(ways, source)
            if woken in ready:
                os.read(woken, 4096)
            if ended in ready:
                break
        for source in [each for each in ways if each != 0]:  # what the command has left to be read
            while source in ways and select.select([source], [], [], 0)[0]:
                self._copy(ways, source)
        return status(os.waitpid(child, 0)[1])

    def _copy(self, ways, source):
        target = ways[source]
        try:
            data = os.read(source, 65536)
        except OSError:  # of a terminal that nobody has open any more
            data = b""
        if not data:
            del ways[source]
            if source == 0:
                os.write(target, b"\x04")  # what ends the input of who reads from a terminal
            return
        with contextlib.suppress(BrokenPipeError):
            write(target, data)

    def _feed(self):
        target = self.pipes[0][0]
        with contextlib.suppress(OSError):
            pour(0, target)
        os.close(target)

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, number)

    def _receive(self):
        import socket
        with socket.socket(fileno=self.ours) as ours:
            found = socket.recv_fds(ours, 1, 1)[1]
        self.inner = found[0] if found else -1

    def _raw(self):
        import termios
        import tty
        self._size()
        signal.signal(signal.SIGWINCH, lambda *_signal: self._size())
        if os.isatty(0):
            self.mode = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)

    def _size(self):
        import fcntl
        import termios
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.inner, termios.TIOCSWINSZ, fcntl.ioctl(0 if os.isatty(0) else 1, termios.TIOCGWINSZ, b"\0" * 8))

    def restore(self):
        """Restore the modes of the caller's terminal."""
        if self.mode is not None:
            import termios
            termios.tcsetattr(0, termios.TCSADRAIN, self.mode)
