"""What is measured of a cell: its metrics, how far each is from the baseline's, and how sure that is.

Measured once, by whoever scored the cell, and kept as a `measured` line of the ledger, so that a table of a hundred thousand
cells is made without opening a file of theirs. What was not (the baseline came later, the scorer was killed, scorers have
changed) is measured when tables are made, and kept the same way.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blip2sweep.canonical import digest
from blip2sweep.console.remarks import remark
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, Drop, Images, Metric, changed_images, images, paired_drop, same_as_baseline
from blip2sweep.metrics.statistics import BUILT_IN
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.predictions import SECOND, key_of, read_predictions, read_scores, second_run, second_runs
from blip2sweep.wire.lines import Measured, Noise, ResultLine

# Of every metric that every process has; those of tasks from outside are in METRICS when a task of theirs was read.
SCORERS = digest([[m.name, m.version] for m in METRICS.values() if m.name in BUILT_IN])[:8]
INTERVALS = 2  # the rule of `paired_drop` and what `measure` keeps; lines of another one are measured again
MEASURES = digest([SCORERS, INTERVALS])[:8]
EVENT = "measured"


class Scored:
    """One cell's predictions and statistics, added up by image once."""

    def __init__(self, output_dir: Path, name: str) -> None:
        self.output_dir, self.name, self.key = output_dir, name, key_of(name)
        self.predictions = read_predictions(output_dir, name)
        self.statistics, self.current = read_scores(output_dir, name)
        self._by_image: dict[str, NDArray[np.float64]] = {}

    @functools.cached_property
    def seconds(self) -> dict[str, Scored]:
        """Second runs that were calibrated otherwise, by what was otherwise; those that can be read."""
        named = second_runs(self.output_dir, self.name)
        found = {what: _second(self.output_dir, name) for what, name in named.items() if what}
        return {what: second for what, second in found.items() if second}

    @property
    def scored(self) -> str:
        """Names what it was scored with; empty for what was not."""
        outside = [[m.name, m.version] for m in self.metrics if m.name not in BUILT_IN]
        return digest([SCORERS, sorted(self.statistics), *outside])[:8] if self.statistics else ""

    @property
    def metrics(self) -> list[Metric]:
        """The metrics whose statistics are there."""
        return [m for m in METRICS.values() if m.statistic in self.statistics]

    def value(self, metric: Metric) -> float:
        return metric.value(self.statistics[metric.statistic])

    def by_image(self, metric: Metric) -> NDArray[np.float64]:
        """(m, k), for all metrics that read this statistic."""
        name = metric.statistic
        if name not in self._by_image:
            self._by_image[name] = self.images.by_image(self.statistics[name])
        return self._by_image[name]

    @functools.cached_property
    def images(self) -> Images:
        return images(self.predictions.image_id)


class Baseline:
    """A baseline as cells are measured against it, and its noise floor, from its `result` line."""

    def __init__(self, output_dir: Path, result: ResultLine) -> None:
        self.cell = Scored(output_dir, predictions_name(result))
        second = _second(output_dir, second_run(self.cell.name)) if result.get("noise") else None
        noted = result.get("noise")
        self.noise = noise(self.cell, second, noted) if second and noted else {}
        self.current = self.cell.current and (second is None or second.current)


def _second(output_dir: Path, name: str) -> Scored | None:
    """A second run; without its outputs, which is told, there is no noise floor."""
    try:
        return Scored(output_dir, name)
    except UserError as error:
        remark(str(error))
        return None


class Baselines:
    """Each baseline is read once. waiting: one whose scores are not all there is looked at again."""

    def __init__(self, output_dir: Path, waiting: bool) -> None:
        self.output_dir, self.waiting = output_dir, waiting
        self._known: dict[str, Baseline] = {}

    def __call__(self, result: ResultLine | None) -> Baseline | None:
        """None without a `result` line, or without outputs."""
        if not result or not result["predictions"]:
            return None
        name = predictions_name(result)
        if name not in self._known:
            found = Baseline(self.output_dir, result)
            if self.waiting and not found.current:
                return found
            self._known[name] = found
        return self._known[name]


def source(name: str, seconds: Mapping[str, int], baseline: ResultLine | None) -> str:
    """Names what a measurement was made from: the predictions `name`, those of the baseline's `result` line, the scorers and
    rules, and the second runs of both, where there are any. seconds: of `seconds_noted` or `seconds_there`.

    A cell that runs again says the same, and may have second runs now: without them its noise floor would never show."""
    noted = seconds_noted(baseline) if baseline else {}
    told = sorted({*seconds.items(), *noted.items()})
    named = f"{name} {((baseline and baseline['predictions']) or '')[:12]} {MEASURES}"
    return f"{named} {digest(told)[:8]}" if told else named


