# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the bundle of a container: ``config.json`` of the OCI runtime specification 1.1, the subset that the launcher implements.

An unknown property is an error: what would be ignored might be what confines the container.
"""

from __future__ import annotations

import json
import os

from .record import STATE

ANNOTATION = "fromscratch."
LAYER = f"{ANNOTATION}layer"  # none, disk or tmpfs: what the container writes to
RUNTIME = f"{ANNOTATION}runtime"  # crun, runc or a path: what runs it in the place of this program
STOP_TIMEOUT = f"{ANNOTATION}stop-timeout"  # seconds between SIGTERM and SIGKILL
WAITS = f"{ANNOTATION}init-is-a-shell"  # process 1 is ready when it catches SIGTERM
DEVICES = f"{ANNOTATION}devices"  # nodes: /dev has nodes of its own, which work everywhere; else they work in /dev alone
ANEW = "run the playbook again, which writes it anew"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NUMBER, _TEXT, _YES, _TEXTS = int, str, bool, [str]
_IDS = [{"containerID": _NUMBER, "hostID": _NUMBER, "size": _NUMBER}]
KNOWN = {
    "ociVersion": _TEXT, "hostname": _TEXT, "root": {"path": _TEXT, "readonly": _YES}, "annotations": {None: _TEXT},
    "mounts": [{"destination": _TEXT, "type": _TEXT, "source": _TEXT, "options": _TEXTS}],
    "process": {
        "terminal": _YES, "user": {"uid": _NUMBER, "gid": _NUMBER, "additionalGids": [_NUMBER]}, "args": _TEXTS, "env": _TEXTS,
        "cwd": _TEXT, "noNewPrivileges": _YES, "rlimits": [{"type": _TEXT, "soft": _NUMBER, "hard": _NUMBER}],
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), _TEXTS)},
    "linux": {
        "namespaces": [{"type": _TEXT, "path": _TEXT}], "uidMappings": _IDS, "gidMappings": _IDS, "maskedPaths": _TEXTS,
        "readonlyPaths": _TEXTS, "sysctl": {None: _TEXT},
        "resources": {"memory": {"limit": _NUMBER, "swap": _NUMBER}, "cpu": {"quota": _NUMBER, "period": _NUMBER},
                      "pids": {"limit": _NUMBER}},
        "seccomp": {"defaultAction": _TEXT, "architectures": _TEXTS, "syscalls": [{
            "names": _TEXTS, "action": _TEXT, "errnoRet": _NUMBER,
            "args": [{"index": _NUMBER, "value": _NUMBER, "valueTwo": _NUMBER, "op": _TEXT}]}]}}}


class Refused(Exception):
    """Report what cannot be done: which item, where, and the remedy; ``code`` is the exit status."""

    code = 125


def words(error):
    """Return an exception as text: the call, its argument and the reason."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return f"config.json says what cannot be ({error!r}): {ANEW}"


def directory(name):
    """Return the state directory of a container. Raise Refused for what is not a valid name."""
    if not name or "/" in name or name.startswith("."):
        raise Refused(f"{name!r} is no name of a container: ns-container list shows those that there are")
    return f"{STATE}/{name}"


def load(name):
    """Return the bundle of a container as a dict. Raise Refused where it is missing, is not JSON or has an unknown property."""
    path = f"{directory(name)}/config.json"
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused(f"there is no container {name}: ns-container list shows those that there are") from None
    except ValueError as error:
        raise Refused(f"{path} is not the bundle of a container ({error}): {ANEW}") from None
    check(found, KNOWN, path)
    return found


def check(found, known, where):
    """Raise Refused for what is not in the table of known properties; ``where`` is the path to the value, for the message."""
    if isinstance(known, dict):
        if not isinstance(found, dict):
            raise Refused(f"{where}: {found!r} is no object: {ANEW}")
        for key, value in found.items():
            if key not in known and None not in known:
                raise Refused(f"{where}: {key!r} is not known here: remove it, or start the container by another runtime")
            check(value, known.get(key, known.get(None)), f"{where}: {key}")
    elif isinstance(known, list):
        if not isinstance(found, list):
            raise Refused(f"{where}: {found!r} is no list: {ANEW}")
        for entry in found:
            check(entry, known[0], where)
    elif not isinstance(found, known) or (known is int and isinstance(found, bool)):
        raise Refused(f"{where}: {found!r} is not of the type {known.__name__}: {ANEW}")


def annotation(config, key, default=""):
    """Return an annotation of the bundle, or the default."""
    return config.get("annotations", {}).get(key, default)


def mapped(config):
    """Return whether the container has a user namespace of its own."""
    return bool(config["linux"].get("uidMappings"))


def privileged(config):
    """Return whether root in the container has full control over the host."""
    return not mapped(config) and "CAP_SYS_ADMIN" in config["process"]["capabilities"]["bounding"]


def names():
    """Return the names of all containers of this host, sorted, including those that an earlier release wrote as scripts."""
    found = sorted(os.listdir(STATE)) if os.path.isdir(STATE) else []
    return [each for each in found if any(os.path.exists(f"{STATE}/{each}/{file}") for file in ("config.json", "container"))]
