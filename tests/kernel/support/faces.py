# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan has three faces: what check mode predicts, what a real run does, and the commands that do the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile

from .modules import run_module
from .namespaces import state

# What the kernel changes by itself, a moment later.
PASSING = ("tso_max_size", "tso_max_segs", "tentative", "state", "forward_delay_timer", "message_age_timer", "hold_timer", "topology_change_ack")
PASSING_FLAGS = ("LOWER_UP", "NO-CARRIER", "M-DOWN", "linkdown")


def lasting(*names):
    """The state without what passes: carriers, link-local addresses that follow them, what is learnt, timers.

    Of those of the namespaces that are there: that one is not shows in a comparison.
    """
    def clean(value):
        if isinstance(value, dict):
            value = {key: clean(each) for key, each in value.items() if key not in PASSING}
            if "addr_info" in value:  # in the order in which they were added
                value["addr_info"].sort(key=lambda each: each["local"])
            return value
        if isinstance(value, list):
            return [clean(each) for each in value if each not in PASSING_FLAGS and not (
                isinstance(each, dict) and (each.get("dst") == "fe80::/64" or (
                    each.get("scope") == "link" and each.get("family") == "inet6")))]
        return value

    found = state(*(each for each in names if os.path.exists(f"/run/netns/{each}")))
    for namespace in found.values():
        namespace["fdb"] = [each for each in namespace["fdb"] if each["state"] == "permanent"
                            and not each["mac"].startswith(("33:33:", "01:00:5e:"))]
    return clean(found)


def converge(module, *names, look=lasting, **wanted):
    """A real run, which must do what check mode predicted and leave nothing to a second one."""
    before = look(*names)
    predicted = run_module(module, check=True, **wanted)
    assert not predicted.failed, predicted.msg
    assert look(*names) == before, "check mode changed something"
    made = run_module(module, **wanted)
    assert not made.failed, made.msg
    assert (made.changed, made.changes, made.commands, made.diff) == (
        predicted.changed, predicted.changes, predicted.commands, predicted.diff), "\n".join(different(vars(predicted), vars(made)))
    again = run_module(module, **wanted)
    assert not again.failed, again.msg
    assert (again.changed, again.changes, again.commands) == (False, [], [])
    return made


def same_by_commands(made, names, others):
    """Run a result's commands in equal namespaces ``others``: they must end as ``names`` have."""
    other = dict(zip(names, others))
    script = "\n".join(renamed(each, other) for each in made.commands)
    over, held = os.pipe()  # as the module does it: a container holds its standard input until its start is over
    with open(over, "rb") as over, tempfile.TemporaryFile("w+") as output, tempfile.NamedTemporaryFile("w") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(["sh", "-e", file.name], stdin=held, stdout=output, stderr=output, check=False,
                              start_new_session=True)
        os.close(held)
        over.read()
        output.seek(0)
        assert done.returncode == 0, f"{script}\n{output.read()}"
    want, have = ([*lasting(*which).values()] for which in (names, others))
    found = different(json.loads(renamed(json.dumps(want), other)), have)
    assert found == [], "\n".join(found)


def renamed(text, names):
    return re.sub(r"\btest\d+-\d+\b", lambda found: names.get(found[0], found[0]), text)


def different(one, other, path=""):
    """Where two pictures differ, a line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [line for key in {**one, **other} for line in different(one.get(key), other.get(key), f"{path} {key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [line for at, pair in enumerate(zip(one, other)) for line in different(*pair, f"{path} {at}")]
    return [] if one == other else [f"{path}: {one} vs {other}"]