def made_now(source: str, name: str) -> bool:
    """Whether a `source` is of the predictions `name`, as today's scorers and rules measure them."""
    parts = source.split(" ")
    return parts[0] == name and parts[2:3] == [MEASURES]


def seconds_noted(result: ResultLine) -> dict[str, int]:
    """{second run: when it was written, in ns} as a `result` line has them."""
    return {k: note[1] for k, note in (result.get("files") or {}).items() if k.startswith(SECOND[1:])}


def seconds_there(output_dir: Path, name: str) -> dict[str, int]:
    """The same of those that are there."""
    named = second_runs(output_dir, name).items()
    paths = {second_run("", what)[1:]: output_dir / "predictions" / f"{n}.json" for what, n in named}
    return {what: path.stat().st_mtime_ns for what, path in paths.items()}


def measure(cell: Scored, baseline: Baseline | None) -> Measured:
    """As the ledger keeps it: {metric: [value]} or, beside a baseline, [value, baseline, drop, low, high, changed images]
    (`paired_drop`: 95 %, over images; positive is worse), the number of samples and images, the share of equal outputs, the
    noise floor.

    There are no drops where the baseline is missing or was scored on other samples, or where there are no samples.
    """
    ids = cell.predictions.id
    noise = (baseline.noise if baseline else {}) | calibration_noise(cell)
    scored, samples = cell.scored, len(ids)
    if baseline is None or not ids or baseline.cell.predictions.id != ids:
        alone = {m.name: [_number(cell.value(m))] for m in cell.metrics}
        return {"scored": scored, "samples": samples, "noise": noise, "metrics": alone}
    same = same_as_baseline(cell.predictions.outputs, baseline.cell.predictions.outputs)
    metrics = {m.name: _beside(m, cell, baseline.cell) for m in cell.metrics}
    counts = cell.images.count
    return {"scored": scored, "samples": samples, "noise": noise, "images": counts, "same": same, "metrics": metrics}


def _beside(metric: Metric, cell: Scored, baseline: Scored) -> list[float | None]:
    """value, baseline, drop, low, high, changed images; the value alone where the baseline lacks the metric. The baseline itself
    drops by 0, and nothing of that is uncertain."""
    if metric.statistic not in baseline.statistics:
        return [_number(cell.value(metric))]
    own = baseline.by_image(metric), cell.by_image(metric)
    value = cell.value(metric)
    nothing = value - value  # NaN where there is no number to differ from
    drop = Drop(nothing, nothing, nothing) if cell.name == baseline.name else paired_drop(metric, *own)
    values = value, baseline.value(metric), *drop
    return [*map(_number, values), changed_images(metric, *own)]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def complete(cell: Scored, baseline: Baseline | None) -> bool:
    """Whether it is worth keeping: not what waits for scores, its own or the baseline's, or has those of earlier scorers."""
    seconds = all(second.current for second in cell.seconds.values())
    return cell.current and seconds and (baseline is None or baseline.current)


def noise(first: Scored, second: Scored, noted: Noise) -> dict[str, float | None]:
    """The noise floor of half precision, from a baseline's second run at another batch size."""
    return {"flip_rate": noted["flip_rate"], **_changes(first, second)}


def calibration_noise(cell: Scored) -> dict[str, float | None]:
    """The noise floor of a calibrated cell, `seed_flip_rate`, `seed_cider` …, from second runs that were calibrated otherwise."""
    found: dict[str, float | None] = {}
    for what, second in cell.seconds.items():
        same = same_as_baseline(second.predictions.outputs, cell.predictions.outputs)
        told = {"flip_rate": 1 - same, **_changes(cell, second)}
        found |= {f"{what}_{k}": v for k, v in told.items()}
    return found


def _changes(first: Scored, second: Scored) -> dict[str, float | None]:
    """By how much each metric of a second run is another."""
    shared = [m for m in first.metrics if m.statistic in second.statistics]
    return {m.name: _number(abs(first.value(m) - second.value(m))) for m in shared}


def columns(measured: Measured) -> dict[str, float | None]:
    """The table's columns of what `measure` gave."""
    metrics = measured["metrics"].items()
    found: dict[str, float | None] = {m: v[0] for m, v in metrics}
    found["scored_samples"] = measured["samples"]
    if "same" in measured:
        found |= {"same_as_baseline": measured["same"], "images": measured.get("images")}
    for metric, values in metrics:
        found.update(zip(_beside_columns(metric), values[1:], strict=False))
    return found | {f"noise_{m}": v for m, v in measured["noise"].items()}


def _beside_columns(metric: str) -> tuple[str, ...]:
    """How many images changed is a column of the metrics that a table may be about."""
    drop, known = f"drop_{metric}", METRICS.get(metric)
    changed = (f"changed_{metric}",) if known is not None and known.order is not None else ()
    return (f"baseline_{metric}", drop, f"{drop}_low", f"{drop}_high", *changed)
