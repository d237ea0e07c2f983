# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of distributions are not run, and say so, where a userland is kept and the mirror of its packages is gone."""

from __future__ import annotations

import http.server
import threading

import pytest

lab = pytest.importorskip("tests.distributions.lab", reason="the tests of distributions are not part of this copy")


@pytest.fixture
def mirror(tmp_path):
    """The directory of a mirror, the userlands that name it, and its server."""
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "mirror")

        def log_message(self, *unused):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sources = tmp_path / "userlands/trixie/etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text(f"# made\ndeb http://127.0.0.1:{server.server_port}/ trixie main\n", encoding="ascii")
    (tmp_path / "mirror/dists/trixie").mkdir(parents=True)
    yield tmp_path / "mirror", tmp_path / "userlands", server
    server.shutdown()
    server.server_close()


def test_a_mirror_that_is_there(mirror):
    (mirror[0] / "dists/trixie/InRelease").touch()
    lab.require_mirror("trixie", userlands=mirror[1])


def test_a_release_that_the_mirror_has_no_more(mirror):
    with pytest.raises(pytest.skip.Exception, match="NOT RUN: the mirror of trixie is not to be had: .*: status 404"):
        lab.require_mirror("trixie", userlands=mirror[1])


def test_a_mirror_that_is_gone(mirror):
    mirror[2].shutdown()
    mirror[2].server_close()
    with pytest.raises(pytest.skip.Exception, match="NOT RUN: the mirror of trixie is not to be had: .*refused"):
        lab.require_mirror("trixie", userlands=mirror[1])
