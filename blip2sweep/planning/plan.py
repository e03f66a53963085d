"""Plans a sweep: resolves jobs to cells, merges duplicates, skips impossible cells, adds baselines and leaves out what
is done.

All errors of a sweep are raised here, before a folder is made or a job is queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blip2sweep.canonical import canonical_json
from blip2sweep.console.remarks import many
from blip2sweep.errors import Absent, MissingExtra, UserError
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.planning.scored_alike import scored_alike
from blip2sweep.planning.stopping import Stopping, stopping_of, with_results
from blip2sweep.planning.timed import Timed
from blip2sweep.planning.unused import why_unused
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.stopped import asked
from blip2sweep.results.table import older
from blip2sweep.wire.pack import Settings

# Config keys that have to be used by at least one cell. All others (model, task, output_dir, …) are used by every cell.
OPTIONAL = ("drop_blocks", "sparsity", "recover")  # steps that a cell may lack: `none` says so
TRACKED = ("part", "blocks", "layers", "keep", "recipe_file", "quant", *OPTIONAL, "calibration", "chat")
OPTIONS = ("quant.", "sparsity.", "recover.", "per_part.", "rules.", "steps.")
TRACKED_SECTIONS = (*OPTIONS, "generation.", "calibration.", "chat.")
OPTION_SECTIONS = (*OPTIONS, "sparsity", "recover", "calibration")


@dataclass(frozen=True)
class PlannedJob:
    """One list of overrides of the sweep, and the config that it composes to."""

    overrides: tuple[str, ...]
    config: Mapping[str, Any]  # composed, any group


@dataclass
class Plan:
    """What a sweep will do. `keys[i]` is the cell of job i, or None when it is skipped for the reason `reasons[i]`;
    `metrics[i]` is the main metric of job i, which jobs of one cell may score by different rules."""

    keys: list[str | None] = field(default_factory=list)
    metrics: list[str | None] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    jobs: list[PlannedJob] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)
    baselines: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)  # uncompressed models with the recovery of some cell
    done: set[str] = field(default_factory=set)
    earlier: str | None = None  # a remark about results that an earlier version computed
    timed: Timed | None = None  # where latency is asked for
    stopping: Stopping = field(default_factory=Stopping)  # which cells may stop before they have seen all images
    again: set[str] = field(default_factory=set)  # computed although they are done

    @property
    def todo(self) -> list[Cell]:
        """The cells to compute, baselines first, then controls."""
        return [c for k, c in self.cells.items() if k not in self.done]

    @property
    def to_launch(self) -> list[Cell]:
        """The cells to compute, and those that are done and only timed, baselines first."""
        timed = set(self.timed.keys) if self.timed else set()
        return [c for k, c in self.cells.items() if k not in self.done or k in timed]

    @property
    def merged(self) -> int:
        """The number of jobs with the same cell as an earlier job."""
        valid = [k for k in self.keys if k is not None]
        return len(valid) - len(set(valid))

    def summary(self) -> str:
        """One line: the number of cells, and how many are merged, skipped, done and to run."""
        added = [(len(self.baselines), "baseline"), *([(len(self.controls), "control")] if self.controls else [])]
        counts = [f"{many(len(self.cells), 'cell')} ({', '.join(f'{n} {what}' + 's' * (n != 1) for n, what in added)})"]
        counts += [f"{self.merged} merged as duplicates"] if self.merged else []
        counts += [f"{len(self.reasons)} skipped"] if self.reasons else []
        stopped = f" ({self.stopping.done})" if self.stopping.done else ""
        counts += [f"{len(self.done)} already done{stopped}"] if self.done else []
        counts += [f"{len(self.todo)} to run"]
        return ", ".join([*counts, *([f"{len(self.timed.keys)} to time"] if self.timed else [])])

    @property
    def remarks(self) -> list[str]:
        """The summary, which cells may stop and which are timed, and what is said of results of earlier versions."""
        timed = [self.timed.text()] if self.timed else []
        return [self.summary(), *self.stopping.lines, *timed, *([self.earlier] if self.earlier else [])]


def make_plan(jobs: Sequence[PlannedJob], ledger: Ledger, rerun: Iterable[str] = ()) -> Plan:
    """Resolve jobs to cells. rerun: keys, or their beginnings, of cells to compute although they are done.

    Raises UserError when a value is invalid, or unused, in every cell that has it, and when `rerun` names no single
    cell.
    """
    cells = CellBuilder()
    resolved: list[Cell | UserError] = []
    for job in jobs:
        try:
            resolved.append(cells(job.config))
        except UserError as error:
            resolved.append(error)
    _check_values(jobs, resolved)
    plan = Plan(jobs=list(jobs))
    _add_cells(plan, resolved)
    plan.again = {_full_key(short, plan) for short in rerun}
    stopping = stopping_of(plan, jobs[0].config if jobs else {}, plan.again)
    told: Settings = {"stop": stopping.request} if stopping.request else {}
    plan.done = {k for k in plan.cells if k not in plan.again and ledger.done(k, request=asked(told, k))}
    plan.stopping = with_results(stopping, plan, ledger)
    plan.earlier = older(ledger.results())
    return plan


def _add_cells(plan: Plan, resolved: Sequence[Cell | UserError]) -> None:
    """Fill the plan with the resolved cells, their baselines and controls, and the reasons of skipped jobs."""
    plan.metrics = [c.task.main_metric if isinstance(c, Cell) else None for c in resolved]
    cells = scored_alike([c for c in resolved if isinstance(c, Cell)])
    baselines = {b.key: b for b in _baselines(cells)}
    controls = {c.key: c for cell in cells if (c := cell.control) is not None}
    plan.baselines, plan.controls = list(baselines), list(controls)
    added = {**baselines, **controls}
    plan.cells = {**added, **{c.key: c for c in cells if c.key not in added}}
    plan.keys = [c.key if isinstance(c, Cell) else None for c in resolved]
    plan.reasons = {i: str(e) for i, e in enumerate(resolved) if isinstance(e, UserError)}


def _baselines(cells: Iterable[Cell]) -> list[Cell]:
    """The baselines of cells: one for each model, dtype, task, generation setting, back end and chat."""
    first_of: dict[tuple[int | str, ...], Cell] = {}
    for cell in cells:
        asked = canonical_json([cell.backend, cell.chat])
        first_of.setdefault((id(cell.model), id(cell.task), id(cell.generation), asked), cell)
    return [c.baseline() for c in first_of.values()]


def _full_key(short: str, plan: Plan) -> str:
    """The key that starts with `short`. Raises UserError when the plan has none or several."""
    found = [k for k in plan.cells if k.startswith(short)]
    if len(found) != 1:
        raise UserError(
            f"--rerun {short}: {len(found)} cells of this sweep have that key; right: one of this sweep's, with the "
            f"sweep's own words beside --rerun"
        )
    return found[0]


# ---- one list of overrides for each cell, for launchers of other packages

RECIPE_SECTIONS = (*OPTIONS, "calibration.")


def single_overrides(plan: Plan) -> list[tuple[str, ...]]:
    """The overrides that each cell to run was requested with, in the order of `to_launch`. A baseline that no job
    requested gets the overrides of a job that needs it, without those of the recipe. A control that no job requested has
    none: a cell that needs it runs it, too (blip2sweep/commands/run_one.py)."""
    requested = {k: plan.jobs[i].overrides for i, k in reversed([*enumerate(plan.keys)]) if k}
    serves = {plan.cells[k].baseline().key: overrides for k, overrides in reversed(requested.items())}
    asked = (requested.get(c.key) or (serves.get(c.key) and _untouched(serves[c.key])) for c in plan.to_launch)
    return [overrides for overrides in asked if overrides]


def baselines_alone(plan: Plan) -> Plan:
    """The plan of the baselines of a plan and of nothing else. The whole plan where there is none of them to run."""
    only = Plan(
        cells={k: plan.cells[k] for k in plan.baselines}, baselines=plan.baselines, jobs=plan.jobs, done=plan.done
    )
    return only if only.to_launch else plan


def single_batches(plan: Plan) -> list[list[tuple[str, ...]]]:
    """`single_overrides` in batches, none of which is launched before the one before it has ended. Where cells may stop,
    the baselines come first: jobs that start at once would each compute theirs."""
    if plan.stopping.request is None:
        return [single_overrides(plan)]
    compared = {*plan.baselines}
    ahead = replace(plan, done=plan.done | (plan.cells.keys() - compared), timed=None)
    batches = [single_overrides(ahead), single_overrides(replace(plan, done=plan.done | compared))]
    return [batch for batch in batches if batch]


def _untouched(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides of a job's baseline."""
    keys = {o: o.lstrip("+").partition("=")[0] for o in overrides}
    return (*(o for o, k in keys.items() if k not in TRACKED and not k.startswith(RECIPE_SECTIONS)), "part=none")


