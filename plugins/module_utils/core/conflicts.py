# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse what two items of one place cannot both have, whether the task names both or an earlier run has left one of them."""

from __future__ import annotations

from dataclasses import replace

from .errors import OptionError

REMEDY = "have it removed by prune (overlay_prune: true), or by a task of its own with state: absent"


def refuse_shared_names(links):
    """Raise OptionError where two links of a namespace have one name, or a link is to be the port of two bridges."""
    names, ports = {}, {}
    for item in links:
        for place in item.link_names:
            if names.setdefault(place, item.key) != item.key:
                raise OptionError("name", place[1], f"{item.key} and {names[place]} would both have it")
        for port in getattr(item, "ports", None) or ():
            if ports.setdefault((item.netns, port), item.key) != item.key:
                raise OptionError("ports", port, f"it is to be a port of {item.key} and of {ports[item.netns, port]}")


def refuse_shared_addresses(plans, left):
    """Raise OptionError where an address or a MAC would be used twice on one bridge or in one namespace. Networks may overlap."""
    owners = {}
    bridges = {(item.netns, port): item.name for planned in plans for item in planned.items
               for port in getattr(item, "ports", None) or ()}
    for planned in plans:
        for item in planned.items:
            for name, value, place in _claims(_plugged(item, bridges)):
                if place in owners:
                    raise OptionError(_option(planned, name), value, f"{item.key} and {owners[place][1].key} are both given it")
                owners[place] = planned, item
    for item in left:  # a refusal: as long as both are there, neither is reached for sure
        for name, value, place in _claims(item):
            if place in owners:
                planned, owner = owners[place]
                refusal = OptionError(_option(planned, name), value, (
                    f"{owner.key} is to have it, and {described(item)} has it, which is left of an earlier run and not named any "
                    f"more: {REMEDY}"))
                refusal.details["left_behind"] = [{"item": described(item)}]
                raise refusal


def _option(planned, name):
    return f"{planned.option}.{name}" if planned.option else name


def _plugged(item, bridges):
    """Return the item with its bridge, where that names it as a port: ``bridges`` has their names by namespace and port."""
    if hasattr(item, "bridge") and not item.bridge and (item.netns, item.name) in bridges:
        return replace(item, bridge=bridges[item.netns, item.name])
    return item


def _claims(item):
    """Yield (option, value, what no other item may have) of an item's addresses, and of the MAC that it has on a bridge."""
    for address in sorted(getattr(item, "addresses", None) or ()):
        for realm in item.address_scopes:
            yield "addresses", address, (address.split("/")[0], realm)
    name = getattr(item, "mac_on_bridge", None)
    mac = name and getattr(item, name)
    for realm in item.address_scopes if mac else ():
        if realm[0] == "bridge":
            yield name, mac, (mac, realm)


def described(item):
    """Return the key of an item that is left, with the container or namespace that it leads into."""
    inner = getattr(item, "inner_netns", None)
    return f"{item.key} of {inner}" if inner else item.key
