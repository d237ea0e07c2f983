#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vxlan_link
short_description: Manage VXLAN tunnel endpoints
description:
  - Creates, changes and removes VXLAN devices, their peers and their forwarding entries, through the kernel's netlink
    interface.
  - What cannot change in place (O(vni), O(port), O(device), O(group), O(udp_checksum)) makes the device anew, with its
    bridge and its forwarding entries.
  - The link takes no router advertisements and no redirects, as anybody at the other end could send them.
  - Takes one device by its options, or any number of them as a list under O(config), in one call.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes
  - fromscratch.containers.attributes.links
options:
  name: &name
    description: Name of the device, at most 15 characters.
    type: str
  <<: &item  # the options of an item
    state:
      description: Whether the device is there.
      type: str
      choices: [present, absent]
      default: present
    netns:
      description:
        - The named network namespace, as C(ip netns) lists it, that the device lives in.
        - Without it, the namespace of the host.
      type: str
    vni:
      description:
        - VXLAN network identifier, from 1 to 16777215. Only one device of a host may have it on the same O(port).
        - Required for O(state=present).
      type: int
    local:
      description:
        - The underlay address of this host, the source of what it sends. The peers must know it, so it is never left to
          the routing table.
        - Required for O(state=present).
      type: str
    remotes:
      description:
        - The underlay addresses of all peers. One becomes the device's own C(remote); of several, each gets an all-zero
          forwarding entry, and what has no entry of its own is copied to all.
        - Peers that are not listed are removed. Without it and without O(group), peers are not managed.
        - Excludes O(group).
      type: list
      elements: str
    group:
      description: The multicast group of the peers, where the underlay carries multicast. Excludes O(remotes).
      type: str
    device:
      description:
        - The underlay device that the peers are reached by.
        - By default it is the one that carries O(local).
      type: str
    port:
      description: UDP port, here and at the peers, from 1 to 65535.
      type: int
      default: 4789
    learning:
      description: Whether the device learns from the frames it receives which peer has which MAC address.
      type: bool
      default: true
    ttl:
      description:
        - Time to live of the outer packets, from 0 to 255; with 0, the kernel chooses. Without it, it is not managed.
      type: int
    ageing:
      description: Seconds that a learnt entry is kept, from 1 to 1000000. Without it, it is not managed.
      type: int
    udp_checksum:
      description:
        - Whether the outer UDP packets carry a checksum. An underlay device that computes it wrongly lets pings through
          and stalls TCP. IPv6 requires it.
        - Without it, it is not managed; the kernel's default is to carry one.
      type: bool
    mtu:
      description:
        - MTU in bytes, at most that of the underlay device less what the encapsulation costs, which is 50 over IPv4 and
          70 over IPv6.
        - By default it is just that.
      type: int
    mac:
      description:
        - MAC address of the device.
        - By default it is derived from O(vni) and O(local), so that it survives a reboot and peers can compute it.
      type: str
    bridge:
      description:
        - The bridge that the device is a port of; an empty string for none.
        - Without it, it is not managed.
      type: str
    flood:
      description:
        - Whether O(bridge) copies frames for unknown, broadcast and multicast addresses into the tunnel, and learns MAC addresses
          from it.
        - With V(false), nothing goes out but what is for the MAC addresses of O(fdb), which the bridge is told, too; and the
          bridge itself answers ARP and neighbour discovery for its O(fromscratch.containers.linux_bridge#module:neighbours).
        - Without it, it is not managed; the kernel's default is V(true).
      type: bool
    fdb:
      description:
        - All permanent forwarding entries beside those of O(remotes). Others are removed; learnt ones are left alone.
        - Without it, they are not managed.
      type: list
      elements: dict
      suboptions:
        mac:
          description: The MAC address that frames are for.
          type: str
          required: true
        dst:
          description: The underlay address of the peer to send them to.
          type: str
          required: true
  config:
    description:
      - Any number of devices, each with the options above.
      - Options that stand beside it are the defaults of its items, such as those that C(module_defaults) adds to a task; but not
        O(name), which would be that of all.
    type: list
    elements: dict
    suboptions:
      name:
        <<: *name
        required: true
      <<: *item
  prune:
    description:
      - Remove the VXLAN devices that this collection made, in the host's own namespace and in those named by the items,
        and that are not among the items.
    type: bool
    default: false
seealso:
  - module: fromscratch.containers.linux_bridge
  - module: fromscratch.containers.veth_pair
"""

EXAMPLES = r"""
- name: The tunnel of the article's first host, whose one peer is the second
  fromscratch.containers.vxlan_link:
    name: vxlan0
    vni: 100
    local: 172.31.89.40
    remotes: [172.31.94.69]
    bridge: br0

- name: Several peers; what each has is known, so nothing is learnt
  fromscratch.containers.vxlan_link:
    name: vxlan0
    vni: 100
    local: 172.31.89.40
    remotes: [172.31.94.69, 172.31.80.7]
    learning: false
    fdb:
      - {mac: "02:7c:4d:90:11:af", dst: 172.31.94.69}
      - {mac: "02:13:52:0e:c8:6b", dst: 172.31.80.7}
    bridge: br0

- name: Two networks in one call, and none beside them
  fromscratch.containers.vxlan_link:
    config:
      - {name: vxlan0, vni: 100, local: 172.31.89.40, remotes: [172.31.94.69], bridge: br0}
      - {name: vxlan1, vni: 101, local: 172.31.89.40, remotes: [172.31.94.69], bridge: br1}
    prune: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be; one entry for each device.
  returned: success
  type: list
  elements: dict
  sample:
    - item: vxlan vxlan0
      action: recreate
      fields: ["vni 1 -> 2"]
  contains:
    item:
      description: What it is about.
      type: str
    action:
      description: One of V(create), V(update), V(recreate) and V(delete).
      type: str
    fields:
      description: Each field that differs, what it has and what it should have.
      type: list
      elements: str
commands:
  description: The commands of iproute2 that do the same.
  returned: success
  type: list
  elements: str
  sample:
    - ip link add vxlan0 address 02:5b:0a:c1:77:d0 mtu 8951 type vxlan id 100 local 172.31.89.40 remote 172.31.94.69
      dev enX0 dstport 4789 learning
    - sysctl -qew net/ipv6/conf/vxlan0/accept_ra=0 net/ipv4/conf/vxlan0/accept_redirects=0
      net/ipv6/conf/vxlan0/accept_redirects=0
    - ip link set vxlan0 alias fromscratch.containers
    - ip link set vxlan0 master br0
    - ip link set vxlan0 up
observed:
  description:
    - The devices as the kernel shows them in the end, in the order of the task; in check mode, as they would be.
  returned: success
  type: list
  elements: dict
"""

from ansible_collections.fromscratch.containers.plugins.module_utils.core.run import KindModule, run
from ansible_collections.fromscratch.containers.plugins.module_utils.network.vxlan import Vxlans


def main():
    kind = Vxlans()
    run(KindModule(kind), kind)


if __name__ == "__main__":
    main()
