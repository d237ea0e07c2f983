# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation site says what the code does: options, commands, variables, messages and paths that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.fromscratch.containers.plugins.module_utils.container import isolation, kind, recorded, service, spec
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import bundle, guard, namespaces
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import options as command_line
from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher import record as launcher_record
from ansible_collections.fromscratch.containers.plugins.module_utils.core.plan import NOW, diff
from ansible_collections.fromscratch.containers.plugins.module_utils.core.planning import desired
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall import sysctl
from ansible_collections.fromscratch.containers.plugins.module_utils.host import boot, managers, names, use
from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import KINDS
from ansible_collections.fromscratch.containers.plugins.module_utils.network import identity
from ansible_collections.fromscratch.containers.plugins.module_utils.network.bridge import Bridges
from ansible_collections.fromscratch.containers.plugins.module_utils.network.veth import VethPairs
from ansible_collections.fromscratch.containers.plugins.module_utils.network.vxlan import Vxlans
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs import kind as rootfs
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs import record, releases, store
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.download import OPTIONS

from ..overlay import part
from .documented import MODULES, documented
from .snapshot import HOST, Snapshot

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/docsite/rst").glob("*.rst"))}
NAME = "fromscratch.containers."
BLOCK = re.compile(r"^\.\. code-block:: (?P<language>\S+)\n(?:   :caption: (?P<caption>.*)\n)?\n(?P<text>(?:(?:   .*)?\n)+)", re.M)
DEFAULTS = yaml.safe_load((ROOT / "roles/overlay/defaults/main.yml").read_text(encoding="utf-8"))
VARIABLES = yaml.safe_load((ROOT / "roles/overlay/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["variables"]["options"]

DOCUMENTED = {path.stem: documented(path.stem) for path in MODULES.glob("*.py")}


@pytest.fixture
def kinds(monkeypatch):
    """The kinds of thing as on an empty Debian 13 with an x86 processor, whatever machine this is."""
    monkeypatch.setattr(identity, "_machine_id", lambda: "debian")
    monkeypatch.setattr(releases, "host_arch", lambda: "x86_64")
    monkeypatch.setattr(record, "read", lambda dest: None)
    monkeypatch.setattr(rootfs.os.path, "isdir", lambda path: False)
    monkeypatch.setattr(kind.network_namespaces, "exists", lambda name: False)
    monkeypatch.setattr(isolation, "refusal", lambda directory: None)
    # The article's hosts in one: each has an underlay device of the same name and MTU.
    links = Snapshot({HOST: {"enX0": {"mtu": 9001, "addresses": ["172.31.89.40/20", "172.31.94.69/20"]}}})
    return {"alpine_rootfs": rootfs.Rootfses({name: spec["default"] for name, spec in OPTIONS.items()}),
            "ns_container": kind.Containers(), "veth_pair": VethPairs(links=links),
            "linux_bridge": Bridges(links=links), "vxlan_link": Vxlans(links=links)}


def blocks(page, language):
    """(caption, text) of the page's examples."""
    return [(found["caption"], dedent(found["text"])) for found in BLOCK.finditer(PAGES[page] + "\n")
            if found["language"] == language]


def tasks(page):
    """(module without the collection's name, options) of the page's tasks of ours."""
    for unused, text in blocks(page, "yaml"):
        found = yaml.safe_load(text)
        for each in found if isinstance(found, list) else ():
            yield from ((key[len(NAME):], value) for key, value in each.items() if key.startswith(NAME))


def desired_of(kinds, module, options):
    """What the module makes of the options, as it does before it looks at the host."""
    lists = options if module == "topology" else {module: options.get("config", [options])}
    spec = {kind: {"type": "list", "elements": "dict", "options": kinds[kind].options} for kind in lists}
    checked = ArgumentSpecValidator(spec).validate(lists)
    assert checked.error_messages == []
    return [desired(kinds[kind], checked.validated_parameters[kind], option=kind) for kind in lists]


def wanted(kinds, module, options):
    return [{key: task.kind.complete(item, NOW) for key, item in task.items.items()} for task in desired_of(kinds, module, options)]


def rendered(kinds, module, options):
    """The commands, without those that write the files of a container and of its program, which the page names only."""
    found = [(task.option, [line for operation in task.kind.operations(diff(items, {})) for line in operation.commands()])
             for task, items in zip(desired_of(kinds, module, options), wanted(kinds, module, options))]
    return [line for option, lines in found for line in (lines[-1:] if option == "ns_container" else lines)]


def test_the_blocks_are_found():
    assert set(PAGES) == {"tutorial", "operations", "design", "isolation"}
    for page, text in PAGES.items():
        assert len(BLOCK.findall(text + "\n")) == text.count("code-block::"), page
    assert [module for module, unused in tasks("tutorial")] == [
        "alpine_rootfs", "ns_container", "veth_pair", "linux_bridge", "vxlan_link", "topology"]


def test_the_options_of_tasks_are_those_of_the_modules(kinds):
    for page in PAGES:
        for module, options in tasks(page):
            assert wanted(kinds, module, options), (page, module)
            assert set(options) <= set(DOCUMENTED[module]), (page, module)


def test_the_commands_are_those_of_the_modules(kinds):
    shown = [[line for line in text.replace("\\\n", "").splitlines() if line] for caption, text in blocks("tutorial", "shell")
             if caption == "Stands for"]
    steps = list(tasks("tutorial"))[:5]
    assert len(shown) == len(steps)
    for lines, (module, options) in zip(shown, steps):
        assert [each.split() for each in lines] == [each.split() for each in rendered(kinds, module, options)], module


def test_the_role_makes_what_the_tasks_make(kinds):
    steps = list(tasks("tutorial"))
    files = {caption: yaml.safe_load(text) for caption, text in blocks("tutorial", "yaml") if caption}
    for path, values in files.items():
        assert values == yaml.safe_load((ROOT / path).read_text(encoding="utf-8")), path
    hosts = {Path(path).stem: values for path, values in files.items()}
    for name, tasks_of_host in {"debian": steps[:5], "amazon": steps[5:]}.items():
        role = {"alpine_rootfs": [{"dest": DEFAULTS["overlay_rootfs"]}], **part(hosts, name)}
        for each in "nftables", "forward", "names", "sysctl", "publish":
            del role[each]  # they are no step of the article
        by_hand = [line for module, options in tasks_of_host for line in rendered(kinds, module, options)]
        assert rendered(kinds, "topology", role) == by_hand


def test_the_steps_of_a_start_are_there():
    lines = [line.strip() for line in (
        ROOT / "plugins/module_utils/container/launcher/start.py").read_text(encoding="utf-8").splitlines()]
    shown, = [text.splitlines() for caption, text in blocks("tutorial", "python") if caption == "From launcher/start.py"]
    places = [lines.index(line) for line in shown if line]
    assert places == sorted(places), "in this order"


def test_commands_of_the_launcher_are_its_own():
    for page, text in {**PAGES, "README": (ROOT / "README.md").read_text(encoding="utf-8")}.items():
        assert set(re.findall(r"ns-container (?=[a-z])(\w+)", text)) <= set(command_line.VERBS), page


def test_the_words_of_a_bundle_are_those_that_are_documented():
    linux = {"namespaces", "uidMappings", "gidMappings", "maskedPaths", "readonlyPaths", "sysctl", "resources", "seccomp"}
    assert linux == set(bundle.KNOWN["linux"]) and all(f"``{word}``" in PAGES["design"] for word in linux)


@pytest.mark.parametrize("page", PAGES)
def test_variables_are_those_of_the_role(page):
    assert set(re.findall(r"\boverlay_\w+", PAGES[page])) <= set(VARIABLES)


def test_variables_fit_together():
    found = [yaml.safe_load(text) for unused, text in blocks("operations", "yaml")]
    found = [each for each in found if "overlay_networks" in each]
    assert found
    for each in found:
        items = part({"debian": each}, "debian")
        assert len(items["linux_bridge"]) == len(each["overlay_networks"])


def messages():
    """All that the plugins and the role can say, a NUL for each value in it."""
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(each.value if isinstance(each, ast.Constant) else "\0" for each in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    for path in (ROOT / "roles").rglob("*.yml"):
        yield path.read_text(encoding="utf-8")


def test_messages_are_those_of_the_code():
    quoted = re.findall(r'^   \* - "(.*)"$', PAGES["operations"], re.M)
    said = "\n".join(messages())
    assert len(quoted) > 9 and [each for each in quoted if each not in said] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_project_are_there(page):
    named = re.findall(r"(?<![\w/.])(?:playbooks|inventory|plugins|roles|scripts|tests)/[\w/.-]*\w|(?<![\w/.])site\.yml", PAGES[page])
    assert [each for each in named if not (ROOT / each).exists()] == []
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"``make ([a-z-]+)``", PAGES[page])) <= set(targets)


README = (ROOT / "README.md").read_text(encoding="utf-8")
GLOSSARY = ("desired", "observed", "change", "operation", "plan", "peer", "VTEP", "tree", "layer", "ownership")


def first_cells(text, heading):
    """The code spans in the first cell of each row of a Markdown table, in its order."""
    table = text.partition(heading)[2].lstrip("\n").partition("\n\n")[0]
    return [re.match(r"\| \[?`([^`]+)`", line)[1] for line in table.splitlines()[1:] if "`" in line]


def test_ten_words_have_one_definition_each():
    assert tuple(re.findall(r"^\*\*(\w+)\*\*\n {3}\S", PAGES["design"], re.M)) == GLOSSARY
    for page, text in PAGES.items():
        assert set(re.findall(r"\b(wanted|strangers?)\b", text)) <= set(), f"{page}: desired, and peer, are the words"


def test_the_kinds_are_those_of_the_topology():
    listed = re.search(r"In their order they are (.*?)\. It works", PAGES["design"], re.S)[1]
    assert tuple(re.findall(r"``(\w+)``", listed)) == tuple(KINDS)


def test_the_readme_has_all_modules_and_all_variables_with_their_defaults():
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    assert set(first_cells(README, "| module | what it manages |")) == modules - {path.stem for path in (ROOT / "plugins/action").glob("*.py")}
    assert first_cells(README, "| variable | default | meaning |") and set(
        first_cells(README, "| variable | default | meaning |")) == set(VARIABLES)
    for name, default in re.findall(r"^\| `(overlay_\w+)` \| `([^`]*)` \|", README, re.M):
        assert yaml.safe_load(default) == VARIABLES[name].get("default", spec.OWN_RUNTIME if name == "overlay_runtime" else None), name
    options = re.search(r"Each of `overlay_containers` has (.*?) as\n", README, re.S)[1]
    assert set(re.findall(r"`([a-z_]+)`", options)) - {"overlay_networks"} == set(VARIABLES["overlay_containers"]["options"]) - {"runtime"}
    networks = re.search(r"^\| `overlay_networks` \| one \| (.*) \|$", README, re.M)[1]
    assert set(re.findall(r"`([a-z_]+)`", networks)) == set(VARIABLES["overlay_networks"]["options"])


@pytest.mark.parametrize("page", ["README.md", "roles/overlay/README.md"])
def test_what_a_readme_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.M)) <= set(targets)
    assert [path for path in re.findall(r"\]\(([^)#]+)\)", text) if not (ROOT / page).parent.joinpath(path).exists()] == []
    assert set(re.findall(r"\boverlay_\w+", text)) <= set(VARIABLES)


