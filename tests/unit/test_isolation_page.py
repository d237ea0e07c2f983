# SPDX-License-Identifier: GPL-3.0-or-later
"""The page about isolation has the rows of the script that writes it, and its programs make the calls that they are told."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import subprocess
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "isolation"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="scripts/isolation is not in this copy of the collection")


@pytest.fixture(scope="module")
def isolation():
    loader = SourceFileLoader("isolation", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("isolation", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def run(isolation, tmp_path):
    if os.uname().machine not in isolation.MACHINES:
        pytest.skip(f"the script knows no system calls of {os.uname().machine}")

    def ran(*calls, **options):
        path = tmp_path / "program"
        path.write_bytes(isolation.program(*calls, **options))
        path.chmod(0o755)
        return subprocess.run([path], check=False).returncode
    return ran


def tables(page):
    """The rows of each table by the headline above it, each a list of its cells."""
    for found in re.finditer(r"^(?P<title>.+)\n-+\n(?P<text>(?:(?!.+\n-+\n).*\n)*)", page, re.M):
        rows = re.findall(r"^   \* - .*\n(?:     .*\n)*", found["text"], re.M)
        yield found["title"], [[" ".join(cell.split()) for cell in re.split(r"^   [* ] - ", row, flags=re.M)[1:]] for row in rows]


def test_the_page_has_the_rows_of_the_script(isolation):
    page = dict(tables(isolation.PAGE.read_text(encoding="utf-8")))
    for section in isolation.TABLES:
        head, *rows = page[section.title]
        assert head == list(isolation.HEADS)
        assert [(row[0], row[-1]) for row in rows] == [(f"**{each.what}**: {each.how}", each.docker) for each in section.rows]
        assert all(len(row) == len(head) and all(row) for row in rows)


def test_the_page_has_all_calls(isolation):
    head, *rows = dict(tables(isolation.PAGE.read_text(encoding="utf-8")))["System calls"]
    named = [name for row in rows for name in re.findall(r"``(.+?)``", row[0])]
    assert len(named) == len(set(named)) and set(named) <= set(isolation.ATTEMPTS)
    numbers = {name: isolation.NUMBERS[call] for name, (call, unused) in isolation.ATTEMPTS.items()}
    assert {name for name in isolation.ATTEMPTS if None not in numbers[name]} <= set(named), "those of all machines"
    assert all(len(row) == len(head) and all(row) for row in rows)


def test_the_rest_of_the_page(isolation):
    page = isolation.PAGE.read_text(encoding="utf-8")
    assert page.startswith(isolation.BEFORE) and page.endswith(isolation.AFTER) and isolation.CALLS in page


def test_a_program_ends_with_the_error_number_of_its_last_call(run, isolation, tmp_path):
    (there, missing), data = isolation.texts(str(tmp_path), f"{tmp_path}/missing")
    assert run(("chdir", (there,)), data=data) == 0
    assert run(("chdir", (there,)), ("chdir", (missing,)), data=data) == errno.ENOENT
    assert run(("chdir", (missing,)), ("chdir", (there,)), data=data) == 0
    assert run(("openat", (isolation.AT_FDCWD, there)), data=data) == 0, "what a call returns is no error"
    assert run(("fchdir", (-1,))) == errno.EBADF


def test_programs_of_other_machines(isolation):
    for machine, (unused, elf) in isolation.MACHINES.items():
        made = isolation.program(("chdir", (isolation.DATA,)), data=b"/\0", machine=machine)
        assert made[:4] == b"\x7fELF" and int.from_bytes(made[18:20], "little") == elf
        assert int.from_bytes(made[24:32], "little") % 4 == 0, "where it starts"
        assert int.from_bytes(made[96:104], "little") == len(made), "how much of it is loaded"
