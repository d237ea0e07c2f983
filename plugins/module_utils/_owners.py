# SPDX-License-Identifier: GPL-3.0-or-later
"""The owners of what a container has written, when its user ids come to lie elsewhere.

No tool does this: chown(1) takes one owner at a time, clears the bits of set-user-ID, and forgets file capabilities, which
name a user id as well (capabilities(7)).
"""

from __future__ import annotations

import inspect
import json
import shlex

from ._errors import Problem
from ._process import read


def shift(top, journal, old, new, count):
    """What lies at or below a directory and belongs to one of ``count`` ids from ``old`` on, belongs to the same from ``new`` on.

    The ranges have nothing in common, so that what was begun can be gone on with: until it is over, a file tells of it, and of
    what the kernel takes from a file with its owner. No program may be at work in there.
    """
    import json
    import os
    import stat
    import struct
    name = "security.capability"
    directory = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

    def moved(number):
        return number - old + new if old <= number < old + count else number

    def opened(here, each):
        return os.open(each, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)

    def walk(act):
        """Calls act(descriptor of the directory, name, path, what lstat tells) for all there is, by a descriptor or two."""
        here, names = os.open(top, directory), []

        def entries():
            inner = []
            for each in os.listdir(here):
                found = os.lstat(each, dir_fd=here)
                act(here, each, "/".join([*names, each]), found)
                inner += [each] * stat.S_ISDIR(found.st_mode)
            return inner

        act(here, ".", ".", os.fstat(here))
        left = [entries()]
        while left:
            if left[-1]:
                names.append(left[-1].pop())
                step = names[-1]
            else:
                left.pop()
                step = ".."
            if left:
                there = os.open(step, directory, dir_fd=here)
                os.close(here)
                here = there
                if step == "..":
                    names.pop()
                else:
                    left.append(entries())
        os.close(here)

    lost = {}  # mode and capabilities by path

    def note(here, each, path, found):
        if not stat.S_ISREG(found.st_mode):
            return
        file = opened(here, each)
        try:
            able = os.getxattr(file, name).hex()
        except OSError:
            able = ""
        finally:
            os.close(file)
        if able or found.st_mode & 0o6000:
            lost[path] = stat.S_IMODE(found.st_mode), able

    def give(here, each, path, found):
        owner = moved(found.st_uid), moved(found.st_gid)
        if owner != (found.st_uid, found.st_gid):
            os.chown(each, *owner, dir_fd=here, follow_symlinks=False)
        if path not in lost:  # else it is given back also where the owner is the new one already
            return
        mode, able = lost[path]
        file = opened(here, each)
        try:
            os.fchmod(file, mode)
            if able:  # VFS_CAP_REVISION_2; or 3, with the id of root in the user namespace that they hold in
                words = bytes.fromhex(able)
                root = moved(struct.unpack("<I", words[20:24])[0] if len(words) == 24 else 0)
                flags = struct.unpack("<I", words[:4])[0] & 0xFFFFFF
                os.setxattr(file, name, struct.pack("<I", flags | 0x3000000) + words[4:20] + struct.pack("<I", root))
        finally:
            os.close(file)

    try:
        with open(journal, encoding="ascii") as file:
            lost = json.load(file)["lost"]
    except FileNotFoundError:
        walk(note)
        with open(journal + ".new", "w", encoding="ascii") as file:
            json.dump({"old": old, "new": new, "lost": lost}, file)
        os.replace(journal + ".new", journal)
    walk(give)
    os.unlink(journal)


def begun(journal):
    """The two first ids of what was not brought to its end; None where there is nothing. Raises Problem."""
    text = read(journal)
    try:
        found = None if text is None else json.loads(text)
        return found and (int(found["old"]), int(found["new"]), len(found["lost"]))[:2]
    except (ValueError, TypeError, KeyError) as error:
        raise Problem(f"{journal} does not tell whose the files of the container become ({error!r}): restore it, or remove it "
                      "and see to their owners by hand") from error


def command(*arguments):
    """The same as a command."""
    program = f"{inspect.getsource(shift)}\nimport sys\nshift(*sys.argv[1:3], *map(int, sys.argv[3:]))\n"
    return shlex.join(["python3", "-ISc", program, *map(str, arguments)])
