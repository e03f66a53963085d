"""One figure of a report: its data, and what to run where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from blip2sweep.analysis.recipes import part_names
from blip2sweep.files import write_atomic
from blip2sweep.reporting.interaction import Layout
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.source import Source
from blip2sweep.reporting.table_text import csv_text

RUN = "python -m blip2sweep -m"


@dataclass
class Figure:
    """One figure: its data, and what to run where there are none."""

    name: str
    title: str
    caption: str
    data: pd.DataFrame
    missing: str  # what to run where there is nothing to draw: overrides, and from `figures` a whole command
    why: str = ""  # more on why there is nothing to draw
    table: str = ""  # HTML above the picture
    layouts: dict[str, Layout] = field(default_factory=dict)  # of the interaction map, by setting

    @property
    def empty(self) -> bool:
        return self.data.empty


def label(source: Source) -> str:
    """The label of the main metric."""
    return metric_text(source.metric).label


def roles_of(source: Source) -> dict[str, str]:
    """{part: role}; empty where the anatomy is not known."""
    return {p.name: p.role for p in source.anatomy.parts.values()} if source.anatomy else {}


def in_model_order(source: Source, data: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows sorted by set of parts, single parts first in the model's order, so a part has one colour in all
    figures.
    """
    order = part_names(source.cells)
    rank = {p: (p.count("+"), [order.index(w) for w in p.split("+")]) for p in data[column].unique()}
    ranks = {p: i for i, p in enumerate(sorted(rank, key=lambda p: rank[p]))}
    return data.sort_values(column, key=lambda values: values.map(ranks), kind="stable").reset_index(drop=True)


def write_csvs(made: Sequence[Figure], folder: str) -> list[str]:
    """Write one CSV for each figure. Returns their paths."""
    paths = []
    for figure in made:
        path = Path(folder) / f"{figure.name}.csv"
        write_atomic(path, csv_text(figure.data).encode())
        paths.append(str(path))
    return paths
