"""Which part matters how much: exact Shapley values of the drop, interactions, additivity.

The game: players are the parts a cell touches, v(S) is the drop of the cell that treats only the parts S the same way. All
2^n cells must have been run. Values are linear in the drops, so their intervals come from the shared resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import factorial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import percentile
from blip2sweep.analysis.cells import one_seed
from blip2sweep.analysis.draws import Array, Draws
from blip2sweep.analysis.recipes import by_recipe, entries, part_of, restricted, text_of
from blip2sweep.errors import UserError

Subset = frozenset[str]


class Game(NamedTuple):
    """v(S): the drop, and where all cells have outputs its draws (B,)."""

    players: tuple[str, ...]
    values: dict[Subset, float]
    draws: dict[Subset, Array] | None


def subsets(players: Sequence[str]) -> list[Subset]:
    """All, the empty one first."""
    return [frozenset(c) for n in range(len(players) + 1) for c in combinations(players, n)]


def shapley_values(players: Sequence[str], v: dict[Subset, Any]) -> dict[str, Any]:
    """φ_i = Σ_{S ∌ i} |S|! (n−|S|−1)! / n! · (v(S ∪ i) − v(S)) (Shapley, 1953). Works on numbers and on arrays alike."""
    n = len(players)
    found = {}
    for i in players:
        rest = [p for p in players if p != i]
        terms = [(s, factorial(len(s)) * factorial(n - len(s) - 1) / factorial(n)) for s in subsets(rest)]
        found[i] = sum(w * (v[s | {i}] - v[s]) for s, w in terms)
    return found


def interaction(players: Sequence[str], v: dict[Subset, Any]) -> Any:
    """What the parts do together beyond each alone: v(N) − Σ v({i}). Positive: together worse than the sum."""
    return v[frozenset(players)] - sum(v[frozenset([p])] for p in players)


def pair_interaction(players: Sequence[str], v: dict[Subset, Any], i: str, j: str) -> Any:
    """The Shapley interaction index of two parts (Grabisch and Roubens, 1999)."""
    n, rest = len(players), [p for p in players if p not in (i, j)]
    total: Any = 0.0
    for s in subsets(rest):
        weight = factorial(len(s)) * factorial(n - len(s) - 2) / factorial(n - 1)
        total = total + weight * (v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s])
    return total


def game(cells: pd.DataFrame, metric: str, draws: Draws | None, key: str) -> Game:
    """The game of one cell. Raises UserError naming the cells that are missing."""
    row = cells[cells["key"] == key].iloc[0]
    listed, known = entries(row["recipe_json"]), by_recipe(cells)
    players = tuple(str(row["parts"]).split("+"))
    labels = {s: known.get(restricted(listed, sorted(s), row["calibrated_on"])) for s in subsets(players)}
    missing = [s for s, label in labels.items() if label is None]
    if missing:
        wanted = " and ".join(text_of([e for e in listed if part_of(e) in s]) for s in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise UserError(
            f"Shapley values of {text_of(listed)} need all {2 ** len(players)} cells; missing: {wanted}{more}"
        )
    found = cells.loc[list(labels.values())]
    keys = dict(zip(labels, found["key"].astype(str), strict=True))
    values = dict(zip(labels, found[f"drop_{metric}"].astype(float), strict=True))
    sampled = None
    if draws is not None and all(k in draws for k in keys.values()):
        sampled = {s: draws.drop(k) for s, k in keys.items()}
    return Game(players, values, sampled)


def shapley(cells: pd.DataFrame, metric: str, draws: Draws | None, key: str) -> pd.DataFrame:
    """Rows `term, kind, value, low, high` of one cell: a part each, each pair, and the whole interaction."""
    g = game(cells, metric, draws, key)
    terms: list[tuple[str, str, Any, Any]] = []
    value, sampled = shapley_values(g.players, g.values), g.draws and shapley_values(g.players, g.draws)
    terms += [(p, "part", value[p], sampled and sampled[p]) for p in g.players]
    for i, j in combinations(g.players, 2):
        both = pair_interaction(g.players, g.values, i, j), g.draws and pair_interaction(g.players, g.draws, i, j)
        terms.append((f"{i}×{j}", "pair", *both))
    terms.append(
        ("interaction", "whole", interaction(g.players, g.values), g.draws and interaction(g.players, g.draws))
    )
    rows = [{"term": t, "kind": kind, "value": v, **_ends(d)} for t, kind, v, d in terms]
    return pd.DataFrame(rows).assign(key=key, total=g.values[frozenset(g.players)])


def _ends(sampled: Array | None) -> dict[str, float]:
    low, high = percentile(sampled[None]) if sampled is not None else (np.array([np.nan]), np.array([np.nan]))
    return {"low": float(low[0]), "high": float(high[0])}


def shapley_over_bits(cells: pd.DataFrame, metric: str, draws: Draws | None) -> tuple[pd.DataFrame, list[str]]:
    """Shapley rows of every cell of one width that touches the most parts, and the refusals of those that lack cells.

    Of calibration seeds the lowest is shown.
    """
    touched = one_seed(cells[cells["width"].notna()])
    most = touched["parts"].str.count(r"\+").max() if len(touched) else 0
    frames, refusals = [], []
    for row in touched[touched["parts"].str.count(r"\+") == most].to_dict("records") if most else []:
        try:
            told = {c: row[c] for c in ("setting", "line", "width")}
            frames.append(shapley(cells, metric, draws, row["key"]).assign(**told))
        except UserError as error:
            refusals.append(str(error))
    return (pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()), refusals


def additivity(cells: pd.DataFrame, metric: str, draws: Draws | None) -> pd.DataFrame:
    """Joint drop against the sum of the parts' single drops, for every cell whose single-part cells were run."""
    known = by_recipe(cells)
    rows = [r for row in cells[cells["parts"].str.contains("+", regex=False)].to_dict("records")
            if (r := _additive(cells, known, metric, draws, row))]  # fmt: skip
    return pd.DataFrame(rows)


def _additive(
    cells: pd.DataFrame, known: dict[str, Any], metric: str, draws: Draws | None, row: dict[Any, Any]
) -> dict[str, Any] | None:
    listed = entries(row["recipe_json"])
    labels = [known.get(restricted(listed, [p], row["calibrated_on"])) for p in str(row["parts"]).split("+")]
    if any(label is None for label in labels):
        return None
    singles = cells.loc[labels]
    joint, total = float(row[f"drop_{metric}"]), float(singles[f"drop_{metric}"].sum())
    ends = _ends(None)
    if draws is not None and all(k in draws for k in [row["key"], *singles["key"]]):
        ends = _ends(draws.drop(row["key"]) - draws.drops(list(singles["key"])).sum(axis=0))
    told = {c: row[c] for c in ("key", "setting", "line", "parts", "width", "seed")}
    return {**told, "joint": joint, "sum": total, "excess": joint - total, **ends}
