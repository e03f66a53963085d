"""The best recipe under a budget, found exactly: one width for each atom, by integer programming (HiGHS through scipy).

Under the noise-power model the metric falls with s = Σ_j w_j n_j(b_j), a sum over atoms: the least s under a size, or the
least size under an s, is a multiple-choice knapsack. The choice is exact for the model; the model is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from blip2sweep.analysis.atoms import Atoms, atoms, noise
from blip2sweep.analysis.cells import entries
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.predict import Mean, Predictor, fit, fit_mean
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
    """A recommended recipe. predicted: the metric by a fit on images that did not choose it; measured where it was run."""

    setting: str
    entries: list[dict[str, Any]]
    model_bytes: int
    bits_per_weight: float
    predicted: float
    predicted_drop: float
    baseline: float
    held_out: bool
    measured_key: str | None = None


def problems(cells: pd.DataFrame, anatomy: Anatomy) -> list[Problem]:
    """One for each setting with cells enough to fit. Raises UserError where there is none."""
    base = cells[cells["part"] == "none"].iloc[:1]
    found = []
    for setting, own in cells[~cells["setting"].isin(["none", "mixed"])].groupby("setting"):
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
    found = milp(aim, constraints=rules, integrality=np.ones(len(pairs), dtype=np.int8), bounds=Bounds(0, 1))
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
    """The best choice over all settings: chosen on one half of the images, its metric told from the other half.

    Cells without outputs have no halves: then all that is known is used for both, and `held_out` is False.
    """
    choices, refusals = list[Choice](), list[UserError]()
    for problem in problems(cells, anatomy):
        try:
            choices.append(_choose(problem, metric, draws, max_bytes, max_drop))
        except UserError as error:
            refusals.append(error)
    if not choices:
        raise refusals[0]
    better = (lambda c: -c.model_bytes) if max_drop is not None else (lambda c: -c.predicted_drop)
    return max(choices, key=better)


def _choose(
    problem: Problem, metric: str, draws: Draws | None, max_bytes: int | None, max_drop: float | None
) -> Choice:
    first, second, halved = _halves(problem, metric, draws)
    widths = _careful(problem, first, max_bytes, max_drop)
    recipe, other = problem.recipe(widths), second.predictor(problem.atoms.groups)
    predicted = float(other(problem.noise(widths))[0])
    sized = size(recipe, problem.params)
    same = problem.cells[[r == _spelled(recipe) for r in map(entries, problem.cells["recipe_json"])]]
    drop = (second.base - predicted) * (1 if metric != "nll" else -1)
    return Choice(problem.setting, targets(recipe), sized.model_bytes, sized.bits_per_weight, predicted, drop, second.base,
                  halved, same["key"].iloc[0] if len(same) else None)  # fmt: skip


def _careful(problem: Problem, half: Half, max_bytes: int | None, max_drop: float | None) -> list[int]:
    """The optimum; where the corrected prediction finds its drop too large, that of a stricter limit."""
    mean, groups = fit_mean(half.noise, half.kept, problem.atoms.groups), problem.atoms.groups
    widths, corrected = solve(problem, mean, max_bytes, max_drop), half.predictor(groups)
    for strictness in STRICTER if max_drop is not None else ():
        assert max_drop is not None
        if abs(half.base - float(corrected(problem.noise(widths))[0])) <= max_drop * half.base:
            break
        widths = solve(problem, mean, max_bytes, max_drop * strictness)
    return widths


def _spelled(recipe: Recipe) -> list[dict[str, Any]]:
    return [dict(e) for e in targets(recipe)]


@dataclass
class Half:
    """What the cells scored on one half of the images."""

    noise: Array
    metric: Array
    base: float

    @property
    def kept(self) -> Array:
        return self.metric / self.base

    def predictor(self, groups: Sequence[str]) -> Predictor:
        return fit(self.noise, self.metric, self.base, groups)


def _halves(problem: Problem, metric: str, draws: Draws | None) -> tuple[Half, Half, bool]:
    cells, power = problem.cells, noise(problem.atoms.widths)
    inside = np.array([draws is not None and k in draws for k in cells["key"]])
    if draws is None or inside.sum() < FEWEST_CELLS:
        values = cells[metric].to_numpy(float)
        half = Half(power, values, float(values[cells["part"] == "none"][0]))
        return half, half, False
    keys = [k for k, i in zip(cells["key"], inside, strict=True) if i]
    halves = [_half(power[inside], keys, draws, draws.half(first)) for first in (True, False)]
    return halves[0], halves[1], True


def _half(power: Array, keys: Sequence[str], draws: Draws, images: NDArray[np.bool_]) -> Half:
    return Half(power, np.array([draws.value(k, images) for k in keys]), draws.value(draws.baseline, images))


def recipe_file(choice: Choice, told: Mapping[str, Any]) -> str:
    """The YAML that `recipe_file=` reads, with where it comes from as comments."""
    import yaml

    head = "".join(f"# {k}: {v}\n" for k, v in told.items())
    return head + yaml.safe_dump({"targets": choice.entries}, sort_keys=False)
