# SPDX-License-Identifier: GPL-3.0-or-later
"""Check what the modules need on a host beside Python: programs, and pyroute2 from the version that Debian 12 ships.

All that is missing is reported at once, before anything is planned, each with its package: as text for people, and as ``missing``
for the role.
"""

from __future__ import annotations

import os
import re
import shutil
import traceback
from typing import Optional

from .errors import ModuleError

PYROUTE2 = "pyroute2"
MINIMUM = (0, 7, 2)
# The packages of Debian and of Red Hat's family, by program.
PACKAGES = {
    "crun": ("crun", "crun"),
    "ip": ("iproute2", "iproute"),
    "nft": ("nftables", "nftables"),
    "runc": ("runc", "runc"),
    "sysctl": ("procps", "procps-ng"),
    "unshare": ("util-linux", "util-linux-core"),
}
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def import_failure():
    """Return the traceback of an import of pyroute2, or None where it can be imported.

    The import takes time: call it where needed.
    """
    try:
        import pyroute2  # noqa: F401
    except ImportError:
        return traceback.format_exc()
    return None


def pyroute2_version():
    """Return the installed version as a tuple of ints, or None where it is unknown."""
    try:
        from importlib.metadata import version
        found: Optional[str] = version(PYROUTE2)
    except Exception:  # the metadata may be missing while the package works
        import pyroute2
        found = getattr(getattr(pyroute2, "config", None), "version", None)
    return tuple(int(part) for part in re.findall(r"\d+", found)[:3]) if found else None


def require(names):
    """Raise ModuleError where this host lacks any of these programs, or pyroute2; it names all that are missing."""
    reasons = {name: _wrong_with(name) for name in set(names)}
    missing = sorted(name for name, reason in reasons.items() if reason)
    if missing:
        failure = import_failure() if PYROUTE2 in missing else None
        packages = [(name, *PACKAGES.get(name, ("python3-pyroute2", None))) for name in missing]
        raise ModuleError(
            "This host lacks what the task needs: " + "; ".join(reasons[name] for name in missing),
            missing=[{"name": name, "deb": deb, "rpm": rpm} for name, deb, rpm in packages],
            **({"exception": failure} if failure else {}))


def _wrong_with(name):
    """Return what is missing and its remedy as text, or None where it is there."""
    if name != PYROUTE2:
        return None if found(name) else without(name)
    wanted = ".".join(map(str, MINIMUM))
    version = None
    if import_failure() is None:
        version = pyroute2_version()
        if version is None or version >= MINIMUM:
            return None
    old = f", and {'.'.join(map(str, version))} is too old" if version else ""
    return (f"the Python library pyroute2 {wanted} or newer{old} (the package python3-pyroute2 from Debian 12 or Ubuntu 24.04 on; "
            "pip install pyroute2 elsewhere)")


def without(program):
    """Return the name of a missing program with its package."""
    deb, rpm = PACKAGES[program]
    return f"the program {program} (the package {deb}{'' if rpm == deb else f', {rpm} in the family of Red Hat'})"


def found(program):
    """Return the path of a program, or None where neither the caller's PATH nor the usual directories have it."""
    return shutil.which(program, path=os.pathsep.join(filter(None, [os.environ.get("PATH"), PATHS])))
