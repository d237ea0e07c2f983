# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: ns_container
short_description: Run tasks in a container on this machine
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
description:
  - Runs tasks in a container that M(fromscratch.containers.ns_container) has started on the controller, through the
    container's own C(container exec), with the rights that the container has.
  - Needs C(/bin/sh) and C(cat) inside, and Python there for everything but C(raw) and C(script).
notes:
  - Ansible has to run as root, as entering namespaces needs it.
  - Set C(ansible_python_interpreter) for a container that shares the controller's files.
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
  become_success_timeout:
    description: Number of seconds to wait for become to succeed when it is enabled.
    type: int
    default: 10
    vars:
      - name: ansible_ns_container_become_success_timeout
  become_strip_preamble:
    description: Strip the internal output of become that precedes that of the command.
    type: bool
    default: true
    vars:
      - name: ansible_ns_container_become_strip_preamble
"""

import os
import shlex

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_native
from ansible.plugins.connection.local import Connection as LocalConnection

from ansible_collections.fromscratch.containers.plugins.module_utils._container import Container
from ansible_collections.fromscratch.containers.plugins.module_utils._process import running


class Connection(LocalConnection):
    """A local command that begins with ``container exec``; the rest is the local connection."""

    transport = "fromscratch.containers.ns_container"
    has_pipelining = True

    def _connect(self):
        if not self._connected:
            name = self.get_option("remote_addr")
            if os.geteuid() != 0:
                raise AnsibleConnectionFailure(f"Entering container {name} needs root: run Ansible with sudo")
            if running(name) is None:
                raise AnsibleConnectionFailure(f"Container {name} does not run on this machine: "
                                               "start it with fromscratch.containers.ns_container")
            self._script = Container(name=name).script
        self._play_context.remote_user = "root"
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        self._connect()
        inside = shlex.join([self._script, "exec", "/bin/sh", "-c", to_native(cmd)])
        code, out, err = super().exec_command(f"exec {inside}", in_data=in_data, sudoable=sudoable)
        return code if code >= 0 else 128 - code, out, err  # ended by a signal: as a shell reports it

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
            raise AnsibleError(f"'{command}' in container {self.get_option('remote_addr')} failed: {to_native(err)}")
        return out
