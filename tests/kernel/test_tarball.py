# SPDX-License-Identifier: GPL-3.0-or-later
"""A tarball is judged once for each time that it is unpacked, and what was judged is what is unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs import tarball

from .support.modules import run_module
from .support.races import before
from .support.tarballs import DIR, FILE, GOOD, SYM, digest, names, packed, tree_of, unmade


@pytest.fixture
def judged(monkeypatch):
    """The names of members, as often as each has been judged."""
    add, found = tarball.Tree.add, []
    monkeypatch.setattr(tarball.Tree, "add", lambda self, member: found.append(member.name) or add(self, member))
    return found


@pytest.mark.parametrize("source", ["src", "mirror"])
def test_a_tarball_is_judged_once(place, good, judged, tmp_path, source):
    options = {"src": good}
    if source == "mirror":
        release = tmp_path / "v3.9" / "releases" / "x86"
        release.mkdir(parents=True)
        path = release / "alpine-minirootfs-3.9.9-x86.tar.gz"
        path.write_bytes(Path(good).read_bytes())
        options = {"mirror": f"file://{tmp_path}", "version": "3.9.9", "arch": "x86", "checksum": digest(good)}
    members = [each[1].rstrip("/") for each in GOOD]
    for check in True, False:
        judged.clear()
        assert run_module("alpine_rootfs", check=check, config=[{"dest": str(place / each), **options} for each in "ab"]).changed
        assert [each.rstrip("/") for each in judged] == members, "for two names as well"
    judged.clear()
    assert not run_module("alpine_rootfs", dest=str(place / "a"), **options).changed and judged == []


@pytest.mark.parametrize("members", [
    [*GOOD[:-1], (FILE, "./other", b"")], [*GOOD, (FILE, "./more", b"")], GOOD[:-1], [(SYM, "./", "/etc"), *GOOD[1:]],
    [*GOOD[:3], (DIR, "./bin/sh"), *GOOD[4:]], [*GOOD[:3], (SYM, "./bin/sh", "../../../etc"), *GOOD[4:]], []],
    ids=["another name", "more", "less", "a link for the root", "another kind", "a link that leads outside", "nothing"])
def test_a_tarball_that_changes_once_it_was_judged(place, good, tmp_path, monkeypatch, members):
    """In place, when it is open and about to be unpacked: nothing of it gets a name."""
    src, other = tmp_path / "src.tar.gz", Path(packed(tmp_path / "other.tar.gz", *members))
    src.write_bytes(Path(good).read_bytes())
    assert run_module("alpine_rootfs", dest=str(place / "a"), src=packed(tmp_path / "old.tar.gz", (FILE, "./old", b""))).changed
    picture, whole = unmade(place), tree_of(place / "a")
    before(monkeypatch, tarball, "unpack", lambda: src.write_bytes(other.read_bytes()))
    found = run_module("alpine_rootfs", dest=str(place / "a"), src=str(src))
    assert found.failed and found.msg.startswith(f"src: {src} has ") and "SHA-256" in found.msg, found.msg
    assert (unmade(place), tree_of(place / "a"), names(place)) == (picture, whole, ["a"])
