"""The rounds of a screening: each is a launch of one sweep, and what it showed is read from the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from blip2sweep.analysis.cells import finished
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.knapsack import FEWEST_CELLS
from blip2sweep.analysis.layer_groups import layer_groups, noise
from blip2sweep.analysis.predict import competing
from blip2sweep.analysis.recipes import entries, is_further
from blip2sweep.analysis.screening_grid import Family, Grid, Seen, seen_of
from blip2sweep.commands.cell_words import SCREEN
from blip2sweep.commands.plan import skipped
from blip2sweep.commands.run import Launch, failures, name_in_use, plan_sweep, run_sweep
from blip2sweep.console.printing import say, tell
from blip2sweep.console.remarks import many
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.machine.devices import Devices
from blip2sweep.metrics import METRICS, images
from blip2sweep.metrics.stopping import Rule
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.planning.costs import expected_seconds
from blip2sweep.planning.plan import Plan, PlannedJob, baselines_alone
from blip2sweep.recipe.setting import one_scheme, setting
from blip2sweep.results.latest import read_table
from blip2sweep.results.sweeps import is_forgotten, read_sweep
from blip2sweep.running.progress import follow
from blip2sweep.running.queue import queue_state

FEWEST = 2  # cells to choose among


class Way(NamedTuple):
    """How cells are run, as a launcher does it: see `run_sweep`."""

    launch: Launch
    check: Callable[[Plan], None] = lambda plan: None
    devices: Callable[[], Devices | None] = lambda: None


@dataclass
class Rounds:
    """The cells of a screening and their results. keys, columns: of the cells that compete, in the order of the grid.
    jobs: all of each key, which may score it by different rules. draws: of what was seen so far. begun: as of
    `run_sweep`."""

    way: Way
    command: str
    rule: Rule
    plan: Plan
    jobs: dict[str, list[PlannedJob]]
    columns: Sequence[Mapping[str, Any]]
    grid: Grid
    metric: str
    images: int
    begun: set[Path] = field(default_factory=set)
    known: Draws | None = None
    table: pd.DataFrame = field(default_factory=pd.DataFrame)  # of the cells that have results

    @classmethod
    def planned(cls, jobs: Sequence[PlannedJob], way: Way, command: str, rule: Rule) -> Rounds:
        """Plan all cells of the grid. rule: of the looks. Raises UserError for one that cannot be screened. Nothing is
        written."""
        config = jobs[0].config
        output_dir, name = Path(config["output_dir"]), str(config["sweep_name"])
        own_file = output_dir / "sweeps" / name / "sweep.json"
        plan, ledger = plan_sweep([_by(job, rule) for job in jobs], [own_file], way.devices, command)
        told = name_in_use(output_dir, name, plan, (), command)  # refuses the name of another grid
        if told and not set(read_sweep(own_file).keys) <= set(plan.cells):
            say(told, err=True)
        way.check(plan)
        base = _only_baseline(plan)
        own: dict[str, list[PlannedJob]] = {}
        for key, job in zip(plan.keys, plan.jobs, strict=True):
            if key is not None and key != base.key:
                own.setdefault(key, []).append(job)
        if len(own) < FEWEST:
            there = "one cell beside" if own else "no cell but"
            why = f" (left out: {'; '.join(skipped(plan))})" if plan.reasons else ""
            raise UserError(
                f"screen: {there} the baseline{why}, and it chooses among several; right: several values, such as "
                f"quant.bits=2,3,4,8 part=vision,language,all"
            )
        cells = [plan.cells[key] for key in own]
        columns = [cell.columns() for cell in cells]
        seconds = expected_seconds([cell.job() for cell in cells], ledger)
        sizes = np.array([c["model_bytes"] for c in columns], dtype=np.float64)
        grid = Grid(sizes, np.array([seconds[key] for key in own]), float(base.columns()["model_bytes"]),
                    families(columns, base.model.anatomy))  # fmt: skip
        return cls(way, command, rule, plan, own, columns, grid, base.task.main_metric, len(base.task.images))

    @property
    def keys(self) -> list[str]:
        return list(self.jobs)

    @property
    def origin(self) -> str:
        """The command that the sweep is said to come from, behind `blip2sweep`."""
        return f"{SCREEN} {self.command}"

    @property
    def output_dir(self) -> Path:
        return Path(self._config["output_dir"])

    @property
    def name(self) -> str:
        return str(self._config["sweep_name"])

    @property
    def draws(self) -> Draws:
        """Raises SweepFailed before the baseline has a result."""
        if self.known is None:
            raise SweepFailed(
                f"the baseline has no result; right: blip2sweep logs {self.plan.baselines[0]}, and the same command again"
            )
        return self.known

    @property
    def _config(self) -> Mapping[str, Any]:
        return self.plan.jobs[0].config

    @property
    def _folder(self) -> Path:
        return self.output_dir / "sweeps" / self.name

    def go_on(self) -> dict[int, Seen]:
        """Join what an earlier process of the same screening began, wait for jobs that it left running, and return what the
        ledger knows of the cells, whoever ran them. {} where the baseline has no result yet."""
        path = self._folder / "sweep.json"
        if path.exists() and not is_forgotten(self.output_dir, sweep := read_sweep(path)):
            if set(sweep.keys) <= set(self.plan.cells):
                self.begun.add(path)
            if queue_state(sweep, self.output_dir).packs:
                tell(f"sweep {self.name}: jobs of its last round are there, and waited for")
                follow(self.output_dir, sweep)
                self.plan, _ = plan_sweep(self.plan.jobs, [path], self.way.devices, self.command)
        there = [i for i, key in enumerate(self.keys) if key in self.plan.done]
        if not there or self.plan.baselines[0] not in self.plan.done:
            return {}
        seen = self.run(dict.fromkeys(there, self.rule))
        whole = sum(s.whole for s in seen.values())
        tell(f"{len(seen)} of {many(len(self.keys), 'cell')} were looked at before, {whole} of them on all images")
        return seen

    def run(self, cells: Mapping[int, Rule | None]) -> dict[int, Seen]:
        """Run cells of the grid in one launch, each until it stops by its rule (None: on all images), and return what is
        known of all that were seen. The baseline is run alone before the first of them, because they stop once they are
        compared with it.

        Raises SweepFailed where the baseline has no result, and UserError where nothing can be a share of it.
        """
        asked = [_by(job, rule) for i, rule in cells.items() for job in self.jobs[self.keys[i]]]
        if self.known is None and self.plan.baselines[0] not in self.plan.done:
            tell(f"first the baseline, on all {many(self.images, 'image')}")
            self._launch(asked, baselines_alone)
            self._check_baseline()
        if failed := self._launch(asked, lambda plan: plan):
            tell(failed)
        self._check_baseline()
        return self._seen()

    def _launch(self, jobs: Sequence[PlannedJob], one_of: Callable[[Plan], Plan]) -> str | None:
        """Launch jobs, or of their plan what `one_of` says, and read the tables. Returns what is said of cells that
        failed."""
        way = self.way
        outcome = run_sweep(jobs, way.launch, self.begun, way.check, way.devices, self.origin, False, one_of)
        if self.plan.baselines[0] in outcome.values:  # else there may be no row to read
            self.table = finished(read_table(self._folder / "table.parquet"))
            self.known = load_draws(self.output_dir, self.table, self.metric, resampled=False)
        return failures(outcome)

    def _check_baseline(self) -> None:
        """Raise SweepFailed where it has no result, and UserError where its metric is no number above 0."""
        competing(self.table, self.draws.metric.name)

    def _seen(self) -> dict[int, Seen]:
        draws, metric = self.draws, METRICS[self.metric]
        found = dict[int, Seen]()
        for i, key in enumerate(self.keys):
            if key not in draws:
                continue
            mask = draws.seen.get(key)
            of = None if mask is None else draws.images.count
            base = draws.arrays[draws.baseline] if mask is None else draws.arrays[draws.baseline][mask]
            ids = [n for j, n in enumerate(draws.image_ids) if mask is None or mask[j]]
            found[i] = seen_of(metric, draws.arrays[key], base, images(ids), of)
        return found


def families(columns: Sequence[Mapping[str, Any]], anatomy: Anatomy) -> list[Family]:
    """The cells that predict each other: of one scheme, and quantized alone. Those of too few cells are none."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(columns):
        listed = entries(str(row["recipe_json"]))
        if listed and not any(map(is_further, listed)) and one_scheme(listed):
            on = [row.get(name) for name in ("calibration", "calibration_samples", "calibration_upstream")]
            found.setdefault(f"{setting(str(row['recipe_json']))} {on}", []).append(i)
    made = []
    for rows in found.values():
        if len(rows) >= FEWEST_CELLS:
            texts = [columns[i]["recipe_json"] for i in rows]
            groups = layer_groups(pd.DataFrame({"recipe_json": texts}), anatomy)
            made.append(Family(np.array(rows), noise(groups.widths), groups.families))
    return made


def _by(job: PlannedJob, rule: Rule | None) -> PlannedJob:
    """A job whose cell stops by a rule; None: on all images."""
    section = {"stop": "none", "half_width": None, "tolerance": None}
    section |= {"stop": rule.stop, "half_width": f"{rule.margin:g}"} if rule else {}
    return replace(job, config={**job.config, "evaluation": section})


def _only_baseline(plan: Plan) -> Any:
    """The baseline that all cells are compared with. Raises UserError for several, and for a metric that is no share."""
    if len(plan.baselines) != 1:
        there = "; ".join(f"{c['model']} on {c['task']}" for c in (plan.cells[k].columns() for k in plan.baselines))
        raise UserError(
            f"screen: {len(plan.baselines)} baselines ({there}), and one frontier has one; right: one model, dtype, task, "
            f"generation and back end at a time"
        )
    cell = plan.cells[plan.baselines[0]]
    metric = METRICS.get(cell.task.main_metric)
    if metric is None or not metric.higher_is_better:
        raise UserError(
            f"screen: {cell.task.main_metric or 'no metric'} is no share of the baseline's, which predictions need; right: a "
            f"task with references, whose main metric is such as cider or vqa_accuracy"
        )
    return cell
