# SPDX-License-Identifier: GPL-3.0-or-later
"""Render operations as command lines of iproute2: what an administrator would type, and what the boot script runs.

The words follow ip-link(8), ip-address(8), ip-route(8) and bridge(8).
"""

from __future__ import annotations

import shlex
from functools import singledispatch
from typing import Any, List

from . import operations

# iproute2 writes an option that is on or off in one of three ways.
NO_PREFIX = ("learning", "udpcsum")


def commands(steps):
    """Return the shell commands of the operations, a list of strings."""
    lines = []
    for step in steps:
        lines.extend(render(step))
    return lines


@singledispatch
def render(step):
    """Return the commands of one operation, a list of strings."""
    raise TypeError(step)


def command(tool, netns, *words):
    """Return the command line of a tool of iproute2 in a namespace."""
    arguments = [str(word) for word in words]
    if netns is None:
        return shlex.join([tool, *arguments])
    if netns.startswith("/"):
        return shlex.join(["nsenter", f"--net={netns}", tool, *arguments])
    return shlex.join([tool, "-n", netns, *arguments])


def inside(netns, *words):
    """Return the command line of any tool in a namespace."""
    if netns is None:
        return shlex.join(words)
    return shlex.join([*(["nsenter", f"--net={netns}"] if netns.startswith("/") else ["ip", "netns", "exec", netns]), *words])


def _data_words(data):
    words = []
    for key, value in data:
        if key in NO_PREFIX:
            words.append(key if value else f"no{key}")
        elif isinstance(value, bool):
            words += [key, int(value)]
        else:
            words += [key, value]
    return words


@render.register
def _add(step: operations.LinkAdd):
    words: List[Any] = ["link", "add", step.name]
    words += ["address", step.mac] if step.mac else []
    words += ["mtu", step.mtu] if step.mtu else []
    words += ["type", step.kind]
    if step.inner:
        words += ["peer", "name", step.inner.name]
        words += ["address", step.inner.mac] if step.inner.mac else []
        words += ["mtu", step.inner.mtu] if step.inner.mtu else []
        words += ["netns", _inner_netns(step.inner.netns)] if step.inner.netns else []
    return [command("ip", step.netns, *words, *_data_words(step.data))]


def _inner_netns(netns):
    """Return the argument of ``ip link ... netns``: a name or a PID, and no path but /proc/PID/ns/net."""
    parts = netns.split("/")
    return parts[2] if netns.startswith("/proc/") else netns


@render.register
def _set(step: operations.LinkSet):
    words: List[Any] = []
    words += ["address", step.mac] if step.mac else []
    words += ["mtu", step.mtu] if step.mtu else []
    words += ["alias", step.alias] if step.alias else []
    if step.master is not None:
        words += ["master", step.master] if step.master else ["nomaster"]
    if step.up is not None:
        words.append("up" if step.up else "down")
    lines = [command("ip", step.netns, "link", "set", step.name, *words)] if words else []
    if step.data:
        lines.append(command("ip", step.netns, "link", "set", step.name, "type", step.kind, *_data_words(step.data)))
    return lines


@render.register
def _sysctl(step: operations.SysctlSet):
    values = []
    for path, value in step.settings:
        family, name = path.split("/")
        values.append(f"net/{family}/conf/{step.name}/{name}={value}")
    return [inside(step.netns, "sysctl", "-qew", *values)]


@render.register
def _del(step: operations.LinkDel):
    line = command("ip", step.netns, "link", "delete", step.name)
    return [f"{line} 2>/dev/null || : # it may be gone with its other end" if step.goes else line]


@render.register
def _address(step: operations.AddressReplace):
    # The inventory knows that an IPv6 address is unique; without nodad it could not be used for a second.
    nodad = ["nodad"] if ":" in step.address else []
    return [command("ip", step.netns, "address", "replace", step.address, "dev", step.dev, *nodad)]


@render.register
def _address_del(step: operations.AddressDel):
    return [command("ip", step.netns, "address", "delete", step.address, "dev", step.dev)]


def _route_words(step):
    via = ["via", step.route.via] if step.route.via else []
    return [step.route.dst, *via, "dev", step.dev]


def _route_family(step):
    return ["-6"] if ":" in (step.route.via or step.route.dst) else []


@render.register
def _route(step: operations.RouteReplace):
    return [command("ip", step.netns, *_route_family(step), "route", "replace", *_route_words(step), "proto", "static")]


@render.register
def _route_del(step: operations.RouteDel):
    return [command("ip", step.netns, *_route_family(step), "route", "delete", *_route_words(step))]


def _fdb_line(step, verb):
    via = ["via", step.entry.via] if step.entry.via else []
    return [command("bridge", step.netns, "fdb", verb, step.entry.mac, "dev", step.dev, "dst", step.entry.dst, *via)]


@render.register
def _fdb(step: operations.FdbAppend):
    return _fdb_line(step, "append")


@render.register
def _fdb_replace(step: operations.FdbReplace):
    return _fdb_line(step, "replace")


@render.register
def _fdb_del(step: operations.FdbDel):
    return _fdb_line(step, "delete")


@render.register
def _hairpin(step: operations.PortHairpin):
    return [command("bridge", step.netns, "link", "set", "dev", step.name, "hairpin", "on" if step.on else "off")]


@render.register
def _port(step: operations.PortSet):
    on, off = ("on", "off") if step.flood else ("off", "on")
    line = ("link", "set", "dev", step.name)
    # The bridge of iproute2 5.10, in Debian 11, cannot say the last. What is set by neither is told, and keeps nothing from coming
    # up: a tunnel without the all-zero MAC among its entries drops broadcasts that are flooded into it.
    broadcasts = command("bridge", step.netns, *line, "bcast_flood", on)
    attribute = f"echo {int(step.flood)} >/sys/class/net/{shlex.quote(step.name)}/brport/broadcast_flood"
    other = attribute if step.netns is None else inside(step.netns, "sh", "-c", attribute)
    return [command("bridge", step.netns, *line, "learning", on, "flood", on, "mcast_flood", on, "neigh_suppress", off),
            f"{broadcasts} 2>/dev/null || {other} || :"]


@render.register
def _port_fdb(step: operations.PortFdbReplace):
    return [command("bridge", step.netns, "fdb", "replace", step.mac, "dev", step.dev, "master", "static")]


@render.register
def _port_fdb_del(step: operations.PortFdbDel):
    return [command("bridge", step.netns, "fdb", "delete", step.mac, "dev", step.dev, "master")]


@render.register
def _neighbour(step: operations.NeighbourReplace):
    address, mac = step.neighbour
    return [command("ip", step.netns, "neighbour", "replace", address, "lladdr", mac, "dev", step.dev, "nud", "permanent")]


@render.register
def _neighbour_del(step: operations.NeighbourDel):
    return [command("ip", step.netns, "neighbour", "delete", step.neighbour.address, "dev", step.dev)]
