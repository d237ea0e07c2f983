# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the hosts of an overlay fit together: what none of them can know by itself, in words."""

from __future__ import annotations

import ipaddress


def conflicts(hosts):
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


def _taken_twice(hosts):
    owners = {}
    for network, address, owner in (entry for host in hosts.values() for entry in host.carried()):
        if (network, address) in owners:
            yield (f"overlay_bridge_address or overlay_containers.address: the address {address} in the network {network} is "
                   f"that of {owners[network, address]} and of {owner}: give each its own")
        owners[network, address] = owner
