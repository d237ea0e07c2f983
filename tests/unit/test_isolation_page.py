# SPDX-License-Identifier: GPL-3.0-or-later
"""The page about isolation has the rows of the script that writes it, and its programs make the calls that they are told."""

from __future__ import annotations

import errno
import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "isolation"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="scripts/isolation is not in this copy of the collection")


@pytest.fixture(scope="module")
def script():
    """One of the script's files, by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT)
        yield importlib.import_module


@pytest.fixture(scope="module")
def page(script):
    return script("page")


@pytest.fixture(scope="module")
def syscalls(script):
    return script("syscalls")


@pytest.fixture(scope="module")
def text(page):
    return page.PAGE.read_text(encoding="utf-8")


@pytest.fixture
def run(syscalls, tmp_path):
    if os.uname().machine not in syscalls.MACHINES:
        pytest.skip(f"the script knows no system calls of {os.uname().machine}")

    def ran(*calls, **options):
        path = tmp_path / "program"
        path.write_bytes(syscalls.program(*calls, **options))
        path.chmod(0o755)
        return subprocess.run([path], check=False).returncode
    return ran


def tables(text):
    """The rows of each table by the headline above it, each a list of its cells."""
    for found in re.finditer(r"^(?P<title>.+)\n-+\n(?P<text>(?:(?!.+\n-+\n).*\n)*)", text, re.M):
        rows = re.findall(r"^   \* - .*\n(?:     .*\n)*", found["text"], re.M)
        yield found["title"], [[" ".join(cell.split()) for cell in re.split(r"^   [* ] - ", row, flags=re.M)[1:]] for row in rows]


def test_the_page_has_the_rows_of_the_script(page, text):
    found = dict(tables(text))
    for section in page.TABLES:
        head, *rows = found[section.title]
        assert head == list(page.HEADS)
        assert [(row[0], row[-1]) for row in rows] == [(f"**{each.what}**: {each.how}", each.docker) for each in section.rows]
        assert all(len(row) == len(head) and all(row) for row in rows)


def test_the_page_has_all_calls(syscalls, text):
    head, *rows = dict(tables(text))["System calls"]
    named = [name for row in rows for name in re.findall(r"``(.+?)``", row[0])]
    assert len(named) == len(set(named)) and set(named) <= set(syscalls.ATTEMPTS)
    numbers = {name: syscalls.NUMBERS[call] for name, (call, unused) in syscalls.ATTEMPTS.items()}
    assert {name for name in syscalls.ATTEMPTS if None not in numbers[name]} <= set(named), "those of all machines"
    assert all(len(row) == len(head) and all(row) for row in rows)


def test_the_rest_of_the_page(page, text):
    assert text.startswith(page.BEFORE) and text.endswith(page.AFTER) and page.CALLS in text


def test_a_program_ends_with_the_error_number_of_its_last_call(run, syscalls, tmp_path):
    (there, missing), data = syscalls.texts(str(tmp_path), f"{tmp_path}/missing")
    assert run(("chdir", (there,)), data=data) == 0
    assert run(("chdir", (there,)), ("chdir", (missing,)), data=data) == errno.ENOENT
    assert run(("chdir", (missing,)), ("chdir", (there,)), data=data) == 0
    assert run(("openat", (syscalls.AT_FDCWD, there)), data=data) == 0, "what a call returns is no error"
    assert run(("fchdir", (-1,))) == errno.EBADF


def test_programs_of_other_machines(syscalls):
    for machine, (unused, elf) in syscalls.MACHINES.items():
        made = syscalls.program(("chdir", (syscalls.DATA,)), data=b"/\0", machine=machine)
        assert made[:4] == b"\x7fELF" and int.from_bytes(made[18:20], "little") == elf
        assert int.from_bytes(made[24:32], "little") % 4 == 0, "where it starts"
        assert int.from_bytes(made[96:104], "little") == len(made), "how much of it is loaded"
