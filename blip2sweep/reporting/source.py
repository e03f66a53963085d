"""What a report is made from: the rows of one sweep or of the whole ledger, their draws, anatomy and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.cells import SAME, comparable
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.largest import largest_kind
from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.analysis.models import models_of, of_model
from blip2sweep.errors import UserError, nearest
from blip2sweep.models.anatomy import Anatomy, anatomy
from blip2sweep.planning.packs import sweep_jobs
from blip2sweep.reporting.back_ends import back_end_names, run_alike
from blip2sweep.reporting.sections import model_parts, shipped_section
from blip2sweep.results.collect import collect
from blip2sweep.results.latest import ALL, newer_runs, read_table, sweep_or_all, unwritable
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks import TaskData, planned_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import CellJob


@dataclass
class Source:
    """Comparable cells and what is known of them.

    title: the sweep's name. folder: the sweep's. table: every row, failed ones too. cells: the comparable rows. metric:
    the main one. command: the sweep's overrides, empty for the whole ledger.
    """

    output_dir: Path
    title: str
    folder: Path
    table: pd.DataFrame
    cells: pd.DataFrame
    metric: str
    draws: Draws | None
    command: str
    notes: list[str] = field(default_factory=list)
    only: dict[str, str] = field(default_factory=dict)  # what narrowed the table, by column
    back_end: str = ""  # its name, where a report has several back ends of one model, or two that were named

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.cells["model"].iloc[0])

    @property
    def name(self) -> str:
        """What tells it from the others of a report: its back end, or its model."""
        return self.back_end or self.model

    @property
    def selection(self) -> list[str]:
        """The arguments that choose these cells for another verb."""
        arguments = ["--all" if self.folder == self.output_dir else self.title]
        for column, value in self.only.items():
            arguments += [f"--{column}", value] if column in ("model", "task") else ["--only", f"{column}={value}"]
        return arguments

    @property
    def heading(self) -> str:
        """`tiny on shapes_caption, 200 samples, 21 cells`."""
        first = self.cells.iloc[0]
        known = first.get("samples")  # a CSV file need not say how many
        samples = f"{int(known)} samples, " if pd.notna(known) and known else ""
        return f"{first['model']} on {first['task']}, {samples}{len(self.cells)} cells"

    @property
    def meant(self) -> list[str]:
        """The lines for the terminal that name the sweep a verb is about."""
        name = self.title if self.title == ALL else f"sweep {self.title}"
        return [f"{name}: {self.heading}", *self.notes]

    @cached_property
    def jobs(self) -> dict[str, CellJob]:
        """{key: job} as workers got it, for its model and task; empty for imported rows."""
        return pack_jobs(self.output_dir)

    @cached_property
    def measured_cells(self) -> pd.DataFrame:
        """Every finished cell of the ledger that has this baseline and back end, whichever sweep ran it. Imported rows
        are among them where some of these cells are imported.
        """
        base = self.cells.loc[self.cells["part"] == "none", "key"].iloc[0]
        path = self.output_dir / "table.parquet"
        table = read_table(path) if path.exists() else self.table
        own = run_alike(table[table["baseline"] == base], self.cells, base) if "baseline" in table else table.iloc[:0]
        if set(own["key"]) <= set(self.cells["key"]):
            return self.cells
        return comparable(of_model(own, self.model, model_parts(self.output_dir, self.model)))

    @cached_property
    def measured(self) -> tuple[pd.DataFrame, Draws | None]:
        """`measured_cells`, and the draws of all of them."""
        cells = self.measured_cells
        return cells, self.draws if cells is self.cells else load_draws(self.output_dir, cells, self.metric)

    @cached_property
    def section(self) -> ModelSection | None:
        """The model's config as planned, else that of the shipped model of that name; None where neither is known."""
        job = next((self.jobs[k] for k in self.cells["key"] if k in self.jobs), None)
        return job["model"] if job else shipped_section(self.model)

    @cached_property
    def anatomy(self) -> Anatomy | None:
        """The anatomy of `section`; None where it is not known."""
        return anatomy(self.section) if self.section else None

    @property
    def known_anatomy(self) -> Anatomy:
        """The anatomy. Raises UserError where it is not known."""
        if self.anatomy is None:
            raise UserError(
                f"model {self.cells['model'].iloc[0]}: its anatomy is not known here; right: the output_dir of its own sweep"
            )
        return self.anatomy

    @cached_property
    def task(self) -> TaskData | None:
        """The task's samples; None where its data folder is gone or has changed."""
        job = next((self.jobs[k] for k in self.cells["key"] if k in self.jobs), None)
        try:
            return planned_task(job["task"]) if job else None
        except UserError:
            return None

    def readable_outputs(self, predictions: Predictions) -> list[str]:
        """The output for each sample as people read it, or the raw output where the task is not known."""
        return self.task.readable_outputs(predictions) if self.task else predictions.outputs


def pack_jobs(output_dir: Path) -> dict[str, CellJob]:
    """{key: job} of every cell that any sweep's packs hold."""
    found: dict[str, CellJob] = {}
    for folder in sorted((output_dir / "sweeps").glob("*/packs")):
        found |= sweep_jobs(folder.parent)
    return found


