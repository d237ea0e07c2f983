# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: containers
short_description: The containers of the overlay as hosts
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
description:
  - Makes a host of the inventory of each container in C(overlay_containers), the variable of the role
    P(fromscratch.containers.overlay#role), of the hosts of a group. P(fromscratch.containers.ns_container#connection) reaches
    them through their hosts.
  - All containers are in the group C(containers), those of a host in C(on_HOST) and those of a network in C(network_NAME).
    What a group's name cannot have becomes C(_). Where that makes one name of two, such as of the hosts C(web-1) and C(web_1), the
    one that was changed gets a hash after it, C(on_web_1_c4719a).
  - Expressions know C(groups) and C(group_names) as playbooks do.
  - The variables of a container are C(container_host), the inventory name of its host, C(container_network),
    C(container_addresses), a list with prefix lengths, and C(container_state), which is V(unknown) unless O(state) asks for it.
  - The file's name has to end with C(containers.yml) or C(containers.yaml).
notes:
  - Inventory sources are read in the order in which they are named, those of a directory by their names. The hosts have to be
    in one that is read before, and their variables there or in C(host_vars) and C(group_vars) beside it. What stands in
    C(group_vars) beside a playbook is not known yet; how the hosts are reached may stand there, unless O(state) is set.
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [fromscratch.containers.containers]
  group:
    description: The group of the hosts whose containers are listed.
    type: str
    default: overlay
  state:
    description:
      - Ask the hosts for the state of their containers, all at once and each with one command through its own connection, whenever
        the inventory is read.
      - C(container_state) is then V(started), V(stopped), or V(absent) where the host has no such container yet. It is
        V(unknown) where the host does not answer, which is a warning.
    type: bool
    default: false
"""

EXAMPLES = r"""
# inventory/overlay.containers.yml, read after inventory/hosts.yml
plugin: fromscratch.containers.containers

# With a variable of one's own, and a group of those that run, such as state_started
---
plugin: fromscratch.containers.containers
state: true
compose:
  address: container_addresses[0] | split('/') | first
keyed_groups:
  - prefix: state
    key: container_state
"""

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ansible import constants
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.group import to_safe_group_name
from ansible.inventory.helpers import get_group_vars, sort_groups
from ansible.module_utils.common.text.converters import to_text
from ansible.playbook.play_context import PlayContext
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.container.spec import STARTED, STOPPED
from ansible_collections.fromscratch.containers.plugins.module_utils.core import validate
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import ModuleError, OptionError
from ansible_collections.fromscratch.containers.plugins.plugin_utils.host import Host

CONNECTION = "fromscratch.containers.ns_container"
GROUP = "containers"
PREFIXES = {"host": "on", "network": "network"}  # of groups, by the variable container_* whose value follows
CONTAINERS = "overlay_containers"
NETWORKS = "overlay_networks"
ENDS = ("containers.yml", "containers.yaml")
OURS = re.compile(rf"""^plugin:\s*["']?{re.escape("fromscratch.containers.containers")}\b""", re.MULTILINE)
ABSENT = "absent"
UNKNOWN = "unknown"
ASK = f"[ ! -x {PROGRAM} ] || {PROGRAM} status"
SAID = re.compile(r"^(\S+) (?:runs|(does not run))", re.MULTILINE)


class InventoryModule(BaseInventoryPlugin, Constructable):
    NAME = "fromscratch.containers.containers"

    def verify_file(self, path):
        if not super().verify_file(path):
            return False
        if path.endswith(ENDS):
            return True
        if path.endswith((".yml", ".yaml")) and OURS.search(Path(path).read_text(encoding="utf-8", errors="replace")):
            raise AnsibleParserError(f"{path}: the name of a file for the plugin {self.NAME} has to end with {' or '.join(ENDS)}")
        return False

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        unknown = sorted(set(self._read_config_data(path)) - set(self.option_definitions))
        if unknown:
            raise AnsibleParserError(f"{unknown[0]}: there is no such option, but {', '.join(sorted(self.option_definitions))}")
        hosts = {host.name: self._variables(host) for host in self._hosts()}
        containers = self._containers(hosts)
        states = {}
        if self.get_option("state"):
            states = self._ask({each["container_host"]: hosts[each["container_host"]] for each in containers.values()})
        names = _group_names({(kind, each[f"container_{kind}"]) for each in containers.values() for kind in PREFIXES})
        for name, container in containers.items():
            for group in GROUP, *(names[kind, container[f"container_{kind}"]] for kind in PREFIXES):
                self.inventory.add_host(name, self.inventory.add_group(group))
            found = states.get(container["container_host"])
            self._add(name, {**container, "container_state": UNKNOWN if found is None else found.get(name, ABSENT)})

    def _hosts(self):
        name = self.get_option("group")
        if name not in self.inventory.groups:
            raise AnsibleParserError(
                f"group: {name!r} is not a group of the inventory sources that are read before this one. They are read in the "
                "order in which they are named, those of a directory by their names")
        return self.inventory.groups[name].get_hosts()

    def _variables(self, host):
        """Return the variables of a host from the sources that were read before."""
        groups = sort_groups({self.inventory.groups["all"], *host.get_groups()})
        found = {}
        for known, owners in (get_group_vars(groups), groups), (host.get_vars(), [host]):
            beside = get_vars_from_inventory_sources(self.loader, self.inventory.processed_sources, owners, "all")
            found = combine_vars(combine_vars(found, known), beside)
        return {**combine_vars(found, self._vars), "groups": self._groups()}

    def _groups(self):
        """Return the hosts of each group as playbooks know them, {group: list of names}."""
        return {name: [host.name for host in group.get_hosts()] for name, group in self.inventory.groups.items()}

    def _containers(self, hosts):
        """Return the variables of all containers, by name. Raise AnsibleParserError."""
        found = {}
        for host, variables in hosts.items():
            self.templar.available_variables = variables
            try:
                containers, networks = (self.templar.template(variables.get(each) or []) for each in (CONTAINERS, NETWORKS))
                for container in _containers_of(host, containers, networks):
                    name = container["ansible_ns_container_name"]
                    if name in self.inventory.hosts:
                        raise OptionError(f"{CONTAINERS}.name", name, "the inventory has a host of this name")
                    if name in found:
                        raise OptionError(f"{CONTAINERS}.name", name,
                                          f"{found[name]['container_host']} has a container of this name")
                    found[name] = container
            except (ModuleError, AnsibleError) as error:
                raise AnsibleParserError(f"{host}: {error}") from error
        return found

    def _ask(self, hosts):
        """Return the states of the containers of each host that answers, {host: {container: state}}."""
        asked, states = {}, {}
        with ThreadPoolExecutor(constants.DEFAULT_FORKS) as pool:
            for name, variables in hosts.items():
                self.templar.available_variables = variables
                with self._warning(name):
                    asked[name] = pool.submit(Host(name, variables, self.templar, PlayContext()).run, ASK)
        for name, answer in asked.items():
            with self._warning(name):
                states[name] = _states(*answer.result())
        return states

    @contextmanager
    def _warning(self, host):
        try:
            yield
        except AnsibleError as error:
            self.display.warning(f"The state of the containers of {host} is unknown: {error}")

    def _add(self, name, variables):
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        known, strict = {**self.inventory.get_host(name).get_vars(), "groups": self._groups()}, self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), known, name, strict)
        self._add_host_to_composed_groups(self.get_option("groups"), known, name, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, name, strict)


