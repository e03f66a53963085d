"""The best recipe under a budget, found exactly: one width for each atom, by integer programming (HiGHS through scipy).

Under the noise-power model the metric falls with s = Σ_j w_j n_j(b_j), a sum over atoms: the least s under a size, or the
least size under an s, is a multiple-choice knapsack. The choice is exact for the model; the model is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from blip2sweep.analysis.atoms import Atoms, atoms, noise
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.predict import Mean, Predictor, fit, fit_mean, predictable
from blip2sweep.analysis.recipes import entries, one_scheme
from blip2sweep.anatomy import Anatomy
from blip2sweep.errors import UserError
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import expand, scheme_of, targets
from blip2sweep.recipe.size import FLOAT_BITS, bias_bits, size, weight_bits

Array = NDArray[np.float64]
FEWEST_CELLS = 6
STRICTER = (0.5, 0.25, 0.1, 0.03)  # shares of the allowed drop, tried in turn


@dataclass
class Problem:
    """Everything the choice needs, for one setting. options: the widths each atom was seen with, 0 being left alone."""

    setting: str
    scheme: dict[str, Any]
    cells: pd.DataFrame
    atoms: Atoms
    anatomy: Anatomy
    params: int
    options: list[list[int]]

    def noise(self, widths: Sequence[int]) -> Array:
        return noise(np.array([widths], dtype=np.float64))

    def saved_bits(self, atom: int, bits: int) -> int:
        """Bits that an atom's layers need less at a width than at 16."""
        if bits == 0:
            return 0
        scheme = scheme_of({**self.scheme, "bits": bits})
        fitting = [(x, type(scheme)(scheme.weights.for_row(x.in_features))) for x in self.atoms.layers[atom]]
        full = sum(x.weights + x.out_features * x.bias for x, _ in fitting) * FLOAT_BITS
        return full - sum(weight_bits(x, s) + bias_bits(x, s) for x, s in fitting)

    def recipe(self, widths: Sequence[int]) -> Recipe:
        chosen = [{"target": t, **self.scheme, "bits": b} for names, b in zip(self.atoms.targets, widths, strict=True)
                  if b for t in names]  # fmt: skip
        return expand(chosen, self.anatomy)

    def bytes(self, widths: Sequence[int]) -> int:
        return size(self.recipe(widths), self.params).model_bytes


@dataclass
class Choice:
    """A recommended recipe.

    chosen_drop: the share of the baseline it loses by a fit on the images that chose it; within: that share keeps the limit.
    predicted, predicted_drop, baseline: the metric by a fit on the other images; measured_key: its cell, where it was run.
    """

    setting: str
    chosen_drop: float
    within: bool
    entries: list[dict[str, Any]]
    model_bytes: int
    bits_per_weight: float
    predicted: float
    predicted_drop: float
    baseline: float
    held_out: bool
    measured_key: str | None = None


def problems(cells: pd.DataFrame, anatomy: Anatomy) -> list[Problem]:
    """One for each setting with cells enough to fit. Raises UserError where there is none.

    cells: see `predictable`. Recipes of several schemes are left out: no choice of widths alone would make them.
    """
    base = cells[cells["part"] == "none"].iloc[:1]
    found = []
    single = [one_scheme(entries(str(r))) for r in cells["recipe_json"]]
    for setting, own in cells[single].groupby("setting"):
        if len(own) >= FEWEST_CELLS:
            chosen = pd.concat([base, own])
            scheme = {k: v for k, v in entries(own["recipe_json"].iloc[0])[0].items() if k not in ("target", "bits")}
            known = atoms(chosen, anatomy)
            options = [sorted({int(b) for b in column}) for column in known.widths.T]
            params = round(int(base["model_bytes"].iloc[0]) * 8 / FLOAT_BITS)
            found.append(Problem(str(setting), scheme, chosen, known, anatomy, params, options))
    if not found:
        raise UserError(f"too few cells to fit a model: {len(cells)}; right: at least {FEWEST_CELLS} of one method")
    return found


