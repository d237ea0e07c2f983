# SPDX-License-Identifier: GPL-3.0-or-later
"""A port is published at an address that the host has, or will have by then."""

from __future__ import annotations

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import OptionError
from ansible_collections.fromscratch.containers.plugins.module_utils.core.plan import NOW
from ansible_collections.fromscratch.containers.plugins.module_utils.core.planning import desired, plan_all
from ansible_collections.fromscratch.containers.plugins.module_utils.firewall.ports import Ports
from ansible_collections.fromscratch.containers.plugins.module_utils.network.bridge import OPTIONS, Bridges

from ...snapshot import Snapshot

PORT = {"port": 8080, "protocol": "tcp", "address": "198.51.100.1", "over": True}  # of a network for documentation


@pytest.mark.parametrize("netns, state, refused", [(None, "present", False), (None, "absent", True), ("lab", "present", True)])
def test_the_address_of_a_bridge_that_the_task_makes(netns, state, refused):
    given = {**{name: option.get("default") for name, option in OPTIONS.items()}, "name": "br0", "netns": netns, "state": state,
             "addresses": ["198.51.100.1/24"]}
    bridges, ports = desired(Bridges(Snapshot({"lab": {}})), [given]), desired(Ports(), [PORT], option="publish")
    if refused:
        with pytest.raises(OptionError, match=r"publish.address: '198.51.100.1' is not valid: this host has no such address"):
            plan_all([bridges, ports])
    else:
        plans, state = plan_all([bridges, ports])
        assert plans[1].predicted() == [{"protocol": "tcp", "port": 8080, "address": "198.51.100.1"}] and state != NOW
