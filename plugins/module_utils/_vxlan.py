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

from . import _steps
from ._errors import Foreign, Invalid
from ._link_kind import LinkKind
from ._model import FdbEntry, Vxlan
from ._plan import CREATE, DELETE, RECREATE

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
            item = replace(item, device=self._device_of(namespace, item.local))
        if item.device in namespace.links:
            most = namespace.links[item.device].mtu - overhead(item.local)
            if item.mtu is not None and item.mtu > most:
                raise Invalid("mtu", item.mtu, f"the underlay device {item.device} leaves {most} bytes")
            item = replace(item, mtu=item.mtu or most)
        return item

    def _device_of(self, namespace, local):
        device = namespace.device_of(local)
        if device is None:
            raise Invalid("local", local, "no link of this host has this underlay address; give one of its addresses, "
                                          "or the device")
        if device.name == "lo":
            raise Invalid("local", local, "it is an address of lo, which leads nowhere: give the device that the "
                                          "peers are reached by")
        return device.name

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
            held=held, remotes=frozenset(_peer(each, device) for each in held),
            fdb=frozenset(each for each in entries if each.mac != ALL_ZERO),
            bridge=namespace.name_of(link.master) or "")

    def needs(self, change):
        vxlan = change.after
        new = [name for name in (vxlan.device, vxlan.bridge)
               if name and name not in ((change.before and (change.before.device, change.before.bridge)) or ())]
        return [(vxlan.netns, None)] + [(vxlan.netns, name) for name in new]

    def missing(self, plan):
        self._refuse_twins(plan)
        return super().missing(plan)

    def _refuse_twins(self, plan):
        """The kernel lets one VNI exist once on a port; where flags differ it says so only when the link comes up."""
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
                    self._refuse_twin(vxlan, key, f"VNI {vxlan.vni}")

    def _refuse_twin(self, vxlan, twin, what):
        raise Foreign(twin, f"already receives {what} on UDP port {vxlan.port}",
                      f"Give {vxlan.name} another vni or port, or remove the other.")

    def changed(self, change):
        vxlan = change.after
        remotes, former = self._remotes(change)
        entries, stale = _steps.gained_and_lost(change, "fdb")
        return (_steps.link(change, self._data(change))
                + [_steps.FdbDel(vxlan.netns, vxlan.name, each) for each in former + stale]
                + [_steps.FdbAppend(vxlan.netns, vxlan.name, each) for each in remotes]
                + [_steps.FdbReplace(vxlan.netns, vxlan.name, each) for each in entries]
                + _steps.membership(change)
                + _steps.up(change, vxlan.netns, vxlan.name))

    def _remotes(self, change):
        """The all-zero entries to add and to delete, once the default destination is set.

        Setting it adds its entry, and takes away that of the one before, by itself.
        """
        vxlan, before = change.after, change.before
        if vxlan.remotes is None:
            return [], []
        held = set(before.remotes) if before else set()
        if vxlan.remote is not None and (not before or before.remote != vxlan.remote):
            held = held - {before and before.remote} | {vxlan.remote} - {""}
        # Recreating where peers are not managed meets strangers, too: "ADDRESS via LINK".
        gained = sorted({each.split()[0] for each in vxlan.remotes - held})
        return ([FdbEntry(ALL_ZERO, each, vxlan.device or "") for each in gained],
                [each for each in before.held if _peer(each, vxlan.device) in held - vxlan.remotes] if before else [])

    def _data(self, change):
        """Without what is not set; but a default destination that has to go is set to the unspecified address."""
        none = "::" if ":" in (change.after.local or "") else "0.0.0.0"
        data = [(key, none if key == "remote" and value == "" and change.action != CREATE else value)
                for key, value in _steps.data_of(change)]
        return tuple(pair for pair in data if pair[1] != "")


def _peer(entry, device):
    """The peer of an all-zero entry. The kernel sends by the underlay device to its default destination, and so do we
    to all: an entry that says otherwise is another one, of somebody else."""
    return entry.dst if entry.via == device else f"{entry.dst} via {entry.via or 'any link'}"


def _is_multicast(address):
    head = int(address.split(".")[0]) if "." in address else int(address.split(":")[0] or "0", 16) >> 8
    return 224 <= head <= 239 if "." in address else head == 0xff
