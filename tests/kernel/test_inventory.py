# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin, beside an inventory of hosts, by real runs of ansible-inventory and ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader

from ..conftest import ROOT
from .support.remote import Remote, run_tasks, settings

PLUGIN = "fromscratch.containers.containers"
OURS = "fromscratch.containers.ns_container"
BIN = f"{sys.prefix}/bin"


@pytest.fixture
def inventory(tmp_path):
    """Writes a directory of inventory sources."""
    def write(hosts, files=(), **options):
        sources = {"hosts.yml": hosts, "overlay.containers.yml": {"plugin": PLUGIN, **options}, **dict(files)}
        for name, content in sources.items():
            path = tmp_path / "inventory" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
        return tmp_path / "inventory"
    return write


def listed(done):
    """Groups and variables, as ``ansible-inventory --list`` prints them."""
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, object_hook=lambda each: each.get("__ansible_unsafe", each))
    return {name: set(group.get("hosts", [])) for name, group in found.items() if name != "_meta"}, found["_meta"]["hostvars"]


def test_what_is_listed(inventory, tmp_path):
    """Variables count wherever they stand, templates too; nothing is asked of hosts."""
    directory = inventory(
        {"all": {"vars": {"net": "10.0.0"}}, "overlay": {"hosts": {"debian.example.com": {"overlay_containers": [
            {"name": "a", "address": "{{ net }}.100/24", "addresses": ["fd00::100/64"]},
            {"name": "b", "address": "{{ net }}.101/24", "network": "storage"}]}, "amazon": {}, "idle": {}}},
         "other": {"hosts": {"stranger": {"overlay_containers": [{"name": "z", "address": "10.0.0.99/24"}]}}}},
        {"host_vars/amazon.yml": {"overlay_containers": [{"name": "c", "address": "{{ here }}"}]},
         "group_vars/all.yml": {"here": "10.0.0.200/24"},
         "group_vars/overlay.yml": {"overlay_networks": [{"name": "front"}, {"name": "storage"}]}},
        compose={"bare": "container_addresses[0] | split('/') | first"}, groups={"high": "container_network == 'storage'"},
        keyed_groups=[{"prefix": "state", "key": "container_state"}])
    groups, variables = listed(subprocess.run([f"{BIN}/ansible-inventory", "-i", directory, "--list"], cwd=ROOT, capture_output=True,
                                              text=True, check=False, env=settings(tmp_path)))
    assert groups["containers"] == {"a", "b", "c"}
    assert groups["on_debian_example_com"] == {"a", "b"} and groups["on_amazon"] == {"c"} and "on_idle" not in groups
    assert groups["network_front"] == {"a", "c"} and groups["network_storage"] == groups["high"] == {"b"}
    assert groups["state_unknown"] == {"a", "b", "c"} and not any("z" in group for group in groups.values())
    assert variables["a"] == {
        "ansible_connection": OURS, "ansible_ns_container_host": "debian.example.com", "ansible_ns_container_name": "a",
        "bare": "10.0.0.100", "container_addresses": ["10.0.0.100/24", "fd00::100/64"], "container_host": "debian.example.com",
        "container_network": "front", "container_state": "unknown", "here": "10.0.0.200/24", "net": "10.0.0"}
    assert variables["c"]["container_addresses"] == ["10.0.0.200/24"]


def parsed(inventory, hosts, **options):
    directory, loader = inventory(hosts, **options), DataLoader()
    known = InventoryManager(loader, [str(directory / "hosts.yml")])._inventory
    inventory_loader.get(PLUGIN).parse(known, loader, str(directory / "overlay.containers.yml"))
    return known


