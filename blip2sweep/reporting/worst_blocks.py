"""The sentence on the blocks that lose most when they alone are quantized, or give back most when they alone are spared."""

from __future__ import annotations

import pandas as pd

from blip2sweep.analysis.blocks import LEFT_OUT, ONE
from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.common_images import least_first, order_note
from blip2sweep.analysis.draws import Draws
from blip2sweep.reporting.metric_text import MetricText

MOST, SHOWN = 3, 5e-4  # blocks that are named; effects that are not 0.000
WORDS = {ONE: "Quantized alone", LEFT_OUT: "Spared alone"}


def worst_blocks(data: pd.DataFrame, metric: MetricText, draws: Draws | None) -> str:
    """The worst blocks of each kind, with the band that is simultaneous over all blocks of it. Empty without blocks.

    data: of the figure `blocks`, see `analysis.blocks.sensitivity`. draws: rank cells that stopped.
    """
    return " ".join(_sentence(own, kind, metric, draws) for kind in WORDS if len(own := worst_first(data, draws, kind)))


def worst_first(data: pd.DataFrame, draws: Draws | None, kind: str = ONE) -> pd.DataFrame:
    """The blocks of one kind, of the setting and width with most of them, the worst first; empty where there are none."""
    if data.empty:
        return data
    shown = data[(data["kind"] == kind) & data["headline"].astype(bool)].dropna(subset=["effect"])
    groups = [own for _, own in shown.groupby(["setting", "width"], sort=True)]
    return least_first(max(groups, key=len).iloc[::-1], draws, "effect").iloc[::-1] if groups else shown


def block_name(row: Row) -> str:
    """`vision block 5`, or `vision blocks 0-3`."""
    first, last = int(number(row, "first")), int(number(row, "last"))
    return f"{row['part']} block {first}" if first == last else f"{row['part']} blocks {first}-{last}"


def _sentence(own: pd.DataFrame, kind: str, metric: MetricText, draws: Draws | None) -> str:
    named = own[own["effect"] > SHOWN].head(MOST)
    rows = named.to_dict("records")
    does = "gives back" if kind == LEFT_OUT else "loses" if metric.higher_is_better else "raises it by"
    listed = ", ".join(f"{block_name(r)} {_amount(r, metric)}" for r in rows)
    one = "a block" if (own["first"] == own["last"]).all() else "a run of blocks"
    setting, width = own["setting"].iloc[0], own["width"].iloc[0]
    start, known = f"{WORDS[kind]} at {width:g} bits with {setting},", own["band_low"].dropna()
    if not rows or (len(known) == len(own) and not (known > 0).any()):
        return f"{start} no {one.removeprefix('a ')} {does} {metric.label} that is told from 0{_how_many(own)}."
    return f"{start} {one} {does} most {metric.label} here: {listed}{order_note(named.iloc[::-1], draws, 'effect')}{_how_many(own)}."


def _amount(row: Row, metric: MetricText) -> str:
    text = metric.amount(*(number(row, c) for c in ("effect", "band_low", "band_high")))
    return text.removesuffix(metric.unit).replace("-", "−")


def _how_many(own: pd.DataFrame) -> str:
    """How many blocks differ from 0, by the band over all of them; nothing where there are no intervals."""
    low = own["band_low"].dropna()
    if low.empty:
        return ""
    which = (
        f"all {len(own)} together"
        if len(low) == len(own)
        else f"the {len(low)} of {len(own)} that have outputs, together"
    )
    return f" (bands over {which}; {int((low > 0).sum())} of them lie above 0)"
