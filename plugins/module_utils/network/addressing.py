# SPDX-License-Identifier: GPL-3.0-or-later
"""Validate addresses, routes, MTUs and names of links.

A rule takes the option's name and the value and returns the value in its canonical form, or raises OptionError.
"""

from __future__ import annotations

import ipaddress
import os
import re

from ..core.errors import OptionError
from ..core.validate import in_range, refuse_duplicates, text
from .links import DEFAULT, DEFAULT6, IFNAME_MAX, Route

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def interface_name(option, value):
    """Return a name that the kernel accepts for a link, or None."""
    if value is None:
        return None
    size = len(os.fsencode(text(option, value)))
    if not 1 <= size <= IFNAME_MAX:
        raise OptionError(option, value, f"an interface name has 1 to {IFNAME_MAX} bytes, this one has {size}")
    if value in (".", "..", "all", "default") or re.search(r"[/:\s%]", value) or not value.isprintable():
        raise OptionError(option, value, "an interface name has no '/', ':', '%' or white space and is not "
                          "'.', '..', 'all' or 'default'")
    return value


def plain_interface_name(option, value):
    """Return the name of a link that also stands in packet filters and files of udev, systemd-networkd and NetworkManager.

    None of these can quote all that the kernel accepts: ``a"b`` ends a string of nft, ``br*`` is any name that begins like this
    for all of them, ``br+`` is for iptables, and ``!br0`` any other name for systemd.
    """
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", interface_name(option, value)):
        raise OptionError(option, value,
                          "it also stands in rules of packet filters and in files, so use letters, digits, '_', '.', "
                          "'@' and '-', the first a letter, a digit or '_'")
    return value


def mac(option, value):
    """Return a unicast MAC address in lower case with colons, or None."""
    if value is None:
        return None
    canonical = value.lower().replace("-", ":")
    if not MAC.fullmatch(canonical):
        raise OptionError(option, value, "a MAC address is six pairs of hexadecimal digits, such as 02:00:00:00:00:01")
    if int(canonical[:2], 16) & 1 or canonical == "00:00:00:00:00:00":
        raise OptionError(option, value, "a link needs a unicast MAC address: the first byte is even, and not all are zero")
    return canonical


def vni(option, value):
    """Return a VXLAN network identifier of 24 bits (RFC 7348); the kernel reads 0 as none."""
    return in_range(option, value, 1, 2 ** 24 - 1)


def udp_port(option, value):
    """Return a UDP port."""
    return in_range(option, value, 1, 65535)


def least_mtu(addresses):
    """Return the smallest MTU in bytes that IPv4 allows, or IPv6 where an address is one."""
    return 1280 if any(":" in each for each in addresses or ()) else 68


def needs_ipv6(addresses):
    """Return True where an address is one of IPv6, which the link then needs whatever new links of the host have; else None."""
    return True if any(":" in address for address in addresses or ()) else None


def mtu(option, value, addresses=None):
    """Return an MTU in bytes that the addresses allow, up to the kernel's largest."""
    return in_range(option, value, least_mtu(addresses), 65535)


def ip(option, value):
    """Return an IPv4 or IPv6 address without prefix length, in its shortest form."""
    if value is None:
        return None
    try:
        if "%" not in value:  # a scope is the link, which is known
            return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    raise OptionError(option, value, "give an IPv4 or IPv6 address without a prefix or scope, such as 10.0.0.1 or fd00::1")


def unicast(option, value):
    """Return the address of a host on the underlay."""
    address = host_ip(option, value)
    if address is not None and ipaddress.ip_address(address).is_link_local:
        raise OptionError(option, value, "it must be the address of one host, neither multicast nor link-local")
    return address


def host_ip(option, value):
    """Return an address that a host can have on a network, link-local or not."""
    address = ip(option, value)
    if address is not None:
        _refuse_no_host(option, value, ipaddress.ip_address(address))
    return address


ZERO, LIMITED_BROADCAST = ipaddress.ip_network("0.0.0.0/8"), ipaddress.ip_address("255.255.255.255")


def _refuse_no_host(option, value, address):
    """Raise OptionError for an address that no host can be reached by. (240.0.0.0/4 works, and overlays use it.)"""
    if address.is_multicast or address.is_unspecified or address == LIMITED_BROADCAST:
        raise OptionError(option, value, "it must be the address of one host, neither multicast nor link-local")
    if address.is_loopback:
        raise OptionError(option, value, "it is an address of the loopback, which no other host reaches: give another")
    if address.version == 4 and address in ZERO:
        raise OptionError(option, value, "0.0.0.0/8 means this network, and is no host's: give another")
    if address.version == 6 and address.ipv4_mapped:
        raise OptionError(option, value,
                          f"it is an IPv4-mapped IPv6 address, which no link carries: give {address.ipv4_mapped} itself")


def multicast(option, value):
    """Return the address of a multicast group, or None."""
    address = ip(option, value)
    if address is not None and not ipaddress.ip_address(address).is_multicast:
        raise OptionError(option, value, "a group is a multicast address, such as 239.1.1.1; peers go into remotes")
    return address


