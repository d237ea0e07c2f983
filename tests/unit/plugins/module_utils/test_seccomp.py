# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter of system calls as the kernel would run it, and its numbers beside those of the C library's headers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import seccomp

HEADERS = {"x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
           "aarch64": ("/usr/include/asm-generic/unistd.h",)}
EPERM, ENOSYS, ALLOW = 0x00050001, 0x00050026, 0x7FFF0000


def verdict(machine, number, first=0, architecture=None):
    """What the program returns for a call: an interpreter of the few instructions that it has."""
    program = seccomp.program(seccomp.profile(), machine)
    lines = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    data = {0: number, 4: architecture or seccomp.MACHINES[machine][1], 16: first}
    at = value = 0
    while True:
        code, yes, no, operand = lines[at]
        at += 1
        if code == seccomp.RETURN:
            return operand
        if code == seccomp.LOAD:
            value = data[operand]
        elif code == seccomp.AND:
            value &= operand
        else:
            hit = {seccomp.EQUAL: value == operand, seccomp.AT_LEAST: value >= operand}[code]
            at += yes if hit else no


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter(machine):
    column = seccomp.MACHINES[machine][0]
    denied = {numbers[column] for numbers in seccomp.NUMBERS.values()} - {None}
    special = {seccomp.NUMBERS["clone"][column], seccomp.NUMBERS["clone3"][column]}
    for number in set(range(600)) - special:
        assert verdict(machine, number) == (EPERM if number in denied else ALLOW), number
    assert verdict(machine, seccomp.NUMBERS["clone3"][column]) == ENOSYS
    assert verdict(machine, seccomp.NUMBERS["clone"][column], 0x00000011) == ALLOW, "a fork"
    assert verdict(machine, seccomp.NUMBERS["clone"][column], 0x10000000) == EPERM, "with a new user namespace"
    assert verdict(machine, 0x40000000) == EPERM and verdict(machine, 0, architecture=1) == EPERM


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers(machine):
    path = next((path for path in map(Path, HEADERS[machine]) if path.exists()), None)
    if path is None:
        pytest.skip(f"the system calls of {machine} are in no header here")
    known = {name: int(number) for name, number in re.findall(r"#define __NR3?_?(\w+?) (\d+)$", path.read_text(encoding="utf-8"), re.M)}
    column = seccomp.MACHINES[machine][0]
    for name, numbers in seccomp.NUMBERS.items():
        assert known.get(name, numbers[column]) == numbers[column], name
    assert sum(name in known for name in seccomp.NUMBERS) > 25
