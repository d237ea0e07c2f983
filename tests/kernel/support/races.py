# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else does at a certain moment of a run."""

from __future__ import annotations


def before(monkeypatch, module, name, action):
    """Do something once, right before a function of a module is called."""
    function, todo = getattr(module, name), [action]

    def call(*args, **options):
        while todo:
            todo.pop()()
        return function(*args, **options)

    monkeypatch.setattr(module, name, call)