def same_family(option, value, other, reference):
    """Return ``value``, which must have the address family of ``reference``, the value of the option ``other``."""
    if (":" in value) != (":" in reference):
        raise OptionError(option, value, f"it is of another address family than {other}, {reference}: give one of the same")
    return value


def interface_address(option, value):
    """Return an address of a link with its prefix length: 10.0.0.1/24."""
    if "/" not in value:
        raise OptionError(option, value, "an address needs its prefix length, such as 10.0.0.1/24 or fd00::1/64")
    try:
        address = ipaddress.ip_interface(value)
    except ValueError as error:
        raise OptionError(option, value, f"it is not an address with a prefix length ({error})") from None
    if address.ip.is_multicast or address.ip.is_unspecified or (address.version == 6 and address.ip.is_link_local):
        raise OptionError(option, value, "an interface carries a unicast address, and the kernel sets link-local IPv6 "
                          "addresses itself")
    _refuse_no_host(option, value, address.ip)
    _refuse_ends_of_subnet(option, value, address)
    return address.with_prefixlen


def _refuse_ends_of_subnet(option, value, address):
    """Raise OptionError for the first and last address of a subnet, but for the small ones of RFC 3021 and RFC 6164."""
    net = address.network
    if net.prefixlen == 0:
        raise OptionError(option, value,
                          "a prefix length of 0 makes all addresses of the world neighbours: give that of the subnet")
    if net.prefixlen >= net.max_prefixlen - 1:
        return
    if address.version == 4 and address.ip == net.broadcast_address:
        raise OptionError(option, value, f"it is the broadcast address of its network, {net}: give one between the ends")
    if address.ip == net.network_address:
        what = "the address of its network" if address.version == 4 else "the address of all routers of its network (RFC 4291)"
        raise OptionError(option, value, f"it is {what}, {net}: give one between the ends")


def interface_addresses(option, values):
    """Return a frozenset of addresses with their prefix length, none twice; None for None."""
    if values is None:
        return None
    found = [interface_address(option, value) for value in values]
    refuse_duplicates(option, [each.split("/")[0] for each in found])
    return frozenset(found)


def network(option, value):
    """Return a destination: ``default``, or a network in CIDR form without host bits."""
    if value == DEFAULT:
        return value
    try:
        return ipaddress.ip_network(value).with_prefixlen
    except ValueError as error:
        raise OptionError(option, value, f"it is neither 'default' nor a network such as 10.1.0.0/16 ({error})") from None


def routes(option, values, gateway, gateway_option="gateway"):
    """Return the frozenset of Route of a list of ``{dst, via}`` and a default gateway; None where neither is managed."""
    if values is None and gateway is None:
        return None
    found = []
    for entry in values or []:
        via = host_ip(f"{option}.via", entry["via"])
        dst = network(f"{option}.dst", entry["dst"])
        if via and dst != DEFAULT and (":" in via) != (":" in dst):
            raise OptionError(f"{option}.via", via,
                              f"it is of another address family than the destination {dst}: give one of the same")
        found.append(route(dst, via))
    found += [route(DEFAULT, host_ip(gateway_option, gateway))] if gateway else []
    refuse_duplicates(f"{option}.dst", [each.dst for each in sorted(set(found), key=str)])
    return frozenset(found)


def route(dst, via):
    """Return a Route; ``default`` is of the gateway's family, and of IPv4 without a gateway."""
    if dst == "0.0.0.0/0":
        dst = DEFAULT
    return Route(DEFAULT6 if dst == DEFAULT and ":" in (via or "") else dst, via)


def refuse_unreachable(routes, addresses, option="routes.via", gateway=None):
    """Raise OptionError for a gateway that no address and no route without a gateway leads to: the kernel refuses it."""
    nets = [ipaddress.ip_interface(each).network for each in addresses]
    nets += [ipaddress.ip_network(each.dst) for each in routes if not each.via and each.dst not in (DEFAULT, DEFAULT6)]
    for address in addresses:
        dst = str(ipaddress.ip_interface(address).network)
        if any(route.dst == dst for route in routes):
            raise OptionError("routes.dst", dst, f"the kernel makes that route itself for the address {address}: leave it out")
    for value in sorted(route.via for route in routes if route.via):
        via, where = ipaddress.ip_address(value), "gateway" if value == gateway else option
        for net in (net for net in nets if via in net and net.prefixlen < 31 and net.version == 4):
            if via in (net.network_address, net.broadcast_address):
                what = "broadcast address" if via == net.broadcast_address else "address"
                raise OptionError(where, value, f"it is the {what} of its network, {net}: give that of a router in it")
        if via in {ipaddress.ip_interface(address).ip for address in addresses}:
            raise OptionError(where, value, "it is one of the addresses of this end itself: give that of a router")
        if not via.is_link_local and not any(via in net for net in nets):
            raise OptionError(where, value, "it is in no network of the addresses ("
                              + (", ".join(sorted(addresses)) or "none") + ") nor of a route without via: add one that leads to it")
