# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests share. Plain ``pytest`` from the repository's root finds the collection below ``.collections``."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / ".collections"


if COLLECTIONS.is_dir():  # else a copy of the collection that ansible-test has put into a tree of its own
    if importlib.util.find_spec("ansible.plugins"):
        os.environ.setdefault("ANSIBLE_COLLECTIONS_PATH", str(COLLECTIONS))
        from ansible.plugins.loader import init_plugin_loader

        init_plugin_loader([str(COLLECTIONS)])
    else:  # a Python of hosts, where scripts/matrix gives of Ansible what comes with a module, and nothing else
        sys.path.insert(0, str(COLLECTIONS))
