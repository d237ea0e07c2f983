# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Map each option of M(topology) to the role's variable behind it, where a mistake that a host finds is corrected."""

from __future__ import annotations

# By option; where a kind has none of its own, by the kind or by the option alone.
VARIABLES = {
    "alpine_rootfs": "overlay_rootfs",
    "alpine_rootfs.version": "overlay_rootfs_version",
    "alpine_rootfs.src": "overlay_rootfs_src",
    "alpine_rootfs.checksum": "overlay_rootfs_checksum",
    "alpine_rootfs.mirror": "overlay_rootfs_mirror",
    "ns_container.runtime": "overlay_runtime or overlay_containers.runtime",
    "veth_pair.name": "overlay_containers.name",
    "veth_pair.container": "overlay_containers.name",
    "veth_pair.addresses": "overlay_containers.address",
    "veth_pair.gateway": "overlay_containers.gateway",
    "veth_pair.bridge": "overlay_bridge",
    "ns_container.state": "overlay_state",
    "state": "overlay_state",
    "names.network": "overlay_networks.name",
    "linux_bridge.name": "overlay_bridge",
    "linux_bridge.addresses": "overlay_bridge_address",
    "linux_bridge.ports": "overlay_containers.name",
    "linux_bridge.neighbours": "overlay_containers.address",
    "vxlan_link.name": "overlay_vxlan",
    "vxlan_link.vni": "overlay_vni",
    "vxlan_link.port": "overlay_port",
    "vxlan_link.bridge": "overlay_bridge",
    "vxlan_link.local": "overlay_underlay_ip",
    "vxlan_link.device": "overlay_device",
    "vxlan_link": "overlay_underlay_ip",
    "names": "overlay_dns",
    "publish": "overlay_containers.publish",
    "forward": "overlay_bridge",
    "nftables": "overlay_guard",
    "sysctl": "overlay_egress",
    "mtu": "overlay_mtu",
    "underlay": "overlay_underlay_ip",
    "underlay_device": "overlay_device",
    "use": "overlay_group",
}


def variable(option):
    """Return the role's variable behind an option such as ``vxlan_link.vni``, or None."""
    kind, _dot, rest = option.partition(".")
    if kind == "ns_container" and rest:
        return VARIABLES.get(option) or f"overlay_containers.{rest}"
    name = rest.partition(".")[0] or kind
    return VARIABLES.get(f"{kind}.{name}") or VARIABLES.get(name) or VARIABLES.get(kind)


def in_the_roles_words(result):
    """Return the module's result with the role's variable in place of the option that its message begins with."""
    option, message = result.get("option"), result.get("msg", "")
    named = variable(option) if result.get("failed") and option else None
    if not named or not message.startswith(f"{option}: "):
        return result
    rest = {key: value for key, value in result.items() if key != "exception"}  # it has the message as it was
    return {**rest, "msg": named + message[len(option):], "option": named}
