#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_plan
short_description: Check the variables of all hosts of an overlay, and work out what each of them holds
description:
  - The first step of the role P(fromscratch.containers.overlay#role), once for all hosts of a batch. It reads the C(overlay_*)
    variables of each host of the group as a task of the role on that host would see them, in the play or not, gives them their
    types, and checks them against each other.
  - Everything that is wrong is said in one failure, and stops all hosts.
  - It runs on the controller only, as a task with C(run_once). The parts are files that are gone when Ansible ends.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes.plan
options:
  pings:
    description: Work out what each host and its containers have to reach, instead of what the host holds.
    type: bool
    default: false
seealso:
  - module: fromscratch.containers.overlay_host
"""

EXAMPLES = r"""
- name: Work out the overlay of all hosts
  fromscratch.containers.overlay_plan:
  register: plan
  run_once: true
"""

RETURN = r"""
parts:
  description: By host of the batch, the file on the controller that holds its part.
  returned: success
  type: dict
"""
