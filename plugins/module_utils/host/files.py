# SPDX-License-Identifier: GPL-3.0-or-later
"""Write files that configure other programs of a host, each with the commands that make these reload it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Optional, Tuple

from ..core.kind import Kind
from ..core.operations import RemoveFile, Run, SwitchLink, WriteFile
from ..core.plan import DELETE
from ..core.resource import OWNER, Item, identity, input_only, observed_only, settable

MADE = f"# Made by {OWNER}"  # how each begins, which tells it from somebody else's


@dataclass(frozen=True)
class File(Item):
    """Hold a file: its whole ``text``, or the ``target`` of a symbolic link. ``reload`` are commands to run after a change."""

    word = "file"

    path: str = identity()
    text: Optional[str] = settable()
    target: Optional[str] = settable()
    mode: Optional[int] = settable()
    reload: Optional[Tuple[Tuple[str, ...], ...]] = input_only()
    owner: Optional[str] = observed_only()

    @property
    def key(self):
        return f"{self.word} {self.path}"


class Files(Kind):
    in_place = False  # whether they are written into the file that is there

    def parse(self, options):
        link = options.get("target") is not None
        return File(path=options["path"], text=None if link else options["text"], target=options.get("target"),
                    mode=None if link else options.get("mode", 0o644),
                    reload=tuple(tuple(each) for each in options.get("reload", ())))

    def observe(self, wanted, prune, state):
        found = ((look(item), item.reload) for item in wanted)
        return {item.key: replace(item, reload=reload) for item, reload in found if item is not None}

    def operations(self, plan):
        """The files, then what reads them, each once."""
        reloads = dict.fromkeys(argv for change in plan.changes for argv in change.subject.reload or ())
        return [RemoveFile(change.before.path) if change.action == DELETE else self._written(change.after)
                for change in plan.changes] + [Run(argv) for argv in reloads]

    def _written(self, item):
        if item.target is not None:
            return SwitchLink(item.path, item.target)
        return WriteFile(item.path, item.text.encode(), item.mode, self.in_place)


def look(item):
    """Return the File observed at a path, or None."""
    if os.path.islink(item.path):
        target = os.readlink(item.path)
        return File(path=item.path, target=target, owner=OWNER if target == item.target else "somebody else")
    try:
        with open(item.path, encoding="utf-8", errors="replace") as file:
            text = file.read()
            mode = os.fstat(file.fileno()).st_mode & 0o7777
    except FileNotFoundError:
        return None
    return File(path=item.path, text=text, mode=mode, owner=OWNER if MADE in text[:200] else "somebody else")
