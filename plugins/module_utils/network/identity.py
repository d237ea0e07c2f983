# SPDX-License-Identifier: GPL-3.0-or-later
"""Derive names and MAC addresses of links, so that they are the same at every run and boot."""

from __future__ import annotations

import hashlib
import ipaddress
import socket

from .links import IFNAME_MAX


def derived_mac(*parts):
    """Return a locally administered unicast MAC that depends on the parts alone."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()
    return "02:" + ":".join(digest[at:at + 2] for at in range(0, 10, 2))


def derived_ifname(prefix, name):
    """Return ``prefix`` + ``name``, shortened with a hash where that is longer than 15 characters."""
    whole = prefix + name
    if len(whole) <= IFNAME_MAX:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{whole[:IFNAME_MAX - 7]}-{digest}"


def own_mac(kind, name, netns, addresses=None):
    """Return the MAC of a link for which none is given: the same at every run and boot, another on every host.

    It is derived from an address, which tells hosts apart and from which peers can compute it, or else from /etc/machine-id.
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
