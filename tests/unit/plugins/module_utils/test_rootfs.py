# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases, rules and plans of root file systems, and the judging of members of a tarball."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError, NotOwnedError, OptionError
from ansible_collections.fromscratch.containers.plugins.module_utils.core.plan import diff
from ansible_collections.fromscratch.containers.plugins.module_utils.core.resource import OWNER
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs import item, releases, tarball
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.item import Rootfs

ONE, OTHER = "1" * 64, "2" * 64
TARBALL = "http://m/alpine-minirootfs-3.21.3-x86_64.tar.gz"


def parsed(**options):
    defaults = {name: spec.get("default") for name, spec in item.OPTIONS.items()}
    return item.rootfs({**defaults, **options})


@pytest.mark.parametrize("machine, arch", [
    ("x86_64", "x86_64"), ("amd64", "x86_64"), ("aarch64", "aarch64"), ("arm64", "aarch64"), ("armv7l", "armv7"),
    ("armv8l", "armv7"), ("armv6l", "armhf"), ("i686", "x86"), ("i386", "x86"), ("ppc64le", "ppc64le"),
    ("riscv64", "riscv64"), ("s390x", "s390x"), ("loongarch64", "loongarch64")])
def test_the_architecture_of_the_host(machine, arch):
    assert releases.host_arch(machine) == arch


def test_an_architecture_that_alpine_has_not():
    with pytest.raises(OptionError, match="arch: 'sparc64' .* choose one of x86_64, aarch64"):
        releases.host_arch("sparc64")


def test_from_options_to_the_wanted_item():
    assert parsed(dest="/srv//a/./b/", arch="armv7", version="3.22.0_rc1", mirror="http://m:8080/alpine//") == Rootfs(
        dest="/srv/a/b", version="3.22.0_rc1", arch="armv7",
        source="http://m:8080/alpine/v3.22/releases/armv7/alpine-minirootfs-3.22.0_rc1-armv7.tar.gz")
    assert parsed(dest="/srv/a", src="/t/alpine-minirootfs-3.20.3-aarch64.tar.gz",
                  checksum=f" SHA256:{'A' * 64}") == Rootfs(
        dest="/srv/a", version="3.20.3", arch="aarch64", checksum="a" * 64,
        source="/t/alpine-minirootfs-3.20.3-aarch64.tar.gz")
    # The default version is not that of a tarball of any name: the label of another release must not stick to it.
    assert parsed(dest="/srv/a", src="/t/mine.tar.gz") == Rootfs(
        dest="/srv/a", version="", arch="", source="/t/mine.tar.gz")
    assert parsed(dest="/srv/a", state="absent") == Rootfs(dest="/srv/a")
    assert parsed(dest="/srv/a").key == "rootfs /srv/a"


# The others of this kind, which are tried on a host, stand in tests/kernel/test_bad_input.py.
@pytest.mark.parametrize("dest", ["/", "//", "/tmp/", "/usr/share/alpine", "/usr/local", "/proc/1/root"])
def test_places_of_the_system(dest):
    with pytest.raises(OptionError) as caught:
        parsed(dest=dest)
    assert str(caught.value).startswith("dest: ") and "system" in str(caught.value)


@pytest.mark.parametrize("dest", ["/alpine", "/srv/a", "/usr/local/alpine", "/home/me/alpine",
                                  "/var/lib/a", "/library/a"])
def test_places_that_are_fine(dest):
    assert item.destination("dest", dest) == dest


def test_a_rootfs_inside_of_another():
    item.refuse_nested("dest", ["/srv/a", "/srv/ab", "/srv/b"])
    with pytest.raises(OptionError, match="/srv/a/b.* inside of /srv/a,"):
        item.refuse_nested("dest", ["/srv/a/b", "/srv/a"])


@pytest.mark.parametrize("text", [f"{ONE}  {TARBALL.rsplit('/', 1)[1]}\n", f"{ONE} *{TARBALL.rsplit('/', 1)[1]}", ONE])
def test_a_published_checksum(text):
    assert releases.published(text, TARBALL) == ONE


@pytest.mark.parametrize("text", ["", "<html>not here</html>", "1" * 40, f"{ONE}  another.tar.gz",
                                  f"{ONE} a b", "x" * 64])
def test_a_published_checksum_that_is_garbage(text):
    with pytest.raises(ModuleError, match="mirror: http://m/.*sha256 is not the checksum .* set checksum"):
        releases.published(text, TARBALL)


