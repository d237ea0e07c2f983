# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's modules as ansible-core runs them, in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from types import SimpleNamespace
from unittest import mock

from ansible.module_utils.testing import patch_module_args

MODULES = "ansible_collections.fromscratch.containers.plugins.modules"


class Result(SimpleNamespace):
    """A module's JSON result by attribute; ``failed`` is always there, ``warnings`` a list."""


def run_module(module, /, check=False, **params):
    """Run a module as ansible-core does, in this process: real arguments in, real JSON out."""
    main = importlib.import_module(f"{MODULES}.{module}").main
    arguments = {**params, "_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": "/tmp",
                 "_ansible_keep_remote_files": False}
    out, warnings = io.StringIO(), []
    # Where ansible-core finds its controller in the same process, a module's warnings go to the screen.
    with (patch_module_args(arguments), contextlib.redirect_stdout(out), contextlib.suppress(SystemExit),
          mock.patch("ansible.module_utils.basic.AnsibleModule.warn", lambda self, text: warnings.append(text))):
        main()
    return Result(**{"failed": False, "changed": False, **json.loads(out.getvalue()), "warnings": warnings})


def utils(name):
    return importlib.import_module(MODULES.replace(".modules", f".module_utils.{name}"))
