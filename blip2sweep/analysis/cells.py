"""The cells of a table that can be compared.

Terms of this room: a *setting* is a scheme without its width (`minmax/tensor`), and what further steps do beside it. A
*line* is a recipe without its widths (`vision:all:all; language:all:mlp`). A drop-off *curve* is the cells of one
setting and one line, ordered by width. Cells that differ in the calibration seed alone are points of one curve; other
calibration samples make another setting. A *kind* is the kinds of compression of a recipe (`drop blocks + quantize`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from blip2sweep.analysis.features import with_recipe_features
from blip2sweep.analysis.main_metric import main_metric
from blip2sweep.analysis.recipes import entries, row_identity
from blip2sweep.errors import UserError
from blip2sweep.recipe.setting import part_of
from blip2sweep.results.schema import known

MOST_KINDS, MOST_LETTERS = 4, 60
# What must agree before two cells are compared.
SAME = ("model", "weights", "dtype", "stored", "task", "data", "generation", "chat", "backend")
ORIGINAL = "original"  # weights of the baseline of a checkpoint that is quantized already
NO_BASELINE = "no baseline cell, so there is no drop to show; right: run the same command once more, or add part=none"


class NothingToCompare(UserError):
    """The rows at hand lack what a comparison needs: a finished cell, a baseline, or a metric that is a number."""


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The finished, current cells of a table, `with_recipe_features`.

    Cells of further steps are among them; `quantized` gives those that an analysis by bits can take. Raises UserError,
    one line, for a table without finished cells, for one that mixes models, weights, dtypes, tasks, data, generation
    settings or back ends, for one with no baseline or several, and for one whose main metric is nowhere a number.
    """
    table = known(table)
    done = finished(table)
    if done.empty:
        _refuse_unfinished(table)
    refuse_mixed(done)
    metric = main_metric(done)
    if metric is None:
        raise NothingToCompare(
            "no cell has a metric that is a number; right: `blip2sweep rescore`, or of a split without annotations "
            "`blip2sweep answers`, which writes the answers"
        )
    if not (done["part"] == "none").any() or f"drop_{metric}" not in done:
        raise NothingToCompare(NO_BASELINE)
    _refuse_baselines(done)
    return with_recipe_features(done)


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The finished, current cells."""
    return table if table.empty else table[(table["status"] == "done") & ~_stale(table)]


def quantized(cells: pd.DataFrame) -> pd.DataFrame:
    """The baseline and the cells that are quantized and nothing else. cells: as `comparable` gives them.

    The uncompressed model on another server is not among them: it is neither.
    """
    if "further" not in cells:
        return cells
    own = cells[cells["further"] == ""]
    return own[(own["parts"] != "") | (own["part"] == "none")] if "part" in own else own


def rounded(table: pd.DataFrame) -> bool:
    """Whether some rows were rounded to another dtype than they are computed in. Where not, `dtype` says it all.

    Nobody knows it of imported rows: their `stored` says how sizes count.
    """
    if not {"stored", "dtype"} <= set(table):
        return False
    own = table[table["imported"].isna()] if "imported" in table else table
    return bool((own["stored"] != own["dtype"]).any())


def _stale(table: pd.DataFrame) -> pd.Series:
    return table["stale"].fillna(False).astype(bool) if "stale" in table else pd.Series(False, index=table.index)


def _refuse_unfinished(table: pd.DataFrame) -> None:
    if table.empty:
        raise NothingToCompare("the ledger has no cell yet; right: run a sweep, or wait for its first cell")
    if stale := int(_stale(table).sum()):
        raise NothingToCompare(
            f"all {stale} finished cells were computed by an earlier version, and are not compared; right: the "
            f"same command again, which computes them anew"
        )
    raise NothingToCompare(
        f"none of {len(table)} cells is finished; right: wait, or `blip2sweep status` for what failed"
    )


def refuse_mixed(table: pd.DataFrame, columns: Sequence[str] = SAME) -> None:
    """Raises UserError for cells that differ in one of these columns.

    The message says which kinds there are, and how many.
    """
    for column in (c for c in columns if c in table):
        kinds = {str(v): own for v, own in table.groupby(compared_values(table, column).map(str))}
        if len(kinds) > 1:
            names, counts = kind_names(column, kinds), [str(len(own)) for own in kinds.values()]
            more = ", …" if len(kinds) > MOST_KINDS else ""
            raise UserError(
                f"cells of {len(kinds)} kinds of {column} are not compared: {', '.join(names[:MOST_KINDS])}{more} "
                f"({_and(counts[:MOST_KINDS], more)} cells); right: choose one sweep, or {choosing(column, kinds)}"
            )


def compared_values(table: pd.DataFrame, column: str) -> pd.Series:
    """The values of a column that have to agree. A quantized checkpoint is compared with what it was made from."""
    values = table[column]
    if column == "weights" and ORIGINAL in table:
        return table[ORIGINAL].where(table[ORIGINAL].notna(), values)
    return values


def _and(counts: Sequence[str], more: str) -> str:
    return ", ".join(counts) + more if more or len(counts) > 2 else " and ".join(counts)


def kind_names(column: str, kinds: Mapping[str, pd.DataFrame]) -> list[str]:
    """How people name a kind. The value itself (a hash, or settings) stands beside it where two names are equal."""
    if column in ("model", "task", "dtype", "stored", "baseline"):
        return list(kinds)
    if column == "backend":
        return [_back_end(value, kinds) for value in kinds]
    names = [_kind_name(own) for own in kinds.values()]
    return [f"{name} ({_difference(value, kinds)})" if names.count(name) > 1 else name
            for name, value in zip(names, kinds, strict=True)]  # fmt: skip


def _back_end(value: str, kinds: Iterable[str]) -> str:
    """The name of a back end, with its options where another one of the name has others."""
    name = value.partition(" ")[0]
    return name if [k.partition(" ")[0] for k in kinds].count(name) == 1 else value


def _kind_name(own: pd.DataFrame) -> str:
    """`tiny on shapes_caption with 200 samples`."""
    words = [
        f" {joined} {_listed(own[c])}" for c, joined in (("model", ""), ("task", "on"), ("samples", "with")) if c in own
    ]
    return " ".join("".join(words).split()) + (" samples" if "samples" in own else "")


def _listed(values: pd.Series) -> str:
    return " and ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values.dropna().unique()[:3]) or "unknown"


def _difference(value: str, kinds: Iterable[str]) -> str:
    """The generation settings of a kind that differ from the others'; a value that is no JSON as it is."""
    try:
        own, others = json.loads(value), [json.loads(k) for k in kinds]
        differing = [f"{k}={v}" for k, v in own.items() if any(o.get(k) != v for o in others)]
    except (ValueError, AttributeError):
        differing = []
    text = " ".join(differing) or value
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def choosing(column: str, kinds: Mapping[str, pd.DataFrame], chosen: str | None = None) -> str:
    """The option that chooses one kind, by default that with the most cells."""
    value = max(kinds, key=lambda v: len(kinds[v])) if chosen is None else chosen
    if column == "data" and all("samples" in own for own in kinds.values()):
        sizes = {v: own["samples"].dropna().unique().tolist() for v, own in kinds.items()}
        if all(len(s) == 1 for s in sizes.values()) and sum(s == sizes[value] for s in sizes.values()) == 1:
            return f"--only samples={sizes[value][0]}"
    given = shlex.quote(_back_end(value, kinds) if column == "backend" else value)
    return f"--{column} {given}" if column in ("model", "task") else f"--only {column}={given}"


