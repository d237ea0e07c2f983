# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan a whole overlay from inventory variables: what each host has to hold.

Pure functions of data. The only place that knows all hosts at once; the modules know one.
"""

from __future__ import annotations

import ipaddress

from ..module_utils.container.spec import OPTIONS as CONTAINER
from ..module_utils.host.names import HOSTS, RESOLV, path
from ..module_utils.network.identity import derived_ifname
from . import antispoof, firewall
from .conflicts import conflicts
from .members import LEARNING, member

CONTAINER_OPTIONS = tuple(name for name in CONTAINER if name != "state")  # which is that of the host
# The option of alpine_rootfs that each variable sets, without overlay_ before it.
ARCHIVE = {"dest": "rootfs", "state": "state", "version": "rootfs_version", "src": "rootfs_src", "checksum": "rootfs_checksum",
           "mirror": "rootfs_mirror"}


class Overlay:
    """Plan the overlay of all hosts whose ``settings`` are given, each a dict of all variables of the role.

    Hosts with the state absent are nobody's peers, and are planned by what they hold themselves: those in ``leaving``, no others.
    """

    def __init__(self, settings, mistakes, leaving=()):
        self.settings, self.present, self._leaving = settings, {}, {}
        for name, values in settings.items():
            if values["overlay_state"] != "absent":
                self.present[name] = member(name, values, mistakes)
            elif name in leaving:
                self._leaving[name] = member(name, values, mistakes)
        for sentence in conflicts(self.present):
            mistakes.add(sentence)

    def host_plan(self, name):
        """Return the options of M(topology) that describe a host, {kind: list of items}."""
        hosts, here = self._seen_by(name)
        return _items(hosts, here, self.settings[name])

    def pings(self, name):
        """Return (namespace or "-" for the host, source, destination, address) of all that a host and its containers reach."""
        return list(_pings(*self._seen_by(name))) if name in self.present else []

    def carriers(self):
        """Return the host that holds each address, and what there, as {VNI: {address: (host, owner)}}."""
        found = {}
        for host in self.present.values():
            for network, address, owner in host.carried():
                found.setdefault(host.networks[network].vni, {})[address] = host.name, owner
        return found

    def _seen_by(self, name):
        hosts = self.present if name in self.present else {**self.present, name: self._leaving[name]}
        return hosts, hosts[name]


def topology(settings, part):
    """Return the options of M(topology) for a host: its plan, and what its settings say of itself alone."""
    return {"alpine_rootfs": [{option: settings[f"overlay_{name}"] for option, name in ARCHIVE.items()
                               if settings[f"overlay_{name}"]}],
            **part, "prune": settings["overlay_prune"], "persist": True, "use": settings["overlay_group"]}


def _items(hosts, here, settings):
    """Return the lists of items of one host, {kind: list}."""
    bridges, tunnels, veths, containers, names, sysctls, passages = [], [], [], [], [], [], []
    for network in here.networks.values():
        # Whatever hangs on the tunnel can carry no more than the tunnel.
        mtu = {"mtu": network.mtu} if network.mtu else {
            "underlay": network.underlay_ip, **({"underlay_device": network.device} if network.device else {})}
        members = [each for each in here.containers if each["network"] == network.name]
        pairs = [{"name": derived_ifname("ve-", member["name"]), "container": member["name"],
                  "addresses": member["addresses"], **_gateway(network, member), **mtu}
                 for member in members]
        peers, neighbours = _forwarding(hosts, here, network)
        veths += pairs
        # With br_netfilter on, a container that uses its own published port gets its frames back by the port that they came from.
        hairpins = [pair["name"] for pair, each in zip(pairs, members) if each["publish"]]
        bridges.append({"name": network.bridge, "ports": [each["name"] for each in pairs], "hairpin_ports": hairpins,
                        "addresses": network.addresses, "neighbours": neighbours, **mtu})
        tunnels.append({"name": network.vxlan, "vni": network.vni, "local": network.underlay_ip, "port": network.port,
                        "bridge": network.bridge, **peers, **_given(vars(network), "mtu", "device")})
        files = _names(hosts, network)
        names += files
        shared = {key: settings[f"overlay_{key}"] for key in ("rootfs", "runtime") if settings[f"overlay_{key}"]}
        containers += [{**shared, **_given(each, *CONTAINER_OPTIONS), **_binds(each, files)} for each in members]
        sysctls += [{"device": network.bridge, "name": "arp_ignore"}] * (len(here.networks) > 1)
        sysctls += [{"device": network.bridge, "name": "forwarding"}] * network.egress
        passages.append({"bridge": network.bridge, "accept": settings["overlay_bridge_netfilter"] == "accept",
                         "routed": network.egress})
    if any(network.egress for network in here.networks.values()):
        sysctls.append({"name": "forwarding"})  # of the device that the answers come in by
    tables = [table("inet", firewall.rules(hosts, here, settings["overlay_guard"])),
              table(antispoof.FAMILY, antispoof.rules(here))]
    found = {"ns_container": containers, "nftables": tables, "veth_pair": veths, "linux_bridge": bridges, "vxlan_link": tunnels}
    if settings["overlay_state"] == "absent":
        return {**{module: [{**item, "state": "absent"} for item in items] for module, items in found.items()},
                "names": [], "sysctl": [], "forward": [], "publish": []}
    return {**found, "names": names, "sysctl": sysctls, "forward": passages, "publish": _published(here, settings)}


def _published(here, settings):
    """Return the published ports of the host, for it to check that they are free."""
    return [{"port": published.port, "protocol": published.protocol, **_given(published._asdict(), "address"),
             "over": settings["overlay_publish_over"]}
            for container in here.containers for published in container["publish"]]


def table(family, rules):
    """Return the options of a table that a host has, or no longer has."""
    return {"name": firewall.TABLE, "family": family, **({"rules": rules} if rules else {"state": "absent"})}


def _gateway(network, container):
    """Return a container's gateway: its own, or the bridge where that has outbound access."""
    own = next((each for each in container["addresses"] if ":" not in each), None)
    if container.get("gateway") is None and network.egress and own:
        subnet = ipaddress.ip_interface(own).network
        return {"gateway": next(str(each.ip) for each in map(ipaddress.ip_interface, network.addresses) if each.network == subnet)}
    return _given(container, "gateway")


