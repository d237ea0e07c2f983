# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole overlay, worked out from inventory variables: what each host has to hold, and whether the hosts fit together.

Pure functions of data. The only place that knows all hosts at once; the modules know one.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Dict, List, Optional

from . import _argspec as rule
from ._errors import Invalid, Problem
from ._model import derived_ifname

# The variables that describe a network. A host that sets none of its own shares those of the host worked out.
SHARED = ("name", "vni", "port", "bridge", "vxlan")
OPTIONAL = ("mtu", "learning")
CONTAINER_OPTIONS = ("rootfs", "command", "env", "hostname", "workdir", "layer", "binds", "tmpfs", "read_only",
                     "privileged", "init", "stop_timeout")


@dataclass
class Network:
    """One VNI as one host sees it."""

    name: str
    vni: int
    port: int
    bridge: str
    vxlan: str
    bridge_address: Optional[str] = None
    mtu: Optional[int] = None
    learning: Optional[bool] = None

    @property
    def subnet(self):
        return ipaddress.ip_interface(self.bridge_address).network if self.bridge_address else None


@dataclass
class Host:
    name: str
    underlay_ip: str
    networks: Dict[str, Network]
    containers: List[dict] = field(default_factory=list)


def part(variables, host, settings):
    """The items of ``host``, of the overlay of all hosts in ``variables``, by module.

    Raises Problem with everything that does not fit.
    """
    hosts = _hosts(variables, host, settings)
    return _items(hosts, hosts[host], settings)


def pings(variables, host, settings):
    """(namespace or "-" for the host itself, from, to, address) for all that a host and its containers have to reach."""
    hosts = _hosts(variables, host, settings)
    return list(_pings(hosts, hosts[host]))


def _hosts(variables, host, settings):
    """All hosts by name, checked against each other."""
    if host not in variables:
        raise Problem(f"{host} is not one of the hosts of the overlay, {', '.join(variables)}: "
                      "put it into the group that overlay_group names")
    problems, hosts = [], {}
    for name in variables:
        # Of the host itself the settings hold all; reading its variables again costs, with many containers.
        values = settings if name == host else {**settings, "overlay_containers": [], **_own(variables[name])}
        if values.get("overlay_state", "present") == "absent" and name != host:
            continue  # a host on its way out is nobody's peer
        try:
            hosts[name] = _host(name, values)
        except Problem as problem:
            problems.append(f"{name}: {problem}")
    if not problems:
        problems = list(_misfits(hosts))
    if problems:
        raise Problem("; ".join(problems))
    return hosts


def _own(variables):
    """The overlay variables that a host itself sets. What belongs to one host is never another's default."""
    return {"overlay_underlay_ip": None, "overlay_bridge_address": None,
            **{key: variables[key] for key in variables if str(key).startswith("overlay_")}}


def _host(name, values):
    underlay = values.get("overlay_underlay_ip")
    if not underlay:
        raise Invalid("overlay_underlay_ip", underlay, "every host needs the address that its peers reach it at")
    networks = {}
    flat = {key: values.get(f"overlay_{key}") for key in (*SHARED[1:], "bridge_address", *OPTIONAL)}
    for each in values.get("overlay_networks") or [{"name": "overlay"}]:
        for key in set(each) - set(flat) - {"name"}:
            raise Invalid("overlay_networks", key, f"a network has name, {', '.join(flat)}")
        network = Network(**{**flat, "name": None, **each})
        if network.name in networks:
            raise Invalid("overlay_networks", network.name, "two networks of the host have this name")
        _check_network(network)
        networks[network.name] = network
    default = next(iter(networks))
    containers = [{**each, "network": each.get("network") or default} for each in values["overlay_containers"] or []]
    for each in containers:
        _check_container(each, networks)
    return Host(name, rule.ip("overlay_underlay_ip", underlay), networks, containers)


def _check_network(network):
    if not network.name:
        raise Invalid("overlay_networks.name", network.name, "every network has a name")
    network.vni = _number("overlay_vni", network.vni, 1, 16777215)
    network.port = _number("overlay_port", network.port, 1, 65535)
    rule.interface_name("overlay_bridge", network.bridge)
    rule.interface_name("overlay_vxlan", network.vxlan)
    if network.bridge_address is not None:
        network.bridge_address = rule.interface_address("overlay_bridge_address", network.bridge_address)


def _number(option, value, low, high):
    """A number; what the command line sets is a string."""
    try:
        return rule.in_range(option, int(value), low, high)
    except (TypeError, ValueError):
        raise Invalid(option, value, "it must be a number") from None


def _check_container(container, networks):
    if not container.get("name"):
        raise Invalid("overlay_containers.name", container.get("name"), "every container has a name")
    rule.thing_name("overlay_containers.name", container["name"])
    if container["network"] not in networks:
        raise Invalid("overlay_containers.network", container["network"],
                      f"container {container['name']} names a network that is not one of {', '.join(networks)}")
    if not container.get("address"):
        raise Invalid("overlay_containers.address", container.get("address"),
                      f"container {container['name']} needs an address with its prefix length")
    container["address"] = rule.interface_address("overlay_containers.address", container["address"])
    subnet = networks[container["network"]].subnet
    address = ipaddress.ip_interface(container["address"])
    if subnet is not None and subnet.version == address.version and address.ip not in subnet:
        raise Invalid("overlay_containers.address", container["address"],
                      f"container {container['name']} is outside of {subnet}, the subnet of overlay_bridge_address")


