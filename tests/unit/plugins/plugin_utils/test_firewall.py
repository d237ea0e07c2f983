# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of nftables of a host, as text."""

from __future__ import annotations

import re

import pytest

from .hosts import host, of

DECLARED = re.compile(r"\b(chain|set|map|counter|quota|limit|flowtable|meter|ct (?:helper|timeout|expectation)|secmark|synproxy) (\S+) \{")
REFERRED = re.compile(r"(?:\b(?:jump|goto) |@(?!(?:ll|nh|th|ih),))([A-Za-z_]\w*)")


def everything(**options):
    """Hosts with all that puts rules into a table, in both families; the tables of the first."""
    networks = [
        {"name": "one", "vni": 1, "bridge": "br1", "vxlan": "vx1", "bridge_addresses": ["10.1.0.1/24", "fd01::1/64"], "egress": True},
        {"name": "two", "vni": 2, "bridge": "br2", "vxlan": "vx2", "bridge_address": "10.2.0.1/24", "forwarding": "static"},
        {"name": "six", "vni": 3, "bridge": "br3", "vxlan": "vx3", "bridge_address": "fd03::1/64", "underlay_ip": "fd00::1"}]
    others = [{**each, "bridge_address": None, "bridge_addresses": [], "egress": False,
               "underlay_ip": "fd00::2" if each["name"] == "six" else None} for each in networks]
    containers = [{"name": "a", "address": "10.1.0.10/24", "addresses": ["fd01::10/64"], "network": "one",
                   "publish": ["8080:80/tcp", "172.31.0.1:53:53/udp"], "allowed_addresses": ["10.1.0.50", "192.168.0.0/24", "::/0"]},
                  {"name": "b", "address": "10.2.0.10/24", "network": "two"}]
    others[0]["underlay_ip"] = others[1]["underlay_ip"] = "172.31.0.2"
    return of({"h1": host(1, networks=networks, containers=containers, **options), "h2": host(2, networks=others)}, "h1")["nftables"]


@pytest.mark.parametrize("options", [{"antispoof": True}, {"guard": False}])
def test_no_name_in_a_table_can_be_a_word_of_nft(options):
    """None of nft's own begins like ours, and none ever will: `vxlan` became one in 1.0.7."""
    text = "\n".join(table["rules"] for table in everything(**options) if "rules" in table)
    names = [name for unused, name in DECLARED.findall(text)]
    assert len(names) >= 4 and all(name.startswith("fs_") for name in names + REFERRED.findall(text)), names
    assert len(re.findall(r"\{$", text, re.MULTILINE)) == len(names), "a kind of thing with a name that this test does not know"
