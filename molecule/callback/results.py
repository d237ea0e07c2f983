# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what the collection's modules return, a JSON line for each task and host, into the file that RESULTS names."""

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: aggregate
short_description: Results of modules as JSON lines
description: For the tests that compare what runs have done.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "results"

    def v2_runner_on_ok(self, result):
        if "changes" in result.result:
            kept = {key: result.result[key] for key in ("changed", "changes", "commands", "diff")}
            kept["warnings"] = result.result.get("warnings", [])
            with open(os.environ["RESULTS"], "a", encoding="utf-8") as file:
                file.write(json.dumps({"host": result.host.get_name(), "task": result.task.get_name(), **kept}) + "\n")
