# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a host's network managers away from the links of this collection.

systemd-networkd and NetworkManager take over or remove links that they did not create, and udev gives new links another MAC
address, which peers would not find. Each is configured where it is installed, before the first link is added.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

from ..container.service import manages_host
from ..core.operations import PATH
from .files import MADE
from .units import is_active

NETWORKD = "/etc/systemd/network/05-fromscratch.network"
UDEV = "/etc/systemd/network/05-fromscratch.link"
NETWORKD_UNIT = "systemd-networkd.service"
NETWORK_MANAGER = "/etc/NetworkManager/conf.d/zz-fromscratch.conf"  # the last word, beside those of others


def files(names):
    """Return the options of ``Files`` for links of these names, which may be patterns such as ``ve-*``."""
    words = " ".join(names)
    return [
        {"path": NETWORKD, "state": _state(names and installed("systemd-networkd")),
         "reload": [["systemctl", "reload-or-restart", NETWORKD_UNIT]] * (manages_host() and is_active(NETWORKD_UNIT)),
         "text": f"{MADE}: systemd-networkd leaves these alone.\n[Match]\nName={words}\n\n[Link]\nUnmanaged=yes\n"},
        {"path": UDEV, "state": _state(names and installed("systemd-udevd")),
         "reload": [["udevadm", "control", "--reload"]] * udev_runs(),
         "text": f"{MADE}: udev keeps their names and MAC addresses.\n[Match]\nOriginalName={words}\n\n"
                 "[Link]\nMACAddressPolicy=none\nNamePolicy=keep kernel\n"},
        {"path": NETWORK_MANAGER, "state": _state(names and installed("NetworkManager")),
         "reload": [["nmcli", "general", "reload", "conf"]] * network_manager_runs(),
         "text": f"{MADE}: NetworkManager leaves these alone.\n[keyfile]\nunmanaged-devices+="
                 + ";".join(f"interface-name:{name}" for name in names) + "\n"},
    ]


def _state(wanted):
    return "present" if wanted else "absent"


def udev_runs():
    """Return whether udev reads its rules. systemd also listens on the socket of a stopped daemon."""
    if manages_host():
        return is_active("systemd-udevd.service")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        return shutil.which("udevadm", path=PATH) is not None and client.connect_ex("/run/udev/control") == 0


def network_manager_runs():
    """Return whether NetworkManager answers; its files in /run remain when it is stopped."""
    if shutil.which("nmcli", path=PATH) is None:
        return False
    return subprocess.run(["nmcli", "--terse", "--fields", "RUNNING", "general"], stdin=subprocess.DEVNULL, capture_output=True,
                          env={**os.environ, "PATH": PATH, "LC_ALL": "C"}, check=False).stdout.strip() == b"running"


def installed(program):
    """Return whether a program is in the host's system directories."""
    places = "/usr/lib/systemd:/lib/systemd:/usr/sbin:/usr/bin:/sbin:/bin"
    return shutil.which(program, path=places) is not None
