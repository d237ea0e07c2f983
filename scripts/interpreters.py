# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pythons of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def real_python(version):
    """The interpreter itself, behind any shim; None where there is none, or it cannot make environments."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [f"python{version}", *sorted(map(str, managed.glob(f"{version}.*/bin/python{version}")))]
    if tuple(map(int, version.split("."))) == sys.version_info[:2]:
        places.insert(0, str(Path(sys.base_prefix) / "bin" / f"python{version}"))
    for place in places:
        try:
            told = subprocess.run([place, "-c", "import ensurepip, sys, venv; print(sys.executable)"],
                                  capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            continue
        if Path(told).name == f"python{version}":
            return Path(told)
    return None
