"""The columns of the table that a measurement of `drops.py` fills."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import cast

from blip2sweep.metrics import METRICS
from blip2sweep.results.packed import Column, Lists, Same, packed
from blip2sweep.results.record import Table
from blip2sweep.wire.lines import Measured


def columns(measured: Measured) -> dict[str, float | None]:
    """The columns of the table that a measurement fills."""
    metrics = measured["metrics"].items()
    found: dict[str, float | None] = {m: v[0] for m, v in metrics}
    found["scored_samples"] = measured["samples"]
    if "same" in measured:
        images = measured.get("images")
        found |= {"same_as_baseline": measured["same"], "images": images, "images_of": measured.get("of", images)}
    for metric, values in metrics:
        found.update(zip(_comparison_columns(metric), values[1:], strict=False))
    for metric, ends in measured.get("retained", {}).items():
        found.update(zip(_retained_columns(metric), (None if e is None else 100 * e for e in ends), strict=True))
    for metric, values in measured.get("controlled", {}).items():
        found.update(zip(_control_columns(metric), values, strict=True))
    return found | {f"noise_{m}": v for m, v in measured["noise"].items()}


def of_table(table: Table) -> dict[str, Column] | None:
    """The same columns of all measurements of a table; None where lists of one metric differ in length."""
    noise, metrics = table.columns["noise"], _lists(table, "metrics")
    retained, controlled = _lists(table, "retained", 2), _lists(table, "controlled", 4)
    if not isinstance(noise, Table) or metrics is None or retained is None or controlled is None:
        return None
    found = {m: own[0] for m, own in metrics.items()}
    found["scored_samples"] = table.columns["samples"]
    if "same" in table.columns:
        images = table.columns.get("images", Same(None, len(table)))
        found |= {
            "same_as_baseline": table.columns["same"],
            "images": images,
            "images_of": table.columns.get("of", images),
        }
    for metric, own in metrics.items():
        found.update(zip(_comparison_columns(metric), own[1:], strict=False))
    for metric, own in retained.items():
        found.update(zip(_retained_columns(metric), map(_percent, own), strict=True))
    for metric, own in controlled.items():
        found.update(zip(_control_columns(metric), own, strict=True))
    return found | {f"noise_{m}": own for m, own in noise.columns.items()}


def _lists(table: Table, name: str, length: int | None = None) -> dict[str, Sequence[Column]] | None:
    """{metric: columns of its values}; empty where the table has nothing of the name, None where lengths differ. length:
    the one that is right; any but 0 by default."""
    column = table.columns.get(name, Table({}, len(table)))
    if not isinstance(column, Table):
        return None
    found = {m: own.columns for m, own in column.columns.items() if isinstance(own, Lists)}
    right = all(len(own) == (length or len(own) or -1) for own in found.values())
    return found if right and len(found) == len(column.columns) else None


def _percent(shares: Column) -> Column:
    values = [shares[i] for i in range(len(shares))]
    return packed([None if v is None else 100 * cast("float", v) for v in values])


@functools.cache
def _retained_columns(metric: str) -> tuple[str, str]:
    return f"retained_{metric}_low", f"retained_{metric}_high"


@functools.cache
def _control_columns(metric: str) -> tuple[str, ...]:
    drop = f"drop_control_{metric}"
    return (f"control_{metric}", drop, f"{drop}_low", f"{drop}_high")


@functools.lru_cache
def _comparison_columns(metric: str) -> tuple[str, ...]:
    """The columns of a metric's values after the first. The number of changed images is a column only for metrics that
    a table may be about."""
    drop, known = f"drop_{metric}", METRICS.get(metric)
    changed = (f"changed_{metric}",) if known is not None and known.order is not None else ()
    return (f"baseline_{metric}", drop, f"{drop}_low", f"{drop}_high", *changed)
