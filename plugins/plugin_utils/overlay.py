# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan a whole overlay from inventory variables: what each host has to hold, and whether the hosts fit together.

Pure functions of data. The only place that knows all hosts at once; the modules know one.
"""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass, field, fields
from typing import Dict, List, Optional, Tuple

from ..module_utils.container.spec import OPTIONS as CONTAINER
from ..module_utils.core import validate
from ..module_utils.core.errors import ModuleError, OptionError
from ..module_utils.host.names import HOSTS, RESOLV, path
from ..module_utils.network import addressing, identity
from ..module_utils.network.identity import derived_ifname
from . import antispoof, firewall

OPTIONAL = ("mtu", "device", "dns", "bridge_address", "bridge_addresses")  # a network may set these to none
LEARNING, STATIC = "learning", "static"
CONTAINER_OPTIONS = tuple(name for name in CONTAINER if name != "state")  # which is that of the host
# The option of alpine_rootfs that each variable sets, without overlay_ before it.
ARCHIVE = {"dest": "rootfs", "state": "state", "version": "rootfs_version", "src": "rootfs_src", "checksum": "rootfs_checksum",
           "mirror": "rootfs_mirror"}


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


class Overlay:
    """Plan the overlay of all hosts whose ``settings`` are given, each a dict of all variables of the role.

    Hosts with the state absent are nobody's peers, and are planned by what they hold themselves: those in ``leaving``, no others.
    """

    def __init__(self, settings, mistakes, leaving=()):
        self.settings, self.present, self._leaving = settings, {}, {}
        for name, values in settings.items():
            if values["overlay_state"] != "absent":
                self.present[name] = _host(name, values, mistakes)
            elif name in leaving:
                self._leaving[name] = _host(name, values, mistakes)
        for sentence in _conflicts(self.present):
            mistakes.add(sentence)

    def host_plan(self, name):
        """Return the options of M(topology) that describe a host, {kind: list of items}."""
        hosts, here = self._seen_by(name)
        return _items(hosts, here, self.settings[name])

    def pings(self, name):
        """Return (namespace or "-" for the host, source, destination, address) of all that a host and its containers reach."""
        return list(_pings(*self._seen_by(name))) if name in self.present else []

    def carriers(self):
        """Return the host that holds each address, and what there, as {VNI: {address: (host, owner)}}."""
        found = {}
        for host in self.present.values():
            for network, address, owner in _carried(host):
                found.setdefault(host.networks[network].vni, {})[address] = host.name, owner
        return found

    def _seen_by(self, name):
        hosts = self.present if name in self.present else {**self.present, name: self._leaving[name]}
        return hosts, hosts[name]


def topology(settings, part):
    """Return the options of M(topology) for a host: its plan, and what its settings say of itself alone."""
    return {"alpine_rootfs": [{option: settings[f"overlay_{name}"] for option, name in ARCHIVE.items()
                               if settings[f"overlay_{name}"]}],
            **part, "prune": settings["overlay_prune"], "persist": True, "use": settings["overlay_group"]}


def _host(name, values, mistakes):
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


def _conflicts(hosts):
    """Yield what no host can know by itself, as sentences."""
    underlays, names, firsts = {}, {}, {}
    for host in hosts.values():
        for network in host.networks.values():
            owner = underlays.setdefault(network.underlay_ip, host.name)
            if owner != host.name:
                yield f"overlay_underlay_ip: {network.underlay_ip} is that of {owner} and of {host.name}: give each its own"
            other, first = firsts.setdefault(network.name, (host.name, network))
            if (":" in network.underlay_ip) != (":" in first.underlay_ip):
                yield (f"overlay_underlay_ip: {first.underlay_ip} of {other} and {network.underlay_ip} of {host.name} are of "
                       "different address families: a tunnel has one")
            for attribute in "vni", "port", "forwarding":
                one, another = getattr(first, attribute), getattr(network, attribute)
                if one != another:
                    yield (f"overlay_{attribute}: {other} has {one} and {host.name} has {another} for the network "
                           f"{network.name}: all hosts of a network need the same")
        for container in host.containers:
            if container["name"] in names:
                yield (f"overlay_containers: the name {container['name']} is given twice, on {names[container['name']]} "
                       f"and on {host.name}")
            names[container["name"]] = host.name
        yield from _overlapping_egress(host)
        for attribute in "vni", "bridge", "vxlan":
            seen = {}
            for network in host.networks.values():
                value = getattr(network, attribute)
                if value in seen:
                    yield (f"overlay_{attribute}: the networks {seen[value]} and {network.name} of {host.name} "
                           f"both have {value}")
                seen[value] = network.name
    yield from _subnets_apart(hosts)
    yield from _taken_twice(hosts)


def _subnets_apart(hosts):
    """Yield conflicts of subnets: the first of a family is that of all hosts of a network; others may differ, but not overlap."""
    known = {}  # whose each subnet is, in the order of the hosts, by network and IP version
    for host in hosts.values():
        for network in host.networks.values():
            for version in 4, 6:
                there = known.setdefault((network.name, version), {})
                for at, subnet in enumerate(network.subnets(version)):
                    for net, (place, other) in there.items():
                        if net != subnet and (at == place == 0 or net.overlaps(subnet)):
                            yield (f"overlay_bridge_address: {other} has {net} and {host.name} has {subnet} for the network "
                                   f"{network.name}: all hosts of a network are in one subnet")
                            break
                    there.setdefault(subnet, (at, host.name))
    for host in hosts.values():
        for container in host.containers:
            for address in container["addresses"]:
                version = 6 if ":" in address else 4
                if host.networks[container["network"]].subnets(version):
                    continue  # compared with these already
                subnet, there = ipaddress.ip_interface(address).network, known[container["network"], version]
                if there and subnet not in there:
                    net = min(there, key=there.get)
                    other = there[net][1]
                    yield (f"overlay_containers.address: container {container['name']} of {host.name} has {address}, and the "
                           f"network {container['network']} is {net} on {other}: all of a network are in one subnet")
                there.setdefault(subnet, (0, host.name))


def _overlapping_egress(host):
    """Yield networks of a host that share addresses: replies from outside are routed by their address alone."""
    networks = list(host.networks.values())
    for at, one in enumerate(networks):
        for other in networks[at + 1:]:
            shared = [net for net in one.subnets(4) if any(net.overlaps(each) for each in other.subnets(4))]
            if (one.egress or other.egress) and shared:
                yield (f"overlay_egress: the networks {one.name} and {other.name} of {host.name} share addresses of "
                       f"{shared[0]}, so that answers from outside could not tell them apart")


def _carried(host):
    """Yield (network, address, owner in words) of all that is on the overlay of a host."""
    for network in host.networks.values():
        yield from ((network.name, address.split("/")[0], f"the bridge of {host.name}") for address in network.addresses)
    for container in host.containers:
        yield from ((container["network"], address.split("/")[0], f"container {container['name']}")
                    for address in container["addresses"])


def _taken_twice(hosts):
    owners = {}
    for network, address, owner in (entry for host in hosts.values() for entry in _carried(host)):
        if (network, address) in owners:
            yield (f"overlay_bridge_address or overlay_containers.address: the address {address} in the network {network} is "
                   f"that of {owners[network, address]} and of {owner}: give each its own")
        owners[network, address] = owner


def _items(hosts, here, settings):
    """Return the lists of items of one host, {kind: list}."""
    bridges, tunnels, veths, containers, names, sysctls, passages = [], [], [], [], [], [], []
    for network in here.networks.values():
        # Whatever hangs on the tunnel can carry no more than the tunnel.
        mtu = {"mtu": network.mtu} if network.mtu else {
            "underlay": network.underlay_ip, **({"underlay_device": network.device} if network.device else {})}
        members = [each for each in here.containers if each["network"] == network.name]
        pairs = [{"name": derived_ifname("ve-", member["name"]), "container": member["name"],
                  "addresses": member["addresses"], **_gateway(network, member), **mtu}
                 for member in members]
        peers, neighbours = _forwarding(hosts, here, network)
        veths += pairs
        # With br_netfilter on, a container that uses its own published port gets its frames back by the port that they came from.
        hairpins = [pair["name"] for pair, each in zip(pairs, members) if each["publish"]]
        bridges.append({"name": network.bridge, "ports": [each["name"] for each in pairs], "hairpin_ports": hairpins,
                        "addresses": network.addresses, "neighbours": neighbours, **mtu})
        tunnels.append({"name": network.vxlan, "vni": network.vni, "local": network.underlay_ip, "port": network.port,
                        "bridge": network.bridge, **peers, **_given(vars(network), "mtu", "device")})
        files = _names(hosts, network)
        names += files
        shared = {key: settings[f"overlay_{key}"] for key in ("rootfs", "runtime") if settings[f"overlay_{key}"]}
        containers += [{**shared, **_given(each, *CONTAINER_OPTIONS), **_binds(each, files)} for each in members]
        sysctls += [{"device": network.bridge, "name": "arp_ignore"}] * (len(here.networks) > 1)
        sysctls += [{"device": network.bridge, "name": "forwarding"}] * network.egress
        passages.append({"bridge": network.bridge, "accept": settings["overlay_bridge_netfilter"] == "accept",
                         "routed": network.egress})
    if any(network.egress for network in here.networks.values()):
        sysctls.append({"name": "forwarding"})  # of the device that the answers come in by
    tables = [table("inet", firewall.rules(hosts, here, settings["overlay_guard"])),
              table(antispoof.FAMILY, antispoof.rules(here))]
    found = {"ns_container": containers, "nftables": tables, "veth_pair": veths, "linux_bridge": bridges, "vxlan_link": tunnels}
    if settings["overlay_state"] == "absent":
        return {**{module: [{**item, "state": "absent"} for item in items] for module, items in found.items()},
                "names": [], "sysctl": [], "forward": [], "publish": []}
    return {**found, "names": names, "sysctl": sysctls, "forward": passages, "publish": _published(here, settings)}


def _published(here, settings):
    """Return the published ports of the host, for it to check that they are free."""
    return [{"port": published.port, "protocol": published.protocol, **_given(published._asdict(), "address"),
             "over": settings["overlay_publish_over"]}
            for container in here.containers for published in container["publish"]]


def table(family, rules):
    """Return the options of a table that a host has, or no longer has."""
    return {"name": firewall.TABLE, "family": family, **({"rules": rules} if rules else {"state": "absent"})}


def _gateway(network, container):
    """Return a container's gateway: its own, or the bridge where that has outbound access."""
    own = next((each for each in container["addresses"] if ":" not in each), None)
    if container.get("gateway") is None and network.egress and own:
        subnet = ipaddress.ip_interface(own).network
        return {"gateway": next(str(each.ip) for each in map(ipaddress.ip_interface, network.addresses) if each.network == subnet)}
    return _given(container, "gateway")


