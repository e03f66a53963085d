"""How much each block matters, by three measures side by side: the drop where it alone is left out, the drop where it
alone is quantized, and its influence, 1 − cosine of its input and output on calibration samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from blip2sweep.analysis.blocks import ONE, sensitivity, with_intervals
from blip2sweep.analysis.cell_row import number
from blip2sweep.analysis.common_images import least_first
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.recipes import entries
from blip2sweep.analysis.steps import DROP, dropped_blocks
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import kind_of

DROP_ONE, INFLUENCE = "drop one", "influence"
FEWEST_BLOCKS = 3  # of which a rank correlation is told
COLUMNS = ["measure", "part", "block", "effect", "low", "high", "band_low", "band_high", "rank", "key"]


def importance(
    cells: pd.DataFrame,
    metric: str,
    draws: Draws | None,
    anatomy: Anatomy,
    influence: Mapping[str, Sequence[float]] | None = None,
) -> pd.DataFrame:
    """One row for each measure and block: `measure, part, block, effect, low, high, band_low, band_high, rank, key`.

    measure: *drop one* is the drop of the cell that leaves this block out and does nothing else; *quantize one, …* that
    of the cell that quantizes it alone; *influence* is 1 − cosine, without an interval. rank: 1 is the block of the
    part that matters most by this measure. The band is simultaneous over the blocks of a measure. influence: {part: a
    value for each block}. Empty where no block was dropped alone and no influence was measured.
    """
    dropped = pd.DataFrame(list(_dropped(cells, metric, anatomy)))
    dropped = with_intervals(dropped, draws) if len(dropped) else dropped
    told = [_named(dropped, DROP_ONE)] if len(dropped) else []
    told += [_influence(influence)] if influence else []
    if not told:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.concat([*told, *_quantized(cells, metric, draws, anatomy)], ignore_index=True)
    ranks = pd.concat([_ranks(own, draws) for _, own in frame.groupby(["measure", "part"])])
    order = {p: i for i, p in enumerate(anatomy.parts)}
    frame = frame.assign(rank=ranks)[COLUMNS]
    return frame.sort_values("part", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)


def _ranks(own: pd.DataFrame, draws: Draws | None) -> pd.Series:
    """The rank of each block of one measure and part that has an effect; 1 matters most, and of equal ones the first does."""
    ordered = least_first(own[own["effect"].notna()].iloc[::-1], draws, "effect").iloc[::-1]
    return pd.Series(np.arange(1.0, len(ordered) + 1), index=ordered.index)


def _dropped(cells: pd.DataFrame, metric: str, anatomy: Anatomy) -> Iterator[dict[str, object]]:
    """The cells that leave one block out and do nothing else."""
    for row in cells[cells["further"] != ""].to_dict("records"):
        recipe = entries(str(row["recipe_json"]))
        gone = [(p, b) for p, blocks in dropped_blocks(recipe, anatomy).items() for b in blocks]
        if len(gone) == 1 and {kind_of(e) for e in recipe} == {DROP}:
            part, block = gone[0]
            yield {"kind": DROP_ONE, "setting": "", "width": 0.0, "part": part, "first": block, "other": None,
                   "effect": number(row, f"drop_{metric}"), "key": row["key"]}  # fmt: skip


def _named(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    return frame.rename(columns={"first": "block"}).assign(measure=measure).reindex(columns=COLUMNS)


def _quantized(cells: pd.DataFrame, metric: str, draws: Draws | None, anatomy: Anatomy) -> Iterator[pd.DataFrame]:
    """The single blocks of `sensitivity`: of each setting and width the line that it heads."""
    found = sensitivity(cells, metric, draws, anatomy)
    if found.empty:
        return
    single = found[(found["kind"] == ONE) & (found["first"] == found["last"]) & found["headline"]]
    for (setting, width), own in single.groupby(["setting", "width"]):
        yield _named(own, f"{ONE}, {setting} {width:g} bits")


def _influence(influence: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    rows = [{"part": p, "block": i, "effect": v} for p, values in influence.items() for i, v in enumerate(values)]
    return pd.DataFrame(rows).assign(measure=INFLUENCE).reindex(columns=COLUMNS)


def agreement(frame: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of two measures over the blocks of a part: `part, one, other, rho, blocks`.

    frame: as `importance` gives it. Pairs with fewer than three common blocks are left out.
    """
    rows = []
    for part, own in frame.groupby("part", sort=False):
        wide = own.pivot_table(index="block", columns="measure", values="effect", sort=False)
        for one, other in combinations([m for m in own["measure"].unique() if m in wide], 2):
            both = wide[[one, other]].dropna()
            if len(both) >= FEWEST_BLOCKS:
                rho = spearmanr(both[one], both[other]).statistic if both.nunique().min() > 1 else np.nan
                rows.append({"part": part, "one": one, "other": other, "rho": float(rho), "blocks": len(both)})
    return pd.DataFrame(rows, columns=["part", "one", "other", "rho", "blocks"])
