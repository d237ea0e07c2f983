# SPDX-License-Identifier: GPL-3.0-or-later
"""testinfra hosts over Ansible's own connections: the inventory says which hosts there are and how to reach them.

testinfra's ``ansible://`` backend starts an ``ansible`` process for each command, which is five seconds; here the same
connection plugin runs it in this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader, init_plugin_loader
from ansible.vars.manager import VariableManager
from testinfra.backend.base import BaseBackend
from testinfra.host import Host

ROOT = Path(__file__).resolve().parent.parent
init_plugin_loader([str(ROOT / ".collections")])


class AnsibleConnection(BaseBackend):
    """Runs commands through the connection plugin that the inventory names for the host."""

    NAME = "ansible-connection"

    def __init__(self, name, variables):
        super().__init__(hostname=name)
        self.connection = connection_loader.get(variables["ansible_connection"], PlayContext())
        self.connection.set_options(var_options={"inventory_hostname": name, **variables})

    def run(self, command, *args, **unused):
        line = self.get_command(command, *args)
        code, out, err = self.connection.exec_command(line)
        return self.result(code, self.encode(line), out, err)


class Overlay:
    """The hosts of an inventory, each as a testinfra host."""

    def __init__(self, inventory):
        self.inventory = inventory
        loader = DataLoader()
        self.manager = InventoryManager(loader=loader, sources=[inventory])
        variables = VariableManager(loader=loader, inventory=self.manager)
        self.variables = {host.name: variables.get_vars(host=host, include_hostvars=False)
                          for host in self.manager.get_hosts("overlay")}
        self.hosts = {name: Host(AnsibleConnection(name, each)) for name, each in self.variables.items()}

    def js(self, name, command):
        """The JSON that a command prints on a host."""
        return json.loads(self.hosts[name].check_output(command) or "[]")

    def refused(self, playbook, *options):
        """Run a playbook of the project, which must fail; what it said, on one line."""
        done = self._run(playbook, options, {})
        assert done.returncode != 0, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    def _run(self, playbook, options, environment):
        return subprocess.run(["ansible-playbook", "-i", self.inventory, str(ROOT / playbook), *options], cwd=ROOT,
                              env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **environment},
                              capture_output=True, text=True, check=False)

    def play(self, playbook, *options):
        """Run a playbook of the project; what the collection's modules returned."""
        with tempfile.NamedTemporaryFile("r") as results:
            done = self._run(playbook, options, {
                "RESULTS": results.name, "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "molecule/callback"),
                "ANSIBLE_CALLBACKS_ENABLED": "results"})
            assert done.returncode == 0, done.stdout + done.stderr
            found = [json.loads(line) for line in results]
        return sorted(found, key=lambda each: (each["task"], each["host"]))

    def container(self, name):
        """(host, options) of a container."""
        return next((host, each) for host, variables in self.variables.items()
                    for each in variables["overlay_containers"] if each["name"] == name)


OVERLAY = Overlay(os.environ["OVERLAY_INVENTORY"]) if "OVERLAY_INVENTORY" in os.environ else None


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", sorted(OVERLAY.hosts))


@pytest.fixture
def overlay():
    return OVERLAY


@pytest.fixture
def host(name):
    return OVERLAY.hosts[name]
