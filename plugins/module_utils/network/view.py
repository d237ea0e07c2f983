# SPDX-License-Identifier: GPL-3.0-or-later
"""Define what planning sees of a host's links, whether ``netlink`` has read it from the kernel or it comes from data."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from ..core.errors import ModuleError


@dataclass
class Link:
    """Hold one link as the kernel reports it; ``data`` holds the kind's own attributes by their netlink name."""

    index: int
    name: str
    kind: Optional[str]
    mac: Optional[str]
    mtu: int
    up: bool
    alias: str
    master: Optional[int]
    peer: Optional[int]
    peer_netns: Optional[int]  # the kernel's id of the namespace that the peer is in; None where it is this one
    hairpin: bool  # as a bridge port, whether it gets its own frames back
    flood: Optional[bool]  # as a bridge port; None where it is none, or has flags that are neither here nor there
    data: Dict[str, object] = field(default_factory=dict)
    settings: Dict[str, bool] = field(default_factory=dict)  # the fields of operations.SYSCTLS


class NamespaceView:
    """One network namespace. Links are found by name, all that belongs to one by its index."""

    @property
    def links(self) -> Dict[str, Link]:
        """Return all links by name, without those that will be gone."""
        raise NotImplementedError

    def addresses(self, index) -> tuple:
        """Return the addresses of a link in CIDR form, in the kernel's order, without those that come and go by themselves."""
        raise NotImplementedError

    def routes(self, index) -> frozenset:
        """Return the frozenset of routes by a link that a program has set."""
        raise NotImplementedError

    def neighbours(self, index) -> frozenset:
        """Return the frozenset of permanent neighbours of a link."""
        raise NotImplementedError

    def fdb(self, index) -> frozenset:
        """Return the permanent forwarding entries of a VXLAN link that have a destination.

        Learnt ones come and go by themselves.
        """
        raise NotImplementedError

    def port_fdb(self, index) -> frozenset:
        """Return the MACs that were added to the bridge for one of its ports."""
        raise NotImplementedError

    def id_of(self, netns) -> Optional[int]:
        """Return this namespace's id for another, or None."""
        raise NotImplementedError

    def other_way(self, peer, source, device) -> Optional[str]:
        """Return the link by which the kernel reaches a peer from this address, or None where a route leads there by ``device``.

        None is also the result without a route, which may be added later, for an address of this host itself, and where the device
        belongs to another one, such as a VRF, with routes of its own.
        """
        raise NotImplementedError

    @property
    def names(self) -> Dict[int, str]:
        """Return the names of the links by their index."""
        return {link.index: link.name for link in self.links.values()}

    def name_of(self, index) -> Optional[str]:
        """Return the name of the link with this index, or None."""
        return self.names.get(index)

    def device_of(self, address) -> Optional[Link]:
        """Return the link that carries the address, or None."""
        wanted = ipaddress.ip_address(address)
        return next((link for link in self.links.values()
                     if any(ipaddress.ip_interface(each).ip == wanted for each in self.addresses(link.index))), None)


class HostView:
    """The network namespaces of a host."""

    def at(self, state) -> None:
        """Show the host without what will be gone in this state."""
        raise NotImplementedError

    def namespace(self, netns) -> Any:
        """Return the namespace, or None where it does not exist, or will be gone."""
        raise NotImplementedError

    def names(self) -> List[str]:
        """Return all names that pin a namespace."""
        raise NotImplementedError

    def same(self, one, other) -> bool:
        """Return whether two namespaces exist and are the same one."""
        raise NotImplementedError

    def whereabouts(self, netns) -> Optional[str]:
        """Return the namespace; that of the running container where the name is lost or reused, which ns_container repairs."""
        raise NotImplementedError

    def there(self, netns) -> Any:
        """Return the namespace. Raise ModuleError where it does not exist."""
        namespace = self.namespace(netns)
        if namespace is None:
            raise ModuleError(f"there is no network namespace {netns}")
        return namespace
