# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan the overlay once, for all hosts.

The result is as small as the number of hosts: their plans are files, because what one task registers for all hosts is among the
variables of each, and is templated there at each mention.
"""

from __future__ import annotations

import json
import os
import tempfile

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.fromscratch.containers.plugins.plugin_utils.members import Mistakes
from ansible_collections.fromscratch.containers.plugins.plugin_utils.overlay import Overlay, topology
from ansible_collections.fromscratch.containers.plugins.plugin_utils.settings import Settings

ARGUMENTS = {"pings": {"type": "bool", "default": False}}

UNORDERED = ("free", "host_pinned")


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Write the plan of each host of the batch to a file.

        Return ``parts``, {host: path}. Raise AnsibleActionFail for mistakes.
        """
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(ARGUMENTS)
        mistakes = Mistakes()
        overlays = self._overlays(Settings(self._task, self._loader, task_vars), task_vars, mistakes)
        if mistakes:
            raise AnsibleActionFail("\n".join(mistakes.sentences()))
        # Ansible removes the directory at the end of the run, and lets nobody else look into it.
        directory = tempfile.mkdtemp(prefix="overlay-", dir=constants.DEFAULT_LOCAL_TMP)
        parts = {}
        for number, (overlay, hosts) in enumerate(overlays):
            carriers = f"carriers-{number}"  # beside the parts
            with open(os.path.join(directory, carriers), "w", encoding="utf-8") as file:
                json.dump(overlay.carriers(), file)
            for host in hosts:
                parts[host] = os.path.join(directory, str(len(parts)))
                with open(parts[host], "w", encoding="utf-8") as file:
                    file.write(_pings(overlay, host) if arguments["pings"] else _part(overlay, host, carriers))
        left_out = sorted({host for overlay, _hosts in overlays for host in overlay.present}.difference(
            task_vars["ansible_play_hosts_all"])) if arguments["pings"] else ()
        warnings = [f"The run leaves out {', '.join(left_out)}: nothing is tried from there"] if left_out else []
        strategy = self._task.get_play().strategy
        if strategy.rpartition(".")[2] in UNORDERED:
            warnings.append(f"strategy: {strategy} lets each host go ahead by itself, so that an error on one does not keep others "
                            "from being changed: use the strategy linear for the play with this role")
        return {"changed": False, "parts": parts, **({"warnings": warnings} if warnings else {})}

    @staticmethod
    def _overlays(settings, task_vars, mistakes):
        """Return (Overlay, hosts of this batch) of each group that hosts of this batch are in."""
        groups, read = {}, {}
        for host in task_vars["ansible_play_batch"]:
            groups.setdefault(settings.one(host, "overlay_group"), []).append(host)
        for group in groups:
            if group not in task_vars["groups"]:
                mistakes.add(f"overlay_group: {group!r} is not valid: the inventory has no such group: give the name of the group "
                             "of the hosts that are joined", *groups[group])
        for host in [host for group in groups for host in task_vars["groups"].get(group, ())]:
            if host not in read:
                read[host], wrong = settings.read(host)
                leaves = read[host].get("overlay_state") == "absent"
                if wrong and (not leaves or host in task_vars["ansible_play_batch"]):
                    for sentence in wrong:
                        mistakes.add(sentence, host)
        found = []
        for group, batch in groups.items():
            members = [host for host in task_vars["groups"].get(group, ()) if not mistakes.about(host)]
            here = [host for host in batch if host in members]
            found.append((Overlay({host: read[host] for host in members}, mistakes, here), here))
        return found


def _part(overlay, host, carriers):
    settings = overlay.settings[host]
    return json.dumps({"topology": topology(settings, overlay.host_plan(host)), "leaves": settings["overlay_state"] == "absent",
                       "install": settings["overlay_install_packages"], "carriers": carriers})


def _pings(overlay, host):
    return "".join(f"{' '.join(each)}\n" for each in overlay.pings(host))
