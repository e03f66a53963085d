"""Makes a sweep from a plan."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

from blip2sweep.planning.cell import Cell
from blip2sweep.planning.plan import Plan
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks import TaskData
from blip2sweep.wire.scoring import Asked


def new_sweep(plan: Plan, command: str, name: str | None, ledger: Ledger) -> Sweep:
    """A sweep of a plan's cells. A sweep without a name is named by date, time and a random tail, so that two never
    share a name."""
    skipped = [{"overrides": " ".join(plan.jobs[i].overrides), "reason": r} for i, r in plan.reasons.items()]
    name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    rerun = {c.key: sorted(ledger.attempts[c.key].results) for c in plan.todo if ledger.done(c.key)}
    return Sweep(name, command, time.time(), list(plan.cells), plan.baselines, skipped, plan.merged, rerun,
                 single=len(plan.jobs) <= 1, scoring=_scoring(plan.cells.values()))  # fmt: skip


def _scoring(cells: Iterable[Cell]) -> list[Asked]:
    """How cells are to be scored, of those that are scored by other than default settings."""
    of_task: dict[int, list[Cell]] = {}
    for cell in cells:
        of_task.setdefault(id(cell.task), []).append(cell)
    asked = (_asked(own[0].task, [c.key for c in own]) for own in of_task.values())
    return [one for one in asked if one["variants"] != [""]]


def _asked(task: TaskData, keys: list[str]) -> Asked:
    settings = {name: list(values) for name, values in task.scoring.items()}
    variants = [v.suffix for v in task.variants]
    return {"settings": settings, "variants": variants, "main_metric": task.main_metric, "keys": keys}
