# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.network.link_kind import leads_nowhere


@pytest.mark.parametrize("kind, ports, said", [
    (None, 0, None), ("bond", 0, None), ("wireguard", 0, None), ("dummy", 0, "a dummy link"), ("bridge", 0, "a bridge without a port"),
    ("bridge", 1, None)])
def test_a_link_that_leads_to_no_other_host(kind, ports, said):
    device = SimpleNamespace(index=2, kind=kind, master=None)
    others = [SimpleNamespace(index=3 + at, kind="veth", master=2) for at in range(ports)]
    namespace = SimpleNamespace(links={str(link.index): link for link in [device, *others]})
    assert leads_nowhere(namespace, device) == said
