# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the nftables table of one host: peers that may send frames, isolation of networks, outbound access and published ports.

Pure functions of the hosts that ``overlay`` has checked.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from ..module_utils.core.errors import OptionError

TABLE = "fromscratch"
# Every release of nft makes words of its language of what were names before: `vxlan` is one from 1.0.7 on, and quotes around
# a name are not understood by 1.0.6. None of its words begins like this.
PREFIX = "fs_"
METADATA = {"ip": "169.254.169.254", "ip6": "fd00:ec2::254"}  # where clouds hand out the host's own credentials


class Publish(NamedTuple):
    """Hold a published port: ``address`` is the host's, or None for all of them."""

    address: str
    port: int
    inner_port: int
    protocol: str


def publish(option, value):
    """Return the Publish of ``[ADDRESS:]PORT:INNER_PORT[/tcp|/udp]``, as Docker writes it. Raise OptionError."""
    if isinstance(value, int) and value >= 60:  # YAML 1.1 takes digits with colons for a number of base 60
        raise OptionError(option, value,
                          f"it is a number, as which YAML reads {value // 60}:{value % 60} without quotes: put it in "
                          "quotes, as PORT:PORT_INSIDE")
    found = re.fullmatch(r"(?:(\d+\.\d+\.\d+\.\d+):)?(\d{1,5}):(\d{1,5})(?:/(tcp|udp))?", str(value))
    if not found or not all(1 <= int(found[group]) <= 65535 for group in (2, 3)):
        raise OptionError(option, value, "it is PORT:PORT_INSIDE with /tcp or /udp after it, such as 8080:80/tcp, and may have one "
                          "IPv4 address of the host and a colon before it")
    try:
        address = found[1] and str(ipaddress.ip_address(found[1]))
    except ValueError:
        raise OptionError(option, value, f"{found[1]} is not an IPv4 address") from None
    if address and ipaddress.ip_address(address).is_loopback:
        raise OptionError(option, value, f"{found[1]} is an address of the host's loopback device, and what comes in there is not "
                          "led to containers: give another one of the host's addresses, or none, for all but those")
    if address and (ipaddress.ip_address(address).is_multicast or address == "255.255.255.255"):
        raise OptionError(option, value, f"{found[1]} is no address of one host")
    if address == "0.0.0.0":  # as Docker has it
        address = None
    return Publish(address, int(found[2]), int(found[3]), found[4] or "tcp")


def rules(hosts, here, guard):
    """Return the body of the table, or None where a host needs none."""
    networks = list(here.networks.values())
    out = [network for network in networks if network.egress]
    chains, forwarded = [], []
    if guard:
        chains.append(chain("strangers", "filter hook input priority -10", peer_filter(hosts, here)))
        chains.append(chain("other_networks", "filter hook input priority -10", foreign_address_filter(here)))
        forwarded += transit_filter(hosts)
        forwarded += [line for network in networks if not network.egress for line in closed_network(network)]
        forwarded += network_isolation(out)
    forwarded += [line for network in out for line in egress_filter(network) + ingress_filter(network)]
    chains.append(chain("forward", "filter hook forward priority -10", forwarded))
    if out:
        chains.append(chain("source", "nat hook postrouting priority srcnat", [line for each in out for line in masquerade(each)]))
        published = [(container, port) for container in here.containers for port in container["publish"]]
        chains.append(chain("published", "nat hook prerouting priority dstnat", [to_container(*each) for each in published]))
        chains.append(chain("published_here", "nat hook output priority -100",
                            [f"ip daddr != 127.0.0.0/8 {to_container(*each)}" for each in published]))
    return "\n".join(filter(None, chains)) or None


def chain(name, hook, lines):
    """Return a base chain with its hook, or an empty string without rules."""
    return "\n".join([f"chain {PREFIX}{name} {{", f"type {hook}; policy accept;", *lines, "}"]) if lines else ""


def frames(network):
    """Return the match of a network's frames.

    The VNI is the 24 bits behind the UDP header and the flags; frames of other VNIs may be those of other programs, and find no
    link of this overlay.
    """
    return f"udp dport {network.port} @th,96,24 {network.vni}"


