# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the result of each task on each host as a JSON line into the file that TASK_RESULTS names."""

from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_results
type: aggregate
short_description: Results of tasks as JSON lines
description: For the tests that look at what tasks have returned.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_results"

    def v2_runner_on_ok(self, result):
        self._write(result, failed=False)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write(result, failed=True)

    def v2_runner_on_unreachable(self, result):
        self._write(result, unreachable=True)

    @staticmethod
    def _write(result, **outcome):
        line = {"host": result.host.get_name(), "task": result.task.get_name(), "result": {**result.result, **outcome}}
        with open(os.environ["TASK_RESULTS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
