# SPDX-License-Identifier: GPL-3.0-or-later
"""A host as a whole, before any kind of thing is planned."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.fromscratch.containers.plugins.module_utils.core.conflicts import refuse_shared_addresses
from ansible_collections.fromscratch.containers.plugins.module_utils.core.errors import OptionError
from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import with_ports
from ansible_collections.fromscratch.containers.plugins.module_utils.network.bridge import Bridges
from ansible_collections.fromscratch.containers.plugins.module_utils.network.veth import VethPairs

KINDS = {"veth_pair": VethPairs, "linux_bridge": Bridges}


def given(**lists):
    """The validated options of a task, by option."""
    return {option: [ArgumentSpecValidator(KINDS[option].options).validate(each).validated_parameters for each in options]
            for option, options in lists.items()}


@pytest.mark.parametrize("pair, bridge, ports, left", [
    ({"container": "a", "bridge": "br0"}, {}, ["ve-a"], None),
    ({"container": "a", "bridge": "br0"}, {"ports": ["enX1", "ve-a"]}, ["enX1", "ve-a"], None),
    ({"container": "a", "bridge": "br0"}, {"ports": ["enX1"]}, ["enX1", "ve-a"], None),
    ({"name": "ve-x", "pid": 9, "bridge": "br0"}, {}, ["ve-x"], None),
    ({"container": "a", "bridge": "br1"}, {}, None, "br1"),  # which is there already, or is not
    ({"container": "a", "bridge": "br0", "netns": "lab"}, {}, None, "br0"),
    ({"container": "a", "bridge": "br0", "state": "absent"}, {}, None, "br0"),
    ({"container": "a", "bridge": "br0"}, {"state": "absent"}, None, "br0"),
    ({"pid": 9, "bridge": "br0"}, {}, None, "br0"),  # its name is asked for when it is read
    ({"container": "a"}, {"ports": []}, [], None),
])
def test_a_pair_is_a_port_of_a_bridge_that_comes_later(pair, bridge, ports, left):
    options = given(veth_pair=[pair], linux_bridge=[{"name": "br0", **bridge}])
    before = deepcopy(options)
    found = with_ports(options)
    assert (found["linux_bridge"][0]["ports"], found["veth_pair"][0]["bridge"]) == (ports, left)
    assert options == before


def test_what_is_not_given_stays_so():
    assert with_ports({"sysctl": [1]}) == {"sysctl": [1]}


@pytest.mark.parametrize("netns, bridge", [("a", None), ("a", "br0")])
def test_an_address_stands_once_on_a_bridge_be_it_by_its_ports(netns, bridge):
    pairs = [{"name": name, "namespace": name[-1], "addresses": ["10.0.0.2/24"], "bridge": bridge} for name in ("ve-a", "ve-b")]
    options = with_ports(given(veth_pair=pairs, linux_bridge=[{"name": "br0", "ports": ["ve-a", "ve-b"]}]))
    stages = [SimpleNamespace(option=option, items=list(map(KINDS[option].parse, found))) for option, found in options.items()]
    with pytest.raises(OptionError, match=r"veth_pair.addresses: '10.0.0.2/24' .* veth_pair ve-b and veth_pair ve-a are both given it"):
        refuse_shared_addresses(stages, [])
    refuse_shared_addresses(stages[:1], [])
