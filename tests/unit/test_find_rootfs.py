# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rootfs tarball the demo and the tests use, on a made-up checkout with a made-up PATH."""

from __future__ import annotations

import http.server
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "find-rootfs"
ARCH = {"amd64": "x86_64", "arm64": "aarch64", "armv6l": "armhf", "armv7l": "armv7", "i686": "x86"}.get(
    platform.machine(), platform.machine())
NOBODY = "http://127.0.0.1:9"  # discard: nothing listens
TOOLS = ("sh", "dirname", "basename", "uname", "mkdir", "mktemp", "rm", "mv", "cp", "ln", "sed", "tar", "gzip", "chmod",
         "find", "touch", "cat")

# As much of busybox as the script asks for.
BUSYBOX = """#!/bin/sh
case $1 in
    --list-full) printf '%s\\n' bin/busybox bin/sh bin/ls sbin/ip usr/bin/awk ;;
    *) exit 1 ;;
esac
"""

pytestmark = pytest.mark.skipif(not SCRIPT.exists() or not shutil.which("curl"),
                                reason="scripts/find-rootfs is not in this copy of the collection, or there is no curl")


class Checkout:
    def __init__(self, path):
        self.root, self.bin = path / "project", path / "bin"
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(SCRIPT, self.root / "scripts")
        self.bin.mkdir()
        for tool in TOOLS + ("curl",):
            (self.bin / tool).symlink_to(shutil.which(tool))

    def tool(self, name, text):
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        os.utime(path, (1, 1))

    def data(self):
        path = self.root.parent / "shared" / "data" / f"alpine-minirootfs-3.20.3-{ARCH}.tar.gz"
        path.parent.mkdir(parents=True)
        path.touch()
        return path

    def busybox(self, static=True):
        self.tool("busybox", BUSYBOX)
        self.tool("ldd", f"#!/bin/sh\nexit {int(static)}\n")

    def run(self, mirror=NOBODY, **environment):
        done = subprocess.run([self.root / "scripts" / "find-rootfs"], capture_output=True, text=True, check=False,
                              env={"PATH": str(self.bin), "ALPINE_MIRROR": mirror, **environment}, timeout=30)
        return done.returncode, done.stdout.strip(), done.stderr


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def mirror():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *unused):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_a_mirror_that_answers_needs_no_tarball(checkout, mirror):
    checkout.data()
    code, out, err = checkout.run(mirror)
    assert (code, out) == (0, "") and "the default download" in err


def test_a_mirror_that_answers_without_curl(checkout, mirror):
    (checkout.bin / "curl").unlink()
    checkout.tool("python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    assert checkout.run(mirror)[:2] == (0, "")
    checkout.data()
    assert checkout.run()[1] != ""


def test_alpine_rootfs_wins(checkout, mirror, tmp_path):
    checkout.data()
    mine = tmp_path / "with space.tar.gz"
    mine.touch()
    code, out, err = checkout.run(mirror, ALPINE_ROOTFS=str(mine))
    assert (code, out) == (0, str(mine)) and "ALPINE_ROOTFS" in err


def test_alpine_rootfs_that_is_not_there(checkout, mirror):
    code, out, err = checkout.run(mirror, ALPINE_ROOTFS="/nowhere/x.tar.gz")
    assert (code, out) == (1, "") and "/nowhere/x.tar.gz" in err and "unset" in err


def test_the_copy_beside_the_project(checkout):
    path = checkout.data()
    checkout.busybox()
    code, out, err = checkout.run()
    assert (code, out) == (0, str(path)) and "beside the project" in err


def test_made_of_a_static_busybox(checkout):
    checkout.busybox()
    code, out, err = checkout.run()
    assert (code, out) == (0, str(checkout.root / ".cache" / f"busybox-rootfs-{ARCH}.tar.gz")) and "busybox" in err
    assert os.listdir(checkout.root / ".cache") == [os.path.basename(out)]
    with tarfile.open(out) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members["./bin/busybox"].isreg() and members["./bin/busybox"].mode == 0o755
    for applet in "bin/sh", "bin/ls", "sbin/ip", "usr/bin/awk":
        assert members[f"./{applet}"].issym() and members[f"./{applet}"].linkname == "/bin/busybox"
    assert members["./tmp"].mode == 0o1777 and members["./root"].mode == 0o700
    assert {f"./{name}" for name in ("proc", "sys", "dev", "run", "var", "etc/passwd", "etc/group")} <= set(members)
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}

    # It is made once, and made anew it is the same to the last byte: no other rootfs to the modules.
    first, status = Path(out).read_bytes(), os.stat(out)
    assert checkout.run()[1] == out and os.stat(out).st_ino == status.st_ino
    Path(out).unlink()
    assert checkout.run()[1] == out and Path(out).read_bytes() == first


def test_the_stand_in_whatever_else_there_is(checkout, mirror):
    checkout.data()
    code, out, err = checkout.run(mirror, ALPINE_ROOTFS="stand-in")
    assert (code, out) == (1, "") and "busybox-static" in err
    checkout.busybox()
    code, out, err = checkout.run(mirror, ALPINE_ROOTFS="stand-in")
    assert (code, Path(out).name) == (0, f"busybox-rootfs-{ARCH}.tar.gz") and "ALPINE_ROOTFS" in err


def test_a_dynamic_busybox_is_none(checkout):
    checkout.busybox(static=False)
    code, out, err = checkout.run()
    assert (code, out) == (1, "") and "busybox-static" in err and "ALPINE_ROOTFS" in err


def test_nothing_at_all(checkout):
    code, out, err = checkout.run()
    assert (code, out) == (1, "") and "busybox-static" in err
