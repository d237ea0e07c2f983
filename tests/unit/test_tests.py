# SPDX-License-Identifier: GPL-3.0-or-later
"""What test modules have in common is in modules and fixtures of its own, so that each of them can be read, run and changed alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULES = sorted([*TESTS.rglob("test_*.py"), *(TESTS.parent / "molecule").rglob("test_*.py")])


def imported(tree):
    """All names of modules, and of what is taken from them, without the packages before them."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]:
                yield from name.split(".")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS.parent)))
def test_no_test_module_imports_another(path):
    names = {module.stem for module in MODULES}
    assert {path.stem, "test_imports"} <= names
    assert not names & set(imported(ast.parse(path.read_text(encoding="utf-8"))))
