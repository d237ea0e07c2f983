# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host finds wrong with an option of topology is said with the variable of the role behind it."""

from __future__ import annotations

from collections import defaultdict

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import Topology
from ansible_collections.fromscratch.containers.plugins.plugin_utils.words import VARIABLES, in_the_roles_words, variable

from ....overlay import OPTIONS, part

# The role gives none of these.
NOT_THE_ROLES = {
    "veth_pair.netns", "veth_pair.namespace", "veth_pair.pid", "veth_pair.inner_name", "veth_pair.routes", "veth_pair.mac",
    "linux_bridge.netns", "linux_bridge.mac", "linux_bridge.stp", "linux_bridge.priority", "linux_bridge.forward_delay",
    "linux_bridge.hello_time", "linux_bridge.max_age", "linux_bridge.ageing_time", "linux_bridge.vlan_filtering"}
# These it works out by itself, without a variable that could be wrong.
WORKED_OUT = {"veth_pair.inner_mac", "linux_bridge.hairpin_ports"}
LISTED = {f"{kind}.{name}": kind for kind, item in Topology(defaultdict(list)).kinds.items() for name in item.options}
CONTAINER = {"name": "a", "address": "10.0.0.100/24", "gateway": "10.0.0.1", "publish": ["8080:80"]}
HOSTS = {f"h{at}": {"overlay_underlay_ip": f"192.0.2.{at}", "overlay_bridge_address": f"10.0.0.{at}/24", "overlay_egress": True,
                    "overlay_names": True, "overlay_containers": [{**CONTAINER, "name": f"c{at}", "address": f"10.0.0.10{at}/24"}]}
         for at in (1, 2)}


def known(name, options=OPTIONS):
    """Whether the role has the variable, or the option of one, such as overlay_containers.binds.source."""
    if " or " in name:
        return all(known(each) for each in name.split(" or "))
    first, unused, rest = name.partition(".")
    return first in options and (not rest or known(rest, options[first].get("options", {})))


@pytest.mark.parametrize("option", sorted(set(LISTED) - NOT_THE_ROLES - WORKED_OUT))
def test_each_option_has_a_variable_of_the_role(option):
    named = variable(option)
    assert named and known(named), (option, named)


@pytest.mark.parametrize("forwarding", ["learning", "static"])
def test_the_role_gives_no_others(forwarding):
    found = part(HOSTS, "h1", overlay_forwarding=forwarding)
    given = {f"{kind}.{name}" for kind, items in found.items() if isinstance(items, list) for item in items for name in item}
    assert given - set(LISTED) == set() and given & NOT_THE_ROLES == set()


def test_all_that_is_named_is_there():
    assert [name for name in VARIABLES.values() if not known(name)] == []
    assert all(option in LISTED for option in NOT_THE_ROLES | WORKED_OUT)


def test_a_message():
    said = {"failed": True, "option": "vxlan_link.mtu", "msg": "vxlan_link.mtu: 9000 is not valid: it is too much", "exception": "x"}
    assert in_the_roles_words(said) == {"failed": True, "option": "overlay_mtu", "msg": "overlay_mtu: 9000 is not valid: it is too much"}
    assert in_the_roles_words({**said, "failed": False})["option"] == "vxlan_link.mtu"
