# SPDX-License-Identifier: GPL-3.0-or-later
"""Read files and directories of a host, write them atomically, and remove them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile

from .errors import ModuleError


def number(path):
    """Return the number in a file, or None."""
    found = numbers(path)
    return found[0] if found and len(found) == 1 else None


def numbers(path):
    """Return the numbers in a file, a list, or None where it has anything else."""
    try:
        with open(path, encoding="ascii") as file:
            return [int(word) for word in file.read().split()] or None
    except (OSError, ValueError):
        return None


def is_private(path):
    """Return whether a path is a directory that only root can read: the collection creates those for unfinished work."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and stat.S_IMODE(found.st_mode) == 0o700


def mounts_below(path):
    """Return the mount points at or below a directory, as this process sees them."""
    top = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        escaped = {line.split(" ")[4] for line in file}
    points = [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), point) for point in escaped]
    return sorted(each for each in points if each == top or each.startswith(top + "/"))


def remove_tree(path):
    """Remove a directory with its contents, but nothing that is mounted there. Raise ModuleError."""
    for point in mounts_below(path):
        raise ModuleError(f"{path} is not removed, since {point} is a mount point; umount it first")
    # Where this run is killed, rm ends with it: the next run must not see it at work.
    done = subprocess.run(["setpriv", "--pdeathsig", "KILL", "--", "rm", "-rf", "--one-file-system", "--", path],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModuleError(f"{path} cannot be removed: {done.stderr.strip()[-500:]}")


def make_directory(path):
    """Create a directory and its missing parents, with mode 0755 whatever the umask is."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        try:
            os.mkdir(path)
        except FileExistsError:  # somebody else makes it, too
            return
        os.chmod(path, 0o755)


def write(path, content, mode, target=None, encoding="utf-8"):
    """Write a file or, with ``target``, a symbolic link, atomically."""
    directory = os.path.dirname(path)
    if target is not None:
        with tempfile.TemporaryDirectory(dir=directory, prefix=begun(path)) as beside:
            os.symlink(target, f"{beside}/link")
            os.replace(f"{beside}/link", path)
        return
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=begun(path))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode(encoding))
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def unlink(path):
    """Remove a file, if there is one, and what interrupted writes of it have left."""
    for leftover in interrupted(path):
        remove_tree(leftover)
    if os.path.lexists(path):
        os.unlink(path)


def interrupted(path):
    """Return the paths that interrupted writes of a file have left beside it."""
    directory, prefix = os.path.split(begun(path))
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return [os.path.join(directory, name) for name in names if name.startswith(prefix)]


def begun(path):
    """Return the prefix of the path under which a file is written before it is renamed."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new-")
