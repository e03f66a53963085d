"""Makes a sweep from a plan."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import replace

from blip2sweep.canonical import canonical_json
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.plan import Plan
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks import TaskData
from blip2sweep.tasks.settings import declared
from blip2sweep.wire.scoring import Asked


def new_sweep(plan: Plan, command: str, name: str | None, ledger: Ledger) -> Sweep:
    """A sweep of a plan's cells. A sweep without a name is named by date, time and a random tail, so that two never
    share a name."""
    skipped = [{"overrides": " ".join(plan.jobs[i].overrides), "reason": r} for i, r in plan.reasons.items()]
    name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    rerun = {
        c.key: sorted(ledger.attempts[c.key].results) for c in plan.todo if c.key in plan.again and ledger.done(c.key)
    }
    return Sweep(name, command, time.time(), list(plan.cells), plan.baselines, skipped, plan.merged, rerun,
                 single=len(plan.jobs) <= 1, scoring=_scoring(plan.cells.values()))  # fmt: skip


def _scoring(cells: Iterable[Cell]) -> list[Asked]:
    """How cells are to be scored, of those that are scored by other than default settings."""
    of_task: dict[int, list[Cell]] = {}
    for cell in cells:
        of_task.setdefault(id(cell.task), []).append(cell)
    asked = (_asked(own[0].task, [c.key for c in own]) for own in of_task.values())
    return [one for one in asked if one["variants"] != [""]]


def asked_by_both(there: Sweep, plan: Plan) -> list[Asked]:
    """How the cells of a sweep and of a further launch of it are to be scored: a cell of both by the rules of both.

    The main metric is that of the launch. A cell without an entry is scored by default settings.
    """
    before, keys = there.asked(), {*there.keys}
    with_rules = {key: cell.task for key, cell in plan.cells.items() if cell.task.scoring}
    tasks = {key: _by_both(task, before.get(key)) if key in keys else task for key, task in with_rules.items()}
    each = {**before, **{key: _asked(task, []) for key, task in tasks.items()}}
    found: dict[str, Asked] = {}
    for key, asked in each.items():
        if asked["variants"] != [""]:
            same = canonical_json([asked["settings"], asked["main_metric"]])
            found.setdefault(same, {**asked, "keys": []})["keys"].append(key)
    return list(found.values())


def _by_both(task: TaskData, asked: Asked | None) -> TaskData:
    """A task with the rules that were asked for before, too; None: the default ones."""
    declares = declared(task.rules)
    before = asked["settings"] if asked else {name: values[:1] for name, values in declares.items()}
    both = {name: tuple(dict.fromkeys([*own, *before.get(name, ())])) for name, own in task.scoring.items()}
    return replace(task, scoring=both)


def _asked(task: TaskData, keys: list[str]) -> Asked:
    settings = {name: list(values) for name, values in task.scoring.items()}
    variants = [v.suffix for v in task.variants]
    return {"settings": settings, "variants": variants, "main_metric": task.main_metric, "keys": keys}
