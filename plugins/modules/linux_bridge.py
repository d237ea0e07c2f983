#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: linux_bridge
short_description: Manage Linux bridges
description:
  - Creates, changes and removes Linux bridges, their addresses and their ports, through the kernel's netlink interface.
  - A bridge takes no router advertisements and no redirects, as anybody behind one of its ports could send them. It has IPv6
    where one of its addresses is of IPv6, even if the host gives none to new links.
  - Takes one bridge by its options, or any number of them as a list under O(config), in one call.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes
  - fromscratch.containers.attributes.links
options:
  name: &name
    description: Name of the bridge, at most 15 characters.
    type: str
  <<: &item  # the options of an item
    state:
      description: Whether the bridge is there.
      type: str
      choices: [present, absent]
      default: present
    netns:
      description:
        - The named network namespace, as C(ip netns) lists it, that the bridge lives in.
        - Without it, the namespace of the host.
      type: str
    addresses:
      description:
        - All addresses of the bridge, IPv4 and IPv6, with their prefix length. Others are removed; the link-local IPv6 address
          that the kernel sets is left alone, and so are those that a router or a DHCP server has given.
        - Without it, addresses are not managed.
      type: list
      elements: str
    underlay:
      description:
        - An address of this host on the network that VXLAN links are laid over. Without O(mtu), the MTU of the bridge is then
          what a VXLAN link from that address has, 50 bytes (IPv4) or 70 (IPv6) less than that of the address's device.
      type: str
    underlay_device:
      description:
        - The link of this host whose MTU counts for O(underlay). By default the one that has the address.
      type: str
    mac:
      description:
        - The MAC address of the bridge. A bridge without a fixed one takes the lowest of its ports, and changes it as ports
          come and go.
        - By default it is derived from the name and the first of O(addresses), or from the host's C(/etc/machine-id).
      type: str
    mtu:
      description:
        - MTU in bytes, from 68 to 65535. Without it, the kernel follows the smallest of the ports.
      type: int
    ports:
      description:
        - Links that have to be ports of the bridge. Other ports are left alone, since C(veth_pair) and C(vxlan_link)
          attach links to bridges too.
      type: list
      elements: str
    hairpin_ports:
      description:
        - Those of O(ports) that get frames back which have come in by them (C(hairpin on)); the others of O(ports) do not. Where
          the kernel's C(br_netfilter) is on, a container needs that to reach a port of the host that leads to its own.
        - Without it, that is not managed.
      type: list
      elements: str
    neighbours:
      description:
        - All permanent neighbours of the bridge, IPv4 and IPv6; other permanent ones are removed. The host asks nobody for
          their MAC address; and where they are behind a VXLAN link that does not flood, as its option
          O(fromscratch.containers.vxlan_link#module:flood) says, the bridge answers for them.
        - Without it, they are not managed.
      type: list
      elements: dict
      suboptions:
        address:
          description: The address of the neighbour, without a prefix length.
          type: str
          required: true
        mac:
          description: The MAC address of the neighbour.
          type: str
          required: true
    stp:
      description: Whether the bridge takes part in the spanning tree protocol.
      type: bool
      default: false
    priority:
      description: Priority of the bridge in the spanning tree, from 0 to 65535; the lowest becomes the root.
      type: int
    forward_delay:
      description: Seconds that a port listens, and then learns, before it forwards; from 2 to 30.
      type: int
    hello_time:
      description: Seconds between the hello packets of the root bridge, from 1 to 10.
      type: int
    max_age:
      description: Seconds after which the information of a silent root bridge is dropped, from 6 to 40.
      type: int
    ageing_time:
      description: Seconds that a learnt MAC address is kept, from 0 to 1000000.
      type: int
    vlan_filtering:
      description: Whether the bridge filters by VLAN, where the kernel can.
      type: bool
  config:
    description:
      - Any number of bridges, each with the options above.
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
      - Remove the bridges that this collection made, in the host's own namespace and in those named by the items, and
        that are not among the items.
    type: bool
    default: false
seealso:
  - module: fromscratch.containers.veth_pair
  - module: fromscratch.containers.vxlan_link
"""

EXAMPLES = r"""
- name: The bridge of the article's first host
  fromscratch.containers.linux_bridge:
    name: br0
    addresses: [10.0.0.1/24]

- name: Two bridges in one call, and none beside them
  fromscratch.containers.linux_bridge:
    config:
      - name: br0
        addresses: [10.0.0.1/24, "fd00:10::1/64"]
        mtu: 1450
      - name: br1
        addresses: [10.1.0.1/24]
    prune: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be; one entry for each bridge.
  returned: success
  type: list
  elements: dict
  sample:
    - item: bridge br0
      action: update
      fields: ["mtu 1500 -> 1450"]
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
    - ip link add br0 address 02:9f:8b:4e:3a:11 type bridge stp_state 0
    - sysctl -qew net/ipv6/conf/br0/accept_ra=0 net/ipv4/conf/br0/accept_redirects=0
      net/ipv6/conf/br0/accept_redirects=0
    - ip link set br0 alias fromscratch.containers
    - ip address replace 10.0.0.1/24 dev br0
    - ip link set br0 up
observed:
  description: The bridges as the kernel shows them in the end, in the order of the task; in check mode, as they would be.
  returned: success
  type: list
  elements: dict
"""

from ansible_collections.fromscratch.containers.plugins.module_utils.core.run import KindModule, run
from ansible_collections.fromscratch.containers.plugins.module_utils.network.bridge import Bridges


def main():
    kind = Bridges()
    run(KindModule(kind), kind)


if __name__ == "__main__":
    main()
