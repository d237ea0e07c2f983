# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: ns_container
short_description: Run tasks in a container, on this machine or on a host of the inventory
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
description:
  - Runs tasks in a container that M(fromscratch.containers.ns_container) has started, through the container's own
    C(ns-container exec), with the rights that the container has.
  - The container is on the controller, or on the host of the inventory that O(host) names. That host is reached exactly as
    Ansible reaches it for tasks of its own, by its connection plugin with all the variables that it has, such as
    C(ansible_host), C(ansible_user), C(ansible_ssh_private_key_file) and C(ansible_ssh_common_args) with its jump hosts. An
    open ControlPersist connection of the host is shared.
  - Entering a container takes root on its host. Where C(ansible_user) of the host is another user, C(ansible_become) of the
    host has to be true; its C(ansible_become_method), C(ansible_become_password) and the like count as well.
  - Tasks inside start as root of the container. C(become) of a task or play becomes a user of the container, if it is not
    root anyway, and needs C(su) or the like inside.
  - The inventory plugin P(fromscratch.containers.containers#inventory) sets the variables of this plugin for all containers.
notes:
  - Needs C(/bin/sh) and C(cat) inside, and Python there for everything but C(raw) and C(script).
  - Set C(ansible_python_interpreter) for a container that shares the controller's files.
  - For a container of the controller, unless O(host) is C(localhost) and has C(ansible_become), Ansible has to run as root.
  - The connection plugin of the host has to be able to pipe data to commands, as C(ssh), C(local) and this one are. With this
    one, O(host) is itself a container.
  - A command that ends with the status 255 looks like a lost connection where the host is reached by C(ssh), as it does on any
    host.
extends_documentation_fragment:
  - connection_pipelining
options:
  remote_addr:
    description: Name of the container.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_ns_container_name
  host:
    description: The host that the container is on, by its name in the inventory. By default it is the controller.
    type: str
    vars:
      - name: ansible_ns_container_host
"""

EXAMPLES = r"""
# In an inventory, beside the hosts:
# containers:
#   hosts:
#     container-a:
#       ansible_ns_container_host: debian
#     container-b:
#       ansible_ns_container_host: amazon
#   vars:
#     ansible_connection: fromscratch.containers.ns_container

- name: Install a package in each container
  hosts: containers
  gather_facts: false
  tasks:
    - name: Install nginx
      ansible.builtin.raw: apk add nginx
      changed_when: true
"""

import os
import shlex
from collections import ChainMap

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_native
from ansible.plugins.connection import ConnectionBase
from ansible.template import Templar

from ansible_collections.fromscratch.containers.plugins.module_utils.container.launcher.guard import PROGRAM
from ansible_collections.fromscratch.containers.plugins.module_utils.core import validate
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import OptionError
from ansible_collections.fromscratch.containers.plugins.plugin_utils.host import LOCAL, REFUSED, Host

VIA = "ansible_ns_container_via"  # the hosts on the way to a host that is a container itself


class Connection(ConnectionBase):
    """Run ``ns-container exec`` on the container's host, by the host's own connection."""

    transport = "fromscratch.containers.ns_container"
    has_pipelining = True
    has_tty = False
    default_user = "root"
    _variables, _templar, _task_keys = {}, None, None

    def _resolve_option_variables(self, variables, templar):
        """Keep all variables, which Ansible shows to a connection here, those of other hosts among them."""
        self._variables, self._templar = variables, templar
        return super()._resolve_option_variables(variables, templar)

    def set_options(self, task_keys=None, var_options=None, direct=None):
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        self._task_keys, self._connected = task_keys, False

    def _connect(self):
        if not self._connected:
            try:
                self._name = validate.thing_name("ansible_ns_container_name", self.get_option("remote_addr"))
            except OptionError as error:
                raise AnsibleError(str(error)) from error
            self._host = self._find_host(self.get_option("host"))
            self._connected = True
        return self

    def _find_host(self, name):
        if name is None:
            return Host("this machine", LOCAL, Templar(loader=None), self._play_context)
        hosts, via = self._variables.get("hostvars", {}), self._variables.get(VIA, ())
        if name not in hosts:
            raise AnsibleError(f"ansible_ns_container_host: {name!r}, where container {self._name} is said to be, is no host of "
                               "the inventory")
        if name in via:
            raise AnsibleError(f"ansible_ns_container_host: {' is in '.join((*via, name))}: a container cannot be in itself")
        variables = ChainMap({"hostvars": hosts, VIA: (*via, name)}, hosts[name])
        return Host(name, variables, self._templar, self._play_context, self._task_keys)

    def exec_command(self, cmd, in_data=None, sudoable=True):
        self._connect()
        refusals = f"ns-container: {self._name} does not run", f"ns-container: there is no container {self._name}"
        code, out, err = self._host.run(
            f"[ -x {PROGRAM} ] || {{ echo {shlex.quote(refusals[0])} >&2; exit {REFUSED}; }}; "
            f"{PROGRAM} exec --no-tty {shlex.join([self._name, '/bin/sh', '-c', to_native(cmd)])}", in_data)
        if code == REFUSED and to_native(err).rstrip().rpartition("\n")[2].startswith(refusals):
            raise AnsibleConnectionFailure(f"Container {self._name} does not run on {self._host.name}: "
                                           "start it with fromscratch.containers.ns_container")
        return code, out, err

    def put_file(self, in_path, out_path):
        if not os.path.exists(to_bytes(in_path)):
            raise AnsibleFileNotFound(f"There is no file {in_path} to transfer")
        with open(to_bytes(in_path), "rb") as file:
            self._transfer(f"cat >{shlex.quote(out_path)}", file.read())

    def fetch_file(self, in_path, out_path):
        content = self._transfer(f"cat {shlex.quote(in_path)}", b"")
        with open(to_bytes(out_path), "wb") as file:
            file.write(content)

    def _transfer(self, command, content):
        code, out, err = self.exec_command(command, in_data=content, sudoable=False)
        if code:
            raise AnsibleError(f"'{command}' in container {self._name} failed: {to_native(err)}")
        return out

    def reset(self):
        self._connect()
        self._host.reset()

    def close(self):
        if self._connected:
            self._host.close()
        self._connected = False
