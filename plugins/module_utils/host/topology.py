# SPDX-License-Identifier: GPL-3.0-or-later
"""One host as a whole: the kinds of thing it holds, in the order in which they are set up, and what makes it keep them."""

from __future__ import annotations

from typing import Dict, Type

from ..container.kind import Containers
from ..container.service import manages_host
from ..core.kind import Kind
from ..core.planning import desired
from ..firewall.forward import Passages
from ..firewall.nftables import Tables, loading
from ..firewall.ports import Ports
from ..firewall.sysctl import Sysctls
from ..network import addressing
from ..network.bridge import Bridges
from ..network.netlink import Links
from ..network.veth import VethPairs, host_end
from ..network.vxlan import Vxlans
from ..rootfs.kind import Rootfses
from . import boot, managers, use
from .files import Files
from .names import Names
from .units import Units

KINDS: Dict[str, Type[Kind]] = {
    "alpine_rootfs": Rootfses, "names": Names, "ns_container": Containers, "nftables": Tables, "forward": Passages,
    "veth_pair": VethPairs, "linux_bridge": Bridges, "vxlan_link": Vxlans, "sysctl": Sysctls, "publish": Ports}
LINKS = ("veth_pair", "linux_bridge", "vxlan_link")
UNPRUNED = ("alpine_rootfs", "nftables")
WHOLE = ("names", "forward", "sysctl")  # a list of these is all that the host is to have of them


class Topology:
    """A host by the options of M(topology). ``kinds`` has those kinds that are given, by option."""

    def __init__(self, params):
        self.params = params
        links = Links()
        kinds = (Rootfses(params), Names(), Containers(), Tables(), Passages(), VethPairs(links), Bridges(links), Vxlans(links),
                 Sysctls(), Ports())
        self.kinds = {option: kind for option, kind in zip(KINDS, kinds) if params[option] is not None}

    def requirements(self):
        """Return what the host must have for all kinds together."""
        needs = [need for option, kind in self.kinds.items() for need in kind.requirements(self.params[option])]
        links = [item for option in LINKS for item in self.params[option] or () if item.get("state") != "absent"]
        return needs + ["sysctl"] * bool(links and self.params["persist"] and manages_host())  # at boot

    def desired(self):
        """Return what is desired of each kind, in the order of setting up. No kind is managed that is not given."""
        given = with_ports({option: self.params[option] for option in self.kinds})
        found = []
        if self.params["use"] is not None:  # first, so that it is there as long as anything else is
            present = any(item["state"] == "present" for options in given.values() for item in options if "state" in item)
            found.append(desired(use.Use(), use.files(self.params["use"], present)))
        if self.params["persist"]:  # before the first link
            found.append(desired(Files(), managers.files(_names(given))))
        return found + [
            desired(self.kinds[option], options, option in WHOLE or (self.params["prune"] and option not in UNPRUNED), option)
            for option, options in given.items()]

    def at_boot(self, plans):
        """Return what is desired so that a boot sets up again what these plans do."""
        if not self.params["persist"]:
            return []
        items = {planned.option: planned.items for planned in plans if planned.option}
        tunnels = [item for item in items.get("vxlan_link", ()) if item.netns is None]
        devices = sorted({addressing.plain_interface_name("vxlan_link.local", item.device) for item in tunnels})
        commands = [line for option in items for line in self.kinds[option].boot(items[option])]
        files = boot.files(commands, sorted({item.local for item in tunnels}), devices,
                           "".join(loading(item) for item in items.get("nftables", ())))
        return [desired(Files(), files), desired(Units(), boot.units(commands))]


def with_ports(given):
    """Return the options where a veth pair of a bridge in the same task is one of its ports: the bridge comes later."""
    ports = {(each["name"], each["netns"]): list(each["ports"] or ()) for each in given.get("linux_bridge", ())
             if each["state"] == "present"}
    pairs = []
    for pair in given.get("veth_pair", ()):
        place, has_name = (pair["bridge"], pair["netns"]), pair["name"] or pair["container"] or pair["namespace"]
        if pair["state"] == "present" and has_name and place in ports:
            ports[place] += {host_end(pair)}.difference(ports[place])
            pair = {**pair, "bridge": None}
        pairs.append(pair)
    bridges = [{**bridge, "ports": ports.get((bridge["name"], bridge["netns"])) or bridge["ports"]}
               for bridge in given.get("linux_bridge", ())]
    return {option: {"veth_pair": pairs, "linux_bridge": bridges}.get(option, options) for option, options in given.items()}


def _names(given):
    """Return the links that a network manager could take over, with all ends of veth pairs as one pattern."""
    here = [(option, item) for option in ("linux_bridge", "vxlan_link", "veth_pair") for item in given.get(option, ())
            if item["state"] == "present" and item["netns"] is None]
    found = [addressing.plain_interface_name(f"{option}.name", item["name"])
             for option, item in here if item["name"] and not item["name"].startswith("ve-")]
    return found + ["ve-*"] * any(option == "veth_pair" for option, item in here)
