# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a host's own network managers away from the links that this collection makes.

systemd-networkd and NetworkManager take over or clean up links that they did not make, and udev gives new links another
MAC address, which strands the peers. Each is told so where it is installed, before the first link.
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
    """Options of ``Files`` for links of these names, which may be patterns such as ``ve-*``."""
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
    """Whether somebody listens on udev's socket. Where that is systemd for a daemon that is stopped, nobody reads the rules."""
    if manages_host():
        return is_active("systemd-udevd.service")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        return shutil.which("udevadm", path=PATH) is not None and client.connect_ex("/run/udev/control") == 0


def network_manager_runs():
    """Whether it answers; what it has left in /run stays there when it is stopped."""
    if shutil.which("nmcli", path=PATH) is None:
        return False
    return subprocess.run(["nmcli", "--terse", "--fields", "RUNNING", "general"], stdin=subprocess.DEVNULL, capture_output=True,
                          env={**os.environ, "PATH": PATH, "LC_ALL": "C"}, check=False).stdout.strip() == b"running"


def installed(program):
    places = "/usr/lib/systemd:/lib/systemd:/usr/sbin:/usr/bin:/sbin:/bin"
    return shutil.which(program, path=places) is not None