def _names(hosts, network):
    """Return the files by which containers of a network resolve each other's names, and others by DNS."""
    files = []
    if network.names:
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [" ".join([address.split("/")[0], member["name"], *{member.get("hostname") or member["name"]} - {member["name"]}])
                  for host in hosts.values() for member in host.containers if member["network"] == network.name
                  for address in member["addresses"]]
        files.append({"network": network.name, "file": HOSTS, "lines": lines})
    if network.egress:
        servers = {"lines": [f"nameserver {each}" for each in network.dns]} if network.dns else {}
        files.append({"network": network.name, "file": RESOLV, **servers})
    return files


def _binds(container, files):
    """Return a container's binds, with the files of its network where nothing else is bound there."""
    own = container.get("binds") or []
    taken = {each["dest"] for each in own}
    added = [{"source": path(file["network"], file["file"]), "dest": f"/etc/{file['file']}", "read_only": True}
             for file in files if f"/etc/{file['file']}" not in taken]
    return {"binds": [*own, *added]} if own or added else {}


def _forwarding(hosts, here, network):
    """Return (options of the VXLAN link, neighbours of the bridge) by which frames reach the peers of a network.

    With learning, each frame to an unknown address is flooded to every peer. Static, each address of each peer is in the forwarding
    and neighbour tables beforehand, which a MAC that is derived from an address allows; nothing is flooded, and nobody is asked.
    """
    peers = [host for host in hosts.values() if host is not here and network.name in host.networks]
    if network.forwarding == LEARNING:
        return {"remotes": [host.networks[network.name].underlay_ip for host in peers], "fdb": [], "flood": True}, []
    fdb, neighbours = [], []
    for host in peers:
        entries, known = host.entries(network.name)
        fdb += entries
        neighbours += known
    return {"remotes": [], "learning": False, "flood": False, "fdb": fdb}, neighbours


def _pings(hosts, here):
    sources = [("-", here.name, network.name, network.addresses) for network in here.networks.values()]
    sources += [(each["name"], each["name"], each["network"], each["addresses"]) for each in here.containers]
    for netns, source, network, addresses in sources:
        families = {":" in each for each in addresses}
        for host in hosts.values():
            for container in host.containers:
                if container["network"] == network and container["name"] != source:
                    for address in container["addresses"]:
                        if (":" in address) in families:
                            yield [netns, source, container["name"], address.split("/")[0]]


def _given(values, *names):
    return {name: values[name] for name in names if values.get(name) is not None}
