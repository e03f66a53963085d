"""What the cells of a table have in common: one model, one task, and recipes taken apart into settings, lines and widths.

Words used all over this room: a *setting* is a scheme without its width (`minmax/tensor`), a *line* is a recipe without its
widths (`vision:all:all; language:all:mlp`), so a drop-off curve is the cells of one setting and one line, ordered by width. Cells that
differ in the calibration seed alone are points of one line; other calibration samples are another setting.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pandas as pd

from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.analysis.recipes import entries, part_of, row_identity, setting_name
from blip2sweep.errors import UserError

MOST_KINDS, MOST_LETTERS = 4, 60
# What must agree before two cells are compared.
SAME = ("model", "weights", "dtype", "task", "data", "generation", "backend")
NO_BASELINE = "no baseline cell, so there is no drop to show; right: run the same command once more, or add part=none"
CALIBRATION = {
    "calibration": "on {}", "calibration_samples": "{} samples", "calibration_upstream": "upstream {}",
    "calibration_data": "which were {}", "calibration_threads": "threads {}",
}  # fmt: skip
DRAWN_ALIKE = ["calibration", "calibration_samples", "calibration_seed"]


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The finished, current cells of a table that are quantized and nothing else, taken apart (see `taken_apart`): all that
    is drawn of cells goes by their bits.

    Raises UserError, one line, for a table without finished cells, for one that mixes models, weights, dtypes, tasks, data
    or generation settings, for one with no baseline or several, and for one whose main metric is nowhere a number.
    """
    if table.empty:
        raise UserError("the ledger has no cell yet; right: run a sweep, or wait for its first cell")
    stale = table["stale"].fillna(False).astype(bool) if "stale" in table else pd.Series(False, index=table.index)
    done = table[(table["status"] == "done") & ~stale & ~table["recipe_json"].map(_has_steps).astype(bool)]
    if done.empty and stale.any():
        raise UserError(
            f"all {int(stale.sum())} finished cells were computed by an earlier version, and are not compared; right: the "
            f"same command again, which computes them anew"
        )
    if done.empty:
        raise UserError(f"none of {len(table)} cells is finished; right: wait, or `blip2sweep status` for what failed")
    refuse_mixed(done)
    metric = main_metric(done)
    if metric is None:
        raise UserError("no cell has a metric that is a number; right: `blip2sweep rescore`")
    if not (done["part"] == "none").any() or f"drop_{metric}" not in done:
        raise UserError(NO_BASELINE)
    _refuse_baselines(done)
    return taken_apart(done)


def _has_steps(recipe_json: object) -> bool:
    return any("step" in entry for entry in entries(recipe_json)) if isinstance(recipe_json, str) else False


def refuse_mixed(table: pd.DataFrame) -> None:
    """Cells of different models, tasks or data are not compared; the message says which there are, and how many of each."""
    for column in (c for c in SAME if c in table):
        kinds = {str(v): own for v, own in table.groupby(table[column].map(str))}
        if len(kinds) > 1:
            names, counts = _names(column, kinds), [str(len(own)) for own in kinds.values()]
            more = ", …" if len(kinds) > MOST_KINDS else ""
            raise UserError(
                f"cells of {len(kinds)} kinds of {column} are not compared: {', '.join(names[:MOST_KINDS])}{more} "
                f"({_and(counts[:MOST_KINDS], more)} cells); right: choose one sweep, or {_choosing(column, kinds)}"
            )


def _and(counts: Sequence[str], more: str) -> str:
    return ", ".join(counts) + more if more or len(counts) > 2 else " and ".join(counts)


def _names(column: str, kinds: Mapping[str, pd.DataFrame]) -> list[str]:
    """How people name a kind; the value itself (a hash, or settings) beside it only where two would be called the same."""
    if column in ("model", "task", "dtype"):
        return list(kinds)
    told = [_called(own) for own in kinds.values()]
    return [f"{name} ({_apart_from(value, kinds)})" if told.count(name) > 1 else name
            for name, value in zip(told, kinds, strict=True)]  # fmt: skip


def _called(own: pd.DataFrame) -> str:
    """`tiny on shapes_caption with 200 samples`."""
    words = [
        f" {joined} {_listed(own[c])}" for c, joined in (("model", ""), ("task", "on"), ("samples", "with")) if c in own
    ]
    return " ".join("".join(words).split()) + (" samples" if "samples" in own else "")


def _listed(values: pd.Series) -> str:
    return " and ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values.dropna().unique()[:3]) or "unknown"


def _apart_from(value: str, kinds: Iterable[str]) -> str:
    """A hash as it is; of generation settings those that differ."""
    try:
        own, others = json.loads(value), [json.loads(k) for k in kinds]
        differing = [f"{k}={v}" for k, v in own.items() if any(o.get(k) != v for o in others)]
    except (ValueError, AttributeError):
        differing = []
    told = " ".join(differing) or value
    return told if len(told) <= MOST_LETTERS else told[: MOST_LETTERS - 1] + "…"


