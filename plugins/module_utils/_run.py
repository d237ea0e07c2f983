# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module does: read what is wanted, observe, plan, apply, and observe again.

The plan is computed before anything is touched, in check mode and in a real run alike; a real run then applies it and
reads the host again, and the plan computed from that must be empty. So check mode, diff, idempotence, the repair of
drift and verification are one code path, and this file is the only one that knows check mode, failing and returning.
"""

from __future__ import annotations

import os

from ._argspec import items_of
from ._errors import Invalid, Problem
from ._plan import diff


def run(module, options, kind, parse):
    """Bring the host to what the module's parameters want, and exit the module.

    ``options`` is the specification of one item, ``kind`` the Kind that observes and applies, ``parse`` turns the
    options of one item into the wanted item of the model, raising Invalid.
    """
    try:
        _require_root()
        kind.require()
        result = _converge(module, kind, _wanted(module, options, parse))
    except Problem as problem:
        module.fail_json(msg=str(problem), **problem.details)
    except OSError as error:
        module.fail_json(msg=f"The operating system refused: {error}")
    finally:
        kind.close()
    module.exit_json(**result)


def _require_root():
    if os.geteuid() != 0:
        raise Problem(f"This module changes the kernel's state and must run as root, not as uid {os.geteuid()}: "
                      "set become: true")


def _wanted(module, options, parse):
    """(item, present) in the task's order, keyed; none twice."""
    found = {}
    for each in items_of(options, module.params):
        item = parse(each)
        if item.key in found:
            raise Invalid("config" if module.params["config"] else "name", item.key, "it is given twice")
        found[item.key] = (item, each.get("state") != "absent")
    _refuse_shared_addresses([item for item, present in found.values() if present])
    return found


def _refuse_shared_addresses(items):
    """Networks may overlap, but no address may stand twice on one bridge or in one namespace."""
    seen = set()
    for item in items:
        for address in sorted(getattr(item, "addresses", None) or ()):
            places = {(address.split("/")[0], realm) for realm in item.realms}
            if places & seen:
                raise Invalid("addresses", address, f"{item.key} and another item are both given it")
            seen |= places


def _converge(module, kind, entries):
    prune = module.params["prune"]
    wanted = {key: kind.complete(item) if present else None for key, (item, present) in entries.items()}
    sought = [wanted[key] or item for key, (item, present) in entries.items()]

    observed = kind.observe(sought, prune)
    plan = diff(wanted, observed, prune)
    missing = kind.missing(plan)
    result = {"changed": bool(plan), "changes": [change.shown() for change in plan.changes],
              "commands": kind.commands(plan), "diff": {"before": plan.before(), "after": plan.after()}}

    if module.check_mode:
        # Another task of the play may provide it first, which check mode cannot see.
        for each in missing:
            module.warn(f"A real run fails unless an earlier task provides this: {each}")
        after = {change.item: change.after for change in plan.changes}
        found = {key: after.get(key, item) for key, item in wanted.items() if item}
    else:
        if missing:
            raise Problem("; ".join(missing))
        found = _apply(kind, plan, wanted, sought, prune) if plan else observed
    result["observed"] = [found[key].shown() for key, item in wanted.items() if item]
    return result


def _apply(kind, plan, wanted, sought, prune):
    """Apply, then the gate: what is observed must leave nothing to do."""
    kind.apply(plan)
    observed = kind.observe(sought, prune)
    left = diff({key: item and item.settled() for key, item in wanted.items()}, observed, prune)
    if left:
        raise Problem("The host did not keep what was set; another program may manage these: "
                      + "; ".join(f"{each['item']}: {each['action']} ({', '.join(each['fields'])})"
                                  for each in (change.shown() for change in left.changes)),
                      left=[change.shown() for change in left.changes])
    return observed
