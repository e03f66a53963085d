"""The columns of the table that a measurement of `drops.py` fills."""

from __future__ import annotations

import functools

from blip2sweep.metrics import METRICS
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
