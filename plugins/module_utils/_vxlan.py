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
bridge port and its entries.
"""

from __future__ import annotations

from dataclasses import replace

from . import _steps
from ._errors import Foreign, Problem
from ._kind import LinkKind
from ._model import OWNER, FdbEntry, Vxlan
from ._plan import CREATE, DELETE

ALL_ZERO = "00:00:00:00:00:00"
# Ethernet 14, VXLAN 8, UDP 8, and IPv4 20 or IPv6 40.
OVERHEAD = {4: 50, 6: 70}


def overhead(local):
    return OVERHEAD[6 if ":" in local else 4]


class Vxlans(LinkKind):
    item = Vxlan

    def complete(self, item):
        """Find the underlay device by its address, and take the MTU from it."""
        namespace = self.links.namespace(item.netns)
        if item.local is None or namespace is None:
            return item
        if item.device is None:
            device = namespace.device_of(item.local)
            if device is None:
                raise Problem(f"local: no link of this host has the underlay address {item.local}: "
                              f"set local to one of its addresses, or give the device", option="local")
            item = replace(item, device=device.name)
        if item.mtu is None and item.device in namespace.links:
            item = replace(item, mtu=namespace.links[item.device].mtu - overhead(item.local))
        return item

    def find(self, namespace, netns, link):
        data = link.data
        remote = data.get("group") or data.get("group6") or ""
        remote = "" if remote in ("0.0.0.0", "::") else remote
        multicast = bool(remote) and _is_multicast(remote)
        entries = namespace.fdb(link.index)
        return Vxlan(
            name=link.name, netns=netns, owner=link.alias, mac=link.mac, mtu=link.mtu, up=link.up,
            vni=data["id"], port=data["port"], ttl=data["ttl"], ageing=data["ageing"],
            learning=bool(data["learning"]), udp_checksum=bool(data["udp_csum"]),
            local=data.get("local") or data.get("local6") or "",
            device=namespace.name_of(data.get("link")) or "",
            remote="" if multicast else remote, group=remote if multicast else "",
            remotes=frozenset(each.dst for each in entries if each.mac == ALL_ZERO and not _is_multicast(each.dst)),
            fdb=frozenset(each for each in entries if each.mac != ALL_ZERO),
            bridge=namespace.name_of(link.master) or "")

    def needs(self, change):
        vxlan = change.after
        new = [name for name in (vxlan.device, vxlan.bridge)
               if name and name not in (change.before and (change.before.device, change.before.bridge) or ())]
        return [(vxlan.netns, None)] + [(vxlan.netns, name) for name in new]

    def missing(self, plan):
        self._refuse_twins(plan)
        return super().missing(plan)

    def _refuse_twins(self, plan):
        """The kernel lets one VNI exist once on a port; where flags differ it says so only when the link comes up."""
        going = {change.item for change in plan.changes if change.action == DELETE}
        for change in plan.changes:
            vxlan, namespace = change.after, self.links.namespace((change.after or change.before).netns)
            if vxlan is None or namespace is None or change.action not in (CREATE, "recreate"):
                continue
            for link in namespace.links.values():
                twin = Vxlan(name=link.name, netns=vxlan.netns)
                if link.kind != "vxlan" or link.name == vxlan.name or twin.key in going:
                    continue
                if link.data.get("port") != vxlan.port:
                    continue
                external = bool(link.data.get("collect_metadata"))
                if external or link.data.get("id") == vxlan.vni:
                    what = "every VNI" if external else f"VNI {vxlan.vni}"
                    raise Foreign(twin.key if link.alias == OWNER else f"The link {link.name}",
                                  f"already receives {what} on UDP port {vxlan.port}",
                                  f"Give {vxlan.name} another vni or port, or remove {link.name}.")

    def changed(self, change):
        vxlan = change.after
        remotes, former = _steps.gained_and_lost(change, "remotes")
        if _steps.concerns(change, "remote"):
            # Setting the default destination adds its all-zero entry and takes away that of the one before.
            before = getattr(change.before, "remote", "")
            remotes = sorted((set(remotes) | ({before} & (vxlan.remotes or frozenset()))) - {vxlan.remote})
            former = [each for each in former if each != before]
        entries, stale = _steps.gained_and_lost(change, "fdb")
        return (_steps.link(change, self._data(change))
                + [_steps.FdbDel(vxlan.netns, vxlan.name, FdbEntry(ALL_ZERO, each)) for each in former]
                + [_steps.FdbDel(vxlan.netns, vxlan.name, each) for each in stale]
                + [_steps.FdbAppend(vxlan.netns, vxlan.name, FdbEntry(ALL_ZERO, each)) for each in remotes]
                + [_steps.FdbAppend(vxlan.netns, vxlan.name, each) for each in entries]
                + _steps.membership(change)
                + _steps.up(change, vxlan.netns, vxlan.name))

    def _data(self, change):
        """Without what is not set; but a default destination that has to go is set to the unspecified address."""
        none = "::" if ":" in (change.after.local or "") else "0.0.0.0"
        data = [(key, none if key == "remote" and value == "" and change.action != CREATE else value)
                for key, value in _steps.data_of(change)]
        return tuple(pair for pair in data if pair[1] != "")


def _is_multicast(address):
    head = int(address.split(".")[0]) if "." in address else int(address.split(":")[0] or "0", 16) >> 8
    return 224 <= head <= 239 if "." in address else head == 0xff
