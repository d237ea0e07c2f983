# SPDX-License-Identifier: GPL-3.0-or-later
"""A change as the ordered steps that make it: the small vocabulary that a kernel understands.

A step is data. ``netlink`` applies it over netlink, ``iproute2`` renders it as the command line of iproute2: because
both start from the same steps, what is shown is what is done. ``netns`` is a name below /run/netns, a path such as
/proc/PID/ns/net, or None for the namespace the module runs in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple

from ..core.plan import CREATE
from ..core.resource import OWNER
from .links import FdbEntry, Neighbour, Route

Pairs = Tuple[Tuple[str, object], ...]


@dataclass(frozen=True)
class InnerEnd:
    """Hold the inner end of a new veth pair, which iproute2 calls its peer."""

    name: str
    netns: Optional[str]
    mac: Optional[str] = None
    mtu: Optional[int] = None


@dataclass(frozen=True)
class LinkAdd:
    netns: Optional[str]
    name: str
    kind: str
    mac: Optional[str] = None
    mtu: Optional[int] = None
    data: Pairs = ()
    inner: Optional[InnerEnd] = None


@dataclass(frozen=True)
class LinkSet:
    """Set any of ``mac``, ``mtu``, ``master`` ("" for none), ``alias``, ``up`` and ``data`` of a link."""

    netns: Optional[str]
    name: str
    kind: Optional[str] = None
    mac: Optional[str] = None
    mtu: Optional[int] = None
    master: Optional[str] = None
    alias: Optional[str] = None
    up: Optional[bool] = None
    data: Pairs = ()


# Settings of a link by the field of the model, each with its files below /proc/sys/net/FAMILY/conf/LINK; "ipv6" is the opposite of
# its file. Why these and no others:
# - accept_ra: whoever sends a router advertisement would become the default route of every link that takes it.
# - accept_redirects: a redirect leads the packets for one destination elsewhere. For IPv4 the value of the link counts only where
#   the link forwards, or where that of `all` is 0; on other hosts the rules of the role drop redirects that containers send.
# - not send_redirects: the kernel sends where the link or `all` says so, and `all` is the whole host's.
# - not rp_filter: it compares the source with the routes of links, so one port of a bridge could still use the address of another,
#   and networks that overlap would lose packets. The rules of the role compare with the port.
SYSCTLS = {"accept_ra": ("ipv6/accept_ra",), "accept_redirects": ("ipv4/accept_redirects", "ipv6/accept_redirects"),
           "ipv6": ("ipv6/disable_ipv6",)}


@dataclass(frozen=True)
class SysctlSet:
    """Set sysctls of a link, such as ``("ipv6/accept_ra", 0)``. Those of IPv6 are skipped on a link that has none."""

    netns: Optional[str]
    name: str
    settings: Pairs


@dataclass(frozen=True)
class LinkDel:
    """Delete a link. It ``goes`` where it may be gone already, with the namespace of its other end."""

    netns: Optional[str]
    name: str
    goes: bool = False


@dataclass(frozen=True)
class AddressReplace:
    netns: Optional[str]
    dev: str
    address: str


@dataclass(frozen=True)
class AddressDel(AddressReplace):
    pass


@dataclass(frozen=True)
class RouteReplace:
    netns: Optional[str]
    dev: str
    route: Route


@dataclass(frozen=True)
class RouteDel(RouteReplace):
    pass


@dataclass(frozen=True)
class FdbAppend:
    """Append a destination of the all-zero MAC. The kernel refuses to replace those, and to append to others."""

    netns: Optional[str]
    dev: str
    entry: FdbEntry


@dataclass(frozen=True)
class FdbReplace(FdbAppend):
    """Set the one destination of a unicast MAC, in place of one that was learnt."""


ETHERNET_MTU = 1500  # what the kernel gives to a link
IPV6_MTU = 1280  # the least that IPv6 works with


@dataclass(frozen=True)
class FdbDel(FdbAppend):
    pass


@dataclass(frozen=True)
class PortHairpin:
    """Set whether a bridge port sends frames back that came in by it."""

    netns: Optional[str]
    name: str
    on: bool


@dataclass(frozen=True)
class PortSet:
    """A bridge port. Without ``flood`` it gets the frames for the MACs that the bridge knows there and no others, the bridge
    learns none from it, and answers for the neighbours that it knows."""

    netns: Optional[str]
    name: str
    flood: bool


@dataclass(frozen=True)
class PortFdbReplace:
    """Add a MAC that the bridge finds behind its port ``dev``."""

    netns: Optional[str]
    dev: str
    mac: str


@dataclass(frozen=True)
class PortFdbDel(PortFdbReplace):
    pass


@dataclass(frozen=True)
class NeighbourReplace:
    netns: Optional[str]
    dev: str
    neighbour: Neighbour


@dataclass(frozen=True)
class NeighbourDel(NeighbourReplace):
    pass


def data_of(change):
    """Return the kind's own attributes in the words of ``ip link ... type KIND``: all at creation, else those that differ."""
    return tuple((word, getattr(change.after, name)) for name, word in change.after.words.items() if concerns(change, name))


