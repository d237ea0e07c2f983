# SPDX-License-Identifier: GPL-3.0-or-later
"""What the variables say of each host by itself: the networks that it is in, and its containers."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass, field, fields
from typing import Dict, List, Optional, Tuple

from ..module_utils.core import validate
from ..module_utils.core.errors import ModuleError, OptionError
from ..module_utils.network import addressing, identity
from . import antispoof, firewall

OPTIONAL = ("mtu", "device", "dns", "bridge_address", "bridge_addresses")  # a network may set these to none
LEARNING = "learning"


@dataclass
class Network:
    """Hold one VNI as one host sees it. ``addresses`` are those of the host's bridge."""

    name: str
    vni: int
    port: int
    bridge: str
    vxlan: str
    underlay_ip: str
    forwarding: str = LEARNING
    mtu: Optional[int] = None
    device: Optional[str] = None  # that leads to the peers; by default that of the underlay_ip
    egress: bool = False
    metadata: bool = False
    antispoof: bool = False
    names: bool = False
    dns: Optional[List[str]] = None
    addresses: List[str] = field(default_factory=list)

    def subnets(self, version):
        """Return the subnets of the bridge, in the order of its addresses; a single address, such as a VIP, is none."""
        nets = (ipaddress.ip_interface(each).network for each in self.addresses)
        return list(dict.fromkeys(net for net in nets if net.version == version and net.prefixlen < net.max_prefixlen))


# The variables that describe a network: those of a host are what each of its overlay_networks does not say itself.
NETWORK = (*(each.name for each in fields(Network) if each.name not in ("name", "addresses")), "bridge_address", "bridge_addresses")


@dataclass
class Host:
    name: str
    networks: Dict[str, Network]
    containers: List[dict] = field(default_factory=list)  # each with its network and its list of addresses
    _entries: Dict[str, Tuple[List[dict], List[dict]]] = field(default_factory=dict)

    def entries(self, network):
        """Return (FDB entries, neighbours) that each other host has for this one's part of a network, worked out once for all."""
        if network not in self._entries:
            here, forwarding, neighbours = self.networks[network], [], []
            carriers = [("bridge", here.addresses)] if here.addresses else []
            carriers += [("veth", each["addresses"]) for each in self.containers if each["network"] == network]
            for kind, addresses in carriers:
                mac = identity.own_mac(kind, None, None, addresses)
                forwarding.append({"mac": mac, "dst": here.underlay_ip})
                neighbours += [{"address": each.split("/")[0], "mac": mac} for each in addresses]
            self._entries[network] = forwarding, neighbours
        return self._entries[network]

    def carried(self):
        """Yield (network, address, owner in words) of all that is on the overlay of the host."""
        for network in self.networks.values():
            yield from ((network.name, address.split("/")[0], f"the bridge of {self.name}") for address in network.addresses)
        for container in self.containers:
            yield from ((container["network"], address.split("/")[0], f"container {container['name']}")
                        for address in container["addresses"])


class Mistakes:
    """Collect the mistakes in the variables, each once, with the hosts that it concerns."""

    def __init__(self):
        self._hosts = {}

    def add(self, sentence, *hosts):
        """Add a mistake, a sentence, with its hosts."""
        self._hosts.setdefault(sentence, []).extend(hosts)

    @contextlib.contextmanager
    def of(self, host):
        """Add a ModuleError of the block as a mistake of the host."""
        try:
            yield
        except ModuleError as problem:
            self.add(str(problem), host)

    def about(self, host):
        """Return whether any mistake concerns the host."""
        return any(host in hosts for hosts in self._hosts.values())

    def __bool__(self):
        return bool(self._hosts)

    def sentences(self):
        """Return the mistakes as sentences, each beginning with its hosts."""
        return [f"{_listed(hosts)}: {sentence}" if hosts else sentence for sentence, hosts in self._hosts.items()]


def _listed(hosts, most=5):
    return ", ".join(hosts[:most]) + (f" and {len(hosts) - most} more" if len(hosts) > most else "")


def member(name, values, mistakes):
    """Return a Host with what is valid of its settings; add the rest to the mistakes."""
    networks, containers = {}, []
    flat = {key: values[f"overlay_{key}"] for key in NETWORK}
    described = values["overlay_networks"] or [{"name": "overlay"}]
    for options in described:
        with mistakes.of(name):
            own = {key: value for key, value in options.items() if value is not None or key in OPTIONAL}
            with _named_within("overlay_networks", own):
                network = _network({**flat, **own})
            if network.name in networks:
                raise OptionError("overlay_networks", network.name, "two networks of the host have this name")
            networks[network.name] = network
    for options in values["overlay_containers"] if len(networks) == len(described) else ():
        with mistakes.of(name):
            container = {**options, "network": options.get("network") or next(iter(networks))}
            _check_container(container, networks)
            containers.append(container)
    with mistakes.of(name):
        _check_published(networks, containers)
    return Host(name, networks, containers)


