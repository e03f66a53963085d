"""Two halves of the images: recipes are chosen by their scores on the first and reported by their scores on the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.knapsack import FEWEST_CELLS, Problem
from blip2sweep.analysis.layer_groups import noise
from blip2sweep.analysis.predict import Predictor, fit
from blip2sweep.analysis.spread import quantile, scale

Array = NDArray[np.float64]


@dataclass
class Half:
    """What the cells scored on one half of the images.

    noise: (cells, groups). metric: (cells,). base: the baseline's metric. families: of the groups.
    """

    noise: Array
    metric: Array
    base: float
    families: Sequence[str]

    @property
    def retained(self) -> Array:
        """The metric of each cell as a share of the baseline's, (cells,)."""
        return self.metric / self.base

    @cached_property
    def predictor(self) -> Predictor:
        """The model fitted on these scores."""
        return fit(self.noise, self.metric, self.base, self.families)

    @cached_property
    def quantile(self) -> float:
        """The factor of the prediction intervals, see spread.py."""
        return quantile(self.noise, self.metric, self.base, self.families)

    def lost(self, problem: Problem, widths: Sequence[int]) -> float:
        """The predicted drop of a choice of widths, as a share of the baseline."""
        return 1 - float(self.predictor(problem.noise(widths))[0]) / self.base

    def reach(self, problem: Problem, widths: Sequence[int]) -> float:
        """Half the length of the prediction's 90 % interval, as a share of the baseline.

        It is 0 for the recipe that compresses nothing, since that is the baseline.
        """
        if not any(widths):
            return 0.0
        return self.quantile * float(scale(np.array(1 - self.lost(problem, widths))))

    def worst(self, problem: Problem, widths: Sequence[int]) -> float:
        """The bad end of that interval, a one-sided 95 % bound of the drop; at most 1, the whole baseline."""
        return min(1.0, self.lost(problem, widths) + self.reach(problem, widths))


class Holdout(NamedTuple):
    """The half that chooses recipes, and the half that reports them. held_out: whether the two differ."""

    chooses: Half
    reports: Half
    held_out: bool


def holdout(problem: Problem, metric: str, draws: Draws | None) -> Holdout:
    """The two halves of the images. All images serve as both halves where too few cells have outputs."""
    power, families = noise(problem.groups.widths), problem.groups.families
    if draws is not None:
        found = [_half(problem, draws, power, draws.half(first)) for first in (True, False)]
        if min(len(h.metric) for h in found) >= FEWEST_CELLS and min(h.base for h in found) > 0:
            return Holdout(found[0], found[1], True)
    values = problem.cells[metric].to_numpy(float)
    half = Half(power, values, float(values[problem.cells["part"] == "none"][0]), families)
    return Holdout(half, half, False)


def _half(problem: Problem, draws: Draws, power: Array, images: NDArray[np.bool_]) -> Half:
    """The cells that have outputs and a number on these images. images: a mask, (n,)."""
    values = np.array([draws.value(k, images) if k in draws else np.nan for k in problem.cells["key"]])
    known = np.isfinite(values)
    return Half(power[known], values[known], draws.value(draws.baseline, images), problem.groups.families)
