# SPDX-License-Identifier: GPL-3.0-or-later
"""Reserve a host for one overlay.

The packet filter, names, settings and boot script are the whole host's, so that two inventories which each name their part would
undo the other's at every run. A file records the owner.
"""

from __future__ import annotations

from ..core.errors import OptionError
from .files import MADE, Files

PATH = "/var/lib/fromscratch/use"
HEAD = f"{MADE}: what the network of this host belongs to.\n"


class Use(Files):
    """The file of the host, which no other use may take."""

    def observe(self, wanted, prune, state):
        found = super().observe(wanted, prune, state)
        for item in wanted:
            have = found.get(item.key)
            if have is not None and have.text.startswith(HEAD) and have.text != item.text:
                owner, name = have.text[len(HEAD):].strip(), item.text[len(HEAD):].strip()
                raise OptionError("use", name, (
                    f"this host belongs to {owner!r}, says {PATH}, and each would undo the other's packet filter, names, settings "
                    "and boot script at every run. Give one use all networks of the host (overlay_networks), or have "
                    f"{owner!r} removed from the host first (overlay_state: absent). Where {owner!r} was only renamed, remove the "
                    "file"))
        return found


def files(name, present):
    """Return the options of ``Use``."""
    if "\n" in name:
        raise OptionError("use", name, "a name has no line break")
    return [{"path": PATH, "mode": 0o600, "state": "present" if present else "absent", "text": f"{HEAD}{name}\n"}]