@dataclass(frozen=True)
class Selection:
    """The rows that a verb was asked for: of a sweep, or of the whole ledger where `found` is None."""

    output_dir: Path
    found: Sweep | None
    table: pd.DataFrame
    notes: list[str]
    only: dict[str, str]

    @property
    def title(self) -> str:
        return self.found.name if self.found else ALL

    @property
    def folder(self) -> Path:
        return self.found.folder(self.output_dir) if self.found else self.output_dir

    def agreeing(self, columns: Sequence[str]) -> Selection:
        """The rows of the largest kind by these columns, where all cells were asked for; a sweep's rows as they are."""
        if self.found is not None:
            return self
        table, left_out = largest_kind(self.table, columns)
        return replace(self, table=table, notes=[*self.notes, *left_out])

    def of_back_end(self, name: str) -> Source:
        """The source of one back end of several, by its name. Raises UserError where its rows cannot be compared."""
        own = self.table[[found == name for found in back_end_names(self.table)]]
        value = str(own["backend"].iloc[0])
        if "baseline" in own:  # outputs of another server were imported beside a baseline that it has not
            beside = self.table["key"].isin(own["baseline"]) & ~self.table["key"].isin(own["key"])
            own = pd.concat([self.table[beside].assign(backend=value), own])
        return replace(replace(self, table=own, only={**self.only, "backend": value}).source(), back_end=name)

    def source(self, model: str | None = None) -> Source:
        """The source of all rows, or of one model of several. Raises UserError where they cannot be compared."""
        chosen = [model] if model is not None else models_of(self.table)
        table, only = self.table, self.only
        if len(chosen) == 1:
            table = of_model(table, chosen[0], model_parts(self.output_dir, chosen[0]))
        table, left_out = largest_kind(table) if self.found is None else (table, [])
        cells = comparable(table)
        metric = main_metric(cells)
        assert metric is not None
        draws = load_draws(self.output_dir, cells, metric)
        only = only if model is None else {"model": model, **only}
        command = self.found.command if self.found else ""
        return Source(
            self.output_dir,
            self.title,
            self.folder,
            table,
            cells,
            metric,
            draws,
            command,
            [*self.notes, *left_out],
            only,
        )


def load_source(
    output_dir: Path,
    sweep: str | None = None,
    all_cells: bool = False,
    only: dict[str, str | None] | None = None,
) -> Source:
    """The source of the newest sweep, of a named one, or of the whole ledger.

    only: {column: value} narrows the cells, such as {"task": "vqav2"}. A run of one cell is the newest sweep only where
    there is no other. Of the whole ledger the largest kind of comparable cells is taken, and `notes` says what was left
    out. Raises UserError where nothing fits, and where the cells of a sweep cannot be compared (see `comparable`).
    """
    return select(output_dir, sweep, all_cells, only).source()


def select(
    output_dir: Path,
    sweep: str | None = None,
    all_cells: bool = False,
    only: dict[str, str | None] | None = None,
) -> Selection:
    """The rows of `load_source`, which may be of several models."""
    found = sweep_or_all(output_dir, sweep, all_cells)
    folder = found.folder(output_dir) if found else output_dir
    table = _narrowed(_collected(output_dir, found, folder), only or {})
    notes = newer_runs(output_dir, found) if found and sweep is None else []
    return Selection(output_dir, found, table, notes, {c: v for c, v in (only or {}).items() if v is not None})


def _collected(output_dir: Path, found: Sweep | None, folder: Path) -> pd.DataFrame:
    """The table, collected from the journals first.

    The table on disk where there are none, or nothing can be written.
    """
    if any((output_dir / "journals").glob("*.jsonl")):
        try:
            collect(output_dir, found)
        except UserError as error:
            if not unwritable(error):
                raise
    if not (folder / "table.parquet").exists():
        raise UserError(f"{output_dir}: the ledger has no rows yet; right: run a sweep, or --output-dir of one")
    return read_table(folder / "table.parquet")


def _narrowed(table: pd.DataFrame, only: dict[str, str | None]) -> pd.DataFrame:
    for column, value in only.items():
        if value is not None:
            if column not in table:
                raise UserError(f"--only {column}={value}: no such column; {nearest(column, [*SAME, 'baseline'])}")
            chosen = table[[_text(v) == value for v in table[column]]]
            if chosen.empty and column == "backend":  # without its options
                chosen = table[[_text(v).partition(" ")[0] == value for v in table[column]]]
            option = f"--{column} {value}" if column in ("model", "task") else f"--only {column}={value}"
            common = column not in ("model", "task")  # each of these has a baseline of its own
            if common and len(chosen) and "part" in table and "none" in set(table["part"]) - set(chosen["part"]):
                right = f"right: what both share, such as dtype=float32; of rows alone: blip2sweep table --where {column}={value}"
                raise UserError(f"{option}: leaves out the baseline, with which cells are compared; {right}")
            if chosen.empty:
                there = ", ".join(sorted({_text(v) for v in table[column]})[:6])
                raise UserError(f"{option}: no cell has it; right: one of {there}")
            table = chosen
    return table


def _text(value: object) -> str:
    """A value as people type it. Whole numbers in a column with gaps are floats."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def narrowing(model: str | None, task: str | None, only: Sequence[str]) -> dict[str, str | None]:
    """`only` of `load_source`, from the options of a verb.

    only: texts such as `dtype=float32`; raises UserError for others.
    """
    for word in only:
        if not all(word.partition("=")):
            raise UserError(f"--only {word}: right: COLUMN=VALUE, such as dtype=float32")
    return {"model": model, "task": task, **{w.partition("=")[0]: w.partition("=")[2] for w in only}}
