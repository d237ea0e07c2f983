# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operation shows does what applying it does, for any content and any name."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core.operations import RemoveFile, Run, SwitchLink, WriteFile

from .twins import twins

CONTENTS = (b"", b"one\n", b"no line break at its end", b"EOF\n", b"a\nEOF\nEOF_\nb\n", b"cat <<'EOF'\nx\nEOF\necho y\n", b"$HOME `id` \\ \" '\n",
            b"\ttab\r\n", b"\0", b"\xff\xfe\n", "ä\n".encode(), b"x" * 200_000 + b"\n")


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: repr(content[:20]))
def test_a_file(tmp_path, content, umask, in_place):
    found = twins(tmp_path, lambda top: WriteFile(f"{top}/a dir/it's", content, 0o640, in_place), umask=umask)
    assert found == {"a dir": (oct(stat.S_IFDIR | 0o755), None), "a dir/it's": (oct(stat.S_IFREG | 0o640), content)}


@pytest.mark.parametrize("in_place", [False, True])
def test_a_file_that_is_there(tmp_path, in_place):
    def prepare(top):
        (top / "file").write_text("a longer content than the next\n", encoding="utf-8")
        os.link(top / "file", top / "held")

    found = twins(tmp_path, lambda top: WriteFile(f"{top}/file", b"next\n", 0o600, in_place), prepare)
    assert found["file"][1] == b"next\n" and (found["held"] == found["file"]) is in_place


@pytest.mark.parametrize("in_place", [False, True])
def test_nobody_reads_a_file_of_root_before_it_has_its_mode(tmp_path, in_place):
    """The last command gives it its place or its mode."""
    *first, last = WriteFile(str(tmp_path / "file"), b"secret\n", 0o644 if in_place else 0o600, in_place).commands()
    assert last.split()[0] == ("chmod" if in_place else "mv")
    for line in first:
        subprocess.run(["sh", "-ec", line], check=True, umask=0)
    assert [oct(path.stat().st_mode) for path in tmp_path.iterdir()] == [oct(stat.S_IFREG | 0o600)]


@pytest.mark.parametrize("there", [None, "elsewhere", "directory"])
def test_a_link(tmp_path, there):
    def prepare(top):
        (top / "to").mkdir(exist_ok=True)
        if there:
            (top / "link").symlink_to("to" if there == "directory" else there)

    assert twins(tmp_path, lambda top: SwitchLink(f"{top}/link", "some where"), prepare)["link"][1] == "some where"


@pytest.mark.parametrize("there", ["file", "link", "nothing"])
def test_a_removal(tmp_path, there):
    def prepare(top):
        (top / ".it's.new-abc").write_text("of a run that was killed", encoding="utf-8")
        (top / ".it's.new-def").mkdir()
        if there == "file":
            (top / "it's").write_text("x", encoding="utf-8")
        if there == "link":
            (top / "it's").symlink_to("nowhere")

    assert twins(tmp_path, lambda top: RemoveFile(f"{top}/it's"), prepare) == {}


def test_a_program(tmp_path):
    assert twins(tmp_path, lambda top: Run(("touch", f"{top}/a b"))) == {"a b": (oct(stat.S_IFREG | 0o644), b"")}
