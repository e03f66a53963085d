"""Block sensitivity: what a block costs when it alone is quantized, and what it gives back when it alone is spared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import max_t
from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import one_seed, quantized
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.paired import paired_difference
from blip2sweep.analysis.recipes import Entry, by_recipe, entries, identity
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import THIRDS, Part
from blip2sweep.recipe.setting import part_of

ONE, LEFT_OUT = "quantize one", "leave one out"
FAMILY = ["kind", "setting", "width"]


def sensitivity(cells: pd.DataFrame, metric: str, draws: Draws | None, anatomy: Anatomy) -> pd.DataFrame:
    """One row for each block, or run of blocks: `kind, part, first, last, effect, low, high, band_low, band_high, nll`.

    kind: *quantize one* is the drop of the cell that touches these blocks of one part and nothing else. *leave one out*
    is the drop of the cell that touches all blocks minus the drop of the cell that spares these. The band is
    simultaneous over one kind, setting and width. nll: the same effect on the likelihood, where it was measured. `line`
    names the runs of one length (single blocks, thirds, …) in one kind of layers. `headline` marks one line for each
    kind, setting, width and part: the one that touches most, and of equal ones the one with the shortest runs.
    """
    cells = quantized(cells)
    chosen = one_seed(cells)
    frame = pd.DataFrame([*_ones(chosen, metric, anatomy), *_left_out(cells, chosen, metric, anatomy)])
    if frame.empty:
        return frame
    frame = frame[frame.groupby([*FAMILY, "part", "line"])["first"].transform("nunique") > 1]
    frame = frame.sort_values([*FAMILY, "part", "line", "first"]).reset_index(drop=True)
    return with_intervals(_with_headline(frame), draws)


class Blocks(NamedTuple):
    """A run of blocks of one part; both ends are in it."""

    part: Part
    first: int
    last: int


def _ones(cells: pd.DataFrame, metric: str, anatomy: Anatomy) -> list[dict[str, object]]:
    rows = []
    for row in cells[cells["width"].notna()].to_dict("records"):
        recipe = entries(row["recipe_json"])
        places = {e["target"].split(":")[1] for e in recipe}
        parts = {part_of(e) for e in recipe}
        if len(places) != 1 or len(parts) != 1:
            continue
        part = anatomy.parts[parts.pop()]
        run = _one_run(part.blocks(places.pop()), part)
        if run:
            named = _named(row, ONE, recipe, run)
            rows.append(named | {"effect": row[f"drop_{metric}"], "nll": row.get("drop_nll"), "other": None})
    return rows


def _left_out(cells: pd.DataFrame, chosen: pd.DataFrame, metric: str, anatomy: Anatomy) -> list[dict[str, object]]:
    known, full_cells, rows = by_recipe(cells), cells.to_dict("records"), []
    for row in chosen[chosen["width"].notna()].to_dict("records"):
        recipe = entries(row["recipe_json"])
        for name in dict.fromkeys(part_of(e) for e in recipe):
            whole = [_filled(e) if part_of(e) == name else e for e in recipe]
            position = known.get(identity(whole, row["calibrated_on"]))
            run = _spared(anatomy.parts[name], [e for e in recipe if part_of(e) == name])
            if position is not None and run:
                full = full_cells[position]
                given_back = number(full, f"drop_{metric}") - number(row, f"drop_{metric}")
                nll = number(full, "drop_nll") - number(row, "drop_nll") if "drop_nll" in cells else None
                named = _named(row, LEFT_OUT, whole, run)
                rows.append(named | {"effect": given_back, "nll": nll, "other": full["key"]})
    return rows


def _named(row: Row, kind: str, recipe: Sequence[Entry], run: Blocks) -> dict[str, object]:
    """The columns that say which blocks a row of the result is of."""
    layers = "+".join(e["target"].split(":")[2] for e in recipe)
    line = f"{row['parts']} {layers}, {_length(run)}"
    names = {"kind": kind, "setting": row["setting"], "width": row["width"], "part": run.part.name, "line": line}
    return {**names, "first": run.first, "last": run.last, "key": row["key"], "touched": row.get("params_touched", 0)}


def _length(run: Blocks) -> str:
    """Thirds have one name although their lengths differ where the number of blocks is no multiple of three."""
    n = run.last - run.first + 1
    if n == 1:
        return "single blocks"
    thirds = [run.part.blocks(word) for word in THIRDS]
    return "thirds" if frozenset(range(run.first, run.last + 1)) in thirds else f"runs of {n}"


def _filled(entry: Entry) -> Entry:
    """The entry with all blocks of its part."""
    part, _, layers = entry["target"].split(":")
    return {**entry, "target": f"{part}:all:{layers}"}


def _spared(part: Part, recipe: Sequence[Entry]) -> Blocks | None:
    places = {e["target"].split(":")[1] for e in recipe}
    if len(places) != 1:
        return None
    return _one_run(frozenset(range(part.n_blocks)) - part.blocks(places.pop()), part)


def _one_run(blocks: frozenset[int], part: Part) -> Blocks | None:
    """The one run of these blocks, of at most half of the part: sparing most of a part is not leaving one out."""
    if not blocks or 2 * len(blocks) > part.n_blocks or max(blocks) - min(blocks) + 1 != len(blocks):
        return None
    return Blocks(part, min(blocks), max(blocks))


def _with_headline(frame: pd.DataFrame) -> pd.DataFrame:
    group = [*FAMILY, "part"]
    lines = frame.groupby([*group, "line"], sort=False)["touched"].agg(["sum", "size"]).reset_index()
    best = lines.sort_values(["sum", "size"]).drop_duplicates(group, keep="last")
    keys = set(best[[*group, "line"]].itertuples(index=False, name=None))
    main = [k in keys for k in frame[[*group, "line"]].itertuples(index=False, name=None)]
    return frame.drop(columns="touched").assign(headline=main)


def with_intervals(frame: pd.DataFrame, draws: Draws | None) -> pd.DataFrame:
    """The rows with `low, high, band_low, band_high`; the band is simultaneous over one kind, setting and width.

    frame: rows with `kind, setting, width, effect, key, other`, numbered from 0. An effect is the drop of the cell
    `key`, or where there is an `other` the drop of that minus the drop of `key`.
    """
    for column in ("low", "high", "band_low", "band_high"):
        frame[column] = np.nan
    if draws is None:
        return frame
    others = [None if pd.isna(o) else str(o) for o in frame["other"]]
    having = [k in draws and (o is None or o in draws) for k, o in zip(frame["key"], others, strict=True)]
    known = frame[np.array(having, dtype=bool)]
    for _, family in known.groupby(FAMILY):
        pairs = [(str(frame.at[i, "key"]), others[int(str(i))]) for i in family.index]
        sampled = np.array([draws.drop(k) if o is None else draws.drop(o) - draws.drop(k) for k, o in pairs])
        # What sparing gives back is the drop of the whole from the rest.
        effects = [(k, None) if o is None else (o, k) for k, o in pairs]
        told = zip(effects, family["effect"], strict=True)
        found = [
            (value, *draws.paired(*e)[1:]) if e[1] is None else paired_difference(draws, *e, value) for e, value in told
        ]
        frame.loc[family.index, ["effect", "low", "high"]] = found
        least = np.array([draws.least(*e) for e in effects])
        images = min(draws.count(*filter(None, e)) for e in effects)
        ends = max_t(np.array([f[0] for f in found], dtype=np.float64), sampled, images=images, least=least)
        frame.loc[family.index, ["band_low", "band_high"]] = np.column_stack(ends)
    return frame