# ---- nothing is ignored silently


def _check_values(jobs: Sequence[PlannedJob], resolved: Sequence[Cell | UserError]) -> None:
    """Raise UserError for a value of the command line that is invalid, or used by no cell. Missing libraries count as
    installed."""
    outcomes: dict[str, str | UserError | None] = {}
    for job, cell in zip(jobs, resolved, strict=True):
        # A cell that lacks what is named does not tell whether its values are used.
        for text in () if isinstance(cell, Absent) else job.overrides:
            if outcomes.get(text) != "used":
                outcomes[text] = _use(text, cell) or outcomes.get(text)
    for text, outcome in outcomes.items():
        if isinstance(outcome, UserError):
            raise outcome
        if outcome is None:
            config = next(job.config for job in jobs if text in job.overrides)
            why = why_unused(text.lstrip("+").partition("=")[0], config)
            raise UserError(f"{text}: used by no cell, so it would be ignored; {why}")
    invalid = next((e for e in resolved if isinstance(e, UserError)), None)
    if invalid is not None and all(isinstance(e, UserError) for e in resolved):
        raise invalid


def _use(text: str, cell: Cell | UserError) -> str | UserError | None:
    """`used`; the error that refuses the cell; or None when the cell does not use the value. For a cell that lacks only
    a library the options of its methods are checked, and its target is not."""
    if isinstance(cell, UserError) and not isinstance(cell, MissingExtra):
        return cell
    key, _, value = text.lstrip("+").partition("=")
    tracked = key in TRACKED or key.startswith(TRACKED_SECTIONS)
    if isinstance(cell, MissingExtra):
        tracked = key.startswith(OPTION_SECTIONS)
    nothing = value == "null" or (key in OPTIONAL and value == "none")
    if not tracked or nothing or key in cell.used or any(u.startswith(key + ".") for u in cell.used):
        return "used"
    return None
