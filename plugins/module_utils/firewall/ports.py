# SPDX-License-Identifier: GPL-3.0-or-later
"""Check published ports, as far as only the host can tell whether they are free.

The rules are part of a table of nftables. Nothing is created here: the items are checked before anything changes.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional, Union

from ..core import validate
from ..core.errors import OptionError
from ..core.kind import Kind
from ..core.resource import Item, identity, input_only

# The state of a socket that takes what is sent to its port: LISTEN of TCP, and of UDP "not connected".
WAITING = {"tcp": "0A", "udp": "07"}
ANY = (ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::"))


@dataclass(frozen=True)
class Port(Item):
    """Hold a published port of the host at one of its addresses, or at all of them."""

    word = "published port"

    protocol: str = identity()
    port: int = identity()
    address: Optional[str] = identity()
    over: Optional[bool] = input_only()

    @property
    def key(self):
        return f"{self.word} {f'{self.address}:' if self.address else ''}{self.port}/{self.protocol}"


class Ports(Kind):
    """``coming`` holds the addresses that the host will have after this task."""

    options = {
        "port": {"type": "int", "required": True},
        "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
        "address": {"type": "str"},
        "over": {"type": "bool", "default": False},
    }

    def parse(self, options):
        return Port(protocol=options["protocol"], port=validate.in_range("port", options["port"], 1, 65535),
                    address=options["address"], over=options["over"])

    def complete(self, item, state):
        if item.address and ("address", item.address) not in state.made and not has_address(item.address):
            raise OptionError("address", item.address,
                              f"this host has no such address, at which port {item.port} could be published: "
                              "give one that `ip address` shows, or none, which means all that it has")
        if not item.over:
            for listener in listeners(item.protocol, item.port):
                if listener.stands_behind(item.address):
                    raise OptionError("port", item.port,
                                      f"{listener.program()} of this host listens on it at {listener.address} by "
                                      f"{item.protocol}, and would not be reached any more: choose another port, or "
                                      "set overlay_publish_over (in topology: publish.over)")
        return item

    def observe(self, wanted, prune, state):
        return {item.key: item for item in wanted}


class Listener(NamedTuple):
    """Hold a listening socket of a program."""

    address: Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
    inode: str

    def stands_behind(self, address):
        """Return whether it receives packets that a rule for an address, or for all but loopback ones, would redirect."""
        if self.address in ANY:
            return True
        mine = getattr(self.address, "ipv4_mapped", None) or self.address
        return mine.version == 4 and (str(mine) == address if address else not mine.is_loopback)

    def program(self):
        """Return the program and process that own the socket, as text."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if any(os.readlink(each) == f"socket:[{self.inode}]" for each in (path / "fd").iterdir()):
                    return f"{(path / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (process {path.name})"
            except OSError:  # it has ended meanwhile
                continue
        return "a program"


def listeners(protocol, port):
    """Return the sockets that listen at a port of this network namespace, as netstat(8) shows them."""
    for name in protocol, f"{protocol}6":
        path = Path(f"/proc/thread-self/net/{name}")
        for line in path.read_text(encoding="ascii").splitlines()[1:] if path.exists() else ():
            words = line.split()
            address, at = words[1].split(":")
            if int(at, 16) == port and words[3] == WAITING[protocol]:
                yield Listener(_address(address), words[9])


def _address(text):
    """Return an address of /proc/net: 32-bit words, each in the machine's byte order."""
    words = [int(text[at:at + 8], 16) for at in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(socket.htonl(word).to_bytes(4, "big") for word in words))


def has_address(address):
    """Return whether the host has the address; with ``net.ipv4.ip_nonlocal_bind`` it has each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return False
            raise
    return True