def test_expressions_know_groups_and_group_names(inventory):
    address = "10.0.0.{{ groups['overlay'].index(inventory_hostname) + 100 }}/24"
    known = parsed(inventory, {"overlay": {"hosts": {name: {"overlay_containers": [
        {"name": f"c-{name}", "address": address, "network": "{{ group_names[0] }}"}]} for name in ("h1", "h2")}}},
        compose={"first": "groups['overlay'][0]"}, groups={"both": "'containers' in group_names"})
    assert [(each.get_vars()["container_addresses"], each.get_vars()["container_network"], each.get_vars()["first"])
            for each in map(known.get_host, ("c-h1", "c-h2"))] == [(["10.0.0.100/24"], "overlay", "h1"), (["10.0.0.101/24"], "overlay", "h1")]
    assert {each.name for each in known.groups["both"].hosts} == {"c-h1", "c-h2"}


def test_hosts_and_networks_of_like_names_share_no_group(inventory):
    names = "web-1", "web_1", "web.1", "db-1"
    known = parsed(inventory, {"overlay": {"hosts": {name: {"overlay_containers": [{"name": f"of.{name}", "network": name}]}
                                                     for name in names}}})
    for prefix in "on_", "network_":
        groups = {each.name: [host.name for host in each.hosts] for each in known.groups.values() if each.name.startswith(prefix)}
        assert len(groups) == 4 and sorted(groups.values()) == sorted([f"of.{name}"] for name in names)
        assert groups[f"{prefix}web_1"] == ["of.web_1"] and groups[f"{prefix}db_1"] == ["of.db-1"]


def test_a_file_of_another_name_says_how_it_has_to_end(inventory, tmp_path):
    directory = inventory(one(), {"overlay.yml": {"plugin": PLUGIN}})
    (directory / "overlay.yml").write_text(f"plugin: {PLUGIN}\n", encoding="utf-8")
    done = subprocess.run([f"{BIN}/ansible-inventory", "-i", directory / "overlay.yml", "--list"], cwd=ROOT, capture_output=True,
                          text=True, check=False, env=settings(tmp_path))
    assert "has to end with containers.yml or containers.yaml" in " ".join(done.stderr.split()), done.stderr
    assert not inventory_loader.get(PLUGIN).verify_file(str(directory / "hosts.yml"))


def one(**variables):
    return {"overlay": {"hosts": {"debian": variables}}}


@pytest.mark.parametrize(("hosts", "options", "words"), [
    (one(), {"group": "nodes"}, "group: 'nodes' is not a group of the inventory sources that are read before"),
    (one(), {"grupp": "nodes"}, "grupp: there is no such option, but compose, group, groups"),
    (one(), {"plugin": "constructed"}, "Incorrect plugin name in file: constructed"),
    (one(overlay_containers="web"), {}, "debian: overlay_containers: 'web' is not valid"),
    (one(overlay_containers=[{"address": "10.0.0.1/24"}]), {}, "debian: overlay_containers: [{'address': '10.0.0.1/24'}] is not valid"),
    (one(overlay_containers=[{"name": 7}]), {}, "debian: overlay_containers: [{'name': 7}] is not valid"),
    (one(overlay_containers=[{"name": "a b"}]), {}, "debian: overlay_containers.name: 'a b' is not valid"),
    (one(overlay_containers=[{"name": "debian"}]), {}, "debian: overlay_containers.name: 'debian' is not valid: the inventory has a host"),
    (one(overlay_containers=[{"name": "a"}, {"name": "a"}]), {}, "overlay_containers.name: 'a' is not valid: debian has a container of"),
    (one(overlay_containers=[{"name": "a"}], overlay_networks=["x"]), {}, "debian: overlay_networks: ['x'] is not valid"),
    (one(overlay_containers="{{ nothing }}"), {}, "debian: 'nothing' is undefined"),
    (one(overlay_containers=[{"name": "a"}]), {"strict": True, "compose": {"x": "nothing"}}, "Could not set x for host a")])
def test_what_is_wrong(inventory, hosts, options, words):
    directory, loader = inventory(hosts, **options), DataLoader()
    known = InventoryManager(loader, [str(directory / "hosts.yml")])._inventory
    with pytest.raises(Exception) as raised:
        inventory_loader.get(PLUGIN).parse(known, loader, str(directory / "overlay.containers.yml"))
    assert isinstance(raised.value, AnsibleParserError) or "strict" in options
    assert words in str(raised.value)


