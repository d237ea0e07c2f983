# SPDX-License-Identifier: GPL-3.0-or-later
"""The lists of M(topology) for which there is a module: made of what that takes, and described there."""

from __future__ import annotations

import json

from ansible_collections.fromscratch.containers.plugins.module_utils.host.topology import KINDS

COLLECTION = "fromscratch.containers"
NOUNS = {"alpine_rootfs": "Root filesystems", "ns_container": "Containers", "veth_pair": "Veth pairs", "linux_bridge": "Bridges",
         "vxlan_link": "VXLAN links"}


def suboptions(options, where):
    """The options as documentation; ``where`` is before the name of each in what describes it."""
    return {name: documented(spec, f"{where}{name}", f"See O({where}{name}).") for name, spec in options.items()}


def documented(spec, path, description):
    """An option of a specification as documentation, with what is below it."""
    found = {key: value for key, value in spec.items() if key in ("type", "elements", "choices", "default", "required")}
    if "options" in spec:
        found["suboptions"] = suboptions(spec["options"], path + ("[]." if spec["type"] == "list" else "."))
    return {**found, "description": description}


def lists():
    """The options of M(topology), whose items are described by their own modules."""
    found = {}
    for module, noun in NOUNS.items():
        kind = KINDS[module]
        found[module] = {"description": f"{noun}, in the options of M({COLLECTION}.{module}). Without it, none is managed.",
                         "type": "list", "elements": "dict",
                         "suboptions": suboptions(kind.options, f"{COLLECTION}.{module}#module:")}
    return found


class ModuleDocFragment:

    # JSON is YAML, too. The annotation is for ansible-test, which reads a bare assignment as text that stands here.
    DOCUMENTATION: str = json.dumps({"options": lists()})
