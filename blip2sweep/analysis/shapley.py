"""Which part matters how much: exact Shapley values of the drop, interactions, additivity.

The game: the players are the n parts that a cell touches. v(S) is the drop of the cell that treats only the parts S, in
the same way. All 2^n cells must have been run. Values are linear in the drops, so their intervals come from the shared
resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd

from blip2sweep.analysis.bands import percentile
from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import one_seed, quantized
from blip2sweep.analysis.draws import Array, Draws
from blip2sweep.analysis.recipes import by_recipe, entries, restricted, text_of
from blip2sweep.analysis.stopped import FINISH, of_verdicts
from blip2sweep.console.remarks import some
from blip2sweep.errors import UserError
from blip2sweep.recipe.setting import part_of

Subset = frozenset[str]
T = TypeVar("T", float, Array)  # a drop, or its draws (B,)


class Game(NamedTuple):
    """values: v(S), a drop. draws: its resamples (B,), None where a cell has no outputs."""

    players: tuple[str, ...]
    values: dict[Subset, float]
    draws: dict[Subset, Array] | None


def subsets(players: Sequence[str]) -> list[Subset]:
    """All subsets, the empty one first."""
    return [frozenset(c) for n in range(len(players) + 1) for c in combinations(players, n)]


def shapley_values(players: Sequence[str], v: Mapping[Subset, T]) -> dict[str, T]:
    """φ_i = Σ_{S ∌ i} |S|! (n−|S|−1)! / n! · (v(S ∪ i) − v(S)) (Shapley, 1953), of numbers or of arrays."""
    n = len(players)
    found = {}
    for i in players:
        rest = [p for p in players if p != i]
        weights = [(s, factorial(len(s)) * factorial(n - len(s) - 1) / factorial(n)) for s in subsets(rest)]
        found[i] = _sum(w * (v[s | {i}] - v[s]) for s, w in weights)
    return found


def _sum(terms: Iterable[T]) -> T:
    return cast("T", sum(terms))


def interaction(players: Sequence[str], v: Mapping[Subset, T]) -> T:
    """What the parts do together beyond each alone, v(N) − Σ v({i}). Positive: together they are worse than the sum."""
    return v[frozenset(players)] - _sum(v[frozenset([p])] for p in players)


def pair_interaction(players: Sequence[str], v: Mapping[Subset, T], i: str, j: str) -> T:
    """The Shapley interaction index of two parts (Grabisch and Roubens, 1999)."""
    n, rest = len(players), [p for p in players if p not in (i, j)]
    weights = [(s, factorial(len(s)) * factorial(n - len(s) - 2) / factorial(n - 1)) for s in subsets(rest)]
    return _sum(w * (v[s | {i, j}] - v[s | {i}] - v[s | {j}] + v[s]) for s, w in weights)


def game(cells: pd.DataFrame, metric: str, draws: Draws | None, key: str) -> Game:
    """The game of one cell. Raises UserError naming the cells that are missing, or whose value a verdict left unknown."""
    row = cells[cells["key"] == key].iloc[0]
    recipe, known = entries(row["recipe_json"]), by_recipe(cells)
    players = tuple(str(row["parts"]).split("+"))
    positions = {s: known.get(restricted(recipe, sorted(s), row["calibrated_on"])) for s in subsets(players)}
    missing = [s for s, position in positions.items() if position is None]
    if missing:
        wanted = " and ".join(text_of([e for e in recipe if part_of(e) in s]) for s in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise UserError(
            f"Shapley values of {text_of(recipe)} need all {2 ** len(players)} cells; missing: {wanted}{more}"
        )
    found = cells.iloc[[p for p in positions.values() if p is not None]]
    if (verdicts := found.loc[of_verdicts(found), "key"]).size:
        raise UserError(
            f"Shapley values of {text_of(recipe)} need values that are known, and {some(list(verdicts))} stopped with a "
            f"verdict; right: the same command with {FINISH}, which finishes them"
        )
    keys = dict(zip(positions, found["key"].astype(str), strict=True))
    values = dict(zip(positions, found[f"drop_{metric}"].astype(float), strict=True))
    sampled = None
    if draws is not None and all(k in draws for k in keys.values()):
        sampled = {s: draws.drop(k) for s, k in keys.items()}
    return Game(players, values, sampled)


def shapley(cells: pd.DataFrame, metric: str, draws: Draws | None, key: str) -> pd.DataFrame:
    """Rows `term, kind, value, low, high` of one cell: one for each part, one for each pair, and the whole interaction."""
    g = game(cells, metric, draws, key)
    values = _terms(g.players, g.values)
    sampled = _terms(g.players, g.draws) if g.draws else {}
    kinds = dict.fromkeys(g.players, "part") | {"interaction": "whole"}
    rows = [{"term": term, "kind": kinds.get(term, "pair"), "value": value, **_ends(sampled.get(term))}
            for term, value in values.items()]  # fmt: skip
    return pd.DataFrame(rows).assign(key=key, total=g.values[frozenset(g.players)])


def _terms(players: Sequence[str], v: Mapping[Subset, T]) -> dict[str, T]:
    pairs = {f"{i}×{j}": pair_interaction(players, v, i, j) for i, j in combinations(players, 2)}
    return {**shapley_values(players, v), **pairs, "interaction": interaction(players, v)}


def _ends(sampled: Array | None) -> dict[str, float]:
    low, high = percentile(sampled[None]) if sampled is not None else (np.array([np.nan]), np.array([np.nan]))
    return {"low": float(low[0]), "high": float(high[0])}


def shapley_over_bits(cells: pd.DataFrame, metric: str, draws: Draws | None) -> tuple[pd.DataFrame, list[str]]:
    """Shapley rows of the cells of one width that touch the most parts, and a message for each that lacks other cells.

    Of cells that differ in the calibration seed alone, the one of the lowest seed is shown.
    """
    cells = quantized(cells)
    touched = one_seed(cells[cells["width"].notna()])
    most = touched["parts"].str.count(r"\+").max() if len(touched) else 0
    frames, refusals = [], []
    for row in touched[touched["parts"].str.count(r"\+") == most].to_dict("records") if most else []:
        try:
            names = {c: row[c] for c in ("setting", "line", "width")}
            frames.append(shapley(cells, metric, draws, row["key"]).assign(**names))
        except UserError as error:
            refusals.append(str(error))
    return (pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()), refusals


def additivity(cells: pd.DataFrame, metric: str, draws: Draws | None) -> pd.DataFrame:
    """The joint drop and the sum of the parts' single drops, for every cell whose single-part cells were run.

    Cells that stopped with a verdict are left out.
    """
    cells = quantized(cells[~of_verdicts(cells)])
    known = by_recipe(cells)
    rows = [r for row in cells[cells["parts"].str.contains("+", regex=False)].to_dict("records")
            if (r := _additive(cells, known, metric, draws, row))]  # fmt: skip
    return pd.DataFrame(rows)


def _additive(
    cells: pd.DataFrame, known: Mapping[str, int], metric: str, draws: Draws | None, row: Row
) -> dict[str, object] | None:
    recipe, calibrated_on, key = entries(str(row["recipe_json"])), str(row["calibrated_on"]), str(row["key"])
    positions = [known.get(restricted(recipe, [p], calibrated_on)) for p in str(row["parts"]).split("+")]
    found = [p for p in positions if p is not None]
    if len(found) < len(positions):
        return None
    singles = cells.iloc[found]
    joint, total = number(row, f"drop_{metric}"), float(singles[f"drop_{metric}"].sum())
    ends = _ends(None)
    if draws is not None and all(k in draws for k in [key, *singles["key"]]):
        ends = _ends(draws.drop(key) - draws.drops(list(singles["key"])).sum(axis=0))
    names = {c: row[c] for c in ("key", "setting", "line", "parts", "width", "seed")}
    return {**names, "joint": joint, "sum": total, "excess": joint - total, **ends}