def test_paths_of_the_host_are_those_of_the_code():
    table = PAGES["operations"].partition("Where the state lives")[2].partition("The packet filters are")[0]
    home = f"{launcher_record.STATE}/NAME"
    assert [path.replace("…/NAME", home) for line in re.findall(r"^   \* - (``.*)$", table, re.M) for path in re.findall(r"``(/.*?|…/.*?)``", line)] == [
        f"{home}/", f"{home}/{recorded.BUNDLE}", f"{home}/log", f"{home}/layer/upper/", f"{home}/root/", f"{launcher_record.RUN}/NAME",
        f"{namespaces.RUN_NETNS}/NAME", f"{launcher_record.USERS}/NAME", f"{Path(guard.PROGRAM).parent}/", DEFAULTS["overlay_rootfs"],
        store.place(DEFAULTS["overlay_rootfs"], "DIGEST") + "/", use.PATH, names.path("NETWORK", ""), sysctl.FORMER + "/", boot.SCRIPT, boot.UNIT,
        service.TEMPLATE, boot.TABLES, boot.HOOK, boot.RULES, managers.NETWORKD, managers.NETWORK_MANAGER]


def test_figures_are_those_of_the_code():
    assert "**Capabilities**: the eleven that podman grants" in PAGES["design"] and len(spec.CAPABILITIES) == 11
    assert "net_raw" not in spec.CAPABILITIES and "``NET_RAW``, which is not among those of the default" in PAGES["operations"]
    assert f"Linux {'.'.join(map(str, kind.OLDEST_LINUX))} or newer" in README and f"{spec.RANGE} user ids" in PAGES["design"]


def test_the_script_at_boot_runs_what_the_pages_say():
    """It needs Python for the launcher, which makes the namespaces, but neither Ansible nor pyroute2."""
    assert kind.Containers().boot([spec.Container(name="web")]) == [f"{guard.PROGRAM} namespace web"]
    for text in README, PAGES["operations"]:
        assert "either Ansible nor pyroute2" in " ".join(text.split())
