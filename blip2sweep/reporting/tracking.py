"""Weights & Biases: the ledger's rows, sent from the collecting process; workers need no network.

One run per cell with run id = key, so that sending twice changes nothing; group = sweep. The sweep's own run carries the
table and the HTML report as artifacts and a table of the samples that lost most. What was sent is remembered beside the
sweep, row by row, so that a stopped upload goes on where it was.

For parallel coordinates and parameter importance every run's config has a number for every part: `width_<part>` are 16 where
`bits_<part>` is null; `metric`, `drop` and `kept` name the main metric alike for captions and questions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.canonical import digest
from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.machine.wandb_login import logged_in
from blip2sweep.metrics import METRICS
from blip2sweep.recipe.part_bits import part_columns, width_columns
from blip2sweep.results.sweeps import Sweep

if TYPE_CHECKING:
    from blip2sweep.reporting.source import Source

MODES = ("online", "offline")
# Identity columns become the run's config; everything that is measured becomes its summary.
CONFIG = (
    "model", "weights", "revision", "dtype", "task", "samples", "data", "data_images", "exif", "generation", "semantics", "part", "blocks",
    "layers", "method", "strategy", "group_size", "symmetric", "input_bits", "calibration", "calibration_samples",
    "calibration_seed", "calibration_upstream", "calibration_threads", "calibration_data", "recipe", "baseline",
)  # fmt: skip
LEFT_OUT = ("key", "recipe_json")  # the run's id says the one, `recipe` the other


def check_tracking(settings: Mapping[str, Any]) -> None:
    """Refuse a tracker or mode that does not exist, or a server that would refuse us, in planning."""
    if settings.get("name") not in (None, "wandb"):
        raise UserError(f"tracking.name={settings['name']}: unknown tracker; right: wandb, or null")
    if settings.get("mode") not in MODES:
        raise UserError(f"tracking.mode={settings['mode']}: right: {' or '.join(MODES)}")
    online = settings.get("name") and os.environ.get("WANDB_MODE", settings["mode"]) == "online"
    if online and not logged_in():
        raise UserError("tracking=wandb: not logged in; right: wandb login, WANDB_API_KEY, or tracking.mode=offline")


def track(output_dir: Path, sweep: Sweep, table: pd.DataFrame, settings: Mapping[str, Any]) -> int:
    """Send a sweep's finished rows, its table, worst samples and report. Returns the number of rows that are sent."""
    import wandb

    done = table[table["status"] == "done"] if len(table) else table
    common = {
        "project": settings["project"], "entity": settings.get("entity"), "dir": str(output_dir),
        "mode": settings["mode"], "group": sweep.name, "settings": wandb.Settings(silent=True, console="off"),
    }  # fmt: skip
    metrics, sent = main_by_task(done), Sent(sweep.folder(output_dir), settings)
    for row in done.to_dict("records"):
        if not sent.has(row):
            _send(wandb, row, metrics.get(row["task"]), common)
            sent.add(row)
    _send_sweep(wandb, sweep, output_dir, common)
    return len(done)


def main_by_task(done: pd.DataFrame) -> dict[Any, str | None]:
    """Captions and questions have each their own."""
    return {task: main_metric(own) for task, own in done.groupby("task")} if len(done) else {}


class Sent:
    """Which rows were sent where: `tracked.jsonl` beside the sweep, a line a row, appended when its run is finished."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.path = folder / "tracked.jsonl"
        self.where = "/".join(str(settings.get(k)) for k in ("mode", "entity", "project"))
        self._known = set(self.path.read_text(errors="replace").splitlines()) if self.path.exists() else set()

    def _line(self, row: Mapping[Any, Any]) -> str:
        told = {k: v for part in split_row(row) for k, v in part.items()}
        return f"{self.where} {row['key']} {digest(str(sorted(told.items(), key=str)))[:16]}"

    def has(self, row: Mapping[Any, Any]) -> bool:
        return self._line(row) in self._known

    def add(self, row: Mapping[Any, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(self._line(row) + "\n")


def _send(wandb: Any, row: Mapping[Any, Any], metric: str | None, common: Mapping[str, Any]) -> None:
    config, summary = split_row(row)
    words = (row["model"], row["task"], row.get("method"), row["part"], row.get("imported") and "imported")
    run = wandb.init(
        **common, id=row["key"], name=f"{row['part']} {row['recipe']}"[:128], resume="allow", job_type="cell",
        config={**config, **widths(row)}, tags=[t[:64] for t in words if isinstance(t, str) and t],
    )  # fmt: skip
    run.summary.update({**summary, **_main(row, metric)})
    run.finish()


def widths(row: Mapping[Any, Any]) -> dict[str, float]:
    """`width_<part>`: the mean width of a part's touched weights, 16 where it is left alone."""
    bits = {c.removeprefix("bits_"): row[c] for c in part_columns(row, [row["recipe"]])}
    return {f"width_{part}": 16.0 if _null(v) else float(v) for part, v in bits.items()}


def _main(row: Mapping[Any, Any], metric: str | None) -> dict[str, Any]:
    """The main metric under names that are the same for every task."""
    value, base = row.get(metric), row.get(f"baseline_{metric}")
    found = {"metric": value, "drop": row.get(f"drop_{metric}")}
    if not _null(value) and not _null(base) and base and METRICS[str(metric)].higher_is_better:
        found["kept"] = value / base
    return {k: _plain(v) for k, v in found.items() if not _null(v)}


def split_row(row: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config, summary) of one row; nulls are left out, since W&B would draw them as zeros."""
    known = {k: _plain(v) for k, v in row.items() if not _null(v)}
    config = {k: v for k, v in known.items() if k in CONFIG or k in width_columns(known)}
    return config, {k: v for k, v in known.items() if k not in config and k not in LEFT_OUT}


def _send_sweep(wandb: Any, sweep: Sweep, output_dir: Path, common: Mapping[str, Any]) -> None:
    """The sweep's run: table and report as artifacts, the samples that lost most as a W&B table."""
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


def _sent_page(wandb: Any, run: Any, source: Source, name: str) -> dict[str, str]:
    """What went wrong: the sweep is done and its rows are sent, so that its report must not make it fail."""
    try:
        _send_page(wandb, run, source, name)
    except Exception as error:
        say(f"no report was sent: {type(error).__name__}: {error}", err=True)
        return {name: f"no page: {type(error).__name__}: {error}"}
    return {}


def _send_page(wandb: Any, run: Any, source: Source, name: str) -> None:
    """One page as an artifact, and its worst samples as a table."""
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
    """`report`, or `report-<model>-<task>` of each where there are several: cells of two tasks are not compared. The
    error says why there is no page."""
    from blip2sweep.reporting.source import load_source

    table = pd.read_parquet(sweep.folder(output_dir) / "table.parquet")
    kinds = list(dict.fromkeys(zip(table["model"], table["task"], strict=True))) if len(table) else []
    for model, task in kinds:
        name = "report" if len(kinds) == 1 else f"report-{model}-{task}"
        try:
            yield name, load_source(output_dir, sweep.name, only={"model": model, "task": task})
        except UserError as error:
            yield name, error


def _null(value: Any) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    """Python's own types: W&B takes no timestamps and writes numpy scalars as text."""
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value
