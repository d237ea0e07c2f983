# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab hosts of these tests: how they are made and played, looked at without anything of the collection, and given a way to
their distribution's packages."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.network.namespaces import entered

from ..conftest import ROOT

PORT = 3128


def play(*words, check=True, directory=ROOT, **environment):
    """(what is written, what the collection's modules returned) of a run of ansible-playbook."""
    with tempfile.NamedTemporaryFile("r") as results:
        done = subprocess.run(
            ["ansible-playbook", *map(str, words)], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
            env={**os.environ, "RESULTS": results.name, "ANSIBLE_CONFIG": f"{directory}/ansible.cfg",
                 "ANSIBLE_COLLECTIONS_PATH": f"{directory}/.collections",
                 "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "molecule/callback"), "ANSIBLE_CALLBACKS_ENABLED": "results",
                 "ANSIBLE_FORCE_COLOR": "0", **environment})
        assert done.returncode == 0 or not check, done.stdout
        return done, [json.loads(line) for line in results]


def first_process(host):
    """Process 1 of a lab host, as this machine numbers it."""
    for pid in subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=True).stdout.split():
        ids = re.search(r"^NSpid:(.*)$", Path("/proc", pid, "status").read_text(encoding="ascii"), re.M)[1].split()
        if ids[-1] == "1" and len(ids) == len(re.search(r"^NSpid:(.*)$", Path("/proc/self/status").read_text(
                encoding="ascii"), re.M)[1].split()) + 1:
            return int(pid)
    raise AssertionError(f"lab host {host} has no process 1")


def sh(host, command, check=True, **options):
    """A shell command on a lab host."""
    done = subprocess.run(["nsenter", "--target", str(first_process(host)), "--all", "--", "env", "-i", "LC_ALL=C.UTF-8",
                           "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", command],
                          **({} if "input" in options else {"stdin": subprocess.DEVNULL}), capture_output=True, text=True,
                          check=False, **options)
    assert done.returncode == 0 or not check, f"{host}: {command}: {done.returncode}: {done.stderr or done.stdout}"
    return done


def eventually(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not in a minute: {what}"
        time.sleep(0.1)


def require_mirror(*releases, userlands=ROOT / ".cache/userland"):
    """Skip, and name, where a userland is there and the mirror of its packages is not to be had: as the tests ask for it."""
    for release in releases:
        sources = (userlands / release / "etc/apt/sources.list").read_text(encoding="utf-8")
        found = re.search(r"^deb +(?:\[[^]]*] +)?(\S+) +(\S+)", sources, re.M)
        url = urlsplit(f"{found[1].rstrip('/')}/dists/{found[2]}/InRelease")
        make = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = make(url.hostname, url.port, timeout=30)
        try:
            connection.request("HEAD", url.path)
            status = connection.getresponse().status
        except OSError as error:
            pytest.skip(f"NOT RUN: the mirror of {release} is not to be had: {url.geturl()}: {error}")
        finally:
            connection.close()
        if status >= 400:
            pytest.skip(f"NOT RUN: the mirror of {release} is not to be had: {url.geturl()}: status {status}")


class _Relay(socketserver.StreamRequestHandler):
    """A proxy as apt and pip want it: it connects from this machine's own network."""

    def handle(self):
        words = self.rfile.readline().decode("latin-1").split()
        if len(words) != 3:
            return
        headers = list(iter(self.rfile.readline, b"\r\n"))
        method, url, version = words
        parts = urlsplit(f"//{url}" if method == "CONNECT" else url)
        try:
            there = socket.create_connection((parts.hostname, parts.port or 80), timeout=60)
        except OSError:
            self.wfile.write(b"HTTP/1.1 502 No way there\r\nConnection: close\r\n\r\n")
            return
        with there:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                threading.Thread(target=_pump, args=(self.request, there), daemon=True).start()
            else:
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                kept = [each for each in headers if not each.lower().startswith((b"connection:", b"proxy-connection:"))]
                there.sendall(f"{method} {path} {version}\r\n".encode() + b"".join(kept) + b"Connection: close\r\n\r\n")
            _pump(there, self.request)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def _pump(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass


@contextlib.contextmanager
def packages(host):
    """Let apt and pip on a lab host, which reaches nothing but its peers, use this machine's way to packages."""
    with entered(host):
        server = _Server(("127.0.0.1", PORT), _Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    way = f"http://127.0.0.1:{PORT}"
    root = Path("/proc", str(first_process(host)), "root")
    (root / "etc/apt/apt.conf.d/90proxy").write_text(f'Acquire::http::Proxy "{way}";\nAcquire::https::Proxy "{way}";\n')
    # The certificates that this machine believes, should its way to packages have one of its own.
    (root / "etc/pip.conf").write_text(f"[global]\nproxy = {way}\ncert = /etc/ssl/believed.pem\n")
    (root / "etc/ssl").mkdir(exist_ok=True)
    (root / "etc/ssl/believed.pem").write_bytes(Path(believed()).read_bytes())
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def believed():
    import ssl
    return os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
