"""Several models in one table: the rows of each, and their drops by the role of what was compressed.

Drops are paired inside a model alone. Beside each other stand models that were scored on the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from blip2sweep.analysis.cells import headline
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import dropoff
from blip2sweep.analysis.stopped import level_marks
from blip2sweep.metrics import METRICS
from blip2sweep.models.part import ROLES
from blip2sweep.recipe.part_bits import width_columns

ALL, UNKNOWN = "all", "unknown"
# Cells of several models are of one report where these agree.
ACROSS = ("dtype", "stored", "task", "backend")
COLUMNS = ["role", "setting", "width", "model", "baseline", "value", "drop", "drop_low", "drop_high", "bits_per_weight",
           "model_bytes", "saved_bytes", "images", "changed", "level", "key"]  # fmt: skip
GROUNDS = ("samples", "data", "data_images")  # what tells the samples that a model was scored on


def models_of(table: pd.DataFrame) -> list[str]:
    """The models of a table, in the order in which they come first."""
    return [str(m) for m in table["model"].dropna().unique()] if "model" in table else []


def of_model(table: pd.DataFrame, model: str, parts: Collection[str] | None) -> pd.DataFrame:
    """The rows of one model, without the columns of widths of parts that only other models have.

    parts: the model's own, or None where they are not known. Then its parts are those that it or no other model has
    touched.
    """
    mine = table["model"].map(str) == model
    own, others = table[mine], table[~mine]
    if len(models_of(table)) == 1:  # a row that failed early may name no model
        own, others = table, table.iloc[:0]
    if parts is None:
        foreign = [c for c in width_columns(table) if own[c].isna().all() and others[c].notna().any()]
    else:
        foreign = [c for c in width_columns(table) if c.removeprefix("bits_") not in parts and own[c].isna().all()]
    return own.drop(columns=[c for c in foreign if c.removeprefix("bits_") not in ROLES])


def by_role(cells: pd.DataFrame, metric: str, draws: Draws | None, roles: Mapping[str, str]) -> pd.DataFrame:
    """One row for each cell of one model at one width on all parts of some roles.

    cells: as `comparable` gives them. roles: {part: role} of the model, in the order of computation. `role`: such as
    `vision`, `vision + language`, or `all`; with the layers behind a comma where they are not all. `drop`, `drop_low`
    and `drop_high` are in % of the model's own baseline, positive where the cell is worse; NaN without an interval or a
    baseline above 0. `saved_bytes`: of the whole model. `level`: ` (99.5 %)` of a cell
    that stopped, else empty. Of several calibration seeds the lowest is there.
    """
    curves = dropoff(headline(cells), metric, draws)
    curves = curves[~curves["point"]]
    named = [role_label(str(line), roles) for line in curves["line"]]
    curves = curves.assign(role=pd.Series(named, index=curves.index, dtype=object)).dropna(subset=["role"])
    if curves.empty:
        return pd.DataFrame(columns=COLUMNS)
    sign = -1 if METRICS[metric].higher_is_better else 1
    ends = [sign * (curves[f"retained{end}"].astype(float) - 100) for end in ("", "_low", "_high")]
    low, high = (pd.concat(ends[1:], axis=1).agg(end, axis=1) for end in ("min", "max"))
    sizes = cells.drop_duplicates("key").set_index("key").reindex(columns=["model_bytes"])["model_bytes"].astype(float)
    full = float(sizes.get(cells.loc[cells["part"] == "none", "key"].iloc[0], math.nan))
    size, levels = curves["key"].map(sizes), level_marks(cells)
    return curves.assign(
        model=str(cells["model"].iloc[0]), drop=ends[0], drop_low=low, drop_high=high, model_bytes=size,
        saved_bytes=full - size, level=curves["key"].map(levels),
    )[COLUMNS].reset_index(drop=True)  # fmt: skip


def role_label(line: str, roles: Mapping[str, str]) -> str | None:
    """The roles of a line such as `vision:all:all; language:all:all`; None where it leaves out a part of one of them."""
    targets = [t.split(":") for t in line.split("; ")]
    parts = {t[0] for t in targets}
    touched = {roles.get(p) for p in parts}
    if None in touched or parts != {p for p, role in roles.items() if role in touched}:
        return None
    named = " + ".join(r for r in dict.fromkeys([*ROLES, *roles.values()]) if r in touched)
    label = ALL if len(roles) > 1 and parts == set(roles) else named
    layers = sorted({t[2] for t in targets})
    return label if layers == [ALL] else f"{label}, {' + '.join(layers)}"


def joined(roles: Iterable[str]) -> str:
    """Roles in their order: `vision + language`."""
    there = set(roles)
    return " + ".join(r for r in ROLES if r in there)


def grounds(cells: pd.DataFrame, metric: str) -> tuple[str, ...]:
    """What must be equal before drops of two models stand beside each other: the samples, and the metric."""
    known = cells.reindex(columns=[*GROUNDS])
    return (metric, *(" ".join(sorted({_text(v) for v in known[c]})) for c in GROUNDS))


def _text(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return UNKNOWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def largest_group(kinds: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The models of the kind that most have; of equal kinds the first."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for model, kind in kinds.items():
        groups.setdefault(kind, []).append(model)
    return max(groups.values(), key=len) if groups else []


def role_rank(label: str) -> tuple[int, int, list[int], str]:
    """The sorting key of a label: single roles, their unions, all; whole layers before some."""
    words, _, layers = label.partition(", ")
    listed = words.split(" + ")
    places = [ROLES.index(w) if w in ROLES else len(ROLES) for w in listed]
    return int(words == ALL), len(listed), places, layers
