# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that tell other programs of a host what to do, each with the commands that make them read it."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Optional, Tuple

from ._errors import Problem
from ._kind import Kind
from ._model import OWNER, Item, fact, hint, identity, settable
from ._paths import tidy
from ._plan import DELETE

MADE = f"# Made by {OWNER}"  # how each begins, which tells it from somebody else's


@dataclass(frozen=True)
class File(Item):
    """``text`` is the whole file; or ``target`` where it is a symbolic link. ``reload``: commands to run after a change."""

    word = "file"

    path: str = identity()
    text: Optional[str] = settable()
    target: Optional[str] = settable()
    mode: Optional[int] = settable()
    reload: Optional[Tuple[Tuple[str, ...], ...]] = hint()
    owner: Optional[str] = fact()

    @property
    def key(self):
        return f"{self.word} {self.path}"


class Files(Kind):
    def parse(self, options):
        link = options.get("target") is not None
        return File(path=options["path"], text=None if link else options["text"], target=options.get("target"),
                    mode=None if link else options.get("mode", 0o644),
                    reload=tuple(tuple(each) for each in options.get("reload", ())))

    def observe(self, wanted, prune):
        self._reload = {item.path: item.reload or () for item in wanted}
        found = (look(item) for item in wanted)
        return {item.key: item for item in found if item is not None}

    def commands(self, plan):
        lines = [shlex.join(["rm", change.before.path]) if change.action == DELETE else self.line(change.after)
                 for change in plan.changes]
        return lines + [shlex.join(each) for each in self._reloads(plan)]

    def _reloads(self, plan):
        return list(dict.fromkeys(each for change in plan.changes
                                  for each in self._reload[(change.after or change.before).path]))

    def apply(self, plan):
        for change in plan.changes:
            if change.action == DELETE:
                unlink(change.before.path)
                tidy(os.path.dirname(change.before.path))
            else:
                os.makedirs(os.path.dirname(change.after.path), mode=0o755, exist_ok=True)
                self.write(change.after)
        for command in self._reloads(plan):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Problem(f"{shlex.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")

    @staticmethod
    def line(item):
        """What writes the file, as a command."""
        if item.target is not None:
            return shlex.join(["ln", "-sfn", item.target, item.path])
        return f"install -D -m {item.mode:04o} /dev/stdin {shlex.quote(item.path)} <<'EOF'\n{item.text}EOF"

    @staticmethod
    def write(item):
        write(item.path, item.text, item.mode, item.target)


def look(item):
    """The file as it is, or None where there is none."""
    if os.path.islink(item.path):
        target = os.readlink(item.path)
        return File(path=item.path, target=target, owner=OWNER if target == item.target else "somebody else")
    try:
        with open(item.path, encoding="utf-8", errors="replace") as file:
            text = file.read()
            mode = os.fstat(file.fileno()).st_mode & 0o7777
    except FileNotFoundError:
        return None
    return File(path=item.path, text=text, mode=mode, owner=OWNER if MADE in text[:200] else "somebody else")


def number(path):
    """The number in a file; None where there is none."""
    found = numbers(path)
    return found[0] if found and len(found) == 1 else None


def numbers(path):
    """The numbers in a file; None where there is none, or something else."""
    try:
        with open(path, encoding="ascii") as file:
            return [int(word) for word in file.read().split()] or None
    except (OSError, ValueError):
        return None


def is_private(path):
    """Whether it is a directory that only root may look into, as the collection makes those that hold what is on its way."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and stat.S_IMODE(found.st_mode) == 0o700


def mounts_below(path):
    """The mount points at or below a directory, as this process sees them."""
    top = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = {line.split(" ")[4] for line in file}
    points = [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), each) for each in points]
    return sorted(each for each in points if each == top or each.startswith(top + "/"))


def remove_tree(path):
    """A directory with all that is in it, however deep, but never what is mounted there. Raises Problem."""
    for each in mounts_below(path):
        raise Problem(f"{path} is not removed, since {each} is a mount point; umount it first")
    done = subprocess.run(["rm", "-rf", "--one-file-system", "--", path], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise Problem(f"{path} cannot be removed: {done.stderr.strip()[-500:]}")


def write(path, text, mode, target=None, encoding="utf-8"):
    """Whole or not at all."""
    directory = os.path.dirname(path)
    if target is not None:
        with tempfile.TemporaryDirectory(dir=directory, prefix=_begun(path)) as beside:
            os.symlink(target, f"{beside}/link")
            os.replace(f"{beside}/link", path)
        return
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=_begun(path))
    try:
        with os.fdopen(handle, "w", encoding=encoding, newline="") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def unlink(path):
    """A file, should it be there, and what writes of it have left beside it that were killed."""
    directory = os.path.dirname(path)
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        if name.startswith(_begun(path)):
            remove_tree(os.path.join(directory, name))
    if os.path.lexists(path):
        os.unlink(path)


def _begun(path):
    return f".{os.path.basename(path)}.new-"
