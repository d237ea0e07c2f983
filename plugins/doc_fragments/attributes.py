# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules of the collection say of themselves."""

from __future__ import annotations


class ModuleDocFragment:

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and predict exactly what a real run then does.
  diff_mode:
    support: full
    description: Returns what has changed, or would change, as the difference between before and after.
  idempotent:
    support: full
    description: When run twice with the same options, the second run changes nothing.
  platform:
    platforms: linux
    support: full
    description: The operating systems that the module runs on.
"""

    # What runs on the controller alone, and changes no host.
    PLAN = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Does in C(check_mode) what it does in a real run.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: Changes nothing at all.
  platform:
    platforms: posix
    support: full
    description: The operating systems that it runs on.
"""

    # Modules that change links through netlink.
    LINKS = r"""
options: {}
requirements:
  - pyroute2 >= 0.7.2 on the host that executes the module
notes:
  - Runs as root. Use C(become) where the connection does not log in as root.
  - A link of the wanted name that this collection did not make is an error, and is neither taken over nor deleted.
    The links that it makes carry the alias C(fromscratch.containers), which C(ip link) shows.
"""
