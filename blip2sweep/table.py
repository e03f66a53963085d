"""Ledger -> table: one row a cell, with metrics, paired drops and intervals.

Columns: identity (what the cell is), metrics and, for each metric m, `baseline_m, drop_m, drop_m_low, drop_m_high` (95 %,
paired bootstrap over images; positive is worse), output health, size, cost, provenance. Failed cells are rows too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.canonical import digest
from blip2sweep.cell import SEMANTICS, semantics
from blip2sweep.ledger import Attempts, Ledger
from blip2sweep.metrics import METRICS, Metric, interval, resample, same_as_baseline, weights
from blip2sweep.records import Predictions, read_predictions, read_statistics, stem

SOURCE = "measured_from"  # the column that names predictions, baseline and scorers of a row's metrics
Statistics = dict[str, NDArray[np.float64]]


class Scored:
    """One cell's predictions and statistics, with the resamples of each metric made once."""

    def __init__(self, output_dir: Path, name: str) -> None:
        self.predictions = read_predictions(output_dir, name)
        self.statistics: Statistics = read_statistics(output_dir, name)
        self._samples: dict[str, NDArray[np.float64]] = {}

    @property
    def metrics(self) -> list[Metric]:
        """The metrics whose statistics are there."""
        return [m for m in METRICS.values() if m.statistic in self.statistics]

    def value(self, metric: Metric) -> float:
        return metric.value(self.statistics[metric.statistic])

    def samples(self, metric: Metric) -> NDArray[np.float64]:
        """The metric in each of the B resamples shared by all cells of this sample set."""
        if metric.name not in self._samples:
            shared = weights(self.predictions.image_id)
            self._samples[metric.name] = resample(metric, self.statistics[metric.statistic], shared)
        return self._samples[metric.name]


