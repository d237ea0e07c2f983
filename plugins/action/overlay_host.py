# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan or configure one host by the module topology, and report in terms of the role's variables."""

from __future__ import annotations

import json
import os

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.fromscratch.containers.plugins.module_utils.core.conflicts import REMEDY
from ansible_collections.fromscratch.containers.plugins.plugin_utils.words import in_the_roles_words

MODULE = "fromscratch.containers.topology"
ARGUMENTS = {"parts": {"type": "dict", "required": True}, "apply": {"type": "bool", "default": True},
             "install": {"type": "bool", "default": False}}


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        """Apply the host's plan, or predict it. Return the module's result. Raise AnsibleActionFail for a host of another group."""
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(ARGUMENTS)
        host = task_vars["inventory_hostname"]
        if host not in arguments["parts"]:
            group = self._templar.template(task_vars["overlay_group"])
            raise AnsibleActionFail(f"{host} is not one of the hosts of the group {group!r}: put it into the group that "
                                    "overlay_group names")
        with open(arguments["parts"][host], encoding="utf-8") as file:
            part = json.load(file)
        if arguments["apply"]:
            result = in_the_roles_words(self._topology(part, task_vars))
            lacks = result.get("failed") and "missing" in result
            return self._lacking(result, part["install"], False, self._task.check_mode) if lacks else result
        return self._planned(part, arguments, task_vars)

    def _planned(self, part, arguments, task_vars):
        """Return what a real run will do; in check mode, the prediction itself.

        A host that leaves holds up no others: its errors are reported when its turn has come.
        """
        host, predicting = task_vars["inventory_hostname"], self._task.check_mode
        try:
            self._task.check_mode = True
            result = in_the_roles_words(self._topology(part, task_vars))
        except AnsibleConnectionFailure:
            if not part["leaves"]:
                raise
            return {"changed": False, "pending": True}
        finally:
            self._task.check_mode = predicting
        if result.get("failed") and "missing" in result:
            result = self._lacking(result, part["install"], arguments["install"], predicting)
        if "install" in result:
            return result
        if not predicting and result.get("unmet"):
            result = {**result, "failed": True, "msg": result.get("msg") or "; ".join(result["unmet"])}
        if not result.get("failed") and not part["leaves"]:
            result = {**result, **_met_elsewhere(host, result.get("left_behind", ()), arguments["parts"][host], part["carriers"])}
        if result.get("failed"):
            return {"changed": False, "pending": True} if part["leaves"] else result
        if predicting or not result["changed"]:
            return {**result, "pending": False, **_mtus(host, part, result)}
        return {"changed": False, "pending": True, **_mtus(host, part, result)}

    @staticmethod
    def _lacking(result, allowed, install, predicting):
        """Return the packages to install for missing programs or libraries, or a failure with the remedy."""
        if allowed and install and not predicting:
            return {"changed": False, "pending": False, "install": result["missing"], "msg": result["msg"]}
        remedy = ("" if allowed and not predicting else ". A real run installs it; without it, check mode cannot tell what else "
                  "that would do." if allowed else ". Install it, or set overlay_install_packages to true.")
        return {**result, "msg": result["msg"] + remedy}

    def _topology(self, part, task_vars):
        return self._execute_module(module_name=MODULE, module_args=part["topology"], task_vars=task_vars)


def _mtus(host, part, result):
    """Return the MTU of each network's tunnel on the host: by default what its own underlay leaves, which no other host knows."""
    tunnels = () if part["leaves"] else result.get("observed", {}).get("vxlan_link", ())
    return {"mtus": [{"host": host, "network": f"VNI {tunnel['vni']} of the group {part['topology']['use']}", "mtu": tunnel["mtu"]}
                     for tunnel in tunnels]}


def _met_elsewhere(host, left, path, carriers):
    """Return a failure where what is left on the host has an address that the inventory gives to another host.

    Only here both are known. It is an error, because what is sent to the address would reach either of the two.
    """
    if not any(each["vnis"] for each in left):
        return {}
    with open(os.path.join(os.path.dirname(path), carriers), encoding="utf-8") as file:
        known = json.load(file)
    met = [f"{address}, which is that of {owner} on {other}, {link['item']} still has on {host} (VNI {vni})"
           for link in left for vni in link["vnis"] for address in link["addresses"]
           for other, owner in [known.get(str(vni), {}).get(address, (host, None))] if other != host]
    return {"failed": True, "msg": (
        f"overlay_bridge_address or overlay_containers.address: {'; '.join(met)}. "
        f"An earlier run left it, and the inventory names it no more for {host}: {REMEDY}")} if met else {}
