# SPDX-License-Identifier: GPL-3.0-or-later
"""The owners of what a container has written, when its user ids come to lie elsewhere.

No tool does this: chown(1) takes one owner at a time, clears the bits of set-user-ID, and forgets file capabilities, which
name a user id as well (capabilities(7)).
"""

from __future__ import annotations

import inspect
import shlex


def shift(top, old, new, count):
    """What lies at or below a directory and belongs to one of ``count`` ids from ``old`` on, belongs to the same from ``new`` on.

    The ranges have nothing in common, so that what was begun can be gone on with. No program may be at work in there.
    """
    import os
    import stat
    import struct
    name = "security.capability"

    def moved(number):
        return number - old + new if old <= number < old + count else number

    def capabilities(path):
        try:
            return os.getxattr(path, name, follow_symlinks=False)
        except OSError:
            return b""

    def give(path):
        have = os.lstat(path)
        owner = moved(have.st_uid), moved(have.st_gid)
        if owner == (have.st_uid, have.st_gid):
            return have.st_mode
        known = capabilities(path) if stat.S_ISREG(have.st_mode) else b""
        os.lchown(path, *owner)
        if stat.S_ISREG(have.st_mode):
            os.chmod(path, stat.S_IMODE(have.st_mode))
        if len(known) >= 20:  # VFS_CAP_REVISION_2; or 3, with the id of root in the user namespace that they hold in
            revision, root = 0x3000000, moved(struct.unpack("<I", known[20:24])[0] if len(known) == 24 else 0)
            flags = struct.unpack("<I", known[:4])[0] & 0xFFFFFF
            new_ones = struct.pack("<I", flags | revision) + known[4:20] + struct.pack("<I", root)
            os.setxattr(path, name, new_ones, follow_symlinks=False)
        return have.st_mode

    found = [top]
    while found:
        path = found.pop()
        if stat.S_ISDIR(give(path)):
            found += [os.path.join(path, each) for each in os.listdir(path)]


def command(top, old, new, count):
    """The same as a command."""
    program = f"{inspect.getsource(shift)}\nimport sys\nshift(sys.argv[1], *map(int, sys.argv[2:]))\n"
    return shlex.join(["python3", "-ISc", program, top, str(old), str(new), str(count)])