def _misfits(hosts):
    """What each host by itself cannot know, in words."""
    underlays, names, vnis, subnets = {}, {}, {}, {}
    first, *unused = hosts.values()
    for host in hosts.values():
        if (":" in host.underlay_ip) != (":" in first.underlay_ip):
            yield (f"overlay_underlay_ip: {first.underlay_ip} of {first.name} and {host.underlay_ip} of {host.name} are of "
                   "different address families: a tunnel has one")
        if host.underlay_ip in underlays:
            yield f"overlay_underlay_ip: {host.underlay_ip} is that of {underlays[host.underlay_ip]} and of {host.name}"
        underlays[host.underlay_ip] = host.name
        for network in host.networks.values():
            other, vni, port = vnis.setdefault(network.name, (host.name, network.vni, network.port))
            if network.vni != vni:
                yield (f"overlay_vni: {other} has {vni} and {host.name} has {network.vni} for the network "
                       f"{network.name}: all hosts of a network need the same")
            if network.port != port:
                yield (f"overlay_port: {other} has {port} and {host.name} has {network.port} for the network "
                       f"{network.name}: all hosts of a network need the same")
            if network.subnet is not None:
                other, subnet = subnets.setdefault((network.name, network.subnet.version), (host.name, network.subnet))
                if network.subnet != subnet:
                    yield (f"overlay_bridge_address: {other} has {subnet} and {host.name} has {network.subnet} for the network "
                           f"{network.name}: all hosts of a network are in one subnet")
        for container in host.containers:
            if container["name"] in names:
                yield (f"overlay_containers: the name {container['name']} is given twice, on {names[container['name']]} "
                       f"and on {host.name}")
            names[container["name"]] = host.name
        for attribute in "vni", "bridge", "vxlan":
            seen = {}
            for network in host.networks.values():
                value = getattr(network, attribute)
                if value in seen:
                    yield (f"overlay_{attribute}: the networks {seen[value]} and {network.name} of {host.name} "
                           f"both have {value}")
                seen[value] = network.name
    yield from _taken_twice(hosts)


def _taken_twice(hosts):
    owners = {}
    for host in hosts.values():
        carried = [(network.name, network.bridge_address, f"the bridge of {host.name}")
                   for network in host.networks.values() if network.bridge_address]
        carried += [(each["network"], each["address"], f"container {each['name']}") for each in host.containers]
        for network, address, owner in carried:
            key = network, address.split("/")[0]
            if key in owners:
                yield f"the address {key[1]} in the network {network} is that of {owners[key]} and of {owner}"
            owners[key] = owner


def _items(hosts, here, settings):
    """The lists that the modules take, all of one host."""
    bridges, tunnels, veths, containers = [], [], [], []
    for network in here.networks.values():
        # Whatever hangs on the tunnel can carry no more than the tunnel.
        mtu = {"mtu": network.mtu} if network.mtu else {"underlay": here.underlay_ip}
        peers = [host.underlay_ip for host in hosts.values() if host is not here and network.name in host.networks]
        members = [each for each in here.containers if each["network"] == network.name]
        pairs = [{"name": derived_ifname("ve-", each["name"]), "container": each["name"],
                  "addresses": [each["address"]], **_given(each, "gateway"), **mtu}
                 for each in members]
        veths += pairs
        bridges.append({"name": network.bridge, "ports": [each["name"] for each in pairs],
                        "addresses": [network.bridge_address] if network.bridge_address else [],
                        **mtu})
        tunnels.append({"name": network.vxlan, "vni": network.vni, "local": here.underlay_ip, "remotes": peers,
                        "port": network.port, "bridge": network.bridge,
                        **_given(vars(network), "mtu", "learning")})
        containers += [{"rootfs": settings["overlay_rootfs"], **_given(each, "name", *CONTAINER_OPTIONS)}
                       for each in members]
    found = {"ns_container": containers, "veth_pair": veths, "linux_bridge": bridges, "vxlan_link": tunnels}
    if settings["overlay_state"] == "absent":
        return {module: [{**item, "state": "absent"} for item in items] for module, items in found.items()}
    return found


def _pings(hosts, here):
    sources = [("-", here.name, network.name) for network in here.networks.values() if network.bridge_address]
    sources += [(each["name"], each["name"], each["network"]) for each in here.containers]
    for netns, source, network in sources:
        for host in hosts.values():
            for each in host.containers:
                if each["network"] == network and each["name"] != source:
                    yield [netns, source, each["name"], each["address"].split("/")[0]]


def _given(values, *names):
    return {name: values[name] for name in names if values.get(name) is not None}
