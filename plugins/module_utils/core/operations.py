# SPDX-License-Identifier: GPL-3.0-or-later
"""Define operations on a host's files and programs; those on links are in ``network.operations``.

An operation is data. ``apply`` performs it, ``commands`` renders it as an administrator would type it: because a kind returns one
list of operations and both start from that, what is shown is what is done.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import subprocess
from dataclasses import dataclass
from typing import List, Tuple

from .errors import ModuleError
from .files import begun, interrupted, make_directory, unlink, write
from .paths import tidied, tidy

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True)
class WriteFile:
    """Write a file and its missing parent directories: by a rename, or ``in_place`` where a bind mount refers to the file."""

    path: str
    content: bytes
    mode: int
    in_place: bool = False

    def apply(self) -> None:
        make_directory(os.path.dirname(self.path))
        if not self.in_place:
            write(self.path, self.content, self.mode)
            return
        # A reader may see it half written for a moment, and the next run repairs one that was left so.
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb") as file:
            os.fchmod(file.fileno(), self.mode)
            file.write(self.content)
            file.truncate()

    def commands(self) -> List[str]:
        path, beside = shlex.quote(self.path), shlex.quote(begun(self.path))
        if self.in_place:
            return [made(os.path.dirname(self.path)),
                    fed(f"(umask 077 && cat >{path})", self.content),
                    f"chmod {self.mode:04o} {path}"]
        return [fed(f"install -D -m {self.mode:04o} /dev/stdin {beside}", self.content), f"mv -T {beside} {path}"]


@dataclass(frozen=True)
class SwitchLink:
    """Point a symbolic link to ``target``, by a rename."""

    path: str
    target: str

    def apply(self) -> None:
        make_directory(os.path.dirname(self.path))
        write(self.path, None, None, self.target)

    def commands(self) -> List[str]:
        return [made(os.path.dirname(self.path)),
                shlex.join(["ln", "-sfn", self.target, begun(self.path)]),
                shlex.join(["mv", "-T", begun(self.path), self.path])]


@dataclass(frozen=True)
class RemoveFile:
    """Remove a file, what interrupted writes of it have left, and the collection's own parent directories that are empty then."""

    path: str

    def apply(self) -> None:
        unlink(self.path)
        tidy(os.path.dirname(self.path))

    def commands(self) -> List[str]:
        return [shlex.join(["rm", "-rf", self.path, *interrupted(self.path)]), *emptied(os.path.dirname(self.path))]


@dataclass(frozen=True)
class Run:
    """Run a program."""

    argv: Tuple[str, ...]

    def apply(self) -> None:
        done = subprocess.run(self.argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              env={**os.environ, "PATH": PATH, "LC_ALL": "C"})
        if done.returncode:
            raise ModuleError(f"{shlex.join(self.argv)} failed: {done.stderr.strip() or done.stdout.strip()}")

    def commands(self) -> List[str]:
        return [shlex.join(self.argv)]


@dataclass(frozen=True)
class Attempt(Run):
    """Run a program that fails where it has nothing to do."""

    def apply(self) -> None:
        with contextlib.suppress(ModuleError):
            super().apply()

    def commands(self) -> List[str]:
        return [f"{shlex.join(self.argv)} 2>/dev/null || :"]


def made(directory):
    """Return the command that creates a directory and its missing parents."""
    quoted = shlex.quote(directory)
    return f"test -d {quoted} || install -d {quoted}"


def emptied(directory):
    """Return the commands that remove a directory and its parents, as far as they are the collection's and empty."""
    found = tidied(directory)
    return [f"{shlex.join(['rmdir', *found])} 2>/dev/null || : # those that are empty"] * bool(found)


def fed(command, content):
    """Return the command with this content as its standard input: a here-document, or base64 for what that cannot hold."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = None
    if text is None or "\0" in text or text[-1:] not in ("", "\n"):
        command, text = f"base64 -d <<'EOF' | {command}", base64.encodebytes(content).decode()
        return f"{command}\n{text}EOF"
    word = "EOF"
    while word in text.split("\n"):
        word += "_"
    return f"{command} <<'{word}'\n{text}{word}"
