# SPDX-License-Identifier: GPL-3.0-or-later
"""Root file systems on real file systems: unpacked, replaced, refused, killed half-way, downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import platform
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs import releases, store
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs import tarball as _tarball

from .support.bad_tarballs import BAD
from .support.modules import run_module
from .support.namespaces import sh
from .support.tarballs import DIR, FILE, GOOD, SYM, digest, names, packed, picture, tree_of, unmade

ROOT = Path(__file__).resolve().parents[2]
ALPINE = ROOT.parent / "shared" / "data" / f"alpine-minirootfs-3.20.3-{releases.host_arch()}.tar.gz"
FACES = ("failed", "changed", "changes", "commands", "diff", "msg")


def trees(place):
    """What lies in its store; None without any."""
    return sorted(os.listdir(place / ".store")) if (place / ".store").exists() else None


def earlier(dest, src):
    """A root filesystem as an earlier release has made it: a directory."""
    place = os.path.dirname(dest)
    assert run_module("alpine_rootfs", dest=dest, src=src).changed
    tree = os.path.realpath(dest)
    os.unlink(dest)
    os.rename(tree, dest)
    os.rmdir(f"{place}/.store")


def act(**params):
    """A real run, which has to do what check mode, which changes nothing, has told; in failing too."""
    place = Path(params.get("dest") or params["config"][0]["dest"]).parent
    before, unmade_before = picture(place), unmade(place)
    predicted = run_module("alpine_rootfs", check=True, **params)
    assert picture(place) == before
    made = run_module("alpine_rootfs", **params)
    # How much room there is changes by itself.
    told = [[re.sub(r"\d+ MiB are free", "", str(getattr(each, face, None))) for face in FACES] for each in (made, predicted)]
    assert told[0] == told[1]
    if made.failed:
        assert unmade(place) == unmade_before
    return made


@pytest.fixture
def other(tmp_path):
    return packed(tmp_path / "other.tar.gz", (DIR, "etc"), (FILE, "etc/other", b"2"))


def test_act_again_check_change_absent(place, good, other):
    dest = str(place / "new" / "alpine")
    made = act(dest=dest, src=good)
    assert made.changed and made.changes == [{"item": f"rootfs {dest}", "action": "create", "fields": []}]
    assert names(place / "new") == ["alpine"] and trees(place / "new") == [f"sha256-{digest(good)}"]
    assert os.readlink(dest) == f".store/sha256-{digest(good)}"
    assert stat.S_IMODE(os.stat(place / "new" / ".store").st_mode) == 0o700, "closed, since set-user-ID files are in it"
    assert stat.S_IMODE(os.stat(dest).st_mode) == stat.S_IMODE(os.stat(place / "new").st_mode) == 0o755
    busybox = os.stat(f"{dest}/bin/busybox")
    assert (stat.S_IMODE(busybox.st_mode), busybox.st_uid, busybox.st_gid) == (0o4755, 3, 7)
    assert busybox.st_mtime == 1000000000
    assert os.stat(f"{dest}/bin/ls").st_ino == busybox.st_ino
    assert os.readlink(f"{dest}/bin/sh") == "/bin/busybox"
    assert stat.S_IMODE(os.stat(f"{dest}/tmp").st_mode) == 0o1777 and os.stat(f"{dest}/bin").st_mtime == 1000000000

    whole = picture(place)
    again = act(dest=dest, src=good)
    assert not again.changed and again.changes == again.commands == [] and picture(place) == whole
    assert again.observed == made.observed

    changed = act(dest=dest, src=other)
    assert [each["action"] for each in changed.changes] == ["recreate"]
    assert "checksum " in changed.changes[0]["fields"][0]
    assert sorted(os.listdir(dest)) == [".alpine_rootfs.json", "etc"] and trees(place / "new") == [f"sha256-{digest(other)}"]

    gone = act(dest=dest, state="absent")
    assert gone.changed and os.listdir(place / "new") == []
    assert not act(dest=dest, state="absent").changed


@pytest.mark.skipif(not ALPINE.exists(), reason=f"there is no {ALPINE.name} in ../shared/data")
def test_a_real_tarball_is_unpacked_as_tar_does(place, tmp_path):
    reference = tmp_path / "reference"
    reference.mkdir()
    sh(f"tar -xzpf {ALPINE} --numeric-owner -C {reference}")
    made = act(dest=str(place / "alpine"), src=str(ALPINE))
    assert made.observed[0]["version"] == "3.20.3" and made.observed[0]["arch"] == releases.host_arch()
    expected = picture(reference)
    expected.pop(b".")
    assert tree_of(place / "alpine") == expected
    if platform.machine() == releases.host_arch():
        assert sh(f"chroot {place}/alpine /bin/cat /etc/alpine-release") == "3.20.3\n"


def test_the_commands_do_the_same(place, good, other, tmp_path):
    """On an equal host: the same directory, moved aside in between."""
    dest = str(place / "new" / "alpine")
    steps = [{"src": good}, {"src": other}, {"state": "absent"}]
    applied = []
    for step in steps:
        applied.append((act(dest=dest, **step).commands, tree_of(dest) if os.path.exists(dest) else None))
    shutil.rmtree(place / "new")
    for commands, expected in applied:
        for command in commands:
            sh(command)
        assert (tree_of(dest) if os.path.exists(dest) else None) == expected
        assert names(place / "new") == (["alpine"] if expected else []) and len(trees(place / "new") or ()) == bool(expected)
        if expected:
            assert stat.S_IMODE(os.stat(dest).st_mode) == 0o755
            src = good if expected is applied[0][1] else other
            assert not run_module("alpine_rootfs", dest=dest, src=src).changed


def test_many_in_one_call_and_prune(place, good, other):
    config = [{"dest": str(place / name), "src": good} for name in ("a", "b", "c")]
    assert len(act(config=config).changes) == 3
    (place / "foreign").mkdir()
    (place / "foreign" / "file").touch()
    pruned = act(config=[config[0], {"dest": str(place / "b"), "src": other}], prune=True)
    assert [(each["item"].rsplit("/", 1)[1], each["action"]) for each in pruned.changes] == [
        ("c", "delete"), ("b", "recreate")]
    assert names(place) == ["a", "b", "foreign"] and len(trees(place)) == 2
    twice = act(config=[config[0], config[0]])
    assert twice.failed and "given twice" in twice.msg
    nested = act(config=[{"dest": str(place / "fresh"), "src": good},
                         {"dest": str(place / "fresh" / "b"), "src": good}])
    assert nested.failed and "another rootfs of this task" in nested.msg


def test_the_same_tarball_under_another_name_is_no_change(place, good, tmp_path):
    act(dest=str(place / "a"), src=good)
    named = tmp_path / "alpine-minirootfs-9.9.9-x86.tar.gz"
    shutil.copy(good, named)
    assert not act(dest=str(place / "a"), src=str(named)).changed


def test_a_tarball_that_was_made_of_such_a_tree(place, good, tmp_path):
    act(dest=str(place / "a"), src=good)
    sh(f"tar -czf {tmp_path}/again.tar.gz -C {place}/a .")
    act(dest=str(place / "b"), src=f"{tmp_path}/again.tar.gz")
    assert json.loads((place / "b" / ".alpine_rootfs.json").read_text())["source"] == f"{tmp_path}/again.tar.gz"


# What is at dest

def test_an_empty_directory_is_taken(place, good):
    (place / "a").mkdir()
    assert not act(dest=str(place / "a"), state="absent").changed and (place / "a").is_dir()
    assert act(dest=str(place / "a"), src=good).changed


def foreign_file(path):
    path.mkdir()
    (path / "precious").write_text("x")


def foreign_record(path):
    path.mkdir()
    (path / ".alpine_rootfs.json").write_text(json.dumps({"owner": "fromscratch.containers", "checksum": "1" * 64}))
    os.chown(path / ".alpine_rootfs.json", 65534, 65534)


def broken_record(path):
    path.mkdir()
    (path / ".alpine_rootfs.json").write_text("{")


def linked_record(path):
    act(dest=str(path.parent / "ours"), src=packed(path.parent.parent / "o.tar.gz", *GOOD))
    path.mkdir()
    (path / ".alpine_rootfs.json").symlink_to(path.parent / "ours" / ".alpine_rootfs.json")


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("make, words", [
    (foreign_file, "not made by this collection"), (foreign_record, "not made by this collection"),
    (broken_record, "not made by this collection"), (linked_record, "not made by this collection"),
    (lambda path: path.write_text("x"), "not made by this collection"),
    (lambda path: path.symlink_to("/srv"), "symbolic link"), (lambda path: path.symlink_to("nowhere"), "symbolic link"),
    (os.mkfifo, "not made by this collection"),
    (lambda path: path.symlink_to(".store/other"), "symbolic link"),
    (lambda path: (path.parent / ".store").write_text("x"), "not made by this collection"),
    (lambda path: (path.parent / ".store").symlink_to("/srv"), "not made by this collection"),
    (lambda path: os.chown((path.parent / ".store").mkdir() or path.parent / ".store", 1000, 0), "not made by this collection"),
])
def test_what_is_not_ours_is_left_alone(place, good, make, words, state):
    make(place / "a")
    result = act(dest=str(place / "a"), src=good, state=state)
    assert result.failed and words in result.msg and str(place) in result.msg


def test_a_parent_that_is_a_file_or_a_rootfs_or_leads_to_the_system(place, good, tmp_path):
    (place / "file").touch()
    assert "is not a directory" in act(dest=str(place / "file" / "a"), src=good).msg
    act(dest=str(place / "a"), src=good)
    assert "inside of the rootfs" in act(dest=str(place / "a" / "srv" / "b"), src=good).msg
    (place / "link").symlink_to("/usr")
    assert "/usr/b belongs to the system" in run_module("alpine_rootfs", dest=str(place / "link" / "b"), src=good).msg


def test_mounts(place, good, other):
    dest = str(place / "a")
    os.mkdir(dest)
    with mounted("-t tmpfs none", dest):
        assert "mount point" in run_module("alpine_rootfs", dest=dest, src=good).msg
    act(dest=dest, src=good)
    with mounted("-t tmpfs none", os.path.realpath(f"{dest}/proc")):
        Path(dest, "proc", "precious").touch()
        assert not act(dest=dest, src=good).changed
        act(dest=dest, src=other)
        assert trees(place) == sorted(f"sha256-{digest(each)}" for each in (good, other)), "what has a mount stays"
        assert os.listdir(f"{place}/.store/sha256-{digest(good)}/proc") == ["precious"]
        assert act(dest=dest, state="absent").changed and len(trees(place)) == 1
    assert act(dest=dest, state="absent").changed and os.listdir(place) == []


@contextlib.contextmanager
def mounted(what, where):
    sh(f"mount {what} {where}")
    try:
        yield
    finally:
        sh(f"umount {where}")


# Tarballs that are refused


@pytest.mark.parametrize("make, words", BAD.values(), ids=BAD)
def test_a_bad_tarball_changes_nothing(place, good, tmp_path, make, words):
    dest, bad = str(place / "alpine"), tmp_path / "bad.tar.gz"
    make(bad)
    beside = sorted(os.listdir(tmp_path))
    fresh = act(dest=str(place / "deep" / "fresh"), src=str(bad))
    act(dest=dest, src=good)
    replacing = act(dest=dest, src=str(bad))
    # The same again where it is found out only after a download: nothing is half-made then either.
    with served() as server:
        server.offer("x86_64", bad.read_bytes())
        before = unmade(place)
        downloaded = run_module("alpine_rootfs", dest=dest, mirror=server.url, arch="x86_64", checksum=digest(bad))
        assert unmade(place) == before
    for result in fresh, replacing, downloaded:
        assert result.failed and any(word in result.msg for word in words.split("|")), result.msg
    assert fresh.msg.startswith(f"src: {bad} ") and "Nothing was changed; " in fresh.msg
    # How much room there is changes by itself.
    same = [re.sub(r"\d+ MiB are free", "", each.msg.split(" ", 2)[2]) for each in (downloaded, fresh)]
    assert downloaded.msg.startswith(f"mirror: {server.url}/v3.21/") and same[0] == same[1]
    assert names(place) == ["alpine"] and len(trees(place)) == 1 and sorted(os.listdir(tmp_path)) == beside


def test_too_many_members(place, good, tmp_path, monkeypatch):
    """With a limit that does not take a minute to reach."""
    monkeypatch.setattr(_tarball, "MOST_MEMBERS", 20)
    many = packed(tmp_path / "many.tar.gz", *[(FILE, f"{each}") for each in range(21)])
    act(dest=str(place / "a"), src=good)
    result = act(dest=str(place / "a"), src=many)
    assert result.failed and "has more than 20 members" in result.msg


def test_a_source_that_is_not_there_or_another(place, good, tmp_path):
    dest = str(place / "a")
    for path, words in (("/nowhere/x.tar.gz", "No such file"), (str(tmp_path), "Is a directory"),
                        ("/dev/null", "not a file"), ("x.tar.gz", "absolute")):
        result = act(dest=dest, src=path)
        assert result.failed and result.msg.startswith("src: ") and words in result.msg
    wrong = act(dest=dest, src=good, checksum="sha256:" + "0" * 64)
    assert wrong.failed and "0" * 64 in wrong.msg and f"set checksum: sha256:{digest(good)}" in wrong.msg
    assert act(dest=dest, src=good, checksum=digest(good)).changed
    # A tarball by the name of a known release has to be that release.
    named = tmp_path / "alpine-minirootfs-3.21.3-x86_64.tar.gz"
    shutil.copy(good, named)
    assert "1a694899" in act(dest=dest, src=str(named)).msg
    assert not act(dest=dest, src=str(named), checksum=digest(named)).changed


# Full disks

@pytest.fixture
def small(place):
    def mount(options):
        sh(f"mount -t tmpfs -o {options} none {place}")
        return place
    yield mount
    sh(f"umount {place}")


def test_a_bomb(small, tmp_path):
    place = small("size=2m")
    bomb = packed(tmp_path / "bomb.tar.gz", *GOOD, *[(FILE, f"bomb{each}", bytes(1 << 20)) for each in range(4)])
    result = act(dest=str(place / "a"), src=bomb)
    assert result.failed and "more room than there is" in result.msg and "choose another dest" in result.msg
    assert os.listdir(place) == []


@pytest.mark.parametrize("options, count", [("size=2m,nr_inodes=40", 100), ("size=400k,nr_inodes=9999", 200)])
def test_a_disk_that_fills_up_while_unpacking(small, good, tmp_path, options, count):
    """What cannot be counted beforehand: inodes, and the room that directories take."""
    place = small(options)
    act(dest=str(place / "a"), src=good)
    many = packed(tmp_path / "many.tar.gz", *[(SYM, f"{each:04}", "x" * 3000) for each in range(count)])
    before = unmade(place)
    result = run_module("alpine_rootfs", dest=str(place / "a"), src=many)
    assert result.failed and "No space left" in result.msg and "make room" in result.msg
    assert unmade(place) == before


def test_a_disk_that_fills_up_while_downloading(small, server):
    place = small("size=1m")
    server.offer("x86_64", os.urandom(2 << 20))
    result = run_module("alpine_rootfs", dest=str(place / "new" / "a"), mirror=server.url, arch="x86_64")
    assert result.failed and "No space left" in result.msg
    assert os.listdir(place) == []


# Mirrors

class Server:
    """A mirror on 127.0.0.1. ``routes``: path to (status, headers, body)."""

    def __init__(self):
        self.routes, self.asked = {}, []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, headers, body = outer.routes.get(self.path, (404, {}, b"nothing here"))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *unused):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def offer(self, arch, body, release="9.9.9", publish=True, **headers):
        for each in (release, "3.21.3"):
            path = self.path(arch, each)
            self.routes[path] = (200, headers, body)
        if publish:
            path = self.path(arch, release)
            self.routes[path + ".sha256"] = (
                200, {}, f"{hashlib.sha256(body).hexdigest()}  {path.rsplit('/', 1)[1]}\n".encode())

    @staticmethod
    def path(arch, release):
        return releases.url("", release, arch)


@contextlib.contextmanager
def served():
    made = Server()
    try:
        yield made
    finally:
        made.httpd.shutdown()
        made.httpd.server_close()


@pytest.fixture
def server():
    with served() as made:
        yield made


def test_a_download_with_a_published_checksum(place, server, good):
    server.offer("x86", Path(good).read_bytes(), **{"Content-Encoding": "gzip"})
    wanted = {"dest": str(place / "a"), "mirror": server.url + "/", "arch": "x86", "version": "9.9.9",
              "http_agent": "me"}
    predicted = run_module("alpine_rootfs", check=True, **wanted)
    assert server.asked == [server.path("x86", "9.9.9") + ".sha256"]  # the tarball is not for check mode
    made = act(**wanted)
    assert made.changed and made.commands == predicted.commands
    assert made.observed[0]["checksum"] == digest(good)
    assert made.observed[0]["source"] == server.url + server.path("x86", "9.9.9")

    server.asked.clear()
    assert not act(**wanted).changed
    assert server.asked == []
    # Another checksum of the same release is another tarball.
    other = act(**{**wanted, "checksum": "0" * 64, "state": "absent"})
    assert other.changed
    if shutil.which("curl"):
        for command in made.commands:
            sh(command)
        assert not run_module("alpine_rootfs", **wanted).changed


def test_a_known_release_asks_for_no_checksum_and_takes_no_other(place, server, good):
    server.offer("x86_64", Path(good).read_bytes(), release="3.21.3")
    result = run_module("alpine_rootfs", dest=str(place / "a"), mirror=server.url, arch="x86_64")
    assert server.asked == [server.path("x86_64", "3.21.3")]
    assert result.failed and "1a694899" in result.msg and digest(good) in result.msg and os.listdir(place) == []
    assert run_module("alpine_rootfs", dest=str(place / "a"), mirror=server.url, arch="x86_64",
                      checksum=digest(good)).changed


def test_a_redirect(place, server, good):
    server.offer("x86", Path(good).read_bytes())
    here = server.path("x86", "9.9.9")
    for suffix in "", ".sha256":
        server.routes["/elsewhere" + suffix] = server.routes[here + suffix]
        server.routes[here + suffix] = (302, {"Location": "/elsewhere" + suffix}, b"")
    assert act(dest=str(place / "a"), mirror=server.url, arch="x86", version="9.9.9").changed
    assert "/elsewhere" in server.asked


def test_a_mirror_that_is_a_directory(place, tmp_path, good):
    mirror = tmp_path / "the mirror"
    tarball = Path(str(mirror) + releases.url("", "9.9.9", "x86"))
    wanted = {"dest": str(place / "a"), "arch": "x86", "version": "9.9.9",
              "mirror": "file://" + str(mirror).replace(" ", "%20")}
    assert "No such file" in act(**wanted).msg
    tarball.parent.mkdir(parents=True)
    Path(f"{tarball}.sha256").write_text(f"{digest(good)}  {tarball.name}\n")
    missing = act(**wanted)
    assert missing.failed and missing.msg.startswith("mirror: ") and "No such file" in missing.msg
    shutil.copy(good, tarball)
    assert act(**wanted).changed
    shutil.rmtree(mirror)
    assert not act(**wanted).changed


def unreachable(server, body):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{probe.getsockname()[1]}"


def shortened(server, body):
    server.offer("x86", body, **{"Content-Length": str(len(body) + 5)})


def answering(text, suffix=".sha256", status=200):
    def change(server, body):
        server.offer("x86", body)
        server.routes[server.path("x86", "9.9.9") + suffix] = (status, {}, text)
    return change


def another_tarball(server, body):
    server.offer("x86", body)
    server.routes[server.path("x86", "9.9.9")] = (200, {}, body + b"!")


@pytest.mark.parametrize("change, words, in_check", [
    (unreachable, "cannot be reached", True),
    (lambda server, body: None, "answers 404", True),
    (lambda server, body: server.offer("x86", body, publish=False), ".sha256 answers 404", True),
    (answering(b"<html>"), "is not the checksum of that tarball", True),
    (answering(b"\xff" * 9999), "is not the checksum of that tarball", True),
    (answering(b"1" * 64 + b"  other.tar.gz\n"), "is not the checksum of that tarball", True),
    (answering(b"no", suffix="", status=503), "answers 503", False),
    (shortened, "broke off after", False),
    (another_tarball, "has the SHA-256", False),
], ids=["unreachable", "404", "no checksum", "garbage", "binary garbage", "another's checksum", "503",
        "truncated", "tampered"])
def test_a_mirror_that_fails(place, server, good, other, change, words, in_check):
    act(dest=str(place / "a"), src=other)
    change(server, Path(good).read_bytes())
    before = unmade(place)
    wanted = {"mirror": server.url, "arch": "x86", "version": "9.9.9", "timeout": 5}
    for dest in str(place / "a"), str(place / "new" / "b"):
        checked = run_module("alpine_rootfs", check=True, dest=dest, **wanted)
        failed = run_module("alpine_rootfs", dest=dest, **wanted)
        assert failed.failed and words in failed.msg and server.url in failed.msg and failed.msg.startswith("mirror: ")
        assert "checksum" in failed.msg or "mirror, or give a tarball as src" in failed.msg
        assert (getattr(checked, "msg", None) == failed.msg) is in_check
        assert unmade(place) == before
    # With a checksum that is known, a mirror that does not answer is not asked.
    assert not run_module("alpine_rootfs", dest=str(place / "a"), checksum=digest(other), **wanted).changed


def test_a_timeout_that_is_none(place, good):
    assert "timeout: 0 is not valid" in act(dest=str(place / "a"), src=good, timeout=0).msg


# Whole or untouched

def killed_at(moment, **params):
    """A run that is killed when it comes to the function ``moment`` of _staging or _tarball."""
    child = os.fork()
    if child == 0:
        owner, name = moment
        setattr(owner, name, lambda *unused: os.kill(os.getpid(), signal.SIGKILL))
        with contextlib.suppress(BaseException):
            run_module("alpine_rootfs", **params)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("name, moment, old, action, left", [
    ("while unpacking", (_tarball.Writer, "write"), True, "recreate", "new"),
    ("before the tree has its name", (store.Store, "add"), True, "recreate", "new"),
    ("before the link", (store.Store, "name"), True, "recreate", "new"),
    ("before the former tree goes", (store, "remove_tree"), False, "update", "new"),
])
def test_a_killed_run_leaves_it_whole_and_the_next_cleans_up(place, good, other, name, moment, old, action, left):
    dest = str(place / "a")
    act(dest=dest, src=good)
    whole = tree_of(dest)
    killed_at(moment, dest=dest, src=other)
    assert (tree_of(dest) == whole) is old
    assert stat.S_IMODE(os.stat(place / ".store").st_mode) == 0o700 and left in trees(place)
    after = act(dest=dest, src=other)
    assert [each["action"] for each in after.changes] == [action]
    assert "leftover " in str(after.changes[0]["fields"])
    assert names(place) == ["a"] and trees(place) == [f"sha256-{digest(other)}"] and Path(dest, "etc", "other").exists()

    killed_at((store.Store, "add"), dest=str(place / "b"), src=good)
    assert names(place) == ["a"] and "new" in trees(place)
    assert act(dest=str(place / "b"), state="absent").changed
    assert names(place) == ["a"] and len(trees(place)) == 1


def test_killed_at_any_time(place, good, other):
    """Both trees have 300 files more, so that a kill hits the work and not only the start."""
    contents = {}
    for name, src in ("one", good), ("two", other):
        more = packed(Path(src), (FILE, name, b"x"), *[(FILE, f"{name}{each}", b"x" * 5000) for each in range(300)])
        act(dest=str(place / "a"), src=more)
        contents[name] = set(os.listdir(place / "a"))
    for turn in range(24):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                run_module("alpine_rootfs", dest=str(place / "a"), src=(good, other)[turn % 2])
            os._exit(0)
        time.sleep(turn * 0.006)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert set(os.listdir(place / "a")) in contents.values()
    act(dest=str(place / "a"), src=good)
    assert set(os.listdir(place / "a")) == contents["one"] and names(place) == ["a"] and len(trees(place)) == 1


def test_two_runs_at_once(place, good, other):
    act(dest=str(place / "a"), src=good)
    before = picture(place)
    with store.Store(str(place)):
        result = run_module("alpine_rootfs", dest=str(place / "a"), src=other)
        assert result.failed and "another run is at work" in result.msg
        assert picture(place) == before


def test_there_is_no_moment_without_it(place, good, other):
    act(dest=str(place / "a"), src=good)
    stop, gone = threading.Event(), []

    def watch():
        while not stop.is_set():
            if not os.path.exists(place / "a" / ".alpine_rootfs.json"):
                gone.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for src in (other, good) * 5:
            assert run_module("alpine_rootfs", dest=str(place / "a"), src=src).changed
    finally:
        stop.set()
        watcher.join()
    assert not gone


def test_a_directory_of_an_earlier_release_becomes_a_link_to_itself(place, good):
    dest = str(place / "a")
    earlier(dest, good)
    inode, whole = os.stat(dest).st_ino, tree_of(dest)
    made = act(dest=dest, src=good)
    assert [each["action"] for each in made.changes] == ["update"] and made.changes[0]["fields"] == ["immutable off -> on"]
    assert os.path.islink(dest) and os.stat(dest).st_ino == inode and tree_of(dest) == whole
    assert trees(place) == [f"sha256-{digest(good)}"] and not act(dest=dest, src=good).changed
    earlier(str(place / "b"), good)
    for command in run_module("alpine_rootfs", check=True, dest=str(place / "b"), src=good).commands:
        sh(command)
    assert not act(dest=str(place / "b"), src=good).changed


@pytest.mark.parametrize("how", ["applied", "by commands", "killed before", "absent"])
def test_a_directory_of_an_earlier_release_is_replaced(place, good, other, how):
    dest = str(place / "a")
    earlier(dest, good)
    if how == "killed before":
        killed_at((store, "exchange"), dest=dest, src=other)
        assert not os.path.islink(dest)
    wanted = {"dest": dest, "state": "absent"} if how == "absent" else {"dest": dest, "src": other}
    if how == "by commands":
        for command in run_module("alpine_rootfs", check=True, **wanted).commands:
            sh(command)
    else:
        act(**wanted)
    assert not act(**wanted).changed
    assert trees(place) == (None if how == "absent" else [f"sha256-{digest(other)}"])
    assert names(place) == ([] if how == "absent" else ["a"])


def test_an_open_store_is_closed(place, good):
    act(dest=str(place / "a"), src=good)
    for close in act, by_commands:
        os.chmod(place / ".store", 0o755)
        close(dest=str(place / "a"), src=good)
        assert stat.S_IMODE(os.stat(place / ".store").st_mode) == 0o700


def by_commands(**params):
    for command in run_module("alpine_rootfs", check=True, **params).commands:
        sh(command)


@pytest.mark.parametrize("mend", [act, by_commands])
@pytest.mark.parametrize("damage", ["record", "tree", "link"])
def test_what_was_damaged_is_made_anew(place, good, damage, mend):
    dest = str(place / "a")
    act(dest=dest, src=good)
    whole = tree_of(dest)
    if damage == "link":
        os.unlink(dest)
    else:
        shutil.rmtree(os.path.realpath(dest)) if damage == "tree" else os.unlink(f"{dest}/.alpine_rootfs.json")
    mend(dest=dest, src=good)
    assert tree_of(dest) == whole and not act(dest=dest, src=good).changed and len(trees(place)) == 1


def test_two_names_have_one_tree(place, good, other):
    act(config=[{"dest": str(place / name), "src": good} for name in "ab"])
    assert trees(place) == [f"sha256-{digest(good)}"]
    act(dest=str(place / "a"), src=other)
    assert len(trees(place)) == 2
    act(dest=str(place / "b"), src=other)
    assert trees(place) == [f"sha256-{digest(other)}"]
    act(dest=str(place / "a"), state="absent")
    assert trees(place) == [f"sha256-{digest(other)}"]


def test_a_tree_on_which_an_overlay_is_mounted_stays(place, good, other, tmp_path):
    for name in "upper", "work", "top":
        (tmp_path / name).mkdir()
    act(dest=str(place / "a"), src=good)
    for lower in os.path.realpath(place / "a"), str(place / "a"):
        layers = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        if subprocess.run(f"mount -t overlay none -o {layers} {tmp_path}/top", shell=True, check=False).returncode:
            pytest.skip("no overlay can be mounted here")
        try:
            act(dest=str(place / "a"), src=other)
            assert len(trees(place)) == 2 and (tmp_path / "top" / "bin" / "busybox").exists()
        finally:
            sh(f"umount {tmp_path}/top")
        act(dest=str(place / "a"), src=good)
        assert len(trees(place)) == 1


def test_the_cost_of_a_member_does_not_grow_with_its_depth():
    """Counted in calls, of Python's functions and of C's."""
    def calls(depth):
        tree, count = _tarball.Tree(), 0

        def count_call(unused, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        members = [tarfile.TarInfo("./" + "d/" * depth + str(each)) for each in range(200)]
        sys.setprofile(count_call)
        try:
            for member in members:
                tree.add(member)
        finally:
            sys.setprofile(None)
        return count

    assert calls(199) < 2 * calls(2)


def test_on_the_lower_layer_of_an_overlay(tmp_path, place, good, other):
    """Where no directory can be renamed, as in the lab, whose hosts are overlays of this one."""
    for name in "lower", "upper", "work":
        (tmp_path / name).mkdir()
    act(dest=str(tmp_path / "lower" / "a"), src=good)
    options = ("-t overlay none -o redirect_dir=off,"
               f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work")
    if subprocess.run(f"mount {options} {place}", shell=True, check=False, capture_output=True).returncode:
        pytest.skip("no overlay can be mounted here")
    try:
        assert act(dest=str(place / "a"), src=other).changed and trees(place) == [f"sha256-{digest(other)}"]
        assert act(dest=str(place / "a"), state="absent").changed and os.listdir(place) == []
        assert act(dest=str(place / "a"), src=good).changed
        assert act(dest=str(place / "a"), src=other).changed
    finally:
        sh(f"umount {place}")
