# SPDX-License-Identifier: GPL-3.0-or-later
"""The results of the tasks of a run of Ansible, which a callback plugin of the tests writes down: no task has to do that."""

from __future__ import annotations

import json
from pathlib import Path


def enabled(path):
    """The environment of a run that writes its results to this file."""
    path.touch()
    return {"TASK_RESULTS": str(path), "ANSIBLE_CALLBACKS_ENABLED": "task_results",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback")}


def read(path):
    """(task, host, result), in the order in which they came."""
    return [(line["task"], line["host"], line["result"]) for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())]