@contextlib.contextmanager
def _named_within(variable, own):
    """Name a variable in an OptionError as an option of the list that holds it, where it is given there."""
    try:
        yield
    except OptionError as error:
        option, value, remedy = error.parts
        key = option[len("overlay_"):]
        raise OptionError(f"{variable}.{key}", value, remedy) if key in own else error from None


def _network(values):
    return _checked_egress(Network(
        name=validate.thing_name("overlay_networks.name", values["name"]), forwarding=values["forwarding"],
        egress=values["egress"], metadata=values["metadata"], antispoof=values["antispoof"], names=values["names"],
        dns=[addressing.ip("overlay_dns", each) for each in values["dns"] or []],
        underlay_ip=addressing.unicast("overlay_underlay_ip", values["underlay_ip"]),
        vni=addressing.vni("overlay_vni", values["vni"]),
        port=addressing.udp_port("overlay_port", values["port"]),
        bridge=addressing.plain_interface_name("overlay_bridge", values["bridge"]),
        vxlan=addressing.plain_interface_name("overlay_vxlan", values["vxlan"]),
        device=addressing.plain_interface_name("overlay_device", values["device"]),
        mtu=addressing.mtu("overlay_mtu", values["mtu"]),
        addresses=_addresses("overlay_bridge_address", values["bridge_address"], values["bridge_addresses"])))


def _checked_egress(network):
    if network.egress and not network.subnets(4):
        raise OptionError("overlay_egress", True,
                          f"the bridge {network.bridge} is the containers' gateway, and needs an IPv4 address: "
                          "set overlay_bridge_address")
    return network


def _addresses(option, first, more):
    """Return one address and further ones as a list, in canonical form. Raise OptionError."""
    return ([addressing.interface_address(option, first)] if first is not None else []) + [
        addressing.interface_address(f"{option}es", each) for each in more or []]


def _check_container(container, networks):
    validate.thing_name("overlay_containers.name", container["name"])
    if container["network"] not in networks:
        raise OptionError("overlay_containers.network", container["network"],
                          f"container {container['name']} names a network that is not one of {', '.join(networks)}")
    container["addresses"] = _addresses("overlay_containers.address", container["address"], container.get("addresses"))
    for address in container["addresses"]:
        _check_subnet(container["name"], ipaddress.ip_interface(address), networks[container["network"]])
    container["allowed_addresses"] = [antispoof.allowed_address("overlay_containers.allowed_addresses", address)
                                      for address in container.get("allowed_addresses") or []]
    container["publish"] = [firewall.publish("overlay_containers.publish", each) for each in container.get("publish") or []]


def _check_subnet(name, address, network):
    """Raise OptionError for a container's address that is in no subnet of its bridge, or has another prefix length.

    Else one of them would resolve the other on the link, and the other would reply by a route, or not at all.
    """
    option, subnets = "overlay_containers.address", network.subnets(address.version)
    if address.network in subnets or not any((":" in each) == (address.version == 6) for each in network.addresses):
        return
    if not subnets:
        raise OptionError(option, str(address), f"container {name} has an address of IPv{address.version}, of which the bridge "
                          f"{network.bridge} has no subnet, only addresses by themselves: give overlay_bridge_address its prefix "
                          "length")
    around = next((net for net in subnets if address.ip in net), None)
    if around is None:
        raise OptionError(option, str(address), f"container {name} is outside of {' and '.join(map(str, subnets))}, the subnet of "
                          "overlay_bridge_address")
    raise OptionError(option, str(address), f"container {name} has another prefix length than its network, {around}: give "
                      f"{address.ip}/{around.prefixlen}")


def _check_published(networks, containers):
    """Raise OptionError for a published port without outbound access, without an IPv4 address, or of two containers."""
    taken = {}
    for container in containers:
        for published in container["publish"]:
            if not networks[container["network"]].egress:
                raise OptionError("overlay_containers.publish", published.port, f"the network {container['network']} of container "
                                  f"{container['name']} has no way in or out: set overlay_egress")
            if all(":" in address for address in container["addresses"]):
                raise OptionError("overlay_containers.publish", published.port,
                                  f"container {container['name']} has no IPv4 address")
            if published.protocol == "udp" and published.port in {network.port for network in networks.values()}:
                raise OptionError("overlay_containers.publish", published.port, "it is the UDP port of VXLAN itself")
            for address in {published.address, None} if published.address else {key[0] for key in taken} | {None}:
                other = taken.get((address, published.port, published.protocol))
                if other:
                    raise OptionError("overlay_containers.publish", published.port,
                                      f"containers {other} and {container['name']} both have "
                                      f"this {published.protocol} port of the host")
            taken[published.address, published.port, published.protocol] = container["name"]
