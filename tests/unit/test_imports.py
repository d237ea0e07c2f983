# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom, so that planning stays pure and the kernel stays behind one door."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.container import install

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
DESIGN = PLUGINS.parent / "docs/docsite/rst/design.rst"
HERE = "ansible_collections.fromscratch.containers.plugins"
ACTIONS = {path.stem for path in (PLUGINS / "action").glob("*.py")}  # their modules are documentation
MODULES = sorted(path for path in (PLUGINS / "modules").glob("*.py") if path.stem not in ACTIONS)
LAUNCHER = sorted((PLUGINS / "module_utils/container/launcher").glob("*.py"))
SOURCES = sorted(PLUGINS.rglob("*.py"))


def dotted(path):
    """The name of a file below plugins/; what module_utils has goes without that."""
    return ".".join(path.relative_to(PLUGINS).with_suffix("").parts).replace("module_utils.", "", 1).replace(".__init__", "")


FILES = {dotted(path): path for path in SOURCES}

# Who imports whom: a rule per directory.
ALLOWED = {
    "core": set(),
    "network": {"core", "container.launcher"},  # the namespace of a running container
    "firewall": {"core", "network"},
    "container": {"core", "network", "rootfs"},
    "rootfs": {"core", "container"},  # the trees that containers run on
    "host": {"core", "network", "firewall", "container", "rootfs"},
    "modules": {"core", "network", "firewall", "container", "rootfs", "host"},
    "plugin_utils": {"core", "network", "container", "host"},
    "action": {"core", "plugin_utils"},
    "inventory": {"core", "container", "plugin_utils"},
    "connection": {"core", "container", "plugin_utils"},
    "doc_fragments": {"host"},  # documentation made of the specification
}
# They work on data alone: neither kernel nor Ansible.
PURE = {"core.resource", "core.errors", "core.plan", "core.validate", "core.argspec", "core.conflicts", "core.kind", "core.left_behind",
        "core.planning",
        "network.links", "network.operations", "network.iproute2", "network.addressing", "network.view", "network.routes"}
# A module names its kind of thing, which alone knows the kernel.
KINDS = {"network.bridge", "network.vxlan", "network.veth", "container.kind", "rootfs.kind", "firewall.nftables", "firewall.forward",
         "host.names", "firewall.sysctl"}
FOR_MODULES = {"core.run", "core.argspec"}
# What would be the kernel: system calls, sockets, processes, and files other than by their names.
KERNEL = {"ctypes", "fcntl", "subprocess", "pyroute2"}


def imports(path):
    """Absolute names of what a file imports; the collection's own files as ``dotted`` names them."""
    package = path.parent.relative_to(PLUGINS).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1]
            origin = ".".join([HERE, *above, *filter(None, [node.module])]) if node.level else node.module
            if not f"{origin}.".startswith(HERE + "."):
                yield origin
                continue
            for alias in node.names:
                whole = f"{origin}.{alias.name}"[len(HERE) + 1:].replace("module_utils.", "", 1)
                yield whole if whole in FILES else whole.rpartition(".")[0]


def reached(name):
    """All files of the collection that one imports, directly or not."""
    found, todo = set(), [name]
    while todo:
        new = set(imports(FILES[todo.pop()])) & set(FILES) - found
        found |= new
        todo += new
    return found


def roots(path):
    return {name.split(".")[0] for name in imports(path)}


def test_a_rule_stands_for_each_directory():
    assert {name.split(".")[0] for name in FILES if "." in name} == set(ALLOWED)


def test_the_design_tells_these_rules():
    layers = DESIGN.read_text(encoding="utf-8").partition("\nPackages\n---")[2]
    rows = re.findall(r"^   \* - ``(\w+)``\n     - .*?\n     - (.*?)(?=\n   \* - |\n\n)", layers, re.M | re.S)
    documented = {package: {*re.findall(r"``([\w.]+)``", text.partition(";")[0])} for package, text in rows}
    assert set(documented) == {path.name for path in (PLUGINS / "module_utils").iterdir() if (path / "__init__.py").exists()}
    assert ("host", "all of these") in rows and ALLOWED["host"] == {*documented} - {"host"}
    assert {**documented, "host": ALLOWED["host"]} == {package: ALLOWED[package] for package in documented}


@pytest.mark.parametrize("path", SOURCES, ids=dotted)
def test_who_imports_whom(path):
    own = dotted(path).split(".", maxsplit=1)[0]
    allowed = tuple(f"{name}." for name in ALLOWED.get(own, set()) | {own})
    found = {name for name in imports(path) if name in FILES}
    assert not {name for name in found if not f"{name}.".startswith(allowed)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_the_run_and_its_kind(path):
    own = set(imports(path)) & set(FILES) - {"rootfs.download"}
    whole = path.stem == "topology"
    assert len(own & (KINDS | {"host.topology"})) == 1 and "core.run" in own
    assert own <= KINDS | FOR_MODULES | {"host.topology"}
    assert reached("host.topology") >= KINDS if whole else "host.topology" not in own
    assert not {name for name in imports(path) if name.startswith("ansible.")}


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
    assert {name: path.read_text(encoding="utf-8") for path in LAUNCHER if (name := path.name) != "__init__.py"} == install.modules()


def test_pyroute2_has_three_importers():
    assert {dotted(path) for path in SOURCES if "pyroute2" in roots(path)} == {
        "network.netlink", "core.dependencies", "firewall.conntrack"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_planning_and_rendering_are_pure(name):
    assert reached(name) <= PURE
    for each in reached(name) | {name}:
        assert not roots(FILES[each]) & (KERNEL | {"ansible"}), each


def test_resources_and_errors_import_the_standard_library_only():
    assert not reached("core.resource") | reached("core.errors")


def test_run_knows_no_kernel():
    assert reached("core.run") <= PURE | {"core.dependencies"}  # which asks for what the kernel is reached by, and does no more


def test_check_mode_is_asked_for_once():
    """On the controller, one action has a host planned by check mode before the real run."""
    asked = [path.stem for path in SOURCES if path.stem != "overlay_host" for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and node.attr == "check_mode"]
    assert asked == ["run"]


def test_only_run_fails_or_exits_a_module():
    calls = {(path.stem, node.attr) for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and node.attr in ("fail_json", "exit_json")}
    assert calls == {("run", "fail_json"), ("run", "exit_json")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_manners(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if path.stem != "__init__":
        # In two pieces, as `reuse lint` would take the whole for this file's own.
        assert "# SPDX-License-" + "Identifier: GPL-3.0-or-later" in text.splitlines()[:2]
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, (ast.Assert, ast.Match))]
