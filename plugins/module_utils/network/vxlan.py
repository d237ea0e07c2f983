# SPDX-License-Identifier: GPL-3.0-or-later
"""VXLAN devices: where a tunnel comes from.

One device is one VTEP of one network: it wraps each Ethernet frame in UDP and sends it to the host that has the
destination MAC. It knows three ways to find that host:

* one peer: the device's own ``remote``, as in ``ip link add vxlan0 type vxlan id 100 remote ...``;
* many peers: an all-zero FDB entry for each; what has no entry of its own is copied to all (head-end replication);
* a multicast group, where the underlay carries multicast.

With ``learning`` the device adds entries from the frames it receives; with ``fdb`` they are given.

Points that cost others dearly: ``local`` is always set, because with static entries a source address that the
routing table chooses may be one that the peers do not know. The MAC is derived, never random, so that a reboot does
not strand the peers. The MTU is the underlay's less what the encapsulation costs, set explicitly: the kernel derives
it only at creation. The VNI and the port cannot change in place, so such a change makes the device anew, with its
bridge port and its entries. The underlay device could, but the kernel leaves the entry of ``remote`` on the former.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict

from ..core import validate
from ..core.conflicts import REMEDY
from ..core.errors import NotOwnedError, OptionError
from ..core.plan import CREATE, DELETE, RECREATE
from ..core.resource import OWNER
from . import addressing, operations
from .identity import derived_mac
from .link_kind import LinkKind, leads_nowhere, tunnel_mtu, underlay_device
from .links import FdbEntry, Vxlan

ALL_ZERO = "00:00:00:00:00:00"

OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "netns": {"type": "str"},
    "vni": {"type": "int"},
    "local": {"type": "str"},
    "remotes": {"type": "list", "elements": "str"},
    "group": {"type": "str"},
    "device": {"type": "str"},
    "port": {"type": "int", "default": 4789},
    "learning": {"type": "bool", "default": True},
    "ttl": {"type": "int"},
    "ageing": {"type": "int"},
    "udp_checksum": {"type": "bool"},
    "mtu": {"type": "int"},
    "mac": {"type": "str"},
    "bridge": {"type": "str"},
    "flood": {"type": "bool"},
    "fdb": {"type": "list", "elements": "dict", "options": {
        "mac": {"type": "str", "required": True},
        "dst": {"type": "str", "required": True},
    }},
}
RULES = {"required_if": [("state", "present", ("vni", "local"))], "mutually_exclusive": [("remotes", "group")]}


def vxlan(options: Dict[str, Any]) -> Vxlan:
    """Return the desired Vxlan of one item's options. Raise OptionError."""
    vni = addressing.vni("vni", options["vni"])
    local = addressing.unicast("local", options["local"])
    if local and ":" in local and options["udp_checksum"] is False:
        raise OptionError("udp_checksum", False, "UDP over IPv6 needs its checksum: set it to true, or leave it out")
    return Vxlan(
        name=addressing.interface_name("name", options["name"]), netns=validate.thing_name("netns", options["netns"]),
        vni=vni, local=local, up=True, accept_ra=False, accept_redirects=False, **peers(options, local),
        fdb=entries(options["fdb"], local),
        device=addressing.interface_name("device", options["device"]),
        port=addressing.udp_port("port", options["port"]), learning=options["learning"],
        ttl=validate.in_range("ttl", options["ttl"], 0, 255),
        ageing=validate.in_range("ageing", options["ageing"], 1, 1000000),
        udp_checksum=options["udp_checksum"], mtu=addressing.mtu("mtu", options["mtu"]),
        mac=addressing.mac("mac", options["mac"]) or (derived_mac("vxlan", vni, local) if vni and local else None),
        bridge=options["bridge"] and addressing.interface_name("bridge", options["bridge"]), **port(options))


def port(options):
    """Return the fields of the device as a bridge port, a dict; empty where that is not managed. Raise OptionError."""
    if options["flood"] is None or options["state"] == "absent":
        return {}
    if not options["bridge"]:
        raise OptionError("flood", options["flood"], "it is about a port of a bridge: give the bridge, too")
    known = [] if options["flood"] else options["fdb"] or []
    return {"flood": options["flood"], "port_fdb": frozenset(addressing.mac("fdb.mac", each["mac"]) for each in known)}


