# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the nftables table of family bridge: a bridge port belongs to its container, which sends under no other identity.

A container with raw sockets can write any frame. What enters by the host end of its veth pair must have its MAC, and as sender in
ARP, IPv4 and IPv6 one of its addresses; it advertises no other neighbour, and is neither a router nor a DHCP server. All else is
dropped and counted. Frames that enter by other ports, such as the VXLAN link, are not checked: their own host did. The host's own
frames enter by no port.

Sets by interface are looked up at the same cost for any number of containers. The target of neighbour discovery cannot be a key of
a set in all releases of nft, so each port has a chain of its own for it, which a map selects.

Pure functions of the host that ``overlay`` has checked.
"""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple, Tuple

from ..module_utils.core.errors import OptionError
from ..module_utils.network import identity
from ..module_utils.network.identity import derived_ifname
from .firewall import PREFIX

FAMILY = "bridge"


class Port(NamedTuple):
    """Hold the host end of a container's veth pair, and what may enter by it."""

    link: str
    mac: str
    addresses: Tuple[Any, ...]  # its own, those that it may have besides, and its link-local one
    networks: Tuple[Any, ...]  # whose packets it may forward

    def of(self, version):
        """Return the addresses of an IP version."""
        return [address for address in self.addresses if address.version == version]


