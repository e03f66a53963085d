"""Columns of a table that its recipes and calibrations determine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import pandas as pd

from blip2sweep.analysis.cell_row import Row
from blip2sweep.analysis.recipes import entries
from blip2sweep.analysis.steps import (
    RECOVER,
    UNCOMPRESSED,
    before_recovery,
    further_text,
    kinds_text,
    of_kind,
    quantizers,
    recipe_text,
)
from blip2sweep.recipe.setting import part_of, setting

CALIBRATION = {
    "calibration": "on {}", "calibration_samples": "{} samples", "calibration_upstream": "upstream {}",
    "calibration_data": "which were {}", "calibration_threads": "threads {}",
}  # fmt: skip
DRAWN_ALIKE = ["calibration", "calibration_samples", "calibration_seed"]


def with_recipe_features(table: pd.DataFrame) -> pd.DataFrame:
    """The table with further columns, from its recipes and calibrations.

    `setting`, `line`, `width` (NaN where there are several), `parts` ('' for the baseline), `several_methods`, `further`
    (what further steps do, '' where there are none), `kind` and `what` (all but the recovery, in words) are the fields of
    `RecipeFeatures`. `calibrated_on` has samples, upstream and seed in words, '' where nothing is
    calibrated; `seed` is the calibration seed, NaN where there is none. `learnt_from` has the training samples of a
    recovery in words where these vary, '' elsewhere.
    """
    dropped = [str(d or "") if d == d else "" for d in table.get("blocks_dropped", pd.Series("", index=table.index))]
    known = [_features(str(r), d) for r, d in zip(table["recipe_json"], dropped, strict=True)]
    columns = pd.DataFrame(known, columns=RecipeFeatures._fields, index=table.index)
    on, varied = _calibrations(table)
    columns["setting"] = [f"{s} {v}" if v else s for s, v in zip(columns["setting"], varied, strict=True)]
    columns["seed"] = table.get("calibration_seed", pd.Series(math.nan, index=table.index))
    columns["calibrated_on"] = [f"{w}, seed {s:g}" if s == s else w for w, s in zip(on, columns["seed"], strict=True)]
    columns["learnt_from"] = _training(table)
    absent = {c: None for c in ("method", "blocks", "layers") if c not in table}  # a table leaves out what is null
    return pd.concat([table.drop(columns=[c for c in columns if c in table]).assign(**absent), columns], axis=1)


class RecipeFeatures(NamedTuple):
    """Columns that a recipe determines. width: in bits, NaN where there are several. parts: joined by `+`.

    line, width and several_methods are of what is quantized alone.
    """

    setting: str
    line: str
    width: float
    parts: str
    several_methods: bool
    further: str
    kind: str
    what: str


@lru_cache(maxsize=65536)
def _features(recipe_json: str, dropped: str) -> RecipeFeatures:
    every = entries(recipe_json)
    recipe = quantizers(every)
    widths = {float(e["bits"]) for e in recipe}
    line = "; ".join(e["target"] for e in recipe)
    parts = "+".join(dict.fromkeys(part_of(e) for e in every))
    width = widths.pop() if len(widths) == 1 else math.nan
    several = len({e["method"] for e in recipe}) > 1
    before = before_recovery(every)
    what = recipe_text(before, dropped) if before else UNCOMPRESSED
    return RecipeFeatures(
        setting(recipe_json, dropped),
        line or "none",
        width,
        parts,
        several,
        further_text(every, dropped),
        kinds_text(every),
        what,
    )


def _calibrations(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What each row was calibrated on, in words: all of it, and what of it differs between rows.

    '' where nothing was.
    """
    frame = table.reindex(columns=list(CALIBRATION))
    frame["calibration_data"] = _ambiguous_samples(table)
    rows, varied = frame.to_dict("records"), [c for c in CALIBRATION if frame[c].nunique() > 1]
    return [_calibration_text(r, list(CALIBRATION)) for r in rows], [_calibration_text(r, varied) for r in rows]


def _training(table: pd.DataFrame) -> list[str]:
    """The training samples of each row: their number where it varies, and their digest where one draw gave several.

    The seed of the recovery draws them, of images that calibration leaves.
    """
    known = table.reindex(columns=["recover_samples", "recover_data", "calibration_data"])
    known["seed"] = [_recovery_seed(str(r)) for r in table["recipe_json"]]
    draws = known.groupby(["recover_samples", "calibration_data", "seed"], dropna=False)["recover_data"]
    several = (draws.transform("nunique") > 1).tolist()
    told = known["recover_samples"].nunique() > 1
    rows = zip(known["recover_samples"], known["recover_data"], several, strict=True)
    return [f"{n:g} samples{f' {data}' * digest}" if n == n and (told or digest) else "" for n, data, digest in rows]


@lru_cache(maxsize=65536)
def _recovery_seed(recipe_json: str) -> str:
    return "+".join(str(dict(e).get("seed")) for e in of_kind(entries(recipe_json), RECOVER))


def _ambiguous_samples(table: pd.DataFrame) -> pd.Series:
    """The digest of the calibration samples where rows of one name, number and seed have several; else null."""
    known = table.reindex(columns=[*DRAWN_ALIKE, "calibration_data"])
    several = known.groupby(DRAWN_ALIKE, dropna=False)["calibration_data"].transform("nunique") > 1
    return known["calibration_data"].where(several)


def _calibration_text(row: Row, columns: Sequence[str]) -> str:
    values = ((c, row[c]) for c in columns if row[c] is not None and row[c] is not pd.NA and row[c] == row[c])
    return ", ".join(CALIBRATION[c].format(int(v) if isinstance(v, float) else v) for c, v in values)
