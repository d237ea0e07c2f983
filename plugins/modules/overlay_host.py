#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_host
short_description: Plan or set up what one host of an overlay holds
description:
  - Runs M(fromscratch.containers.topology) with the part of the host that M(fromscratch.containers.overlay_plan) has worked out,
    and names the variable of the role P(fromscratch.containers.overlay#role) where the host finds an option wrong.
  - Planning fails where earlier runs have left something on the host that has an address which the inventory now gives to
    another host of the same network, be that in the run or not.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes
options:
  parts:
    description: The parts that M(fromscratch.containers.overlay_plan) has returned.
    type: dict
    required: true
  apply:
    description:
      - Whether to change the host. Otherwise the changes are planned only, and whatever stands in their way is a failure;
        so all hosts can be planned before any is changed.
      - A host that leaves the overlay does not fail then, but when it is to be changed.
    type: bool
    default: true
  install:
    description: Whether what is missing on the host is told instead of being a failure, where the role may install it.
    type: bool
    default: false
seealso:
  - module: fromscratch.containers.topology
"""

EXAMPLES = r"""
- name: Plan what has to change
  fromscratch.containers.overlay_host:
    parts: "{{ plan.parts }}"
    apply: false
  register: planned
  any_errors_fatal: true

- name: Change it
  fromscratch.containers.overlay_host:
    parts: "{{ plan.parts }}"
  when: planned.pending
"""

RETURN = r"""
pending:
  description: Whether the host has to be changed yet. In check mode it has not, but where a host that leaves cannot be planned.
  returned: success, without O(apply)
  type: bool
mtus:
  description: The C(mtu) that the tunnel of each C(network) has on this C(host), or will have.
  returned: success, without O(apply)
  type: list
  elements: dict
install:
  description: The programs and libraries that are to be installed before the host can be planned, each with its packages.
  returned: where any is missing, with O(install)
  type: list
  elements: dict
changes:
  description: As M(fromscratch.containers.topology) returns it; likewise C(commands) and C(observed).
  returned: success, where nothing is pending
  type: list
  elements: dict
"""
