# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module does: read what is wanted, observe, plan, apply, and observe again.

The plan is computed before anything is touched, in check mode and in a real run alike; a real run then applies it and
reads the host again, and the plan computed from that must be empty. So check mode, diff, idempotence, the repair of
drift and verification are one code path, and this file is the only one that knows check mode, failing and returning.

A module for one kind of thing has one stage. Of several, each is planned on what those before it will have done; then
all that has to go goes, the last stage first, and all that has to come comes, the first stage first.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from . import dependencies, left_behind
from .argspec import argument_spec, given, items_of, rules_of, spread
from .conflicts import refuse_shared_addresses, refuse_shared_names
from .errors import ModuleError, OptionError
from .plan import NOW, diff


@contextmanager
def _below(option):
    """Names the option of the module that holds the items, where one of theirs is invalid."""
    try:
        yield
    except OptionError as error:
        raise error.below(option) if option else error from None


class Stage:
    """One kind of thing in a run, what is wanted of it, and the plan.

    ``options`` are the validated options of each item; ``option`` is that of the module which holds them as a list,
    None where the module is about this kind alone, or has no such option.
    """

    def __init__(self, kind, options, prune, option=None):
        self.kind, self.prune, self.option = kind, prune, option
        self._entries = {}  # (item, present) in the task's order, by key
        with _below(option):
            items = [kind.parse(each) for each in options]
        for item, each in zip(items, options):
            if item.key in self._entries:
                raise OptionError(option or "config", item.key, "it is given twice")
            self._entries[item.key] = (item, each.get("state") != "absent")
        self.wanted = {key: item if present else None for key, (item, present) in self._entries.items()}

    @property
    def items(self):
        """Those that are to be there; complete, once they have been looked for."""
        return [item for item in self.wanted.values() if item]

    def look(self, state=NOW):
        """Observe and plan, on the state that the stages before will leave. Return the one that this leaves."""
        with _below(self.option):
            self.wanted = {key: item and self.kind.complete(item, state) for key, item in self.wanted.items()}
            self.sought = [self.wanted[key] or item for key, (item, unused) in self._entries.items()]
            self.found = self.kind.observe(self.sought, self.prune, state)
        self.plan, after = self.kind.plan(self.wanted, self.found, self.prune, state)
        self.commands = [self.kind.commands(part) if part else [] for part in (self.plan.going, self.plan.coming)]
        return after

    def predicted(self):
        after = {change.item: change.after for change in self.plan.changes}
        return self._shown({key: after.get(key, item) for key, item in self.wanted.items()})

    def observed(self):
        return self._shown(self.found)

    def _shown(self, items):
        return [items[key].to_result() for key, item in self.wanted.items() if item]

    def left(self):
        """The gate: what is observed after applying must leave nothing to do."""
        self.found = self.kind.observe(self.sought, self.prune, NOW)
        return diff({key: item and item.expected_after_apply() for key, item in self.wanted.items()}, self.found, self.prune)


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

    def stages():
        yield Stage(kind, options(), module.params["prune"])

    run_all(module, [kind], lambda: kind.requirements(options()), stages, lambda stages, shown: shown(stages[0]))


def by_option(stages, shown):
    """What is returned of several kinds."""
    return {stage.option: shown(stage) for stage in stages if stage.option}


def run_all(module, kinds, requirements, stages, gathered=by_option):
    """The same for several ``kinds``. ``requirements`` tells what the host must have, in the words of dependencies. ``stages`` is a
    generator of the Stages, in the order in which things are set up: each has been planned when the next is asked for."""
    try:
        _require_root()
        for kind in kinds:
            kind.require()
        dependencies.require(requirements())
        planned, state = [], NOW
        for stage in stages():
            state = stage.look(state)
            planned.append(stage)
        named, left = [item for stage in planned for item in stage.items], left_behind.left_of(planned, state)
        refuse_shared_names([item for item in named if hasattr(item, "netns")])
        refuse_shared_addresses(planned, left)
        told = left_behind.told(named, left)
        result = {**_converge(module, planned, gathered, left_behind.warnings(named, left)),
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


def _converge(module, stages, gathered, warnings):
    planned = [stage for stage in stages if stage.plan]
    # In the order of doing: what goes, from the last stage to the first; what comes, from the first to the last.
    doing = [(stage, stage.plan.going, stage.commands[0]) for stage in reversed(planned)]
    doing += [(stage, stage.plan.coming, stage.commands[1]) for stage in planned]
    result = {"changed": bool(planned),
              "changes": [change.to_result() for unused, plan, unused in doing for change in plan.changes],
              "commands": [line for unused, unused, lines in doing for line in lines],
              "diff": {when: {key: shown for stage in stages for key, shown in getattr(stage.plan, when)().items()}
                       for when in ("before", "after")}}
    unmet = [text for stage in stages for text in stage.plan.unmet]
    for each in [*(each for stage in stages for each in stage.kind.warnings), *warnings]:
        module.warn(each)
    if module.check_mode:
        # Another task of the play may provide it first, which check mode cannot see.
        for text in unmet:
            module.warn(f"A real run fails unless an earlier task provides this: {text}")
        return {**result, **({"unmet": unmet} if unmet else {}), "observed": gathered(stages, Stage.predicted)}
    if unmet:
        raise ModuleError("; ".join(unmet))
    for stage, plan, unused in doing:
        if plan:
            with _below(stage.option):
                stage.kind.apply(replace(plan, state=NOW))  # those before it have been applied
    _gate(planned)
    return {**result, "observed": gathered(stages, Stage.observed)}


def _gate(stages):
    left = [change.to_result() for stage in stages for change in stage.left().changes]
    if left:
        raise ModuleError("Verification after apply failed: "
                          + "; ".join(f"{each['item']}: {each['action']} ({', '.join(each['fields'])})" for each in left)
                          + ". Is another network manager active?", left=left)
