# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps a host's own network managers away from the links that this collection makes.

systemd-networkd and NetworkManager take over or clean up links that they did not make, and udev gives new links another
MAC address, which strands the peers. Each is told so where it is installed, before the first link.
"""

from __future__ import annotations

import os
import shutil

from ._files import MADE

NETWORKD = "/etc/systemd/network/05-fromscratch.network"
UDEV = "/etc/systemd/network/05-fromscratch.link"
NETWORK_MANAGER = "/etc/NetworkManager/conf.d/zz-fromscratch.conf"  # the last word, beside those of others


def files(names):
    """Options of ``Files`` for links of these names, which may be patterns such as ``ve-*``."""
    words = " ".join(names)
    return [
        {"path": NETWORKD, "state": _state(names and installed("systemd-networkd")), "reload": _if_up(
            "/run/systemd/system", ["systemctl", "try-reload-or-restart", "systemd-networkd.service"]),
         "text": f"{MADE}: systemd-networkd leaves these alone.\n[Match]\nName={words}\n\n[Link]\nUnmanaged=yes\n"},
        {"path": UDEV, "state": _state(names and installed("systemd-udevd")), "reload": _if_up(
            "/run/udev/control", ["udevadm", "control", "--reload"]),
         "text": f"{MADE}: udev keeps their names and MAC addresses.\n[Match]\nOriginalName={words}\n\n"
                 "[Link]\nMACAddressPolicy=none\nNamePolicy=keep kernel\n"},
        {"path": NETWORK_MANAGER, "state": _state(names and installed("NetworkManager")), "reload": _if_up(
            "/run/NetworkManager", ["nmcli", "general", "reload", "conf"]),
         "text": f"{MADE}: NetworkManager leaves these alone.\n[keyfile]\nunmanaged-devices+="
                 + ";".join(f"interface-name:{name}" for name in names) + "\n"},
    ]


def _state(wanted):
    return "present" if wanted else "absent"


def _if_up(sign, command):
    return [command] if os.path.exists(sign) and shutil.which(command[0]) else []


def installed(program):
    places = "/usr/lib/systemd:/lib/systemd:/usr/sbin:/usr/bin:/sbin:/bin"
    return shutil.which(program, path=places) is not None
