"""What a sweep would do, as the Python API returns it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from blip2sweep.commands.plan import added_by_itself, asked_by, local_packs
from blip2sweep.planning.plan import Plan

SHOWN = ("model", "task", "part", "blocks", "layers", "method", "strategy", "group_size", "recipe", "bits_per_weight")


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep would do.

    cells: a row a cell: `key`, `status` (`done` or `to run`), `asked` (the overrides that ask for it, `baseline` or
    `control`), and the columns of the table that are known before it runs. skipped: a row a combination that means nothing:
    `overrides`, `reason`. packs: the keys that each worker would run, in order. seconds: what the longest of them is
    expected to take, without starting. summary: all of it in one line.
    """

    cells: pd.DataFrame
    skipped: pd.DataFrame
    packs: list[list[str]]
    seconds: float
    summary: str

    @property
    def to_run(self) -> list[str]:
        """The keys of the cells to compute."""
        return list(self.cells.loc[self.cells["status"] == "to run", "key"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<p>{escape(self.summary)}</p>{self.cells.to_html(index=False)}"


def planned(plan: Plan, output_dir: Path, workers: int | None, processes: int) -> SweepPlan:
    """What the API says of a plan, as it would run on this machine."""
    names, added = asked_by(plan), added_by_itself(plan)
    rows = []
    for key, cell in plan.cells.items():
        told = {
            "key": key,
            "status": "done" if key in plan.done else "to run",
            "asked": names.get(key) or added.get(key),
        }
        columns = cell.columns()
        rows.append({**told, **{name: columns.get(name) for name in SHOWN}})
    skipped = [{"overrides": " ".join(plan.jobs[i].overrides), "reason": why} for i, why in plan.reasons.items()]
    packs, seconds = local_packs(plan, output_dir, workers, processes)
    keys = [[job["key"] for job in pack] for pack in packs]
    longest = max((sum(seconds[key] for key in pack) for pack in keys), default=0.0)
    frame = pd.DataFrame(skipped, columns=["overrides", "reason"])
    return SweepPlan(pd.DataFrame(rows), frame, keys, longest, plan.summary())