def _refuse_baselines(table: pd.DataFrame) -> None:
    """Raises UserError for several baselines: what differs may have no column, such as task.nll_references."""
    keys = list(table.loc[table["part"] == "none", "key"])
    if len(keys) > 1:
        raise UserError(
            f"{len(keys)} baselines are not compared: {', '.join(keys[:4])} differ in task settings that no column tells; "
            f"right: choose one sweep, or --only baseline={keys[0]}"
        )


def one_seed(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of the lowest seed, among those that differ in the calibration seed alone."""
    learnt = cells.get("learnt_from", pd.Series("", index=cells.index))
    rows = zip(cells["recipe_json"], cells["setting"], learnt, strict=True)
    same = pd.Series([row_identity(str(r), str(s)) + str(on) for r, s, on in rows], index=cells.index, dtype=object)
    order = cells["seed"].sort_values(kind="stable").index
    first = ~same.loc[order].duplicated()
    return cells[first.reindex(cells.index)]


def headline(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells of one width on whole parts: for each setting and set of parts the line that touches most weights.

    Cells of some blocks alone are left out, since what one block tolerates says nothing of its part. All calibration
    seeds are in it.
    """
    touched = quantized(cells)
    touched = touched[touched["width"].notna() & (touched["parts"] != "")]
    touched = touched[touched["recipe_json"].map(all_blocks).astype(bool)]
    if touched.empty:
        return touched
    size = touched.groupby(["setting", "parts", "line"])["params_touched"].max().reset_index()
    best = size.sort_values("params_touched").groupby(["setting", "parts"]).tail(1)
    keys = set(zip(best["setting"], best["line"], strict=True))
    return touched[[k in keys for k in zip(touched["setting"], touched["line"], strict=True)]]


def all_blocks(recipe_json: str, part: str | None = None) -> bool:
    """Whether a recipe touches every block of the parts it names, or of this one."""
    return all(e["target"].split(":")[1] == "all" for e in entries(recipe_json) if part in (None, part_of(e)))
