# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.fromscratch.containers.plugins.filter import overlay
from ansible_collections.fromscratch.containers.plugins.module_utils._overlay import pings

from ..module_utils.test_overlay import DEFAULTS, of, two


def test_the_filter_says_it_in_ansibles_words():
    function = overlay.FilterModule().filters()["overlay"]
    variables = {**two(), "localhost": {}}
    settings = {**DEFAULTS, "overlay_underlay_ip": "172.31.0.1", "overlay_bridge_address": "10.0.0.1/24",
                "overlay_containers": two()["h1"]["overlay_containers"]}
    assert function(variables, "h1", ["h1", "h2"], settings) == of(two(), "h1")
    with pytest.raises(AnsibleFilterError, match="h9 is not one of the hosts"):
        function(variables, "h9", ["h1", "h2"], settings)
    assert overlay.FilterModule().filters()["overlay_pings"](variables, "h1", ["h1", "h2"], settings) == of(
        two(), "h1", pings)