def peer_filter(hosts, here):
    """Return the rules that accept frames of the networks from their peers only: VXLAN itself accepts them from any source.

    A peer's address can be forged, in a container of this host as well. So it counts only on a device that leads to that peer by
    the host's own routes, of which there may be several; never on a bridge of the overlay or the loopback device.
    """
    never = listed("lo", *(network.bridge for network in here.networks.values()))
    lines = []
    for network in here.networks.values():
        family = family_of(network)
        peers = sorted(host.networks[network.name].underlay_ip for host in hosts.values()
                       if host is not here and network.name in host.networks)
        lines += [f"{frames(network)} {family} daddr {network.underlay_ip} {family} saddr {{ {', '.join(peers)} }} "
                  f"iifname != {never} fib saddr . iif oif exists counter accept"] * bool(peers)
        lines.append(f"{frames(network)} counter drop")
    return lines


def transit_filter(hosts):
    """Return the rules that forward frames to a host of the overlay from its peers only.

    What is forwarded with the host's own address in place of the sender's (masquerade) would count as a frame of this host, which
    is a peer.
    """
    networks = {}
    for host in hosts.values():
        for network in host.networks.values():
            networks.setdefault(network.name, []).append(network)
    lines = []
    for members in networks.values():
        family, addresses = family_of(members[0]), ", ".join(sorted({each.underlay_ip for each in members}))
        to_us = f"{frames(members[0])} {family} daddr {{ {addresses} }}"
        lines += [f"{to_us} {family} saddr != {{ {addresses} }} counter drop", f"{to_us} fib saddr . iif oif missing counter drop"]
    return lines


def family_of(network):
    """Return nft's keyword for the address family of the tunnel."""
    return "ip6" if ":" in network.underlay_ip else "ip"


def listed(*names):
    """Return a set of interfaces.

    Their names have been checked: nft cannot express a quotation mark, and takes ``*`` as a wildcard.
    """
    return f"""{{ {", ".join(f'"{name}"' for name in names)} }}"""


def foreign_address_filter(here):
    """Return the rules that drop what enters by a network's bridge for the host's address in another network.

    A host accepts all its addresses on all its links.
    """
    lines = []
    for network in here.networks.values():
        own = {each.split("/")[0] for each in network.addresses}
        foreign = {each.split("/")[0] for other in here.networks.values() for each in other.addresses} - own
        for family, addresses in (("ip", sorted(each for each in foreign if ":" not in each)),
                                  ("ip6", sorted(each for each in foreign if ":" in each))):
            if addresses:
                lines.append(f'iifname "{network.bridge}" {family} daddr {{ {", ".join(addresses)} }} counter drop')
    return lines


def closed_network(network):
    """Return the rules that forward nothing out of or into a network without outbound access, whoever made the host a router."""
    return [f'iifname "{network.bridge}" oifname != "{network.bridge}" counter drop',
            f'iifname != "{network.bridge}" oifname "{network.bridge}" counter drop']


def network_isolation(networks):
    """Return the rules that forward nothing from one network with outbound access to another, not even to published ports."""
    bridges = [network.bridge for network in networks]
    return [f'iifname "{bridge}" oifname {listed(*(each for each in bridges if each != bridge))} counter drop'
            for bridge in bridges if len(bridges) > 1]


def egress_filter(network):
    """Return the rules for what leaves a network: IPv4 of its own addresses, and nothing to the metadata service."""
    source = f'iifname "{network.bridge}"'
    refused = [f"{source} {family} daddr {address} counter reject with icmpx type admin-prohibited"
               for family, address in METADATA.items() if not network.metadata]
    source += f' oifname != "{network.bridge}"'
    return refused + [f"{source} ip saddr != {own_addresses(network)} counter drop", f"{source} meta nfproto ipv6 counter drop"]


def own_addresses(network):
    """Return the IPv4 subnets of a network as a set."""
    return f"{{ {', '.join(str(each) for each in network.subnets(4))} }}"


def ingress_filter(network):
    """Return the rules for what enters a network: replies, and what is published."""
    into = f'iifname != "{network.bridge}" oifname "{network.bridge}"'
    return [f"{into} ct state established,related accept", f"{into} ct status dnat accept", f"{into} counter drop"]


def masquerade(network):
    """Return the rules that replace a container's address by the host's.

    Also towards the network itself, where a container uses a port that a neighbour publishes.
    """
    source = f"ip saddr {own_addresses(network)}"
    return [f'{source} oifname != "{network.bridge}" counter masquerade',
            f'{source} oifname "{network.bridge}" ct status dnat counter masquerade']


def to_container(container, port):
    """Return the rule that translates a published port to a container's address."""
    address = next(each for each in container["addresses"] if ":" not in each).split("/")[0]
    return (f"fib daddr type local {f'ip daddr {port.address} ' if port.address else ''}"
            f"{port.protocol} dport {port.port} counter dnat ip to {address}:{port.inner_port}")
