# SPDX-License-Identifier: GPL-3.0-or-later
"""The neighbour tables of the kernel in bulk: FDB entries of tunnels and bridge ports, and neighbours of IPv4 and IPv6. All are
one message of rtnetlink(7), RTM_NEWNEIGH.

They are the only tables that grow with the hosts of an overlay times their containers, and pyroute2 takes milliseconds for each
entry. So this packs many into one send(2), and decodes what is needed of a dump. See linux/neighbour.h and netlink(7).
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import namespaces

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
NLM_F_REPLACE, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x400, 0x800
SOL_NETLINK, NETLINK_CAP_ACK = 270, 10
NDA_DST, NDA_LLADDR, NDA_IFINDEX, NDA_MASTER = 1, 2, 8, 9
NLA_TYPE = 0x3fff  # without the flags of an attribute's type
HEADER, NDMSG, ATTRIBUTE, NUMBER = struct.Struct("=IHHII"), struct.Struct("=BxxxiHBB"), struct.Struct("=HH"), struct.Struct("=i")
AT_ONCE = 128  # messages in one send: should the kernel refuse all of them, its answers still fit the socket's default buffer
BUFFER = 1 << 18

REPLACE, APPEND = NLM_F_CREATE | NLM_F_REPLACE, NLM_F_CREATE | NLM_F_APPEND


class DumpInterrupted(Exception):
    """The table was changed while it was read, and what was read may lack something."""


class Entry(NamedTuple):
    """One entry; ``link``, ``via`` and ``master`` are indices of links, ``state`` is of NUD_* and ``flags`` of NTF_*."""

    family: int
    link: int
    state: int
    flags: int
    mac: Optional[str] = None
    dst: Optional[str] = None
    via: Optional[int] = None
    master: Optional[int] = None


class Request(NamedTuple):
    """An entry to be made, with REPLACE or APPEND, or deleted, with None."""

    entry: Entry
    how: Optional[int]


def send(netns: Optional[str], requests: Sequence[Request]) -> List[Tuple[int, int]]:
    """Make and delete entries in a namespace, in order; return (position, errno) of each request that the kernel refused."""
    refused = []
    with _opened(netns) as handle:
        for start in range(0, len(requests), AT_ONCE):
            batch = requests[start:start + AT_ONCE]
            last = start + len(batch) - 1
            # Who is refused is told of in any case; only the last one has to say that it is done.
            handle.send(b"".join(_packed(request, start + position, NLM_F_ACK * (start + position == last))
                                 for position, request in enumerate(batch)))
            answered = False
            while not answered:
                for kind, _flags, sequence, body in _messages(handle.recv(BUFFER)):
                    if kind == NLMSG_ERROR:
                        code = -NUMBER.unpack_from(body)[0]
                        answered = answered or sequence == last
                        if code:
                            refused.append((sequence, code))
    return refused


def dump(netns: Optional[str], family: int) -> Dict[int, List[Entry]]:
    """Return all entries of an address family in a namespace, AF_BRIDGE being the FDB, by the index of their link.

    Raises DumpInterrupted, and OSError for what the kernel refuses."""
    found: Dict[int, List[Entry]] = {}
    with _opened(netns) as handle:
        handle.send(_message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 0, NDMSG.pack(family, 0, 0, 0, 0)))
        while True:
            for kind, flags, _sequence, body in _messages(handle.recv(BUFFER)):
                if flags & NLM_F_DUMP_INTR:
                    raise DumpInterrupted
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    code = -NUMBER.unpack_from(body)[0]
                    raise OSError(code, f"reading the neighbour tables: {os.strerror(code)}")
                entry = _unpacked(body)
                found.setdefault(entry.link, []).append(entry)


def _opened(netns):
    with namespaces.entered(netns):
        handle = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    handle.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # an answer does not repeat the message
    return handle


def _message(kind, flags, sequence, body):
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def _messages(data):
    """Yield (type, flags, sequence, body) of each message in what was received."""
    at = 0
    while at < len(data):
        length, kind, flags, sequence, _port = HEADER.unpack_from(data, at)
        yield kind, flags, sequence, data[at + HEADER.size:at + length]
        at += length + 3 & ~3


def _packed(request, sequence, ack):
    entry, how = request
    body = [NDMSG.pack(entry.family, entry.link, entry.state, entry.flags, 0)]
    if entry.dst is not None:
        body.append(_attribute(NDA_DST, socket.inet_pton(socket.AF_INET6 if ":" in entry.dst else socket.AF_INET, entry.dst)))
    if entry.mac is not None:
        body.append(_attribute(NDA_LLADDR, bytes.fromhex(entry.mac.replace(":", ""))))
    if entry.via is not None:
        body.append(_attribute(NDA_IFINDEX, NUMBER.pack(entry.via)))
    return _message(RTM_DELNEIGH if how is None else RTM_NEWNEIGH, NLM_F_REQUEST | ack | (how or 0), sequence, b"".join(body))


def _attribute(kind, value):
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _unpacked(body):
    family, link, state, flags, _type = NDMSG.unpack_from(body)
    attributes, at = {}, NDMSG.size
    while at + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, at)
        attributes[kind & NLA_TYPE] = body[at + ATTRIBUTE.size:at + length]
        at += length + 3 & ~3
    mac, dst, via, master = map(attributes.get, (NDA_LLADDR, NDA_DST, NDA_IFINDEX, NDA_MASTER))
    return Entry(family, link, state, flags, mac.hex(":") if mac else None, _address(dst), via and NUMBER.unpack(via)[0],
                 master and NUMBER.unpack(master)[0])


def _address(packed):
    if packed is None:
        return None
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