def peers(options, local):
    """Return ``remote``, ``remotes`` and ``group``, by which the device reaches its peers; {} where that is not managed."""
    group = addressing.multicast("group", options["group"])
    if group:
        return {"remote": "", "remotes": frozenset(), "group": peer("group", group, local)}
    if options["remotes"] is None:
        return {}
    remotes = [peer("remotes", addressing.unicast("remotes", each), local) for each in options["remotes"]]
    validate.refuse_duplicates("remotes", remotes)
    return {"remote": remotes[0] if len(remotes) == 1 else "", "remotes": frozenset(remotes), "group": ""}


def peer(option, address, local):
    """Return the address of a peer. Raise OptionError where it is this host's, or of another address family."""
    if address == local:
        raise OptionError(option, address, "it is local, the address of this host: give those of the others")
    return addressing.same_family(option, address, "local", local) if local else address


def entries(values, local):
    """Return the frozenset of forwarding entries, or None where they are not managed. Raise OptionError."""
    if values is None:
        return None
    found = [FdbEntry(addressing.mac("fdb.mac", each["mac"]), peer("fdb.dst", addressing.unicast("fdb.dst", each["dst"]), local))
             for each in values]
    validate.refuse_duplicates("fdb.mac", [each.mac for each in found])
    return frozenset(found)