def test_which_files_are_taken(inventory):
    plugin, directory = inventory_loader.get(PLUGIN), inventory({}, {"containers.yaml": {}})
    assert [each.name for each in sorted(directory.iterdir()) if plugin.verify_file(str(each))] == [
        "containers.yaml", "overlay.containers.yml"]


@pytest.fixture(scope="module")
def remote(apart, rootfs, tmp_path_factory):
    found = Remote(tmp_path_factory.mktemp("remote"), rootfs)
    wanted = [{"name": "on", "rootfs": rootfs}, {"name": "off", "rootfs": rootfs, "state": "stopped"}, {"name": "more", "rootfs": rootfs}]
    made, = run_tasks(found.run, found.directory, {"hosts": found.variables}, ["debian"], [{OURS: {"config": wanted}}])["debian"]
    assert made["changed"], made
    yield found
    found.close()


def test_states_of_hosts_that_are_asked(remote, inventory):
    """By ssh through a jump host and sudo, by the collection's own connection, all at once; and two that do not answer."""
    def containers(*names):
        return {"overlay_containers": [{"name": each, "address": f"10.0.0.{100 + len(each)}/24"} for each in names]}

    twins = {f"twin{each}": {"ansible_connection": OURS, "ansible_ns_container_name": "amazon", **containers(f"none{each}")}
             for each in range(8)}
    hosts = {**twins, "debian": {**remote.variables["debian"], **containers("on", "off", "not-yet")},
             "down": {**remote.variables["amazon"], "ansible_port": 1, **containers("who")},
             "closed": {**remote.variables["debian"], "ansible_user": "guest", "ansible_become": False, **containers("knows")}}
    directory = inventory({"overlay": {"hosts": hosts}}, state=True, keyed_groups=[{"prefix": "state", "key": "container_state"}])
    done = remote.run(f"{BIN}/ansible-inventory", "-i", str(directory), "--list")
    groups, variables = listed(done)
    assert {name: variables[name]["container_state"] for name in groups["containers"]} == {
        "on": "started", "off": "stopped", "not-yet": "absent", "who": "unknown", "knows": "unknown",
        **{f"none{each}": "absent" for each in range(8)}}
    assert groups["state_started"] == {"on"} and groups["on_debian"] == {"on", "off", "not-yet"}
    warnings = " ".join(done.stderr.split())
    assert "The state of the containers of down is unknown: " in warnings and "port 1: Connection refused" in warnings
    assert "The state of the containers of closed is unknown: Entering containers of closed needs root there" in warnings


def test_ansible_on_all_containers(remote, inventory, tmp_path):
    """How a host is reached may also stand beside the playbook, which the inventory plugin does not see."""
    hosts = {"debian": {**remote.variables["debian"], "overlay_containers": [{"name": each} for each in ("on", "more")]}}
    directory = inventory({"overlay": {"hosts": hosts}})
    done = remote.run(f"{BIN}/ansible", "containers", "-i", str(directory), "-m", "ansible.builtin.raw", "-a", "hostname; ip -o link")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on | CHANGED | rc=0 >>\non\n" in done.stdout and "more | CHANGED | rc=0 >>\nmore\n" in done.stdout
    hosts["debian"].pop("ansible_host")
    directory = inventory({"overlay": {"hosts": hosts}})
    os.makedirs(tmp_path / "group_vars")
    (tmp_path / "group_vars/overlay.yml").write_text(json.dumps({"ansible_host": "{{ far }}"}), encoding="utf-8")
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "on_debian", "gather_facts": False, "tasks": [{"ansible.builtin.raw": "hostname"}]}]),
                        encoding="utf-8")
    done = remote.run(f"{BIN}/ansible-playbook", "-i", str(directory), str(playbook))
    assert done.returncode == 0, done.stdout + done.stderr
