# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what is recorded of a container: its bundle, or the files of an earlier release, whose containers were shell scripts."""

from __future__ import annotations

import json
import os

from .launcher.record import STATE
from .spec import CAPABILITIES, NO_INIT, SHELL, from_bundle, from_settings

BUNDLE = "config.json"
# The files of a former release; its root filesystem and the layer are where they were.
FORMER = ("container", "fstab", "fstab.rest", "container.json", "nodes")
FORMER_FILTER = "/var/lib/fromscratch/seccomp"
FORMER_CAPABILITIES = {*CAPABILITIES, "net_raw", "mknod", "audit_write"}


def read(path):
    """Return the text of a file, or None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return None


def recorded(name):
    """Return (the recorded Container, the text of its bundle), None for what is missing.

    Raise ValueError, KeyError or TypeError.
    """
    text, former = (read(f"{STATE}/{name}/{file}") for file in (BUNDLE, "container.json"))
    if text is not None:
        return from_bundle(text), text
    return (None if former is None else of_a_script(json.loads(former))), None


def of_a_script(found):
    """Return the Container of an earlier release's record, with the defaults of that release until it is started anew."""
    capabilities = found.get("capabilities") or ()
    userns, seccomp = found.get("userns") or "", found.get("seccomp") or ""
    return from_settings({
        **found, "capabilities": CAPABILITIES if set(capabilities) == FORMER_CAPABILITIES else capabilities,
        "userns": userns.isdigit(), "first_uid": int(userns) if userns.isdigit() else 0,
        "seccomp": seccomp != "off", "userns_reason": None, "seccomp_reason": None,
        "init": SHELL if found.get("init") else NO_INIT, "user": "0"})


def is_script_left(changing):
    """Return whether a container beside those ``changing`` is still a script of an earlier release: all share FORMER_FILTER."""
    names = os.listdir(STATE) if os.path.isdir(STATE) else ()
    return any(files_of_a_script(name) for name in names if name not in changing)


def files_of_a_script(name):
    """Return the paths of an earlier release's files that exist."""
    return [path for path in (f"{STATE}/{name}/{each}" for each in FORMER) if os.path.lexists(path)]