def solve(problem: Problem, mean: Mean, max_bytes: int | None, max_drop: float | None) -> list[int]:
    """Widths by atom. max_drop: share of the baseline. With a drop given the size is made least, else the noise.

    Raises UserError naming the smallest budget that is feasible.
    """
    pairs = [(j, b) for j, options in enumerate(problem.options) for b in options]
    cost = np.array([mean.weights[j] * float(problem.noise([b])[0, 0]) for j, b in pairs])
    saved = np.array([problem.saved_bits(j, b) for j, b in pairs], dtype=np.float64)
    scale = max(1.0, float(saved.max()))
    once = np.array([[float(j == k) for j, _ in pairs] for k in range(len(problem.options))])
    rules = [LinearConstraint(once, 1, 1)]
    full = problem.params * FLOAT_BITS
    if max_bytes is not None:
        rules.append(LinearConstraint(saved / scale, (full - max_bytes * 8) / scale, np.inf))
    if max_drop is not None:
        rules.append(LinearConstraint(cost, -np.inf, mean.noise_for(1 - max_drop)))
    # A hair of size in the objective decides between recipes of equal noise, and of noise between equal sizes.
    aim = cost - 1e-9 * saved / scale if max_drop is None else -saved / scale + 1e-9 * cost / max(1e-12, cost.max())
    found = milp(aim, constraints=rules, integrality=np.ones(len(pairs), dtype=np.int8), bounds=Bounds(0, 1),
                 options={"mip_rel_gap": 0})  # fmt: skip
    if found.x is None:
        raise _infeasible(problem, mean, max_bytes, max_drop)
    return [b for (_, b), x in zip(pairs, found.x, strict=True) if x > 0.5]


def _infeasible(problem: Problem, mean: Mean, max_bytes: int | None, max_drop: float | None) -> UserError:
    if max_drop is not None:
        least = problem.bytes(solve(problem, mean, None, max_drop))
        return UserError(
            f"no recipe has at most {max_bytes} bytes and a drop of at most {max_drop:.1%}; "
            f"the smallest with that drop has {least} bytes"
        )
    smallest = [min((b for b in options if b), default=0) for options in problem.options]
    return UserError(
        f"no recipe of the widths that were run has at most {max_bytes} bytes; the smallest has {problem.bytes(smallest)}"
    )


def recommend(
    cells: pd.DataFrame,
    metric: str,
    draws: Draws | None,
    anatomy: Anatomy,
    max_bytes: int | None = None,
    max_drop: float | None = None,
) -> Choice:
    """The best choice over all settings, widths and setting chosen on one half of the images, its metric told from the other.

    With max_drop: the smallest of the choices that keep it, or, where none does, the one that loses least.
    Cells without outputs have no halves: then all that is known is used for both, and `held_out` is False.
    """
    choices, refusals = list[Choice](), list[UserError]()
    for problem in problems(predictable(cells, metric), anatomy):
        try:
            choices.append(_choose(problem, metric, draws, max_bytes, max_drop))
        except UserError as error:
            refusals.append(error)
    if not choices:
        raise refusals[0]
    kept = [c for c in choices if c.within]
    if max_drop is not None and kept:
        return min(kept, key=lambda c: c.model_bytes)
    return min(choices, key=lambda c: c.chosen_drop)


def _choose(
    problem: Problem, metric: str, draws: Draws | None, max_bytes: int | None, max_drop: float | None
) -> Choice:
    first, second, halved = _halves(problem, metric, draws)
    widths = _careful(problem, first, max_bytes, max_drop)
    lost = first.lost(problem, widths)
    recipe = problem.recipe(widths)
    predicted = float(second.predictor(problem.noise(widths))[0])
    sized = size(recipe, problem.params)
    same = problem.cells[[r == _spelled(recipe) for r in map(entries, problem.cells["recipe_json"])]]
    return Choice(problem.setting, lost, max_drop is None or lost <= max_drop, targets(recipe), sized.model_bytes,
                  sized.bits_per_weight, predicted, second.base - predicted, second.base, halved,
                  same["key"].iloc[0] if len(same) else None)  # fmt: skip


