"""Makes a sweep from a plan."""

from __future__ import annotations

import time
import uuid

from blip2sweep.planning.plan import Plan
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep


def new_sweep(plan: Plan, command: str, name: str | None, ledger: Ledger) -> Sweep:
    """A sweep of a plan's cells. A sweep without a name is named by date, time and a random tail, so that two never
    share a name."""
    skipped = [{"overrides": " ".join(plan.jobs[i].overrides), "reason": r} for i, r in plan.reasons.items()]
    name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    rerun = {c.key: sorted(ledger.attempts[c.key].results) for c in plan.todo if ledger.done(c.key)}
    return Sweep(name, command, time.time(), list(plan.cells), plan.baselines, skipped, plan.merged, rerun,
                 single=len(plan.jobs) <= 1)  # fmt: skip
