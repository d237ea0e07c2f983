#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: topology
short_description: Manage all that one host holds, as one plan
description:
  - Takes lists of root filesystems, containers, veth pairs, bridges and VXLAN links, each in the options of the module of
    that name, and of names, tables of nftables, rules in other programs' chains, sysctls and published ports, which have no
    module of their own.
  - Plans them together before anything is changed; each counts on what those before it will have done.
  - Then all that has to go is removed, the last kind first; and all that has to come is made, root filesystems first.
  - Does the same as the modules one after the other, in the time of one; and where a later one could not do its part,
    nothing has been changed by the earlier ones.
  - Refuses what cannot work beside that which an earlier task has made and this one does not name, such as a veth pair with the
    address of another at the same bridge, unless O(prune) removes that. What can, but may not be meant so, it warns of.
version_added: 0.1.0
author:
  - The fromscratch.containers engineers (@fromscratch)
extends_documentation_fragment:
  - fromscratch.containers.attributes
  - fromscratch.containers.attributes.links
  - fromscratch.containers.topology
options:
  nftables:
    description:
      - Tables of nftables. Each has a O(nftables[].name) that begins with C(fromscratch), the O(nftables[].rules) that stand
        between its braces, and a O(nftables[].state). Without it, none is managed.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the table.
        type: str
        required: true
      family:
        description: What it is about; tables of one name and different families are two.
        type: str
        choices: [inet, bridge]
        default: inet
      rules:
        description: What stands between the braces of the table, in the language of nft(8).
        type: str
      state:
        description: Whether the table is there.
        type: str
        choices: [present, absent]
        default: present
  names:
    description:
      - Files by which containers find names, one for each network and file, at
        C(/var/lib/fromscratch/networks/NETWORK/FILE). Bind them to C(/etc/hosts) and C(/etc/resolv.conf). Those of before that
        are not in the list are removed. Without it, none is managed.
    type: list
    elements: dict
    suboptions:
      network:
        description: Name of the network.
        type: str
        required: true
      file:
        description: Name of the file.
        type: str
        choices: [hosts, resolv.conf]
        required: true
      lines:
        description: Its lines. Without them, V(resolv.conf) has the nameservers of the host, less those on its loopback.
        type: list
        elements: str
  forward:
    description:
      - Bridges whose packets other programs' packet filters may drop. Docker, for one, drops what is forwarded, and the
        kernel's C(br_netfilter) takes frames from port to port of a bridge for that. Without it, nothing is looked for.
      - The rules of before for bridges that are not in the list are removed. Chains of C(iptables-legacy) are not seen.
    type: list
    elements: dict
    suboptions:
      bridge:
        description: Name of the bridge.
        type: str
        required: true
      accept:
        description:
          - Whether to insert a rule for the bridge at the head of each chain of the hook C(forward) that drops its packets,
            with the collection's name as its comment. Otherwise there is a warning only. No sysctl is changed.
        type: bool
        default: false
      routed:
        description:
          - Whether that is about packets between the bridge and other links, too. All of them pass, so have what may not come in
            dropped by a table of your own, as the role does.
        type: bool
        default: false
  sysctl:
    description:
      - IPv4 settings of single links. What a link had before is kept below C(/var/lib/fromscratch/sysctl), and set again when
        the setting is no more in the list, unless somebody else has changed it since, or that of all links.
        Without it, none is managed.
    type: list
    elements: dict
    suboptions:
      device:
        description: Name of the link. By default that of the default route.
        type: str
      name:
        description: The setting.
        type: str
        choices: [arp_ignore, forwarding]
        required: true
      value:
        description: Its value; 0 or 1, and for V(arp_ignore) up to 8.
        type: int
        default: 1
  publish:
    description:
      - Ports of the host that rules in O(nftables) lead to containers. They are looked at only, before anything is changed. Without
        it, none is.
    type: list
    elements: dict
    suboptions:
      port:
        description: The port of the host. Refused where a program of the host listens at it.
        type: int
        required: true
      protocol:
        description: Its protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      address:
        description: The address of the host that it is published at, by default all. Refused where the host has no such address.
        type: str
      over:
        description: Whether it may be a port at which a program of the host listens, and which that then gets nothing from.
        type: bool
        default: false
  persist:
    description:
      - Make the host keep what is given here. Where systemd runs it, a unit brings the network back at boot and when the
        underlay device comes back, by a shell script of the commands that make it from nothing. Where systemd-networkd, udev
        or NetworkManager are installed, they are told to leave the links alone.
      - A host has one such script, so give everything in one task. Where it is all absent, so are these files.
    type: bool
    default: false
  use:
    description:
      - Name of what this host's network belongs to, such as a group of the inventory. It is kept in
        C(/var/lib/fromscratch/use) until all that is given here is absent, and a task with another name is refused, since packet
        filter, names, settings and boot script are those of the whole host. Without it, nobody is asked.
    type: str
  prune:
    description:
      - Remove the containers and links that this collection made and that are not among the items, of those kinds that are
        given. Root filesystems are left, since other containers may use them.
    type: bool
    default: false
  validate_certs:
    description: Whether the certificates of https mirrors are verified.
    type: bool
    default: true
  use_proxy:
    description: Whether the proxy is used that the environment of the host names.
    type: bool
    default: true
  http_agent:
    description: What the module calls itself towards a mirror.
    type: str
    default: ansible-httpget
  timeout:
    description: Seconds of silence after which a mirror counts as unreachable.
    type: int
    default: 30
seealso:
  - module: fromscratch.containers.alpine_rootfs
  - module: fromscratch.containers.ns_container
  - module: fromscratch.containers.veth_pair
  - module: fromscratch.containers.linux_bridge
  - module: fromscratch.containers.vxlan_link
"""

EXAMPLES = r"""
- name: The article's first host
  fromscratch.containers.topology:
    alpine_rootfs:
      - dest: /var/lib/rootfs/alpine
    ns_container:
      - name: container-a
        rootfs: /var/lib/rootfs/alpine
    veth_pair:
      - container: container-a
        addresses: [10.0.0.100/24]
        underlay: 172.31.89.40
    linux_bridge:
      - name: br0
        addresses: [10.0.0.1/24]
        ports: [ve-container-a]
    vxlan_link:
      - name: vxlan0
        vni: 100
        local: 172.31.89.40
        remotes: [172.31.94.69]
        bridge: br0
"""

RETURN = r"""
changes:
  description: What was changed, or would be, in the order of doing; one entry for each item.
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
  description: The commands of an administrator that do the same, in the order of doing.
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
  description:
    - By option, the items as they are in the end, in the order of the task; in check mode, as they would be.
  returned: success
  type: dict
left_behind:
  description:
    - Bridges and veth pairs with an address that this collection has made and the task does not name, each as C(item), with its
      C(addresses) and the C(vnis) of the tunnels at its bridge.
  returned: success, where there is any
  type: list
  elements: dict
"""

from ansible_collections.fromscratch.containers.plugins.module_utils.core.argspec import list_of
from ansible_collections.fromscratch.containers.plugins.module_utils.core.run import Module, run_all
from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import KINDS, Topology
from ansible_collections.fromscratch.containers.plugins.module_utils.rootfs.download import OPTIONS


def main():
    module = Module({
        **{option: list_of(kind) for option, kind in KINDS.items()},
        "prune": {"type": "bool", "default": False},
        "persist": {"type": "bool", "default": False},
        "use": {"type": "str"},
        **OPTIONS,
    })
    topology = Topology(module.params)
    run_all(module, topology.kinds.values(), topology.requirements, topology.desired, topology.at_boot)


if __name__ == "__main__":
    main()