def allowed_address(option, value):
    """Return the ip_network that a container may use beside its own addresses, or forward packets of. Raise OptionError."""
    try:
        found = ipaddress.ip_network(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.is_multicast or (found.prefixlen == found.max_prefixlen and found.network_address.is_unspecified):
        raise OptionError(option, value, "give the address of one host, such as 10.0.0.50, or a network without host bits, such as "
                          "192.168.0.0/24")
    return found


def port(container):
    """Return the Port of a container of the role."""
    link, mac = derived_ifname("ve-", container["name"]), identity.own_mac("veth", None, None, container["addresses"])
    allowed = container["allowed_addresses"]
    single = [net.network_address for net in allowed if net.prefixlen == net.max_prefixlen]
    own = [ipaddress.ip_interface(address).ip for address in container["addresses"]]
    return Port(link, mac, tuple(dict.fromkeys([*own, *single, link_local(mac)])),
                tuple(net for version in (4, 6) for net in ipaddress.collapse_addresses(
                    net for net in allowed if net.version == version and net.prefixlen < net.max_prefixlen)))


def link_local(mac):
    """Return the address that the kernel derives from a MAC (EUI-64)."""
    number = int(mac.replace(":", ""), 16)
    return ipaddress.IPv6Address((0xfe80 << 112) | ((number >> 24 ^ 0x020000) << 40) | 0xfffe << 24 | number & 0xffffff)


def rules(here):
    """Return the body of the table, or None where no port of the host is restricted to its container."""
    ports = [port(each) for each in here.containers if here.networks[each["network"]].antispoof]
    if not ports:
        return None
    routers = [each for each in ports if each.networks]
    forwarded = [f"iifname vmap @{PREFIX}routers"] if routers else []
    return "\n".join([
        members("ports", "ifname", [f'"{own.link}"' for own in ports]),
        members("macs", "ifname . ether_addr", [f'"{own.link}" . {own.mac}' for own in ports]),
        # A probe asks whether an address is in use, as the sender 0.0.0.0, and changes nobody's table.
        members("arp_senders", "ifname . ether_addr . ipv4_addr", [
            f'"{own.link}" . {own.mac} . {address}' for own in ports for address in [*own.of(4), "0.0.0.0"]]),
        members("ipv4_sources", "ifname . ipv4_addr", [f'"{own.link}" . {address}' for own in ports for address in own.of(4)]),
        members("ipv6_sources", "ifname . ipv6_addr", [f'"{own.link}" . {address}' for own in ports for address in own.of(6)]),
        chain("ipv6_whole", IPV6_WHOLE),
        *[chain(f"router_{own.link}", sources(own)) for own in routers],
        *[ways("routers", routers, "router_")] * bool(routers),
        *[chain(f"neighbour_{own.link}", neighbour(own)) for own in ports],
        ways("neighbours", ports, "neighbour_"),
        chain("discovery", DISCOVERY),
        chain("ipv6", [*IPV6, *forwarded, "counter drop"]),
        chain("ipv4", [*IPV4, *forwarded, "counter drop"]),
        chain("arp", ARP),
        chain("port", PORT),
        chain("prerouting", ["type filter hook prerouting priority -210; policy accept;",
                             f"iifname @{PREFIX}ports goto {PREFIX}port"])])


def members(name, kind, elements):
    """Return a set with its elements."""
    return "\n".join([f"set {PREFIX}{name} {{", f"type {kind}", *[f"elements = {{ {', '.join(elements)} }}"] * bool(elements), "}"])


def ways(name, ports, chains):
    """Return a map from each port to its own chain."""
    elements = ", ".join(f'"{each.link}" : goto {PREFIX}{chains}{each.link}' for each in ports)
    return f"map {PREFIX}{name} {{\ntype ifname : verdict\nelements = {{ {elements} }}\n}}"


def chain(name, lines):
    """Return a chain."""
    return "\n".join([f"chain {PREFIX}{name} {{", *lines, "}"])


# Whatever is neither IPv4 nor IPv6 nor ARP is dropped: frames with VLAN tags, which the rules could not look into, and
# protocols of switches among them.
PORT = [f"iifname . ether saddr != @{PREFIX}macs counter drop",
        f"ether type vmap {{ ip : goto {PREFIX}ipv4, ip6 : goto {PREFIX}ipv6, arp : goto {PREFIX}arp }}",
        "counter drop"]

ARP = ["arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply } "
       f"iifname . arp saddr ether . arp saddr ip @{PREFIX}arp_senders accept",
       "counter drop"]

# Nothing comes from 0.0.0.0: a container has its addresses already, and asks no DHCP server for them. Each fragment has its source
# checked, and the first one, without which there is no packet, its port.
IPV4 = ["icmp type { redirect, router-advertisement } counter drop",
        "udp sport 67 counter drop",
        f"iifname . ip saddr @{PREFIX}ipv4_sources accept"]

# The source `::` is that of a link which has yet to try its own address.
IPV6 = [f"icmpv6 type {{ 133-137 }} goto {PREFIX}discovery",
        "ip6 saddr :: icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept",
        "udp sport 547 counter drop",
        f"iifname . ip6 saddr @{PREFIX}ipv6_sources goto {PREFIX}ipv6_whole"]

# A first fragment has the header that the rules above are about, or they could not look at it (RFC 7112): at least its first byte
# can be read then. Those that follow are nothing without the first.
IPV6_WHOLE = ["@th,0,8 >= 0 accept", "frag frag-off != 0 accept", "counter drop"]

# Neighbour discovery comes without extension headers and in one piece (RFC 6980): with them it would get past such rules elsewhere
# (RFC 7113). 58 is ICMPv6, whose name is unknown to nft on a host without /etc/protocols.
DISCOVERY = ["ip6 nexthdr != 58 counter drop",
             "icmpv6 type { nd-router-advert, nd-redirect } counter drop",
             f"ip6 saddr != :: iifname . ip6 saddr != @{PREFIX}ipv6_sources counter drop",
             "icmpv6 type nd-router-solicit accept",
             f"iifname vmap @{PREFIX}neighbours",
             "counter drop"]


def neighbour(own):
    """Return the rules for the neighbour discovery of a port.

    The target follows the 8 bytes of the ICMPv6 header. An advertisement, and a duplicate address detection, which comes from
    ``::``, is about an address of its own. The target may be followed by the port's MAC as the only option: type, length and MAC
    are the last 8 of 32 bytes. A detection may have other options, as nobody learns anything from it.
    """
    mine = f"{{ {', '.join(f'{int(address):#034x}' for address in own.of(6))} }}"
    mac = own.mac.replace(":", "")
    return [f"icmpv6 type nd-neighbor-advert @th,64,128 != {mine} counter drop",
            f"ip6 saddr :: @th,64,128 != {mine} counter drop",
            "ip6 saddr :: icmpv6 type nd-neighbor-solicit accept",
            "ip6 length 24 accept",
            f"ip6 length 32 @th,192,64 {{ 0x0101{mac}, 0x0201{mac} }} accept",
            "counter drop"]


def sources(own):
    """Return the rules for the packets that a container forwards. It answers as a neighbour for its own addresses only."""
    lines = []
    for version, word, verdict in ((4, "ip", "accept"), (6, "ip6", f"goto {PREFIX}ipv6_whole")):
        nets = [net for net in own.networks if net.version == version]
        if any(net.prefixlen == 0 for net in nets):
            lines.append(f"ether type {word} {verdict}")
        elif nets:
            lines.append(f"{word} saddr {{ {', '.join(map(str, nets))} }} {verdict}")
    return [*lines, "counter drop"]
