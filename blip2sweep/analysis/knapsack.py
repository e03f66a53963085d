"""The best widths under a budget, one for each layer group, found exactly by integer programming (HiGHS through scipy).

Under the noise-power model the metric falls with s = Σ_j w_j n_j(b_j), a sum over layer groups. The least s under a
size, or the least size under an s, is a multiple-choice knapsack. The choice is exact for the model; the model is an
estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from blip2sweep.analysis.cells import quantized
from blip2sweep.analysis.layer_groups import LayerGroups, layer_groups, noise
from blip2sweep.analysis.predict import Mean
from blip2sweep.analysis.recipes import entries
from blip2sweep.compression.quantize.step import from_entry
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.models.dtypes import BITS, of_part
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.compact import expand
from blip2sweep.recipe.setting import one_scheme
from blip2sweep.recipe.size import bias_bits, weight_bits

Array = NDArray[np.float64]
FEWEST_CELLS = 6
TOO_FEW = "too few cells to predict others"


@dataclass
class Problem:
    """Everything that the choice needs, for one setting.

    scheme: the fields of its entries but target and bits. cells: the baseline, then those of the setting. params, full:
    the parameters of the model, and its bits without compression. number_bits: {part: of a number that is not
    quantized}. options: for each layer group the widths that were run, in bits; 0 is left alone.
    """

    setting: str
    scheme: Mapping[str, object]
    cells: pd.DataFrame
    groups: LayerGroups
    anatomy: Anatomy
    params: int
    full: int
    number_bits: Mapping[str, int]
    options: list[list[int]]

    def noise(self, widths: Sequence[int]) -> Array:
        """The noise of one choice of widths, (1, groups)."""
        return noise(np.array([widths], dtype=np.float64))

    def saved_bits(self, group: int, bits: int) -> int:
        """How many bits less the layers of a group need at a width than left alone; 0 for the width 0."""
        if bits == 0:
            return 0
        number = self.number_bits[self.groups.parts[group]]
        scheme = from_entry({**self.scheme, "bits": bits})
        sized = [(x, type(scheme)(scheme.weights.for_row(x.in_features))) for x in self.groups.layers[group]]
        full = sum(x.weights + x.out_features * x.bias for x, _ in sized) * number
        return full - sum(weight_bits(x, s, number) + bias_bits(x, s, number) for x, s in sized)

    def recipe(self, widths: Sequence[int]) -> Recipe:
        """The recipe of one choice of widths."""
        chosen = [{"target": t, **self.scheme, "bits": b} for names, b in zip(self.groups.targets, widths, strict=True)
                  if b for t in names]  # fmt: skip
        return expand(chosen, self.anatomy)

    def bits(self, widths: Sequence[int]) -> int:
        """The size of the whole model at one choice of widths, in bits."""
        return self.full - sum(self.saved_bits(j, b) for j, b in enumerate(widths))

    def bytes(self, widths: Sequence[int]) -> int:
        """The same in bytes."""
        return math.ceil(self.bits(widths) / 8)


def problems(cells: pd.DataFrame, anatomy: Anatomy) -> list[Problem]:
    """One problem for each setting with at least FEWEST_CELLS cells. Raises UserError where there is none.

    cells: see `predictable`. Recipes of further steps and of several schemes are left out, since no choice of widths alone makes them.
    """
    cells = quantized(cells)
    base = cells[cells["part"] == "none"].iloc[:1]
    found = []
    single = cells[[one_scheme(entries(str(r))) for r in cells["recipe_json"]]]
    for setting, own in single.groupby("setting"):
        if len(own) >= FEWEST_CELLS:
            chosen = pd.concat([base, own])
            scheme = {k: v for k, v in entries(own["recipe_json"].iloc[0])[0].items() if k not in ("target", "bits")}
            groups = layer_groups(chosen, anatomy)
            options = [sorted({int(b) for b in column}) for column in groups.widths.T]
            found.append(Problem(str(setting), scheme, chosen, groups, anatomy, *_whole(base, anatomy), options))
    if not found:
        counts = single.loc[single["part"] != "none", "setting"].value_counts()
        most = f"{counts.max()} of {counts.idxmax()}" if len(counts) else "none"
        raise UserError(f"{TOO_FEW}: {most}; right: at least {FEWEST_CELLS} of one method")
    return found


def _whole(base: pd.DataFrame, anatomy: Anatomy) -> tuple[int, int, dict[str, int]]:
    """(parameters of the model, its bits, {part: bits of a number}). base: the row of the baseline."""
    full, stored = int(base["model_bytes"].iloc[0]) * 8, str(base["stored"].iloc[0])
    return round(full / base["bits_per_weight"].iloc[0]), full, {p: BITS[of_part(stored, p)] for p in anatomy.parts}


def solve(problem: Problem, mean: Mean, max_bytes: int | None, max_drop: float | None) -> list[int]:
    """The best width of each layer group, in bits. max_drop: as a share of the baseline.

    With max_drop the size is minimized, else the noise. Raises UserError naming the smallest budget that is feasible.
    """
    pairs = [(j, b) for j, options in enumerate(problem.options) for b in options]
    cost = np.array([mean.weights[j] * float(problem.noise([b])[0, 0]) for j, b in pairs])
    saved = np.array([problem.saved_bits(j, b) for j, b in pairs], dtype=np.float64)
    scale = max(1.0, float(saved.max()))
    once = np.array([[float(j == k) for j, _ in pairs] for k in range(len(problem.options))])
    rules = [LinearConstraint(once, 1, 1)]
    if max_bytes is not None:
        rules.append(LinearConstraint(saved / scale, (problem.full - max_bytes * 8) / scale, np.inf))
    if max_drop is not None:
        rules.append(LinearConstraint(cost, -np.inf, mean.noise_for(1 - max_drop)))
    # A tiny share of the size in the objective decides between recipes of equal noise, and one of the noise between
    # equal sizes.
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
            f"no recipe has at most {max_bytes:,} bytes and a drop of at most {max_drop:.1%}; "
            f"the smallest with that drop has {least:,} bytes"
        )
    smallest = [min((b for b in options if b), default=0) for options in problem.options]
    alone = [part for part in problem.anatomy.parts if part not in problem.groups.parts]
    right = "; right: a larger size, narrower widths" + (f", or cells of {', '.join(alone)} too" if alone else "")
    return UserError(
        f"no recipe of the widths that were run has at most {max_bytes:,} bytes; the smallest has {problem.bytes(smallest):,}{right}"
    )