def concerns(change, name):
    """Return whether the change is about this field: it is managed, and new or different."""
    return getattr(change.after, name, None) is not None and (change.action == CREATE or name in change.differing())


def sysctls(change, netns, name, prefix=""):
    """Return what sets the sysctls of a link that differ, of the change's fields that begin with ``prefix``.

    A link that gets an MTU which IPv6 works with gets IPv6 as well, and its sysctls as its host gives them to new links.
    """
    before, after = (getattr(item, f"{prefix}mtu", None) for item in (change.before, change.after))
    anew = before and after and before < IPV6_MTU <= after
    settings = tuple((path, int(getattr(change.after, prefix + field) != (field == "ipv6"))) for field, paths in SYSCTLS.items()
                     if concerns(change, prefix + field) or (anew and getattr(change.after, prefix + field, None) is not None)
                     for path in paths)
    return [SysctlSet(netns, name, settings)] if settings else []


def link(change, data=(), inner=None, of_inner=(), own_mtu=False):
    """Create the link, or set what differs of mac, mtu and data. The alias that marks it cannot come with creation.

    The settings come before it is up, when nobody can talk to it yet; with those ``of_inner`` behind them.

    With ``own_mtu`` the MTU is set by itself: only then does a bridge keep it, whatever that of its ports; and only where it is
    not the one that it has already.
    """
    item = change.after
    if change.action == CREATE:
        first = item.mtu if not own_mtu else ETHERNET_MTU - 1 if item.mtu == ETHERNET_MTU else None
        return [LinkAdd(item.netns, item.name, item.kind, item.mac, first, data, inner),
                *sysctls(change, item.netns, item.name), *of_inner,
                LinkSet(item.netns, item.name, alias=OWNER, mtu=item.mtu if own_mtu else None)]
    # A VXLAN device refuses an MTU that comes along with its own attributes.
    return (some(LinkSet(item.netns, item.name, alias=mark(change, OWNER),
                         mac=item.mac if concerns(change, "mac") else None,
                         mtu=item.mtu if concerns(change, "mtu") else None))
            + some(LinkSet(item.netns, item.name, item.kind if data else None, data=data))
            + sysctls(change, item.netns, item.name))


def mark(change, alias):
    """Return the alias where the link does not have it yet, or None."""
    return alias if change.action == CREATE or "owner" in change.differing() else None


def merged(steps):
    """Return the operations, with consecutive ones that set the same link merged into one."""
    done = []
    for step in steps:
        last = done[-1] if done else None
        if (isinstance(step, LinkSet) and isinstance(last, LinkSet) and not step.data and not last.data
                and (step.netns, step.name) == (last.netns, last.name)):
            done[-1] = replace(last, **{name: getattr(step, name) for name in ("mac", "mtu", "master", "alias", "up")
                                        if getattr(step, name) is not None})
        else:
            done.append(step)
    return done


def some(setting):
    """Return the operation in a list, or no operation where it would set nothing."""
    return [] if setting == LinkSet(setting.netns, setting.name) else [setting]


def gained_and_lost(change, name):
    """Return the members to add to and to remove from a set-valued field, two sorted lists."""
    if not concerns(change, name):
        return [], []
    want = getattr(change.after, name)
    have = getattr(change.before, name, None) or frozenset()
    return sorted(want - have, key=str), sorted(have - want, key=str)


def addresses(change, netns, dev):
    """Return what sets the addresses: stale ones go first, secondary ones before the primary one that would take them along.

    A desired one may go in the same way: where any is deleted, all that are desired are set again.
    """
    gained, lost = gained_and_lost(change, "addresses")
    stale = [each for each in reversed(change.before.kernel_order) if each in lost] if lost else []
    again = sorted(change.after.addresses) if lost else gained
    return ([AddressDel(netns, dev, each) for each in stale]
            + [AddressReplace(netns, dev, each) for each in again])


def membership(change):
    """Return what makes a link a port of its bridge, or of none."""
    if not concerns(change, "bridge") or (change.action == CREATE and not change.after.bridge):
        return []
    return [LinkSet(change.after.netns, change.after.name, master=change.after.bridge)]


def up(change, netns, name):
    """Return what sets a link up or down."""
    return [LinkSet(netns, name, up=change.after.up)] if concerns(change, "up") else []
