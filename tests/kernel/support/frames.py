# SPDX-License-Identifier: GPL-3.0-or-later
"""Ethernet frames as somebody sends them who may use raw sockets, and the socket that sends and sees them."""

from __future__ import annotations

import ipaddress
import socket
import struct

from ansible_collections.fromscratch.containers.plugins.module_utils.network import namespaces

IPV4, ARP, IPV6, VLAN, QINQ = 0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8
BROADCAST, ALL_NODES_MAC = "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"
ALL_NODES = "ff02::1"
ICMP, UDP, ICMPV6 = 1, 17, 58
ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT, REDIRECT = 134, 135, 136, 137
SOURCE_MAC, TARGET_MAC = 1, 2  # the options of neighbour discovery


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    return ipaddress.ip_address(text).packed


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ether(source, target, kind, payload, *tags):
    """``tags``: (ethertype, VLAN) from the outside in."""
    return mac(target) + mac(source) + b"".join(struct.pack("!HH", *tag) for tag in tags) + struct.pack("!H", kind) + payload


def payload(frame):
    """What is behind the type of a frame and its tags."""
    begin = 14
    while int.from_bytes(frame[begin - 2:begin], "big") in (VLAN, QINQ):
        begin += 4
    return frame[begin:]


def arp(operation, sender_mac, sender_ip, target_mac, target_ip):
    return (struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + mac(sender_mac) + ip(sender_ip) + mac(target_mac) + ip(target_ip))


def ipv4(source, target, protocol, payload, fragment=0, identity=1):
    """``fragment``: the field of flags and offset."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identity, fragment, 64, protocol, 0) + ip(source) + ip(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source, target, next_header, payload):
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, 255) + ip(source) + ip(target) + payload


def echo(data=b"who is there?", number=1):
    return _icmp(struct.pack("!BBHHH", 8, 0, 0, 7, number) + data)


def _icmp(message):
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def icmp_redirect(gateway, about):
    return _icmp(struct.pack("!BBH", 5, 1, 0) + ip(gateway) + about)


def udp(source, target, data):
    return struct.pack("!HHHH", source, target, 8 + len(data), 0) + data


def icmpv6(source, target, kind, body):
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = ip(source) + ip(target) + struct.pack("!II", len(message), ICMPV6)
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def option(kind, address):
    """The MAC of a sender or a target in neighbour discovery."""
    return struct.pack("!BB", kind, 1) + mac(address)


def router_advertisement(source_mac, prefix):
    """A default route for half an hour, and a prefix to take addresses from."""
    information = struct.pack("!BBBBIII", 3, 4, 64, 0xc0, 3600, 3600, 0) + ip(prefix)
    return struct.pack("!BBHII", 64, 0, 1800, 0, 0) + information + option(SOURCE_MAC, source_mac)


def advertisement(target, address, solicited=False):
    return struct.pack("!I", 0x20000000 | solicited << 30) + ip(target) + option(TARGET_MAC, address)


def solicitation(target, address):
    return bytes(4) + ip(target) + option(SOURCE_MAC, address)


def hop_by_hop(next_header, payload):
    """The payload behind an empty extension header."""
    return struct.pack("!BB", next_header, 0) + b"\x01\x04" + bytes(4) + payload


def fragment_header(next_header, payload, offset=0, more=False):
    return struct.pack("!BBHI", next_header, 0, offset << 3 | more, 99) + payload


class Wire:
    """A raw socket at a link of a namespace."""

    def __init__(self, netns, link="eth0"):
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((link, 0))
        self._socket.setblocking(False)

    def send(self, *frames):
        for frame in frames:
            self._socket.send(frame)

    def seen(self):
        """The frames that have come in since, without those that were sent from here."""
        found = []
        while True:
            try:
                frame, sender = self._socket.recvfrom(65535)
            except BlockingIOError:
                return found
            if sender[2] != socket.PACKET_OUTGOING:
                found.append(frame)

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
