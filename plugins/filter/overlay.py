# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: overlay
short_description: Work out one host's part of an overlay from the inventory
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
description:
  - Turns the C(overlay_*) variables of all hosts into the items that the modules take on one of them, after checking that
    the hosts fit together. The role P(fromscratch.containers.overlay#role) passes these lists on.
  - Everything comes from inventory variables and nothing from facts, so that a run with C(--limit) is right too.
positional: host, hosts, settings
options:
  _input:
    description: The variables of all hosts, by host; usually C(hostvars).
    type: dict
    required: true
  host:
    description: The host to work it out for.
    type: str
    required: true
  hosts:
    description: The hosts of the overlay.
    type: list
    elements: str
    required: true
  settings:
    description: This host's values of the variables of the role; other hosts that do not set one are taken to have the same.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what this host gets
  ansible.builtin.debug:
    msg: "{{ hostvars | fromscratch.containers.overlay(inventory_hostname, groups.overlay, settings) }}"
"""

RETURN = r"""
_value:
  description: Lists of options, as M(fromscratch.containers.topology) takes them.
  type: dict
  contains:
    ns_container:
      description: Items of M(fromscratch.containers.ns_container).
      type: list
      elements: dict
    nftables:
      description: Tables of nftables.
      type: list
      elements: dict
    veth_pair:
      description: Items of M(fromscratch.containers.veth_pair).
      type: list
      elements: dict
    linux_bridge:
      description: Items of M(fromscratch.containers.linux_bridge).
      type: list
      elements: dict
    vxlan_link:
      description: Items of M(fromscratch.containers.vxlan_link).
      type: list
      elements: dict
    names:
      description: Files by which containers find names.
      type: list
      elements: dict
    forward:
      description: Bridges whose packets other programs' packet filters may drop.
      type: list
      elements: dict
    sysctl:
      description: IPv4 settings of single links.
      type: list
      elements: dict
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.fromscratch.containers.plugins.module_utils._errors import Problem
from ansible_collections.fromscratch.containers.plugins.module_utils._overlay import part, pings


def said(function):
    """The function of hosts' variables as a filter."""
    def called(variables, host, hosts, settings):
        try:
            return function({name: variables[name] for name in hosts}, host, settings)
        except Problem as problem:
            raise AnsibleFilterError(str(problem)) from problem
    return called


class FilterModule:
    def filters(self):
        return {"overlay": said(part), "overlay_pings": said(pings)}
