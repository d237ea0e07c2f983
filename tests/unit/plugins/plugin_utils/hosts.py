# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables of hosts, and what is worked out from them."""

from __future__ import annotations

from ansible_collections.fromscratch.containers.plugins.plugin_utils.overlay import Overlay

from ....overlay import overlay


def host(number, *containers, **options):
    """The inventory's variables of one host, with others beside them that are none of the overlay's business."""
    return {"inventory_hostname": f"h{number}", "ansible_host": "x", "overlay_underlay_ip": f"172.31.0.{number}",
            "overlay_bridge_address": f"10.0.0.{number}/24",
            "overlay_containers": [{"name": name, "address": f"10.0.0.{number}{at}/24"} for at, name in enumerate(containers)],
            **{f"overlay_{key}": value for key, value in options.items()}}


def of(variables, name, call=Overlay.host_plan, **play):
    return call(overlay(variables, name, **play), name)
