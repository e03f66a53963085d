"""Weights & Biases: the collecting process sends the ledger's rows; workers need no network.

Each cell is one run whose id is its key, so sending a row twice changes nothing. The group is the sweep. The sweep's
own run has the table and the HTML report as artifacts, and the samples that lost most as a table. A file beside the
sweep holds the rows that were sent, so that a stopped upload continues where it stopped.

For parallel coordinates and parameter importance every run's config has a number for every part: `width_<part>` is 16
where `bits_<part>` is null. `metric`, `drop` and `retained`, in %, are of the main metric,
whatever the task.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.canonical import digest
from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.machine.wandb_login import logged_in
from blip2sweep.metrics import METRICS
from blip2sweep.recipe.part_bits import part_columns, width_columns
from blip2sweep.reporting.wandb_places import kept_below, mode_of
from blip2sweep.results.sweeps import Sweep

if TYPE_CHECKING:
    from blip2sweep.reporting.source import Source

MODES = ("online", "offline")
# Identity columns become the run's config; everything that is measured becomes its summary.
CONFIG = (
    "model", "weights", "revision", "dtype", "stored", "task", "samples", "data", "data_images", "exif", "generation", "semantics", "part",
    "bits", "setting", "blocks", "layers", "method", "strategy", "group_size", "symmetric", "input_bits", "calibration", "calibration_samples",
    "calibration_seed", "calibration_upstream", "calibration_threads", "calibration_data", "recover_samples", "recover_data",
    "recipe", "baseline", "control", "blocks_dropped", "sparsity", "recover", "merged",
)  # fmt: skip
# The run's id is the key, `recipe` has what the second says, and the group is a sweep.
LEFT_OUT = ("key", "recipe_json", "sweeps")


class Summary(Protocol):
    """The summary of a W&B run."""

    def update(self, values: Mapping[str, object]) -> None:
        """Add values by name."""


class Artifact(Protocol):
    """Files that belong to a W&B run."""

    def add_file(self, path: str) -> object:
        """Add one file."""


class WandbRun(Protocol):
    """A run of W&B, as far as it is used here."""

    summary: Summary

    def log(self, values: Mapping[str, object]) -> None:
        """Log values by name."""

    def log_artifact(self, artifact: Artifact) -> object:
        """Upload an artifact."""

    def finish(self) -> None:
        """End the run."""


class Wandb(Protocol):
    """The library, as far as it is used here."""

    def init(self, **settings: object) -> WandbRun:
        """Begin a run."""

    def Artifact(self, name: str, type: str) -> Artifact:
        """An artifact without files."""

    def Table(self, dataframe: pd.DataFrame) -> object:
        """A table of a frame."""


def check_tracking(settings: Mapping[str, object]) -> None:
    """Raises UserError, in planning, for an unknown tracker or mode, and for a server without a login."""
    if settings.get("name") not in (None, "wandb"):
        raise UserError(f"tracking.name={settings['name']}: unknown tracker; right: wandb, or null")
    if settings.get("mode") not in MODES:
        raise UserError(f"tracking.mode={settings['mode']}: right: {' or '.join(MODES)}")
    if settings.get("name") and mode_of(settings) == "online" and not logged_in():
        raise UserError("tracking=wandb: not logged in; right: wandb login, WANDB_API_KEY, or tracking.mode=offline")


def track(output_dir: Path, sweep: Sweep, table: pd.DataFrame, settings: Mapping[str, object]) -> int:
    """Send a sweep's finished rows, its table, worst samples and report. Returns the number of finished rows. All that
    W&B writes meanwhile is below the output folder."""
    with kept_below(output_dir):
        return _track(output_dir, sweep, table, settings)


def _track(output_dir: Path, sweep: Sweep, table: pd.DataFrame, settings: Mapping[str, object]) -> int:
    import wandb

    library = cast("Wandb", wandb)
    done = table[table["status"] == "done"] if len(table) else table
    common = {
        "project": settings["project"], "entity": settings.get("entity"), "dir": str(output_dir),
        "mode": settings["mode"], "group": sweep.name, "settings": wandb.Settings(silent=True, console="off"),
    }  # fmt: skip
    metrics, sent = main_by_task(done), Sent(sweep.folder(output_dir), settings)
    for row in done.to_dict("records"):
        if not sent.has(row):
            _send(library, row, metrics.get(row["task"]), common)
            sent.add(row)
    _send_sweep(library, sweep, output_dir, common)
    return len(done)


def main_by_task(done: pd.DataFrame) -> dict[Hashable, str | None]:
    """{task: its main metric}."""
    return {task: main_metric(own) for task, own in done.groupby("task")} if len(done) else {}


class Sent:
    """The rows that were sent, and where: `tracked.jsonl` beside the sweep. A row is added when its run has ended."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.path = folder / "tracked.jsonl"
        self.where = "/".join(str(settings.get(k)) for k in ("mode", "entity", "project"))
        self._known = set(self.path.read_text(errors="replace").splitlines()) if self.path.exists() else set()

    def _line(self, row: Row) -> str:
        sent = {k: v for part in split_row(row) for k, v in part.items()}
        return f"{self.where} {row['key']} {digest(str(sorted(sent.items(), key=str)))[:16]}"

    def has(self, row: Row) -> bool:
        """Whether this row was sent as it is now."""
        return self._line(row) in self._known

    def add(self, row: Row) -> None:
        """Note that a row was sent."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(self._line(row) + "\n")


def _send(wandb: Wandb, row: Row, metric: str | None, common: Mapping[str, object]) -> None:
    config, summary = split_row(row)
    tags = (row["model"], row["task"], row.get("method"), row["part"], row.get("imported") and "imported")
    run = wandb.init(
        **common, id=row["key"], name=f"{row['part']} {row['recipe']}"[:128], resume="allow", job_type="cell",
        config={**config, **widths(row)}, tags=[t[:64] for t in tags if isinstance(t, str) and t],
    )  # fmt: skip
    run.summary.update({**summary, **_main(row, metric)})
    run.finish()


def widths(row: Row) -> dict[str, float]:
    """`width_<part>`: the mean width of a part's touched weights in bits, 16 where it is left alone."""
    columns = part_columns(map(str, row), [row["recipe"]])
    return {f"width_{c.removeprefix('bits_')}": 16.0 if _null(row[c]) else number(row, c) for c in columns}


