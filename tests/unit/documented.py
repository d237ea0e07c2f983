# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of a module as ansible-doc has it, fragments included."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import get_docstring

MODULES = Path(__file__).resolve().parents[2] / "plugins/modules"


def documented(module):
    """The options of a module, by name."""
    return get_docstring(str(MODULES / f"{module}.py"), fragment_loader)[0]["options"]