class Vxlans(LinkKind):
    item = Vxlan
    options = OPTIONS
    rules = RULES
    parse = staticmethod(vxlan)

    def complete(self, item, state) -> Vxlan:
        """Find the underlay device by its address, and take the MTU from it."""
        self.links.at(state)
        namespace = self.links.namespace(item.netns)
        if item.local is None or namespace is None:
            return item
        if item.device is None:
            device = underlay_device(namespace, "local", item.local)
            nowhere = leads_nowhere(namespace, device) if item.remotes or item.group else None
            for remote in () if nowhere else sorted(item.remotes or ()):
                other = namespace.other_way(remote, item.local, device)
                if other:
                    raise OptionError("local", item.local, (
                        f"its link is {device.name}, and the kernel reaches the peer {remote} by {other}: give the device "
                        f"(overlay_device: {other}), or the address of this host on that"))
            if nowhere:
                raise OptionError("local", item.local, f"its link, {device.name}, is {nowhere}, which leads to no peer: give the "
                                  "device that the peers are reached by (overlay_device), or an address of that")
            item = replace(item, device=device.name)
        if item.device in namespace.links:
            most = tunnel_mtu(namespace.links[item.device], item.local)
            if item.mtu is not None and item.mtu > most:
                raise OptionError("mtu", item.mtu, f"the underlay device {item.device} leaves {most} bytes")
            item = replace(item, mtu=item.mtu or most)
        return item

    def find(self, namespace, netns, link):
        data = link.data
        remote = data.get("group") or data.get("group6") or ""
        remote = "" if remote in ("0.0.0.0", "::") else remote
        multicast = bool(remote) and _is_multicast(remote)
        entries = namespace.fdb(link.index)
        device = namespace.name_of(data.get("link")) or ""
        held = tuple(each for each in sorted(entries) if each.mac == ALL_ZERO and not _is_multicast(each.dst))
        return Vxlan(
            name=link.name, netns=netns, owner=link.alias, mac=link.mac, mtu=link.mtu, up=link.up,
            vni=data["id"], port=data["port"], ttl=data["ttl"], ageing=data["ageing"],
            learning=bool(data["learning"]), udp_checksum=bool(data["udp_csum"]),
            local=data.get("local") or data.get("local6") or "",
            device=device,
            remote="" if multicast else remote, group=remote if multicast else "",
            accept_ra=link.settings["accept_ra"], accept_redirects=link.settings["accept_redirects"],
            kernel_order=held, remotes=frozenset(_peer(each, device) for each in held),
            fdb=frozenset(each for each in entries if each.mac != ALL_ZERO),
            bridge=namespace.name_of(link.master) or "", flood=link.flood, port_fdb=namespace.port_fdb(link.index))

    def needs(self, change):
        vxlan = change.after
        new = [name for name in (vxlan.device, vxlan.bridge)
               if name and name not in ((change.before and (change.before.device, change.before.bridge)) or ())]
        return [(vxlan.netns, None)] + [(vxlan.netns, name) for name in new]

    def plan(self, wanted, observed, prune, state):
        plan, after = super().plan(wanted, observed, prune, state)
        self._refuse_twins(plan)
        return plan, after

    def _refuse_twins(self, plan):
        """Raise NotOwnedError for a VNI that exists on the port already.

        The kernel accepts it once; where flags differ, it says so only when the link comes up.
        """
        going = {change.item for change in plan.changes if change.action in (DELETE, RECREATE)}
        coming = [change.after for change in plan.changes if change.action in (CREATE, RECREATE)]
        for at, vxlan in enumerate(coming):
            for twin in coming[:at]:
                if (twin.netns, twin.vni, twin.port) == (vxlan.netns, vxlan.vni, vxlan.port):
                    self._refuse_twin(vxlan, twin.key, f"VNI {vxlan.vni}")
            namespace = self.links.namespace(vxlan.netns)
            for link in namespace.links.values() if namespace else ():
                key = Vxlan(name=link.name, netns=vxlan.netns).key
                if link.kind != "vxlan" or key in going or link.data.get("port") != vxlan.port:
                    continue
                if link.data.get("collect_metadata"):
                    self._refuse_twin(vxlan, key, "every VNI")
                if link.data.get("id") == vxlan.vni:
                    self._refuse_twin(vxlan, key, f"VNI {vxlan.vni}", link.alias == OWNER)

    def _refuse_twin(self, vxlan, twin, what, left=False):
        remedy = f"Where an earlier run left it, {REMEDY}." if left else "Or remove the other."
        raise NotOwnedError(twin, f"already receives {what} on UDP port {vxlan.port}",
                            f"Give {vxlan.name} another vni or port. {remedy}")

    def changed(self, change):
        vxlan = change.after
        remotes, former = self._remotes(change)
        entries, stale = operations.gained_and_lost(change, "fdb")
        return (operations.link(change, self._data(change))
                + [operations.FdbDel(vxlan.netns, vxlan.name, each) for each in former + stale]
                + [operations.FdbAppend(vxlan.netns, vxlan.name, each) for each in remotes]
                + [operations.FdbReplace(vxlan.netns, vxlan.name, each) for each in entries]
                + operations.membership(change)
                + self._port(change)
                + operations.up(change, vxlan.netns, vxlan.name))

    def _port(self, change):
        """Return what sets the bridge port. One that is new to its bridge floods, and the bridge knows no MAC behind it."""
        vxlan = change.after
        gained, lost = operations.gained_and_lost(change, "port_fdb")
        new = change.action == CREATE or "bridge" in change.differing()
        if new:
            gained, lost = sorted(vxlan.port_fdb or ()), []
        flags = vxlan.flood is False if new else operations.concerns(change, "flood")
        return ([operations.PortSet(vxlan.netns, vxlan.name, vxlan.flood)] * flags
                + [operations.PortFdbDel(vxlan.netns, vxlan.name, each) for each in lost]
                + [operations.PortFdbReplace(vxlan.netns, vxlan.name, each) for each in gained])

    def _remotes(self, change):
        """Return the all-zero entries to add and to delete, once the default destination is set.

        Setting it adds its entry, and deletes that of the former one.
        """
        vxlan, before = change.after, change.before
        if vxlan.remotes is None:
            return [], []
        held = set(before.remotes) if before else set()
        if vxlan.remote is not None and (not before or before.remote != vxlan.remote):
            held = held - {before and before.remote} | {vxlan.remote} - {""}
        # Recreating where peers are not managed meets other programs' entries, too: "ADDRESS via LINK".
        gained = sorted({each.split()[0] for each in vxlan.remotes - held})
        return ([FdbEntry(ALL_ZERO, each, vxlan.device or "") for each in gained],
                [each for each in before.kernel_order if _peer(each, vxlan.device) in held - vxlan.remotes] if before else [])

    def _data(self, change):
        """Return the attributes that are set; a default destination that is to be removed becomes the unspecified address."""
        none = "::" if ":" in (change.after.local or "") else "0.0.0.0"
        data = [(key, none if key == "remote" and value == "" and change.action != CREATE else value)
                for key, value in operations.data_of(change)]
        return tuple(pair for pair in data if pair[1] != "")


def _peer(entry, device):
    """Return the peer of an all-zero entry.

    The kernel sends by the underlay device to its default destination, and so does the collection to all: an entry with another
    device is another program's.
    """
    return entry.dst if entry.via == device else f"{entry.dst} via {entry.via or 'any link'}"


def _is_multicast(address):
    head = int(address.split(".")[0]) if "." in address else int(address.split(":")[0] or "0", 16) >> 8
    return 224 <= head <= 239 if "." in address else head == 0xff
