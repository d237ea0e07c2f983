# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run commands on a container's host by the host's own connection: its plugin, its options and its become method."""

from __future__ import annotations

import copy
import os
import shlex

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_native
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.loader import become_loader, connection_loader, get_shell_plugin

LOCAL = {"ansible_connection": "ansible.builtin.local"}
REFUSED = 125  # what `ns-container exec` ends with, too, where it could not begin
NOT_ROOT = "not root"


class Host:
    """Connect to a host. ``name`` is what messages call it; ``variables`` are the host's, of which those needed are templated here.

    Raise AnsibleError for a connection or become plugin that does not exist or cannot pipeline.
    """

    def __init__(self, name, variables, templar, play_context, task_keys=None):
        self.name = name
        plugin = templar.template(variables.get("ansible_connection", constants.DEFAULT_TRANSPORT))
        self._connection = connection_loader.get(plugin, copy.copy(play_context), os.devnull)
        if self._connection is None:
            raise AnsibleError(f"ansible_connection: there is no plugin {plugin!r}, which {name} is set to use")
        if not self._connection.has_pipelining:
            raise AnsibleError(
                f"ansible_connection: {plugin!r} of {name} cannot pipe data to commands, as containers need: use ssh")
        self._connection.set_options(
            task_keys=task_keys, var_options=self._connection._resolve_option_variables(variables, templar),
            direct={"pipelining": True})
        self._connection.set_become_plugin(self._become(variables, templar, play_context.become_pass))
        # All that loads plugins happens here: unlike a run, it must not be done by several threads at once.
        self._shell = get_shell_plugin(shell_type="sh", executable="/bin/sh")
        self._connection._connect()

    def _become(self, variables, templar, password):
        """Return the become plugin with which the host's own tasks would become root, or None where they need or use none."""
        if self._user() == "root" or not boolean(templar.template(variables.get("ansible_become", False))):
            return None
        method = templar.template(variables.get("ansible_become_method", constants.DEFAULT_BECOME_METHOD))
        become = become_loader.get(method)
        if become is None:
            raise AnsibleError(f"ansible_become_method: there is no plugin {method!r}, which {self.name} is set to use")
        names = constants.config.get_plugin_vars("become", become._load_name)
        become.set_options(task_keys={"become_pass": password} if password else None, direct={"become_user": "root"},
                           var_options={each: templar.template(variables[each]) for each in names if each in variables})
        return become

    def _user(self):
        try:
            return self._connection.get_option("remote_user")
        except KeyError:
            return self._connection.default_user

    def run(self, command, data=None):
        """Run a shell command as root, with ``data`` or nothing as its standard input. Return (exit status, output, errors).

        The shell is not replaced by the command, as ssh takes a command killed by a signal for a broken connection.
        """
        words = f'[ "$(id -u)" = 0 ] || {{ echo {NOT_ROOT} >&2; exit {REFUSED}; }}; ' \
                f"{{ {command}; }}{'' if data else ' </dev/null'}; exit $?"
        line, become = shlex.join(["/bin/sh", "-c", words]), self._connection.become
        if become:
            line = become.build_become_command(line, self._shell)
        # With nothing to send, ssh would ask for a terminal.
        code, out, err = self._connection.exec_command(line, in_data=data or b"\n", sudoable=True)
        if code == REFUSED and to_native(err).rstrip().endswith(NOT_ROOT):
            raise AnsibleConnectionFailure(f"Entering containers of {self.name} needs root there: "
                                           "set ansible_become for it, or run Ansible as root where it is this machine")
        return code, out.removeprefix(f"{become.success}\n".encode()) if become else out, err

    def reset(self):
        """Reset the connection."""
        self._connection.reset()

    def close(self):
        """Close the connection."""
        self._connection.close()