def test_where_a_source_is():
    assert releases.local_path("/a%20b") == "/a%20b"
    assert releases.local_path("file:///a%20b") == "/a b"
    assert releases.local_path(TARBALL) is None


def test_every_known_checksum_is_one():
    assert releases.known("3.21.3", "x86_64").startswith("1a694899")
    for (version, arch), checksum in releases.KNOWN.items():
        assert releases.version("version", version) and arch in releases.ARCHES
        assert releases.checksum("checksum", checksum) == checksum


def planned(wanted, observed):
    return [change.to_result() for change in diff({"k": wanted}, {"k": observed} if observed else {}).changes]


def test_plans():
    wanted = Rootfs(dest="/a", version="3.21.3", arch="x86", checksum=ONE, source="http://m", leftover="")
    have = Rootfs(dest="/a", version="3.21.3", arch="x86", checksum=ONE, source="/elsewhere", leftover="", owner=OWNER)
    older = Rootfs(dest="/a", version="3.20.3", arch="x86", checksum=OTHER, source="/t", leftover="", owner=OWNER)
    killed = Rootfs(dest="/a", version="3.21.3", arch="x86", checksum=ONE, source="/t", leftover="/.a.partial",
                    owner=OWNER)
    assert planned(wanted, have) == []
    assert [each["action"] for each in planned(wanted, None)] == ["create"]
    assert planned(wanted, older) == [{"item": "rootfs /a", "action": "recreate", "fields": [
        "version 3.20.3 -> 3.21.3", f"checksum {OTHER} -> {ONE}"]}]
    assert planned(wanted, killed) == [{"item": "rootfs /a", "action": "update", "fields": [
        "leftover /.a.partial -> none"]}]
    with pytest.raises(NotOwnedError):
        planned(None, Rootfs(dest="/a", owner="somebody else"))
    assert "leftover" not in have.to_result() and killed.to_result()["leftover"] == "/.a.partial"


# The judging of members

KINDS = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "sym": tarfile.SYMTYPE, "link": tarfile.LNKTYPE}


def judge(*members):
    found = tarball.Tree()
    for kind, name, *target in members:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = KINDS[kind], target[0] if target else ""
        verdict = found.add(member)
    return verdict


@pytest.mark.parametrize("members", [
    [("sym", "./bin/sh", "/bin/busybox")], [("sym", "a", "/../../etc")], [("sym", "a/b/c", "../../x")],
    [("dir", "."), ("dir", "./a"), ("dir", "a/"), ("file", "a//b")],
    [("file", "a/b"), ("dir", "a")],
    [("file", "a"), ("link", "b", "./a"), ("link", "c", "b")], [("sym", "a", "x"), ("link", "b", "a")]])
def test_members_that_are_fine(members):
    judge(*members)


@pytest.mark.parametrize("members", [
    [("sym", "a", "..")], [("sym", "a/b", "../../x")], [("sym", "a/b", "c/../../../x")], [("sym", "a", "")],
    [("sym", "a", "/"), ("file", "a/b")], [("sym", "a", "/"), ("dir", "a/b/c")], [("sym", "a", "b"), ("dir", "a")],
    [("file", "a"), ("file", "./a")], [("dir", "a"), ("sym", "a", "/")], [("file", "a/b"), ("sym", "a", "/")],
    [("file", "a"), ("file", "a/b")], [("sym", "a", "/etc"), ("link", "b", "a/passwd")],
    [("link", "b", "b")], [("dir", "a"), ("link", "b", "a")], [("sym", ".", "/")], [("file", "")],
    [("file", "a/../../b")], [("file", "/a")], [("link", "a", "/etc/passwd")], [("link", "a", "../b")],
    [("file", "a" * 5000)], [("file", "a\0b")]])
def test_members_that_are_refused(members):
    with pytest.raises(tarball.TarballError):
        judge(*members)


def test_the_room_is_counted_in_blocks():
    found, member = tarball.Tree(room=8192), tarfile.TarInfo("a")
    member.size = 4097
    found.add(member)
    more = tarfile.TarInfo("b")
    more.size = 1
    with pytest.raises(tarball.TarballError, match="more room"):
        found.add(more)


def test_the_stream_only_goes_forward_and_reads_no_giants():
    stream = tarball.Stream(io.BytesIO(gzip.compress(b"x" * 1000)))
    stream.seek(500)
    assert stream.tell() == 500 and stream.read(10) == b"x" * 10
    for call in (lambda: stream.seek(0), lambda: stream.read(-1), lambda: stream.read(1 << 30)):
        with pytest.raises(tarball.TarballError):
            call()