def _careful(problem: Problem, half: Half, max_bytes: int | None, max_drop: float | None) -> list[int]:
    """The optimum; where the corrected prediction finds its drop too large, that of a stricter limit.

    None of the limits may be strict enough, or the size may allow no stricter one: then each choice is given more bits until
    it keeps the drop, and the smallest wins. Whether the drop is kept in the end is for the caller to check.
    """
    mean = fit_mean(half.noise, half.kept, problem.atoms.groups)
    tried = [solve(problem, mean, max_bytes, max_drop)]
    for strictness in STRICTER if max_drop is not None else ():
        assert max_drop is not None
        if half.lost(problem, tried[-1]) <= max_drop:
            return tried[-1]
        try:
            tried.append(solve(problem, mean, max_bytes, max_drop * strictness))
        except UserError:
            break
    if max_drop is None:
        return tried[0]
    tried = [_widened(problem, half, widths, max_bytes, max_drop) for widths in tried]
    kept = [widths for widths in tried if half.lost(problem, widths) <= max_drop]
    return min(kept, key=problem.bytes) if kept else min(tried, key=lambda widths: half.lost(problem, widths))


def _widened(problem: Problem, half: Half, widths: list[int], max_bytes: int | None, max_drop: float) -> list[int]:
    """Atom by atom the width that gains most for its size by the corrected prediction, until the limit is kept.

    It ends, at the latest, with nothing compressed, or where the size allows no more.
    """
    saved = {(j, b): problem.saved_bits(j, b) for j, options in enumerate(problem.options) for b in options}
    spare = float("inf") if max_bytes is None else max_bytes * 8 - problem.params * FLOAT_BITS
    while half.lost(problem, widths) > max_drop:
        room = spare + sum(saved[j, b] for j, b in enumerate(widths))
        wider = [(j, b) for j, b in saved if 0 < saved[j, widths[j]] - saved[j, b] <= room]
        if not wider:
            break
        changed = np.array([[b if i == j else w for i, w in enumerate(widths)] for j, b in wider], dtype=np.float64)
        size = np.array([saved[j, widths[j]] - saved[j, b] for j, b in wider], dtype=np.float64)
        gain = half.predictor(noise(changed)) - half.predictor(problem.noise(widths))[0]
        j, b = wider[int(np.where(gain > 0, gain / size, gain).argmax())]
        widths = [b if i == j else w for i, w in enumerate(widths)]
    return widths


def _spelled(recipe: Recipe) -> list[dict[str, Any]]:
    return [dict(e) for e in targets(recipe)]


@dataclass
class Half:
    """What the cells scored on one half of the images."""

    noise: Array
    metric: Array
    base: float
    groups: Sequence[str]

    @property
    def kept(self) -> Array:
        return self.metric / self.base

    @cached_property
    def predictor(self) -> Predictor:
        return fit(self.noise, self.metric, self.base, self.groups)

    def lost(self, problem: Problem, widths: Sequence[int]) -> float:
        """The predicted drop of a choice of widths, as a share of the baseline."""
        return 1 - float(self.predictor(problem.noise(widths))[0]) / self.base


def _halves(problem: Problem, metric: str, draws: Draws | None) -> tuple[Half, Half, bool]:
    cells, power, groups = problem.cells, noise(problem.atoms.widths), problem.atoms.groups
    if draws is not None:
        halves = [_half(problem, draws, power, draws.half(first)) for first in (True, False)]
        if min(len(h.metric) for h in halves) >= FEWEST_CELLS and min(h.base for h in halves) > 0:
            return halves[0], halves[1], True
    values = cells[metric].to_numpy(float)
    half = Half(power, values, float(values[cells["part"] == "none"][0]), groups)
    return half, half, False


def _half(problem: Problem, draws: Draws, power: Array, images: NDArray[np.bool_]) -> Half:
    """Of the cells that have outputs and a number on these images."""
    values = np.array([draws.value(k, images) if k in draws else np.nan for k in problem.cells["key"]])
    known = np.isfinite(values)
    return Half(power[known], values[known], draws.value(draws.baseline, images), problem.atoms.groups)


def recipe_file(choice: Choice, told: Mapping[str, Any]) -> str:
    """The YAML that `recipe_file=` reads, with where it comes from as comments."""
    import yaml

    head = "".join(f"# {k}: {v}\n" for k, v in told.items())
    return head + yaml.safe_dump({"targets": choice.entries}, sort_keys=False)
