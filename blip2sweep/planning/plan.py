"""Plan a sweep: resolve every job to a cell, merge duplicates, skip what cannot be, add baselines, drop what is done.

All errors of a sweep surface here, before a folder is made or a job is queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blip2sweep.canonical import canonical_json
from blip2sweep.errors import MissingExtra, MissingRole, UserError
from blip2sweep.planning.cell import Cell, Cells
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.table import older

# Keys that must determine something in at least one cell. All others (model, task, output_dir, …) always do.
TRACKED = ("part", "blocks", "layers", "keep", "recipe_file", "quant", "calibration")
TRACKED_SECTIONS = ("quant.", "per_part.", "rules.", "steps.", "generation.", "calibration.")
KNOB_SECTIONS = ("quant.", "per_part.", "rules.", "steps.", "calibration")


@dataclass(frozen=True)
class PlannedJob:
    """One override list of the sweep and the config it composes to."""

    overrides: tuple[str, ...]
    config: Mapping[str, Any]  # composed: any group may be asked for


@dataclass
class Plan:
    """What a sweep will do. `keys[i]` is job i's cell, or None where `reasons[i]` says why it is skipped."""

    keys: list[str | None] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    jobs: list[PlannedJob] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)
    baselines: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    earlier: str | None = None  # what there is to say of rows that an earlier version computed

    @property
    def todo(self) -> list[Cell]:
        """Cells to compute, baselines first."""
        return [c for k, c in self.cells.items() if k not in self.done]

    @property
    def merged(self) -> int:
        """Jobs that mean the same as an earlier one."""
        valid = [k for k in self.keys if k is not None]
        return len(valid) - len(set(valid))

    def summary(self) -> str:
        """One line: how many cells, and what happened to the rest."""
        words = [f"{len(self.cells)} cells ({len(self.baselines)} baseline{'s' * (len(self.baselines) != 1)})"]
        words += [f"{self.merged} merged as duplicates"] if self.merged else []
        words += [f"{len(self.reasons)} skipped"] if self.reasons else []
        words += [f"{len(self.done)} already done"] if self.done else []
        return ", ".join([*words, f"{len(self.todo)} to run"])


def make_plan(jobs: Sequence[PlannedJob], ledger: Ledger, rerun: Iterable[str] = ()) -> Plan:
    """Resolve jobs to cells. Raises UserError when a value is invalid, or unused, in every cell it appears in."""
    cells = Cells()
    resolved: list[Cell | UserError] = []
    for job in jobs:
        try:
            resolved.append(cells(job.config))
        except UserError as error:
            resolved.append(error)
    _check_values(jobs, resolved)
    plan = Plan(jobs=list(jobs))
    _add_cells(plan, resolved)
    again = {_full_key(short, plan) for short in rerun}
    plan.done = {k for k in plan.cells if k not in again and ledger.done(k)}
    plan.earlier = older(ledger.results())
    return plan


def _add_cells(plan: Plan, resolved: Sequence[Cell | UserError]) -> None:
    valid = [c for c in resolved if isinstance(c, Cell)]
    baselines = {b.key: b for b in _baselines(valid)}
    plan.baselines = list(baselines)
    plan.cells = {**baselines, **{c.key: c for c in valid if c.key not in baselines}}
    plan.keys = [c.key if isinstance(c, Cell) else None for c in resolved]
    plan.reasons = {i: str(e) for i, e in enumerate(resolved) if isinstance(e, UserError)}


def _baselines(cells: Iterable[Cell]) -> list[Cell]:
    """One per model, dtype, task, generation setting and back end."""
    seen: dict[tuple[int | str, ...], Cell] = {}
    for cell in cells:
        seen.setdefault((id(cell.model), id(cell.task), id(cell.generation), canonical_json(cell.backend)), cell)
    return [c.baseline() for c in seen.values()]


def _full_key(short: str, plan: Plan) -> str:
    found = [k for k in plan.cells if k.startswith(short)]
    if len(found) != 1:
        raise UserError(
            f"--rerun {short}: {len(found)} cells of this sweep have that key; right: one of this sweep's, with the sweep's own words beside --rerun"
        )
    return found[0]


# ---- one override list a cell, for launchers that are not ours

RECIPE = ("part", "blocks", "layers", "keep", "recipe_file", "quant", "calibration")
RECIPE_SECTIONS = ("quant.", "per_part.", "rules.", "steps.", "calibration.")


def single_overrides(plan: Plan) -> list[tuple[str, ...]]:
    """What each cell to run is asked for with; baselines that nobody asked for first, in the words of a job they serve."""
    asked = {k: plan.jobs[i].overrides for i, k in reversed([*enumerate(plan.keys)]) if k}
    serves = {plan.cells[k].baseline().key: overrides for k, overrides in reversed(asked.items())}
    return [asked.get(c.key) or _untouched(serves[c.key]) for c in plan.todo]


def _untouched(overrides: Sequence[str]) -> tuple[str, ...]:
    """The baseline of a job."""
    keys = {o: o.lstrip("+").partition("=")[0] for o in overrides}
    return (*(o for o, k in keys.items() if k not in RECIPE and not k.startswith(RECIPE_SECTIONS)), "part=none")


# ---- nothing is ignored silently


def _check_values(jobs: Sequence[PlannedJob], resolved: Sequence[Cell | UserError]) -> None:
    """Every value on the command line must be valid and used in at least one cell, were every library there."""
    fate: dict[str, str | UserError | None] = {}
    for job, cell in zip(jobs, resolved, strict=True):
        for text in () if isinstance(cell, MissingRole) else job.overrides:  # such a cell says nothing of its values
            if fate.get(text) != "used":
                fate[text] = _use(text, cell) or fate.get(text)
    for text, outcome in fate.items():
        if isinstance(outcome, UserError):
            raise outcome
        if outcome is None:
            raise UserError(
                f"{text}: used by no cell, so it would be ignored; right: leave it out, or choose a part, method or "
                f"strategy that takes it"
            )
    invalid = next((e for e in resolved if isinstance(e, UserError)), None)
    if invalid is not None and all(isinstance(e, UserError) for e in resolved):
        raise invalid


def _use(text: str, cell: Cell | UserError) -> str | UserError | None:
    """`used`, why the cell is refused, or None. Of a cell that only lacks a library the knobs are known, not the target."""
    if isinstance(cell, UserError) and not isinstance(cell, MissingExtra):
        return cell
    key, _, value = text.lstrip("+").partition("=")
    tracked = key in TRACKED or key.startswith(TRACKED_SECTIONS)
    if isinstance(cell, MissingExtra):
        tracked = key.startswith(KNOB_SECTIONS)
    if not tracked or value == "null" or key in cell.used or any(u.startswith(key + ".") for u in cell.used):
        return "used"
    return None
