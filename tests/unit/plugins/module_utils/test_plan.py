# SPDX-License-Identifier: GPL-3.0-or-later
"""The difference between what is wanted and what is observed. Plans of the kinds are cases of tests/unit/plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import FrozenSet, Optional

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core import resource
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import NotOwnedError
from ansible_collections.fromscratch.containers.plugins.module_utils.core.plan import Difference, diff, words
from ansible_collections.fromscratch.containers.plugins.module_utils.network import identity, links

OURS = resource.OWNER


@dataclass(frozen=True)
class Thing(resource.Item):
    word = "thing"

    name: str = resource.identity()
    netns: Optional[str] = resource.identity()
    colour: Optional[str] = resource.settable()
    size: Optional[int] = resource.fixed()
    sign: Optional[int] = field(default=None, metadata={"fixed": lambda have, want: have * want < 0})
    parts: Optional[FrozenSet[str]] = resource.settable()
    friends: Optional[FrozenSet[str]] = resource.at_least()
    owner: Optional[str] = resource.observed_only()


def plan(wanted, *observed, prune=False):
    return diff({"thing a": wanted}, {each.key: each for each in observed}, prune)


def have(name="a", **values):
    return Thing(name=name, owner=OURS, **values)


def only(found):
    assert len(found.changes) == 1
    return found.changes[0]


def test_nothing_to_do():
    assert not plan(Thing("a", colour="red"), have(colour="red", size=3))
    assert not plan(None)


def test_create_and_delete():
    assert only(plan(Thing("a", size=1))).to_result() == {"item": "thing a", "action": "create", "fields": []}
    gone = plan(None, have(size=1))
    assert only(gone).action == "delete" and gone.before() and not gone.after()


def test_what_is_settable_is_updated_and_the_rest_is_kept():
    found = plan(Thing("a", colour="red"), have(colour="blue", size=3))
    assert only(found).to_result() == {"item": "thing a", "action": "update", "fields": ["colour blue -> red"]}
    assert found.after() == {"thing a": {"name": "a", "colour": "red", "size": 3}}


def test_what_is_fixed_makes_it_anew_with_all_that_is_not_managed():
    change = only(plan(Thing("a", size=2), have(colour="blue", size=1)))
    assert (change.action, [str(each) for each in change.differences]) == ("recreate", ["size 1 -> 2"])
    assert change.after.colour == "blue"


@pytest.mark.parametrize("sign, action", [(2, "update"), (-2, "recreate")])
def test_fixed_for_some_differences_only(sign, action):
    assert only(plan(Thing("a", sign=sign), have(sign=1))).action == action


def test_a_set_is_exact_and_at_least_is_not():
    parts, more = frozenset("x"), frozenset("xy")
    assert not plan(Thing("a", friends=parts), have(friends=more))
    assert only(plan(Thing("a", parts=parts), have(parts=more))).to_result()["fields"] == ["parts x, y -> x"]
    change = only(plan(Thing("a", friends=frozenset("z")), have(friends=more)))
    assert change.after.friends == frozenset("xyz")
    assert not plan(Thing("a", parts=frozenset()), have(parts=frozenset()))


def test_prune_deletes_ours_and_nothing_else():
    others = have("b"), Thing("c", owner="somebody")
    assert not plan(Thing("a"), have(), *others)
    found = plan(Thing("a"), have(), *others, prune=True)
    assert only(found).to_result() == {"item": "thing b", "action": "delete", "fields": []}


@pytest.mark.parametrize("wanted", [Thing("a"), None])
@pytest.mark.parametrize("owner", ["somebody", "", None])
def test_a_thing_of_somebody_else_is_refused(wanted, owner):
    with pytest.raises(NotOwnedError, match="thing a exists and was not made by this collection; it is left alone"):
        plan(wanted, Thing("a", owner=owner))


def test_what_a_killed_run_left_is_marked():
    left = Thing("a", colour="red", owner=resource.UNMARKED)
    assert only(plan(Thing("a", colour="red"), left)).to_result()["fields"] == [f"owner none -> {OURS}"]
    assert only(plan(None, left)).action == "delete"


@pytest.mark.parametrize("value, text", [
    (None, "none"), ("", "none"), (frozenset(), "none"), ((), "none"), (0, "0"), (True, "on"), (False, "off"),
    (frozenset(["b", "a"]), "a, b"), (("b", "a"), "b, a"), (links.FdbEntry("m", "d"), "m dst d"),
    (frozenset([links.Route("default", "g"), links.Route("n")]), "default via g, n"),
])
def test_words(value, text):
    assert words(value) == text
    assert str(Difference("vni", 1, value)) == f"vni 1 -> {text}"


def test_keys_tell_namespaces_apart():
    assert Thing("a").key == "thing a" and Thing("a", "n").key == "thing a in netns n"


def test_shown_leaves_out_what_is_hidden_or_not_managed():
    assert have(parts=frozenset("ba")).to_result() == {"name": "a", "parts": ["a", "b"]}
    entry = links.Vxlan(name="v", fdb=frozenset([links.FdbEntry("m", "d")]))
    assert entry.to_result() == {"name": "v", "fdb": [{"mac": "m", "dst": "d"}]}


def test_derived_names_and_macs():
    assert identity.derived_ifname("ve-", "container-a") == "ve-container-a"
    one, two = (identity.derived_ifname("ve-", "a-long-container-" + end) for end in "ab")
    assert one != two and {len(one), len(two)} == {15}
    mac = identity.derived_mac("vxlan", 100, "172.31.89.40")
    assert mac == identity.derived_mac("vxlan", "100", "172.31.89.40") != identity.derived_mac("vxlan", 10, "0172.31.89.40")
    assert mac.startswith("02:") and len(mac) == 17
