# SPDX-License-Identifier: GPL-3.0-or-later
"""What the link modules need on a host: pyroute2, from the version that Debian 12 ships."""

from __future__ import annotations

import re
import traceback

from ansible.module_utils.basic import missing_required_lib

from ._errors import Problem

MINIMUM = (0, 7, 2)

try:
    import pyroute2
except ImportError:
    pyroute2 = None
    PYROUTE2_TRACEBACK = traceback.format_exc()
else:
    PYROUTE2_TRACEBACK = None


def pyroute2_version():
    """The installed version as a tuple of ints; ``None`` where it does not say."""
    try:
        from importlib.metadata import version
        found = version("pyroute2")
    except Exception:  # the metadata may be missing while the package works
        found = getattr(getattr(pyroute2, "config", None), "version", None)
    return tuple(int(part) for part in re.findall(r"\d+", found)[:3]) if found else None


def require_pyroute2():
    """Raises Problem with ``missing_library`` set where pyroute2 is absent or too old."""
    wanted = ".".join(str(part) for part in MINIMUM)
    if pyroute2 is None:
        raise Problem(missing_required_lib(f"pyroute2>={wanted}"), missing_library="pyroute2",
                      exception=PYROUTE2_TRACEBACK)
    found = pyroute2_version()
    if found is not None and found < MINIMUM:
        raise Problem(f"pyroute2 {'.'.join(str(part) for part in found)} is too old: {wanted} or newer is needed",
                      missing_library="pyroute2")
