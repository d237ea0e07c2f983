# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom, so that planning stays pure and the kernel stays behind one door."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import install

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
HERE = "ansible_collections.fromscratch.containers.plugins.module_utils"
PACKAGES = {path.name: sorted(path.rglob("*.py")) for path in (PLUGINS / "module_utils").iterdir() if (path / "__init__.py").exists()}
UTILS = {**{path.stem: [path] for path in (PLUGINS / "module_utils").glob("_*.py")}, **PACKAGES}
LAUNCHER = sorted((PLUGINS / "module_utils/container/launcher").glob("*.py"))
ACTIONS = {path.stem for path in (PLUGINS / "action").glob("*.py")}  # their modules are documentation
MODULES = sorted(path for path in (PLUGINS / "modules").glob("*.py") if path.stem not in ACTIONS)
SOURCES = sorted(PLUGINS.rglob("*.py"))

PURE = {"_model", "_errors", "_plan", "_steps", "_commands", "_argspec", "_shared", "_left"}
# A module names its kind of thing, which alone knows the kernel.
KINDS = {"_bridge", "_vxlan", "_veth", "container", "rootfs", "_nft", "_forward", "_names", "_sysctl"}
FOR_MODULES = {"_run", "_argspec"}
# What would be the kernel: system calls, sockets, processes, and files other than by their names.
KERNEL = {"ctypes", "fcntl", "subprocess", "pyroute2"}


def imports(path):
    """Absolute names of what a file imports; the collection's own by their names below module_utils."""
    package = path.parent.relative_to(PLUGINS / "module_utils").parts if (PLUGINS / "module_utils") in path.parents else ()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [*package[:len(package) - node.level + 1]] if node.level else []
            origin = ".".join([HERE, *above, *filter(None, [node.module])]) if node.level else node.module
            own = origin[len(HERE) + 1:] if f"{origin}.".startswith(HERE + ".") else None
            if own is None:
                yield origin
            else:
                yield from (own if own in UTILS else f"{own}.{each.name}".lstrip(".") for each in node.names)


def roots(path):
    return {name if name in UTILS else name.split(".")[0] for name in imports(path)}


def reached(stem):
    """All files of the collection that one imports, directly or not."""
    found, todo = set(), [stem]
    while todo:
        new = set().union(*map(roots, UTILS[todo.pop()])) & set(UTILS) - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_the_run_and_its_kind(path):
    own = {name.split(".")[0] for name in imports(path) if not name.startswith("rootfs.download")} & set(UTILS)
    whole = path.stem == "topology"
    assert len(own & (KINDS | {"_topology"})) == 1 and "_run" in own
    assert own <= KINDS | FOR_MODULES | {"_topology"}
    assert reached("_topology") >= KINDS if whole else "_topology" not in own
    assert {each for each in imports(path) if each.startswith("ansible.")} == ({"ansible.module_utils.basic"} if whole else set())


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda path: path.stem)
def test_the_launcher_needs_the_standard_library_only(path):
    """It runs on a host that has neither Ansible nor this collection. And each file of it can be read in one sitting."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    found |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name.split(".")[0] for name in found} <= sys.stdlib_module_names
    assert all(node.level <= 1 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), "nothing above it"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_all_of_the_launcher_is_installed():
    assert {module.__name__.rpartition(".")[2] for module in install.MODULES} == {path.stem for path in LAUNCHER} - {"__init__"}


def test_pyroute2_has_four_importers():
    assert {path.stem for path in SOURCES if "pyroute2" in roots(path)} <= {"_link", "_netns", "_deps", "_conntrack"}


@pytest.mark.parametrize("stem", sorted(PURE))
def test_planning_and_rendering_are_pure(stem):
    assert reached(stem) <= PURE
    for each in reached(stem) | {stem}:
        assert not roots(*UTILS[each]) & (KERNEL | {"ansible"}), each


def test_the_model_imports_the_standard_library_only():
    assert reached("_model") == set()


def test_run_knows_no_kernel():
    assert reached("_run") <= PURE | {"_deps"}  # which asks for what the kernel is reached by, and does no more


def test_check_mode_is_asked_for_once():
    """On the controller, one action has a host planned by check mode before the real run."""
    asked = [path.stem for path in SOURCES if path.stem != "overlay_host" for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and node.attr == "check_mode"]
    assert asked == ["_run"]


def test_only_run_fails_or_exits_a_module():
    calls = {(path.stem, node.attr) for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and node.attr in ("fail_json", "exit_json")}
    assert calls == {("_run", "fail_json"), ("_run", "exit_json")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_manners(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if path.stem != "__init__":
        # In two pieces, as `reuse lint` would take the whole for this file's own.
        assert "# SPDX-License-" + "Identifier: GPL-3.0-or-later" in text.splitlines()[:2]
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, (ast.Assert, ast.Match))]
