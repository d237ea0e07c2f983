# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and MAC addresses of links that are derived, so that they are the same at every run and boot."""

from __future__ import annotations

import hashlib
import ipaddress
import socket

from .links import IFNAME_MAX


def derived_mac(*parts):
    """A locally administered unicast MAC that is the same wherever it is computed from the same parts."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()
    return "02:" + ":".join(digest[at:at + 2] for at in range(0, 10, 2))


def derived_ifname(prefix, name):
    """``prefix`` + ``name``, or a shortened name with a hash where that passes 15 characters."""
    whole = prefix + name
    if len(whole) <= IFNAME_MAX:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{whole[:IFNAME_MAX - 7]}-{digest}"


def own_mac(kind, name, netns, addresses=None):
    """The MAC of a link that is given none: the same at every run and boot, another on every host.

    An address tells hosts apart, and peers can compute from it; without one, /etc/machine-id does.
    """
    if addresses:
        return derived_mac(kind, str(ipaddress.ip_interface(addresses[0]).ip))
    return derived_mac(kind, name, netns or "", _machine_id())


def _machine_id():
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()