def _main(row: Row, metric: str | None) -> dict[str, object]:
    """The main metric under names that are the same for every task."""
    value, base = row.get(metric), row.get(f"baseline_{metric}")
    found = {"metric": value, "drop": row.get(f"drop_{metric}")}
    if not _null(value) and not _null(base) and base and METRICS[str(metric)].higher_is_better:
        found["retained"] = 100 * number(row, str(metric)) / number(row, f"baseline_{metric}")
    return {k: _plain(v) for k, v in found.items() if not _null(v)}


def split_row(row: Row) -> tuple[dict[str, object], dict[str, object]]:
    """(config, summary) of one row. Nulls are left out, since W&B would draw them as zeros."""
    known = {str(k): _plain(v) for k, v in row.items() if not _null(v)}
    config = {k: v for k, v in known.items() if k in CONFIG or k in width_columns(known)}
    return config, {k: v for k, v in known.items() if k not in config and k not in LEFT_OUT}


def _send_sweep(wandb: Wandb, sweep: Sweep, output_dir: Path, common: Mapping[str, object]) -> None:
    """Send the sweep's run: table and report as artifacts, the samples that lost most as a W&B table."""
    run = wandb.init(**common, id=f"sweep-{sweep.name}", name=f"sweep {sweep.name}", job_type="sweep", resume="allow",
                     config={"command": sweep.command, "cells": len(sweep.keys)})  # fmt: skip
    artifact = wandb.Artifact(f"sweep-{sweep.name}", type="table")
    artifact.add_file(str(sweep.folder(output_dir) / "table.parquet"))
    run.log_artifact(artifact)
    for name, source in _sources(output_dir, sweep):
        if isinstance(source, UserError):
            run.summary.update({name: f"no page: {source}"})
        else:
            run.summary.update(_sent_page(wandb, run, source, name))
    run.finish()


def _sent_page(wandb: Wandb, run: WandbRun, source: Source, name: str) -> dict[str, str]:
    """Send a page. Returns what went wrong by its name, since a report must not fail a sweep whose rows are sent."""
    try:
        _send_page(wandb, run, source, name)
    except Exception as error:
        say(f"no report was sent: {type(error).__name__}: {error}", err=True)
        return {name: f"no page: {type(error).__name__}: {error}"}
    return {}


def _send_page(wandb: Wandb, run: WandbRun, source: Source, name: str) -> None:
    """Send one page as an artifact, and its worst samples as a table."""
    from blip2sweep.reporting.html import build_report
    from blip2sweep.reporting.worst import worst_samples

    path = source.folder / f"{name}.html"
    build_report(source, path)
    artifact = wandb.Artifact(f"{name}-{source.title}", type="report")
    artifact.add_file(str(path))
    run.log_artifact(artifact)
    worst = worst_samples(source)
    if len(worst):
        run.log({name.replace("report", "worst_drops"): wandb.Table(dataframe=worst)})


def _sources(output_dir: Path, sweep: Sweep) -> Iterator[tuple[str, Source | UserError]]:
    """(name, source) of each page: `report`, or `report-<model>-<task>` where there are several models or tasks.

    An error in place of a source says why there is no page.
    """
    from blip2sweep.reporting.source import load_source

    table = pd.read_parquet(sweep.folder(output_dir) / "table.parquet")
    kinds = list(dict.fromkeys(zip(table["model"], table["task"], strict=True))) if len(table) else []
    for model, task in kinds:
        name = "report" if len(kinds) == 1 else f"report-{model}-{task}"
        try:
            yield name, load_source(output_dir, sweep.name, only={"model": model, "task": task})
        except UserError as error:
            yield name, error


def _null(value: object) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _plain(value: object) -> object:
    """A value as a type of Python: W&B takes no timestamps and writes numpy scalars as text."""
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if hasattr(value, "item") else value
