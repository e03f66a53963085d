"""Block sensitivity: what one block costs when it alone is quantized, and what leaving it alone gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import max_t
from blip2sweep.analysis.cells import one_seed
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.recipes import by_recipe, entries, identity, part_of
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.part import THIRDS, Part

ONE, LEFT_OUT = "quantize one", "leave one out"
FAMILY = ["kind", "setting", "width"]


def sensitivity(cells: pd.DataFrame, metric: str, draws: Draws | None, anatomy: Anatomy) -> pd.DataFrame:
    """One row a block (or run of blocks): `kind, part, first, last, effect, low, high, band_low, band_high, nll`.

    quantize one: the drop of the cell that touches these blocks of one part and nothing else. leave one out: the drop of
    the cell that touches all blocks minus the drop of the one that spares these; what sparing them gives back. The band is
    simultaneous over a kind, setting and width. nll: the same effect on the likelihood, where it was measured.
    A `line` holds runs of one length (single blocks, thirds, …) and one kind of layers; `headline` marks of each kind,
    setting, width and part the line that touches most, and of those the one of the shortest runs.
    """
    chosen = one_seed(cells)
    frame = pd.DataFrame([*_ones(chosen, metric, anatomy), *_left_out(cells, chosen, metric, anatomy)])
    if frame.empty:
        return frame
    frame = frame[frame.groupby([*FAMILY, "part", "line"])["first"].transform("nunique") > 1]
    frame = frame.sort_values([*FAMILY, "part", "line", "first"]).reset_index(drop=True)
    return _with_intervals(_with_headline(frame), draws)


def _ones(cells: pd.DataFrame, metric: str, anatomy: Anatomy) -> list[dict[str, Any]]:
    rows = []
    for row in cells[cells["width"].notna()].to_dict("records"):
        listed = entries(row["recipe_json"])
        words = {str(e["target"]).split(":")[1] for e in listed}
        parts = {part_of(e) for e in listed}
        if len(words) != 1 or len(parts) != 1:
            continue
        part = anatomy.parts[parts.pop()]
        run = _one_run(part.blocks(words.pop()), part.n_blocks)
        if run:
            told = _told(row, ONE, listed, part, run)
            rows.append(told | {"effect": row[f"drop_{metric}"], "nll": row.get("drop_nll"), "other": None})
    return rows


def _left_out(cells: pd.DataFrame, chosen: pd.DataFrame, metric: str, anatomy: Anatomy) -> list[dict[str, Any]]:
    known, rows = by_recipe(cells), []
    for row in chosen[chosen["width"].notna()].to_dict("records"):
        listed = entries(row["recipe_json"])
        for name in dict.fromkeys(part_of(e) for e in listed):
            whole = [_filled(e) if part_of(e) == name else e for e in listed]
            label = known.get(identity(whole, row["calibrated_on"]))
            run = _spared(anatomy.parts[name], [e for e in listed if part_of(e) == name])
            if label is not None and run:
                full = cells.loc[label]
                given_back = full[f"drop_{metric}"] - row[f"drop_{metric}"]
                nll = full["drop_nll"] - row["drop_nll"] if "drop_nll" in cells else None
                told = _told(row, LEFT_OUT, whole, anatomy.parts[name], run)
                rows.append(told | {"effect": given_back, "nll": nll, "other": full["key"]})
    return rows


def _told(
    row: Mapping[Any, Any], kind: str, listed: Sequence[Mapping[str, Any]], part: Part, run: tuple[int, int]
) -> dict[str, Any]:
    layers = "+".join(str(e["target"]).split(":")[2] for e in listed)
    line = f"{row['parts']} {layers}, {_length(part, run)}"
    told = {"kind": kind, "setting": row["setting"], "width": row["width"], "part": part.name, "line": line}
    return {**told, "first": run[0], "last": run[1], "key": row["key"], "touched": row.get("params_touched", 0)}


def _length(part: Part, run: tuple[int, int]) -> str:
    """Thirds are one line though they differ by a block where the part's number of blocks is no multiple of three."""
    n = run[1] - run[0] + 1
    if n == 1:
        return "single blocks"
    thirds = [part.blocks(word) for word in THIRDS]
    return "thirds" if frozenset(range(run[0], run[1] + 1)) in thirds else f"runs of {n}"


def _filled(entry: Mapping[str, Any]) -> dict[str, Any]:
    part, _, layers = str(entry["target"]).split(":")
    return {**entry, "target": f"{part}:all:{layers}"}


def _spared(part: Part, listed: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    words = {str(e["target"]).split(":")[1] for e in listed}
    if len(words) != 1:
        return None
    return _one_run(frozenset(range(part.n_blocks)) - part.blocks(words.pop()), part.n_blocks)


def _one_run(blocks: frozenset[int], n: int) -> tuple[int, int] | None:
    """(first, last) of one run of at most half the blocks: sparing most of a part is not leaving one out."""
    if not blocks or 2 * len(blocks) > n or max(blocks) - min(blocks) + 1 != len(blocks):
        return None
    return min(blocks), max(blocks)


def _with_headline(frame: pd.DataFrame) -> pd.DataFrame:
    group = [*FAMILY, "part"]
    lines = frame.groupby([*group, "line"], sort=False)["touched"].agg(["sum", "size"]).reset_index()
    best = lines.sort_values(["sum", "size"]).drop_duplicates(group, keep="last")
    keys = set(best[[*group, "line"]].itertuples(index=False, name=None))
    main = [k in keys for k in frame[[*group, "line"]].itertuples(index=False, name=None)]
    return frame.drop(columns="touched").assign(headline=main)


def _with_intervals(frame: pd.DataFrame, draws: Draws | None) -> pd.DataFrame:
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
        effects = [
            (k, None) if o is None else (o, k) for k, o in pairs
        ]  # what sparing gives back: the whole from the rest
        frame.loc[family.index, ["low", "high"]] = [draws.paired(*e)[1:] for e in effects]
        least = np.array([draws.least(*e) for e in effects])
        ends = max_t(family["effect"].to_numpy(float), sampled, images=draws.images.count, least=least)
        frame.loc[family.index, ["band_low", "band_high"]] = np.column_stack(ends)
    return frame
