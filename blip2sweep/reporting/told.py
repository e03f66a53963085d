"""What the three answers are made from: the curves of one setting, and the cell whose cost is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.common_images import least_first
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import lowest_safe
from blip2sweep.reporting.answer import listed, reached
from blip2sweep.reporting.metric_text import MetricText, metric_text
from blip2sweep.reporting.price_table import Sizes, sizes_of
from blip2sweep.reporting.source import Source

FULL = 16  # bits, which save nothing


@dataclass(frozen=True)
class Told:
    """What answers are made from.

    only: which layers were compressed, where these are not all. curves: of one setting, with `lowest`, the lowest safe width (NaN: none is). of: the number of settings that were run.
    """

    cells: pd.DataFrame
    curves: pd.DataFrame
    only: str
    metric: MetricText
    sizes: Sizes
    of: int

    @property
    def whole(self) -> pd.DataFrame:
        """The curve of most parts together that are safe at some width, else of most parts; from wide to narrow."""
        joined = self.curves.assign(_none=self.curves["lowest"].isna(), _n=-self.curves["parts"].str.count(r"\+"))
        joined["_bytes"] = joined.groupby("parts")["key"].transform(lambda keys: self._least_bytes(keys))
        own = joined.sort_values(["_none", "_n", "lowest", "_bytes", "parts"])
        return own[own["parts"] == own["parts"].iloc[0]].sort_values("width", ascending=False)

    def _least_bytes(self, keys: pd.Series) -> float:
        found = self.cells.loc[self.cells["key"].isin(keys)].get("model_bytes")
        return math.nan if found is None else float(found.min())

    @property
    def parts(self) -> str:
        """Its parts."""
        return listed(self.whole["parts"].iloc[0])

    @property
    def lowest(self) -> float:
        """Its lowest safe width; NaN where none is."""
        return float(self.whole["lowest"].iloc[0])


def named_cell(source: Source, curves: pd.DataFrame) -> str | None:
    """The key of the recipe that the third answer names; None where no whole part was run at one width."""
    told = told_of(source, curves)
    return None if told is None else str(costed(told).iloc[0]["key"])


def told_of(source: Source, curves: pd.DataFrame) -> Told | None:
    """What is told; None where no whole part was run at one width. curves: `dropoff` of the headline."""
    known = curves[~curves["point"]].dropna(subset=["retained"]) if len(curves) else curves
    if known.empty:
        return None
    safe = lowest_safe(curves).drop_duplicates(["setting", "parts"]).set_index(["setting", "parts"])["lowest_safe"]
    places = zip(known["setting"], known["parts"], strict=True)
    known = known.assign(lowest=[float(safe[p]) if pd.notna(safe[p]) else math.nan for p in places])
    own = known[known["setting"] == _furthest(known, source.draws)]
    only = reached(source.cells[source.cells["key"].isin(own["key"])])
    return Told(source.cells, own, only, metric_text(source.metric), sizes_of(source.cells), known["setting"].nunique())


def _furthest(known: pd.DataFrame, draws: Draws | None) -> str:
    """The setting of most parts together, then of the lowest safe width, then of the most that is kept at the lowest."""
    order = ["_n", "lowest", "width"]
    ranked = known.assign(_n=-known["parts"].str.count(r"\+")).sort_values([*order, "setting"])
    alike = ranked[order].fillna(math.inf).eq(ranked[order].iloc[0].fillna(math.inf)).all(axis=1)
    return str(least_first(ranked[alike], draws)["setting"].iloc[0])


def costed(told: Told) -> pd.DataFrame:
    """The cells that the cost is told of: from the lowest safe width, or from the widest, to the narrowest."""
    narrow = told.whole[told.whole["width"] < FULL]
    if narrow.empty:
        return told.whole
    return narrow if math.isnan(told.lowest) else narrow[narrow["width"] <= told.lowest]


def cell_of(told: Told, row: Row) -> Row:
    """The cell of a point of a curve, with its sizes."""
    cells = told.cells if "model_bytes" in told.cells else told.cells.assign(model_bytes=math.nan)
    return cells[cells["key"] == row["key"]].iloc[0].to_dict()