class Measured:
    """What was measured of each cell, taken from an earlier table where predictions, baseline and scorers are the same."""

    def __init__(self, output_dir: Path, ledger: Ledger, known: pd.DataFrame | None) -> None:
        self.output_dir, self.ledger = output_dir, ledger
        self.fresh: set[str] = set()  # keys that were measured now
        self._baselines: dict[str, Scored | None] = {}
        self._scorers = digest([[m.name, m.version] for m in METRICS.values()])[:8]
        self._known = {} if known is None or SOURCE not in known else _measured_columns(known)

    def __call__(self, row: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """Metrics, drops and noise of one cell. Incomplete ones have no source, and so are measured again."""
        source = self._source(row, result)
        if source in self._known:
            return {SOURCE: source, **self._known[source]}
        self.fresh.add(row["key"])
        cell = Scored(self.output_dir, stem(row["key"], result["predictions"]))
        base = _baseline(self.output_dir, row, self.ledger, self._baselines)
        found = {**_metrics(cell), **_drops(cell, base), **_noise(self.output_dir, row, result, self.ledger)}
        return {SOURCE: source if cell.statistics and (base is None or base.statistics) else None, **found}

    def _source(self, row: dict[str, Any], result: dict[str, Any]) -> str:
        attempts = self.ledger.attempts.get(row["baseline"])
        base = ((attempts.result or {}).get("predictions") or "") if attempts else ""
        return f"{stem(row['key'], result['predictions'])} {base[:12]} {self._scorers}"


def _measured_columns(known: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """{source: what was measured} of a table's rows."""
    prefixes = ("baseline_", "drop_", "noise_")
    columns = [
        c
        for c in map(str, known)
        if c in METRICS or c in ("scored_samples", "same_as_baseline") or c.startswith(prefixes)
    ]
    kept = known[known[SOURCE].notna()]
    return dict(zip(kept[SOURCE], kept[columns].to_dict("records"), strict=True))


def build_table(output_dir: Path, ledger: Ledger, known: pd.DataFrame | None = None) -> tuple[pd.DataFrame, set[str]]:
    """All cells of the ledger, in the order they were finished, and the keys that were measured now.

    known: an earlier table, so that nothing is measured twice. Cells without a baseline have no drops.
    """
    measured = Measured(output_dir, ledger, known)
    rows = [_row(key, attempts, ledger, measured) for key, attempts in _ordered(ledger)]
    table = pd.DataFrame([r for r in rows if r])
    return (_without_empty_columns(table) if len(table) else table), measured.fresh


def _without_empty_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Columns nobody filled are left out, but for the parts' widths: a part left alone everywhere is still a part."""
    widths = [c for c in map(str, table) if c.startswith("bits_") and not c.startswith("bits_per")]
    table[widths] = table[widths].astype(float)
    return table.loc[:, table.notna().any() | table.columns.isin(widths)]


def _ordered(ledger: Ledger) -> Iterable[tuple[str, Attempts]]:
    return sorted(
        ledger.attempts.items(), key=lambda item: (item[1].result or item[1].last_start or {"time": 0})["time"]
    )


def _row(key: str, attempts: Attempts, ledger: Ledger, measured: Measured) -> dict[str, Any] | None:
    if attempts.result is None:
        return _failed_row(key, attempts)
    result = attempts.result
    row = {"key": key, "status": "done", **result["columns"], "attempts": attempts.started}
    row["stale"] = row["semantics"] != _semantics(row, result)
    row |= _published(row, result, ledger)
    if result["predictions"] is not None:  # imported scores may come without outputs
        row |= measured(row, result)
    return {**row, **_run(result)}


def _semantics(row: dict[str, Any], result: dict[str, Any]) -> int:
    """What the cell has today. Our methods' arithmetic did not make what was imported."""
    return SEMANTICS if "imported" in result else semantics(e["method"] for e in json.loads(row["recipe_json"]))


def _published(row: dict[str, Any], result: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    """Imported scores and their drops; no intervals, since nothing is known of single images."""
    if "published" not in result:
        return {}
    attempts = ledger.attempts.get(row["baseline"])
    base = (attempts.result or {}).get("published", {}) if attempts else {}
    found = {
        "imported": result["imported"],
        **{k: result.get(k) for k in ("configs", "noop_configs")},
        **result["published"],
    }
    for name, value in result["published"].items():
        if name in base and name in METRICS:
            sign = 1 if METRICS[name].higher_is_better else -1
            found |= {f"baseline_{name}": base[name], f"drop_{name}": sign * (base[name] - value)}
    return found


def _failed_row(key: str, attempts: Attempts) -> dict[str, Any] | None:
    failure = attempts.last_failure
    if failure is None or "columns" not in failure:
        return None
    told = {"failure": failure["kind"], "error": failure["error"], "host": failure["host"], "job": failure.get("job")}
    return {"key": key, "status": "failed", **failure["columns"], "attempts": attempts.started, "stale": False, **told}


def _baseline(
    output_dir: Path, row: dict[str, Any], ledger: Ledger, baselines: dict[str, Scored | None]
) -> Scored | None:
    key = row["baseline"]
    if key not in baselines:
        attempts = ledger.attempts.get(key)
        found = attempts.result if attempts else None
        outputs = found and found["predictions"]
        baselines[key] = Scored(output_dir, stem(key, outputs)) if outputs else None
    return baselines[key]


def _metrics(cell: Scored) -> dict[str, Any]:
    values = {m.name: cell.value(m) for m in cell.metrics}
    return {**values, "scored_samples": len(cell.predictions.id)}


def _drops(cell: Scored, base: Scored | None) -> dict[str, Any]:
    """Paired drops; none where the baseline is missing or was scored on other samples."""
    if base is None or base.predictions.id != cell.predictions.id:
        return {}
    found: dict[str, Any] = {"same_as_baseline": same_as_baseline(cell.predictions.text, base.predictions.text)}
    for metric in (m for m in cell.metrics if m.statistic in base.statistics):
        sign = 1 if metric.higher_is_better else -1
        low, high = interval(sign * (base.samples(metric) - cell.samples(metric)))
        value = base.value(metric)
        found |= {
            f"baseline_{metric.name}": value,
            f"drop_{metric.name}": sign * (value - cell.value(metric)),
            f"drop_{metric.name}_low": low,
            f"drop_{metric.name}_high": high,
        }
    return found


def _noise(output_dir: Path, row: dict[str, Any], result: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    """The noise floor of half precision, taken from the baseline's second run at another batch size."""
    attempts = ledger.attempts.get(row["baseline"])
    base = attempts.result if attempts else None
    if base is None or not base.get("noise"):
        return {}
    name = stem(row["baseline"], base["predictions"])
    first, second = Scored(output_dir, name), Scored(output_dir, f"{name}-noise")
    shared = [m for m in first.metrics if m.statistic in second.statistics]
    changes = {f"noise_{m.name}": abs(first.value(m) - second.value(m)) for m in shared}
    return {"noise_flip_rate": base["noise"]["flip_rate"], **changes}


def _run(result: dict[str, Any]) -> dict[str, Any]:
    """Cost and provenance."""
    plain = {k: result.get(k) for k in ("layers_changed", "versions", "attention", "image_processor")}
    return {
        **result.get("cost", {}),
        **plain,
        "code": result.get("code"),
        "predictions": result["predictions"],
        "host": result["host"],
        "job": result.get("job"),
        "finished": pd.Timestamp(result["time"], unit="s", tz="UTC"),
    }


def sample_rows(key: str, predictions: Predictions, statistics: Statistics) -> dict[str, Any]:
    """Columns of one cell's samples: outputs, and the metrics that mean something for a single sample."""
    columns: dict[str, Any] = {"key": [key] * len(predictions.id), **predictions.__dict__}
    for name in ("cider", "meteor", "rouge_l", "vqa_accuracy"):
        if METRICS[name].statistic in statistics:
            columns[name] = METRICS[name].finish(statistics[METRICS[name].statistic])
    return columns