def _group_names(owners):
    """Return the group name of each host and network.

    Ansible accepts letters, digits and '_': where two names become the same, those that were changed get a hash of the original.
    """
    plain = {owner: to_safe_group_name(f"{PREFIXES[owner[0]]}_{owner[1]}", force=True, silent=True) for owner in owners}
    names = list(plain.values())
    return {owner: name if names.count(name) == 1 or name == f"{PREFIXES[owner[0]]}_{owner[1]}"
            else f"{name}_{hashlib.sha256(owner[1].encode()).hexdigest()[:6]}" for owner, name in plain.items()}


def _containers_of(host, containers, networks):
    """Yield the variables of each container of a host. Raise OptionError."""
    default = _named(NETWORKS, networks)[0]["name"] if networks else "overlay"
    for item in _named(CONTAINERS, containers):
        yield {"ansible_connection": CONNECTION, "ansible_ns_container_host": host,
               "ansible_ns_container_name": validate.thing_name(f"{CONTAINERS}.name", item["name"]),
               "container_host": host, "container_network": item.get("network") or default,
               "container_addresses": [*filter(None, [item.get("address")]), *(item.get("addresses") or [])]}


def _named(option, items):
    if isinstance(items, list) and all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in items):
        return items
    raise OptionError(option, items, "it has to be a list of dictionaries with a name")


def _states(code, out, err):
    if code:
        raise AnsibleError(to_text(err).strip() or f"the command ended with {code}")
    return {name: STOPPED if stopped else STARTED for name, stopped in SAID.findall(to_text(out))}
