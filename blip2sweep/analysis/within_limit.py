"""The best widths whose loss, as the corrected prediction has it, keeps a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from blip2sweep.analysis.holdout import Half
from blip2sweep.analysis.knapsack import Problem, solve
from blip2sweep.analysis.layer_groups import noise
from blip2sweep.analysis.predict import fit_mean
from blip2sweep.errors import UserError

Loss = Callable[[Problem, Sequence[int]], float]  # of a choice of widths, as a share of the baseline
STRICTER = (0.5, 0.25, 0.1, 0.03)  # shares of the allowed drop, tried in turn


def widths_within(problem: Problem, half: Half, max_bytes: int | None, max_drop: float | None, loss: Loss) -> list[int]:
    """The optimum of the knapsack, in bits for each layer group. Its loss may still exceed max_drop, where no choice
    keeps it.

    loss: of a choice, as a share of the baseline, with the correction of the fit. Where the optimum's loss exceeds
    max_drop, stricter limits are tried in turn. Where none is strict enough, or the size allows no stricter one, each
    choice gets more bits until it keeps max_drop, and the smallest of those that keep it wins.
    """
    mean = fit_mean(half.noise, half.retained, problem.groups.families)
    tried = [solve(problem, mean, max_bytes, max_drop)]
    if max_drop is None:
        return tried[0]
    for strictness in STRICTER:
        if loss(problem, tried[-1]) <= max_drop:
            return tried[-1]
        try:
            tried.append(solve(problem, mean, max_bytes, max_drop * strictness))
        except UserError:
            break
    tried = [_widened(problem, half, widths, max_bytes, max_drop, loss) for widths in tried]
    within = [widths for widths in tried if loss(problem, widths) <= max_drop]
    return min(within, key=problem.bytes) if within else min(tried, key=lambda widths: loss(problem, widths))


def _widened(
    problem: Problem, half: Half, widths: list[int], max_bytes: int | None, max_drop: float, loss: Loss
) -> list[int]:
    """Widen one layer group at a time, the one whose predicted metric gains most for its size, until max_drop is kept.

    It ends where nothing is compressed, or where the size allows no more, at the latest.
    """
    saved = {(j, b): problem.saved_bits(j, b) for j, options in enumerate(problem.options) for b in options}
    spare = float("inf") if max_bytes is None else max_bytes * 8 - problem.full
    while loss(problem, widths) > max_drop:
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
