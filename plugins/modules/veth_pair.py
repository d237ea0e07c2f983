#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: veth_pair
short_description: Manage veth pairs between a host and its containers
description:
  - Creates, changes and removes the virtual cables that join a host and a network namespace, with the addresses and the
    routes of the inner end, through the kernel's netlink interface.
  - The host end takes no router advertisements and no redirects, nor does the inner end where it has O(addresses). It has
    IPv6 where one of them is of IPv6, even if the namespace gives none to new links.
  - Takes one pair by its options, or any number of them as a list under O(config), in one call.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes
  - fromscratch.containers.attributes.links
options:
  <<: &item  # the options of an item
    name:
      description:
        - Name of the host end, at most 15 characters.
        - By default C(ve-) and the name of the O(container) or O(namespace), shortened with a hash where it is too long.
      type: str
    state:
      description: Whether the pair is there.
      type: str
      choices: [present, absent]
      default: present
    netns:
      description:
        - The named network namespace, as C(ip netns) lists it, that the host end lives in.
        - Without it, the namespace of the host.
      type: str
    container:
      description:
        - The container, made by M(fromscratch.containers.ns_container), that the inner end lives in.
        - For O(state=present), give just one of O(container), O(namespace) and O(pid).
      type: str
    namespace:
      description: The named network namespace that the inner end lives in.
      type: str
    pid:
      description: A process, in whose network namespace the inner end lives.
      type: int
    inner_name:
      description: Name of the inner end, at most 15 characters.
      type: str
      default: eth0
    addresses:
      description:
        - All addresses of the inner end, IPv4 and IPv6, with their prefix length. Others are removed; the link-local IPv6
          address that the kernel sets is left alone, and so are those that a router or a DHCP server has given.
        - Without it, addresses are not managed.
      type: list
      elements: str
    gateway:
      description:
        - The gateway of the inner end's default route, IPv4 or IPv6, in a network of O(addresses).
        - For one of each family, put the other into O(routes), with V(default) as its O(routes[].dst).
      type: str
    routes:
      description:
        - All routes by the inner end beside that of O(gateway) and those that come with an address. Others are removed.
        - Without it and without O(gateway), routes are not managed.
      type: list
      elements: dict
      suboptions:
        dst:
          description: The destination, a network such as V(10.1.0.0/16), or V(default).
          type: str
          required: true
        via:
          description: The gateway. Without it, the destination is on the link itself.
          type: str
    mtu:
      description:
        - MTU in bytes of both ends, from 68, or 1280 with an IPv6 address, to 65535. In a VXLAN network it must be that
          of the VXLAN device, or full packets are lost in silence.
        - Without it, it is not managed.
      type: int
    underlay:
      description:
        - An address of this host on the network that VXLAN links are laid over. Without O(mtu), the MTU of both ends is then
          what a VXLAN link from that address has, 50 bytes (IPv4) or 70 (IPv6) less than that of the address's device.
      type: str
    underlay_device:
      description:
        - The link of this host whose MTU counts for O(underlay). By default the one that has the address.
      type: str
    mac:
      description:
        - MAC address of the host end.
        - By default it is derived from O(name), O(netns) and the host's C(/etc/machine-id).
      type: str
    inner_mac:
      description:
        - MAC address of the inner end.
        - By default it is derived from the first of O(addresses), or else from the name and the host's
          C(/etc/machine-id).
      type: str
    bridge:
      description:
        - The bridge that the host end is a port of; an empty string for none.
        - Without it, it is not managed.
      type: str
  config:
    description:
      - Any number of pairs, each with the options above.
      - Options that stand beside it are the defaults of its items, such as those that C(module_defaults) adds to a task; but not
        O(name), O(container), O(namespace) and O(pid), which would be that of all.
    type: list
    elements: dict
    suboptions:
      <<: *item
  prune:
    description:
      - Remove the pairs that this collection made, whose host ends are in the host's own namespace or in those named by
        the items, and that are not among the items.
    type: bool
    default: false
seealso:
  - module: fromscratch.containers.linux_bridge
  - module: fromscratch.containers.ns_container
"""

EXAMPLES = r"""
- name: The cable of the article's container A
  fromscratch.containers.veth_pair:
    container: container-a
    addresses: [10.0.0.100/24]
    gateway: 10.0.0.1
    bridge: br0
    mtu: 8951

- name: Two pairs in one call, and none beside them
  fromscratch.containers.veth_pair:
    config:
      - container: container-a
        addresses: [10.0.0.100/24, "fd00:10::100/64"]
        bridge: br0
      - container: container-b
        addresses: [10.0.0.101/24]
        routes:
          - {dst: 10.1.0.0/16, via: 10.0.0.1}
        bridge: br0
    prune: true
"""

RETURN = r"""
changes:
  description: What was changed, or would be; one entry for each pair.
  returned: success
  type: list
  elements: dict
  sample:
    - item: veth_pair ve-container-a
      action: update
      fields: ["addresses none -> 10.0.0.100/24"]
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
    - ip link add ve-container-a address 02:41:d8:6e:20:f5 mtu 8951 type veth peer name eth0 address 02:c4:95:1a:3e:08
      mtu 8951 netns container-a
    - sysctl -qew net/ipv6/conf/ve-container-a/accept_ra=0 net/ipv4/conf/ve-container-a/accept_redirects=0
      net/ipv6/conf/ve-container-a/accept_redirects=0
    - ip netns exec container-a sysctl -qew net/ipv6/conf/eth0/accept_ra=0 net/ipv4/conf/eth0/accept_redirects=0
      net/ipv6/conf/eth0/accept_redirects=0
    - ip link set ve-container-a alias fromscratch.containers
    - ip -n container-a link set eth0 alias fromscratch.containers:inner
    - ip link set ve-container-a master br0
    - ip link set ve-container-a up
    - ip -n container-a link set eth0 up
    - ip -n container-a address replace 10.0.0.100/24 dev eth0
    - ip -n container-a route replace default via 10.0.0.1 dev eth0 proto static
observed:
  description: The pairs as the kernel shows them in the end, in the order of the task; in check mode, as they would be.
  returned: success
  type: list
  elements: dict
"""

from ansible_collections.fromscratch.containers.plugins.module_utils.core.run import KindModule, run
from ansible_collections.fromscratch.containers.plugins.module_utils.network.veth import VethPairs


def main():
    kind = VethPairs()
    run(KindModule(kind), kind)


if __name__ == "__main__":
    main()
