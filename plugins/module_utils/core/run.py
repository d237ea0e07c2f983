# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module does: read what is wanted, observe, plan, apply, and observe again.

The plan is computed before anything is touched, in check mode and in a real run alike; a real run then applies it and
reads the host again, and the plan computed from that must be empty. So check mode, diff, idempotence, the repair of
drift and verification are one code path, and this file is the only one that knows check mode, failing and returning.

Of several kinds, each is planned on the state that those before it will leave; then all that has to go goes, the last kind
first, and all that has to come comes, the first kind first.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from . import dependencies, left_behind
from .argspec import argument_spec, given, items_of, rules_of, spread
from .conflicts import refuse_shared_addresses, refuse_shared_names
from .errors import ModuleError
from .plan import NOW
from .planning import Planned, below, desired, plan_all


class Module(AnsibleModule):
    """A module for which an option that is null is one that is left out."""

    argument_spec: Dict[str, Any]
    params: Dict[str, Any]

    def __init__(self, options):
        super().__init__(argument_spec=options, supports_check_mode=True)

    def _load_params(self):
        super()._load_params()
        self.params = given(self.argument_spec, self.params)


class KindModule(Module):
    """A module for one kind of thing: one item by its options, or many under ``config``, whose defaults those are then."""

    def __init__(self, kind, **further):
        self._kind = kind
        super().__init__({**argument_spec(kind), **further})

    def _load_params(self):
        """Before anything is validated: afterwards, nobody can tell a value that was given from a default."""
        AnsibleModule._load_params(self)
        self.params = given(self.argument_spec, spread(self._kind.options, self.params))
        if self.params.get("config") is None:
            self.argument_spec = {**self.argument_spec, **self._kind.options}  # with what is required of one item
        for name, rule in rules_of(self._kind, self.params).items():
            setattr(self, name, rule)


def run(module, kind):
    """Bring the host to what the parameters of a module for one kind of thing want, and exit the module."""
    def options():
        return items_of(kind.options, module.params)

    run_all(module, [kind], lambda: kind.requirements(options()), lambda: [desired(kind, options(), module.params["prune"])],
            gathered=lambda plans, shown: shown(plans[0]))


def by_option(plans, shown):
    """Return what is shown of several kinds, by the options that list their items."""
    return {planned.option: shown(planned) for planned in plans if planned.option}


def nothing_more(plans):
    """Return what is desired beside what is planned: nothing."""
    return []


def run_all(module, kinds, requirements, tasks, more=nothing_more, gathered=by_option):
    """Do the same for several ``kinds``. ``requirements`` tells what the host must have, in the words of dependencies. ``tasks``
    returns what is Desired, in the order in which things are set up; ``more`` what is beside, of the plans of these."""
    try:
        _require_root()
        dependencies.require(requirements())
        plans, state = plan_all(tasks())
        later, state = plan_all(more(plans), state)
        plans += later
        named, left = [item for planned in plans for item in planned.items], left_behind.left_of(plans, state)
        refuse_shared_names([item for item in named if hasattr(item, "netns")])
        refuse_shared_addresses(plans, left)
        told = left_behind.told(named, left)
        result = {**_converge(module, plans, gathered, left_behind.warnings(named, left)),
                  **({"left_behind": told} if told else {})}
    except ModuleError as problem:
        module.fail_json(msg=str(problem), **problem.details)
    except OSError as error:
        module.fail_json(msg=f"The operating system refused: {error}")
    finally:
        for kind in kinds:
            kind.close()
    module.exit_json(**result)


def _require_root():
    if os.geteuid() != 0:
        raise ModuleError(f"This module changes the kernel's state and must run as root, not as uid {os.geteuid()}: "
                          "set become: true")


def _converge(module, plans, gathered, warnings):
    changing = [planned for planned in plans if planned.plan]
    # In the order of doing: what goes, from the last kind to the first; what comes, from the first to the last.
    doing = [(planned, planned.plan.going, planned.going) for planned in reversed(changing)]
    doing += [(planned, planned.plan.coming, planned.coming) for planned in changing]
    result = {"changed": bool(changing),
              "changes": [change.to_result() for unused, plan, unused in doing for change in plan.changes],
              "commands": [line for unused, unused, lines in doing for line in lines],
              "diff": {when: {key: shown for planned in plans for key, shown in getattr(planned.plan, when)().items()}
                       for when in ("before", "after")}}
    unmet = [text for planned in plans for text in planned.plan.unmet]
    for text in [*(text for planned in plans for text in planned.kind.warnings), *warnings]:
        module.warn(text)
    if module.check_mode:
        # Another task of the play may provide it first, which check mode cannot see.
        for text in unmet:
            module.warn(f"A real run fails unless an earlier task provides this: {text}")
        return {**result, **({"unmet": unmet} if unmet else {}), "observed": gathered(plans, Planned.predicted)}
    if unmet:
        raise ModuleError("; ".join(unmet))
    for planned, plan, unused in doing:
        if plan:
            with below(planned.option):
                for operation in planned.kind.operations(replace(plan, state=NOW)):  # those before it have been applied
                    operation.apply()
    return {**result, "observed": gathered(_verified(plans), Planned.observed)}


def _verified(plans):
    """Return the plans with what is found after they have been applied, which must leave nothing to do."""
    seen = [replace(planned, found=planned.kind.observe(planned.sought, planned.prune, NOW)) if planned.plan else planned
            for planned in plans]
    left = [change.to_result() for planned in seen if planned.plan for change in planned.left().changes]
    if left:
        raise ModuleError("Verification after apply failed: "
                          + "; ".join(f"{each['item']}: {each['action']} ({', '.join(each['fields'])})" for each in left)
                          + ". Is another network manager active?", left=left)
    return seen
