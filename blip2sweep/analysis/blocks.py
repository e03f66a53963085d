"""Block sensitivity: what one block costs when it alone is quantized, and what leaving it alone gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import max_t, percentile
from blip2sweep.analysis.cells import by_recipe, entries, part_of
from blip2sweep.analysis.draws import Draws
from blip2sweep.anatomy import Anatomy

ONE, LEFT_OUT = "quantize one", "leave one out"


def sensitivity(cells: pd.DataFrame, metric: str, draws: Draws | None, anatomy: Anatomy) -> pd.DataFrame:
    """One row a block (or run of blocks): `kind, part, first, last, effect, low, high, band_low, band_high, nll`.

    quantize one: the drop of the cell that touches these blocks of one part and nothing else. leave one out: the drop of
    the cell that touches all blocks minus the drop of the one that spares these; what sparing them gives back. The band is
    simultaneous over a kind, setting and width. nll: the same effect on the likelihood, where it was measured.
    """
    rows = [*_ones(cells, metric, anatomy), *_left_out(cells, metric, anatomy)]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame = frame[frame.groupby(["kind", "setting", "width", "part"])["first"].transform("nunique") > 1]
    frame = frame.sort_values(["kind", "setting", "width", "part", "line", "first"]).reset_index(drop=True)
    return _with_intervals(frame, draws)


def _ones(cells: pd.DataFrame, metric: str, anatomy: Anatomy) -> list[dict[str, Any]]:
    rows = []
    for row in cells[cells["width"].notna()].to_dict("records"):
        listed = entries(row["recipe_json"])
        words = {str(e["target"]).split(":")[1] for e in listed}
        parts = {part_of(e) for e in listed}
        if len(words) != 1 or len(parts) != 1:
            continue
        run = _run(anatomy, parts.pop(), words.pop())
        if run:
            rows.append(_told(row, ONE, listed, run, row[f"drop_{metric}"], row.get("drop_nll")) | {"other": None})
    return rows


def _left_out(cells: pd.DataFrame, metric: str, anatomy: Anatomy) -> list[dict[str, Any]]:
    known, rows = by_recipe(cells), []
    for row in cells[cells["width"].notna()].to_dict("records"):
        listed = entries(row["recipe_json"])
        for part in dict.fromkeys(part_of(e) for e in listed):
            whole = [_filled(e) if part_of(e) == part else e for e in listed]
            label = known.get(json.dumps(whole, sort_keys=True))
            run = _spared(anatomy, part, [e for e in listed if part_of(e) == part])
            if label is not None and run:
                full = cells.loc[label]
                given_back = full[f"drop_{metric}"] - row[f"drop_{metric}"]
                nll = full["drop_nll"] - row["drop_nll"] if "drop_nll" in cells else None
                rows.append(_told(row, LEFT_OUT, whole, run, given_back, nll) | {"other": full["key"], "part": part})
    return rows


def _told(
    row: Mapping[Any, Any], kind: str, listed: Sequence[Mapping[str, Any]], run: tuple[int, int], effect: Any, nll: Any
) -> dict[str, Any]:
    layers = "+".join(str(e["target"]).split(":")[2] for e in listed)
    line = f"{row['parts']} {layers}"
    told = {"kind": kind, "setting": row["setting"], "width": row["width"], "part": part_of(listed[0]), "line": line}
    return {**told, "first": run[0], "last": run[1], "effect": effect, "nll": nll, "key": row["key"]}


def _filled(entry: Mapping[str, Any]) -> dict[str, Any]:
    part, _, layers = str(entry["target"]).split(":")
    return {**entry, "target": f"{part}:all:{layers}"}


def _run(anatomy: Anatomy, part: str, word: str) -> tuple[int, int] | None:
    """(first, last) where a word names one run of blocks."""
    return _one_run(anatomy.parts[part].blocks(word), anatomy.parts[part].n_blocks)


def _spared(anatomy: Anatomy, part: str, listed: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    whole = anatomy.parts[part]
    words = {str(e["target"]).split(":")[1] for e in listed}
    if len(words) != 1:
        return None
    return _one_run(frozenset(range(whole.n_blocks)) - whole.blocks(words.pop()), whole.n_blocks)


def _one_run(blocks: frozenset[int], n: int) -> tuple[int, int] | None:
    """(first, last) of one run of at most half the blocks: sparing most of a part is not leaving one out."""
    if not blocks or 2 * len(blocks) > n or max(blocks) - min(blocks) + 1 != len(blocks):
        return None
    return min(blocks), max(blocks)


def _with_intervals(frame: pd.DataFrame, draws: Draws | None) -> pd.DataFrame:
    for column in ("low", "high", "band_low", "band_high"):
        frame[column] = np.nan
    if draws is None:
        return frame
    others = [None if pd.isna(o) else str(o) for o in frame["other"]]
    having = [k in draws and (o is None or o in draws) for k, o in zip(frame["key"], others, strict=True)]
    known = frame[np.array(having, dtype=bool)]
    for _, family in known.groupby(["kind", "setting", "width"]):
        pairs = [(str(frame.at[i, "key"]), others[int(str(i))]) for i in family.index]
        sampled = np.array([draws.drop(k) if o is None else draws.drop(o) - draws.drop(k) for k, o in pairs])
        frame.loc[family.index, ["low", "high"]] = np.column_stack(percentile(sampled))
        ends = max_t(family["effect"].to_numpy(float), sampled)
        frame.loc[family.index, ["band_low", "band_high"]] = np.column_stack(ends)
    return frame