def _names(hosts, network):
    """Return the files by which containers of a network resolve each other's names, and others by DNS."""
    files = []
    if network.names:
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [" ".join([address.split("/")[0], member["name"], *{member.get("hostname") or member["name"]} - {member["name"]}])
                  for host in hosts.values() for member in host.containers if member["network"] == network.name
                  for address in member["addresses"]]
        files.append({"network": network.name, "file": HOSTS, "lines": lines})
    if network.egress:
        servers = {"lines": [f"nameserver {each}" for each in network.dns]} if network.dns else {}
        files.append({"network": network.name, "file": RESOLV, **servers})
    return files


def _binds(container, files):
    """Return a container's binds, with the files of its network where nothing else is bound there."""
    own = container.get("binds") or []
    taken = {each["dest"] for each in own}
    added = [{"source": path(file["network"], file["file"]), "dest": f"/etc/{file['file']}", "read_only": True}
             for file in files if f"/etc/{file['file']}" not in taken]
    return {"binds": [*own, *added]} if own or added else {}


def _forwarding(hosts, here, network):
    """Return (options of the VXLAN link, neighbours of the bridge) by which frames reach the peers of a network.

    With learning, each frame to an unknown address is flooded to every peer. Static, each address of each peer is in the forwarding
    and neighbour tables beforehand, which a MAC that is derived from an address allows; nothing is flooded, and nobody is asked.
    """
    peers = [host for host in hosts.values() if host is not here and network.name in host.networks]
    if network.forwarding == LEARNING:
        return {"remotes": [host.networks[network.name].underlay_ip for host in peers], "fdb": [], "flood": True}, []
    fdb, neighbours = [], []
    for host in peers:
        entries, known = host.entries(network.name)
        fdb += entries
        neighbours += known
    return {"remotes": [], "learning": False, "flood": False, "fdb": fdb}, neighbours


def _pings(hosts, here):
    sources = [("-", here.name, network.name, network.addresses) for network in here.networks.values()]
    sources += [(each["name"], each["name"], each["network"], each["addresses"]) for each in here.containers]
    for netns, source, network, addresses in sources:
        families = {":" in each for each in addresses}
        for host in hosts.values():
            for container in host.containers:
                if container["network"] == network and container["name"] != source:
                    for address in container["addresses"]:
                        if (":" in address) in families:
                            yield [netns, source, container["name"], address.split("/")[0]]


def _given(values, *names):
    return {name: values[name] for name in names if values.get(name) is not None}
