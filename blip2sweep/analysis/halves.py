"""What was measured on either half of the images: recipes are chosen on the first and reported on the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blip2sweep.analysis.atoms import noise
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.knapsack import FEWEST_CELLS, Problem
from blip2sweep.analysis.predict import Predictor, fit
from blip2sweep.analysis.spread import quantile, scale

Array = NDArray[np.float64]


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

    @cached_property
    def quantile(self) -> float:
        return quantile(self.noise, self.metric, self.base, self.groups)

    def lost(self, problem: Problem, widths: Sequence[int]) -> float:
        """The predicted drop of a choice of widths, as a share of the baseline."""
        return 1 - float(self.predictor(problem.noise(widths))[0]) / self.base

    def reach(self, problem: Problem, widths: Sequence[int]) -> float:
        """Half the length of its 90 % interval, as a share of the baseline. What compresses nothing is the baseline."""
        if not any(widths):
            return 0.0
        return self.quantile * float(scale(np.array(1 - self.lost(problem, widths))))

    def worst(self, problem: Problem, widths: Sequence[int]) -> float:
        """The bad end of that interval, a one-sided 95 % bound; at most everything."""
        return min(1.0, self.lost(problem, widths) + self.reach(problem, widths))


def halves(problem: Problem, metric: str, draws: Draws | None) -> tuple[Half, Half, bool]:
    """(that which chooses, that which is reported, whether they differ); one for both where too few cells have outputs."""
    cells, power, groups = problem.cells, noise(problem.atoms.widths), problem.atoms.groups
    if draws is not None:
        found = [_half(problem, draws, power, draws.half(first)) for first in (True, False)]
        if min(len(h.metric) for h in found) >= FEWEST_CELLS and min(h.base for h in found) > 0:
            return found[0], found[1], True
    values = cells[metric].to_numpy(float)
    half = Half(power, values, float(values[cells["part"] == "none"][0]), groups)
    return half, half, False


def _half(problem: Problem, draws: Draws, power: Array, images: NDArray[np.bool_]) -> Half:
    """Of the cells that have outputs and a number on these images."""
    values = np.array([draws.value(k, images) if k in draws else np.nan for k in problem.cells["key"]])
    known = np.isfinite(values)
    return Half(power[known], values[known], draws.value(draws.baseline, images), problem.atoms.groups)
