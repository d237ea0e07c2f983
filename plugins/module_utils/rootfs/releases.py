# SPDX-License-Identifier: GPL-3.0-or-later
"""Know the minimal root filesystems that Alpine Linux publishes: names, URLs and checksums."""

from __future__ import annotations

import platform
import re
from typing import Tuple
from urllib.parse import unquote, urlsplit

from ..core.errors import ModuleError, OptionError

DEFAULT_VERSION = "3.21.3"
MIRROR = "https://dl-cdn.alpinelinux.org/alpine"
ARCHES = ("x86_64", "aarch64", "armv7", "armhf", "x86", "ppc64le", "riscv64", "s390x", "loongarch64")

# uname -m, where Alpine says it otherwise. A 32-bit process on a 64-bit ARM kernel sees armv8l.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armv8l": "armv7", "armv7l": "armv7", "armv6l": "armhf",
            "i386": "x86", "i486": "x86", "i586": "x86", "i686": "x86"}

# Known beforehand: a mirror that was tampered with cannot publish a checksum to go with it.
KNOWN = {
    ("3.21.3", "x86_64"): "1a694899e406ce55d32334c47ac0b2efb6c06d7e878102d1840892ad44cd5239",
    ("3.21.3", "aarch64"): "ead8a4b37867bd19e7417dd078748e2312c0aea364403d96758d63ea8ff261ea",
    ("3.20.3", "x86_64"): "d4e6fd67dcf75e40c451560ac7265166c2b72a0f38ddc9aae756a7de3d1efa0c",
    ("3.20.3", "aarch64"): "041fa34a81788242df9e78fa69b97ab45b8ec47ddbf88864755610414a7bf3de",
}

VERSION = re.compile(r"(\d+\.\d+)\.\d+(_(alpha|beta|rc)\d+)?")
FILE = re.compile(rf"alpine-minirootfs-({VERSION.pattern})-({'|'.join(ARCHES)})\.tar\.gz")
SHA256 = re.compile(r"[0-9a-f]{64}")


def host_arch(machine=None):
    """Return Alpine's name of this host's architecture. Raise OptionError where it has none."""
    machine = machine or platform.machine()
    arch = MACHINES.get(machine, machine)
    if arch not in ARCHES:
        raise OptionError("arch", machine, "Alpine has no such architecture, which is this host's; "
                          f"choose one of {', '.join(ARCHES)}")
    return arch


def version(option, value):
    """Return a release such as 3.21.3. Raise OptionError."""
    if not VERSION.fullmatch(value):
        raise OptionError(option, value, f"a release has three numbers, such as {DEFAULT_VERSION}; quote it in YAML")
    return value


def mirror(option, value):
    """Return the base URL of a mirror without a trailing slash. Raise OptionError."""
    try:
        url = urlsplit(value)
        port_is_a_number = url.port is None or url.port > 0
    except ValueError as error:
        raise OptionError(option, value, f"it is not a URL ({error}); give one such as {MIRROR}") from None
    fitting = bool(url.netloc) != (url.scheme == "file")
    if url.scheme not in ("http", "https", "file") or not port_is_a_number or not fitting:
        raise OptionError(option, value, "give an http or https URL such as " + MIRROR + ", or file:///an/absolute/path")
    if url.query or url.fragment or re.search(r"\s", value):
        raise OptionError(option, value, "it is the start of a URL, so it has no query, fragment or white space")
    if "@" in url.netloc:
        # The URL is part of what is shown, logged and recorded.
        raise OptionError(option, value.replace(url.netloc, "..." + url.netloc[url.netloc.rindex("@"):]),
                          "put the user and the password into ~/.netrc of the host, not into the URL")
    return value.rstrip("/")


def checksum(option, value):
    """Return a SHA-256 in lower-case hexadecimal, of ``sha256:HEX`` or the digits alone; None for None. Raise OptionError."""
    if value is None:
        return None
    digest = re.sub(r"^sha256:", "", value.strip().lower())
    if not SHA256.fullmatch(digest):
        raise OptionError(option, value, "give sha256: and 64 hexadecimal digits, as sha256sum prints them")
    return digest


def url(base, release, arch):
    """Return the URL of a release's tarball."""
    branch = ".".join(release.split(".")[:2])
    return f"{base}/v{branch}/releases/{arch}/alpine-minirootfs-{release}-{arch}.tar.gz"


def named(path) -> Tuple[str, str]:
    """Return (version, architecture) of a tarball that has Alpine's file name; else ("", "")."""
    found = FILE.fullmatch(path.rsplit("/", 1)[-1])
    return (found.group(1), found.group(5)) if found else ("", "")


def known(release, arch):
    """Return the SHA-256 that the collection knows of a release, or None."""
    return KNOWN.get((release, arch))


def local_path(source):
    """Return the path behind a ``src`` or a file URL, or None for one to download."""
    if source.startswith("file://"):
        return unquote(urlsplit(source).path)
    return source if source.startswith("/") else None


def published(text, source):
    """Return the SHA-256 in a published ``.sha256`` file, a line of sha256sum about that tarball. Raise ModuleError."""
    words = text.split()
    about = words[1].lstrip("*").rsplit("/", 1)[-1] if len(words) == 2 else None
    if not words or not SHA256.fullmatch(words[0].lower()) or len(words) > 2 or (
            about is not None and about != source.rsplit("/", 1)[-1]):
        raise ModuleError(f"mirror: {source}.sha256 is not the checksum of that tarball, it starts with {text[:80]!r}; "
                          "use another mirror, or set checksum")
    return words[0].lower()
