# SPDX-License-Identifier: GPL-3.0-or-later
"""Which range of user ids a container gets."""

from __future__ import annotations

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container.isolation import (
    HIGHEST,
    LOWEST,
    RANGE,
    SLOTS,
    first_id,
    slots,
)


def test_it_depends_on_the_name_alone_unless_that_is_taken():
    first = first_id("c1", set())
    assert first == first_id("c1", slots([(first + RANGE, first + 2 * RANGE)])) != first_id("c2", set())
    assert first_id("c1", slots([(first, first + RANGE)])) == first + RANGE


def test_thousands_do_not_overlap():
    taken, found = set(), []
    for number in range(3000):
        found.append(first_id(f"name {number // 2}", taken))
        taken |= slots([(found[-1], found[-1] + RANGE)])
    assert len(set(found)) == 3000 and all(LOWEST <= each <= HIGHEST - RANGE and (each - LOWEST) % RANGE == 0 for each in found)


@pytest.mark.parametrize("begin, end, expected", [
    (0, LOWEST, set()), (0, LOWEST + 1, {0}), (LOWEST - 1, LOWEST, set()), (LOWEST, LOWEST + RANGE, {0}),
    (LOWEST + RANGE - 1, LOWEST + RANGE + 1, {0, 1}), (LOWEST + 1, LOWEST + 2, {0}), (HIGHEST - 1, HIGHEST + 9, {SLOTS - 1}),
    (HIGHEST, HIGHEST + RANGE, set()), (5, 5, set()), (0, 1 << 32, set(range(SLOTS))),
])
def test_the_slots_of_a_range_that_others_have(begin, end, expected):
    assert slots([(begin, end)]) == expected


def test_after_the_last_comes_the_first():
    last = SLOTS - 1
    wraps = next(name for name in map(str, range(10 ** 6)) if first_id(name, set()) == LOWEST + last * RANGE)
    assert first_id(wraps, {last}) == LOWEST and first_id(wraps, {last, 0}) == LOWEST + RANGE
    assert first_id(wraps, set(range(SLOTS)) - {7}) == LOWEST + 7 * RANGE


def test_none_is_left():
    assert first_id("c1", set(range(SLOTS))) is None
