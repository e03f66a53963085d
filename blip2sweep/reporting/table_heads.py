"""The heads of the table that the verb shows by itself, as names of the columns that they show."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.reporting.short_table import FURTHER
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.reporting.table_where import condition
from blip2sweep.results.schema import FIXED

METRIC = "<metric>"  # stands for the main one
HEADS: Mapping[str, tuple[str, ...]] = {
    "drop": (f"drop_{METRIC}",),
    "95 % interval": (f"drop_{METRIC}_low", f"drop_{METRIC}_high"),
    "in torch": (f"torch_{METRIC}",),
    "drop to control": (f"drop_control_{METRIC}",),
    "its interval": (f"drop_control_{METRIC}_low", f"drop_control_{METRIC}_high"),
    "bits/weight": ("bits_per_weight",),
    "ms": ("latency_ms_median",),
    "baseline ms": ("latency_ms_baseline",),
    "× baseline": ("latency_ratio",),
    "× torch": ("latency_ratio_torch",),
    "from": ("imported",),
    **{head: (column,) for column, head in FURTHER.items()},
}


def with_columns(asked: Asked, table: pd.DataFrame) -> Asked:
    """The same question with columns in place of heads. A head that is a column's own name stays."""
    known, metric = {*map(str, table), *FIXED}, main_metric(table)

    def listed(text: str | None) -> str | None:
        return None if text is None else ",".join(_columns(text.split(","), known, metric))

    where = [_condition(word, known, metric) for word in asked.where]
    value = next(iter(_columns([asked.value], known, metric))) if asked.value else asked.value
    return replace(
        asked,
        where=where,
        columns=listed(asked.columns),
        sort=listed(asked.sort),
        pivot=listed(asked.pivot),
        value=value,
    )


def _columns(words: Sequence[str], known: Collection[str], metric: str | None) -> list[str]:
    return [column for word in words for column in _meant(word, known, metric)]


def _meant(word: str, known: Collection[str], metric: str | None) -> Sequence[str]:
    """The columns of a head, each with the sign of descent that stands before it; another word as it is."""
    name, sign = word.strip().removeprefix("-"), "-" * word.strip().startswith("-")
    heads = () if name in known else HEADS.get(name, ())
    found = [c.replace(METRIC, metric or METRIC) for c in heads]
    return [sign + c for c in found if c in known] or [word]


def _condition(word: str, known: Collection[str], metric: str | None) -> str:
    if (read := condition(word)) is None:
        return word
    column = _meant(read.column, known, metric)[0]
    return word if column == read.column else f"{column}{read.sign}{read.value}"
