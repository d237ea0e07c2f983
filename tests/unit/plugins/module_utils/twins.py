# SPDX-License-Identifier: GPL-3.0-or-later
"""Two directories: in one an operation is applied, in the other its commands are typed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def by_hand(operation, umask=0o022):
    """Type the commands, one after the other."""
    for line in operation.commands():
        done = subprocess.run(["sh", "-e"], input=line + "\n", capture_output=True, text=True, check=False, umask=umask)
        assert (done.returncode, done.stderr) == (0, ""), line[:1000]


def look(directory):
    """All files below with their kinds, modes and contents."""
    found = {}
    for path in sorted(Path(directory).rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(directory))] = oct(os.lstat(path).st_mode), content
    return found


def twins(tmp_path, make, prepare=lambda directory: None, umask=0o022):
    """Apply an operation in one directory and type its commands in another; what is there then."""
    for name in "applied", "typed":
        (tmp_path / name).mkdir(exist_ok=True)
        prepare(tmp_path / name)
    before = os.umask(umask)
    try:
        make(str(tmp_path / "applied")).apply()
    finally:
        os.umask(before)
    by_hand(make(str(tmp_path / "typed")), umask)
    found = look(tmp_path / "applied")
    assert look(tmp_path / "typed") == found
    return found