def _choosing(column: str, kinds: Mapping[str, pd.DataFrame]) -> str:
    """The option that takes the kind with the most cells."""
    value = max(kinds, key=lambda v: len(kinds[v]))
    if column == "data" and all("samples" in own for own in kinds.values()):
        sizes = {v: own["samples"].dropna().unique().tolist() for v, own in kinds.items()}
        if all(len(s) == 1 for s in sizes.values()) and sum(s == sizes[value] for s in sizes.values()) == 1:
            return f"--only samples={sizes[value][0]}"
    given = shlex.quote(value)
    return f"--{column} {given}" if column in ("model", "task") else f"--only {column}={given}"


def _refuse_baselines(table: pd.DataFrame) -> None:
    """What differs may have no column of its own, such as task.nll_references or task.on_bad_image."""
    keys = list(table.loc[table["part"] == "none", "key"])
    if len(keys) > 1:
        raise UserError(
            f"{len(keys)} baselines are not compared: {', '.join(keys[:4])} differ in task settings that no column tells; "
            f"right: choose one sweep, or --only baseline={keys[0]}"
        )


def taken_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The table with what its recipes and calibrations say, in columns of their own.

    `setting`, `line`, `width` (NaN where there are several), `parts` ('' for the baseline), `several_methods`;
    `calibrated_on` (samples, upstream and seed in words, '' where nothing is calibrated) and `seed`.
    """
    known = [_apart(str(r)) for r in table["recipe_json"]]
    columns = pd.DataFrame(known, columns=Apart._fields, index=table.index)
    on, told = _calibrations(table)
    columns["setting"] = [f"{s} {t}" if t else s for s, t in zip(columns["setting"], told, strict=True)]
    columns["seed"] = table.get("calibration_seed", pd.Series(math.nan, index=table.index))
    columns["calibrated_on"] = [f"{w}, seed {s:g}" if s == s else w for w, s in zip(on, columns["seed"], strict=True)]
    absent = {c: None for c in ("method", "blocks", "layers") if c not in table}  # a table leaves out what is null
    return pd.concat([table.drop(columns=[c for c in columns if c in table]).assign(**absent), columns], axis=1)


class Apart(NamedTuple):
    setting: str
    line: str
    width: float
    parts: str
    several_methods: bool


@lru_cache(maxsize=65536)
def _apart(recipe_json: str) -> Apart:
    listed = entries(recipe_json)
    widths = {float(e["bits"]) for e in listed}
    line = "; ".join(str(e["target"]) for e in listed)
    parts = "+".join(dict.fromkeys(part_of(e) for e in listed))
    width = widths.pop() if len(widths) == 1 else math.nan
    return Apart(setting_name(listed), line or "none", width, parts, len({e["method"] for e in listed}) > 1)


def _calibrations(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """What each row was calibrated on, in words: all of it, and what of it differs between rows; '' where nothing was."""
    told = table.reindex(columns=list(CALIBRATION))
    told["calibration_data"] = _samples_apart(table)
    rows, varied = told.to_dict("records"), [c for c in told if told[c].nunique() > 1]
    return [_words(r, list(told)) for r in rows], [_words(r, varied) for r in rows]


def _samples_apart(table: pd.DataFrame) -> pd.Series:
    """The digest of the samples where one name, number and seed stands for several: of other annotations or images."""
    known = table.reindex(columns=[*DRAWN_ALIKE, "calibration_data"])
    several = known.groupby(DRAWN_ALIKE, dropna=False)["calibration_data"].transform("nunique") > 1
    return known["calibration_data"].where(several)


def _words(row: Mapping[Any, Any], columns: Sequence[Any]) -> str:
    return ", ".join(CALIBRATION[c].format(_plain(row[c])) for c in columns if pd.notna(row[c]))


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value


def one_seed(cells: pd.DataFrame) -> pd.DataFrame:
    """Of cells that differ in the calibration seed alone the one of the lowest seed."""
    rows = zip(cells["recipe_json"], cells["setting"], strict=True)
    same = pd.Series([row_identity(str(r), str(s)) for r, s in rows], index=cells.index, dtype=object)
    order = cells["seed"].sort_values(kind="stable").index
    first = ~same.loc[order].duplicated()
    return cells[first.reindex(cells.index)]


def headline(cells: pd.DataFrame) -> pd.DataFrame:
    """Per setting and set of parts the line of whole parts that touches most layers of them; no row where only some blocks
    were touched, however many: what one block tolerates says nothing of its part. All calibration seeds."""
    touched = cells[cells["width"].notna() & (cells["parts"] != "")]
    touched = touched[touched["recipe_json"].map(all_blocks).astype(bool)]
    if touched.empty:
        return touched
    size = touched.groupby(["setting", "parts", "line"])["params_touched"].max().reset_index()
    best = size.sort_values("params_touched").groupby(["setting", "parts"]).tail(1)
    keys = set(zip(best["setting"], best["line"], strict=True))
    return touched[[k in keys for k in zip(touched["setting"], touched["line"], strict=True)]]


def all_blocks(recipe_json: str, part: str | None = None) -> bool:
    """Whether a recipe touches every block of the parts it names, or of this one."""
    listed = [e for e in entries(recipe_json) if part is None or part_of(e) == part]
    return all(str(e["target"]).split(":")[1] == "all" for e in listed)
