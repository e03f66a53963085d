"""The best recipe under a budget: of what was measured the best cell, else the optimum of a model of what was not.

A cell is judged by what it scored on the first half of the images, a recipe that was not run by the bad end of its prediction
interval there (a one-sided 95 % bound, see spread.py): so a prediction has to be better than what is known by more than it may
be off. Both are reported on the second half. The optimum is exact for the noise-power model (knapsack.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.analysis.atoms import noise
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.halves import Half, halves
from blip2sweep.analysis.knapsack import Problem, problems, solve
from blip2sweep.analysis.predict import fit_mean, predictable
from blip2sweep.analysis.recipes import entries
from blip2sweep.canonical import canonical_json
from blip2sweep.compression.step import FLOAT_BITS
from blip2sweep.console.quoting import yaml_text
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import targets
from blip2sweep.recipe.size import size

Array = NDArray[np.float64]
Loss = Callable[[Problem, Sequence[int]], float]  # of a choice of widths, as a share of the baseline
STRICTER = (0.5, 0.25, 0.1, 0.03)  # shares of the allowed drop, tried in turn


@dataclass
class Choice:
    """A recommended recipe.

    chosen_drop: the share of the baseline it loses on the images that chose it, measured or by a fit; judged: the same, or
    the bad end of the prediction's interval; within: that keeps the limit.
    value, drop, baseline: the metric on the other images, measured or by a fit there; low, high: the 90 % interval of a
    predicted value (see spread.py), NaN for a cell. key: the cell, where it was measured. instead: what else to look at, see `_instead`;
    unpredicted: why no recipe was predicted, where none was.
    """

    setting: str
    chosen_drop: float
    judged: float
    within: bool
    entries: list[dict[str, Any]]
    model_bytes: int
    bits_per_weight: float
    value: float
    drop: float
    baseline: float
    held_out: bool
    low: float = np.nan
    high: float = np.nan
    key: str | None = None
    instead: Choice | None = None
    unpredicted: str | None = None


def recommend(
    cells: pd.DataFrame,
    metric: str,
    draws: Draws | None,
    anatomy: Anatomy,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    measured: pd.DataFrame | None = None,
) -> Choice:
    """The best choice over all cells, settings and widths, made on one half of the images, its metric told from the other.

    cells: what predictions are fitted on; measured: what competes with them, `cells` where it is not given. draws: of both.
    With max_drop: the smallest of the choices that keep it, or, where none does, the one that loses least.
    Cells without outputs have no halves: then all that is known is used for both, and `held_out` is False; where others have
    outputs, those without do not compete. Raises UserError where no recipe is small enough or none was run.
    """
    pool = predictable(cells if measured is None else measured, metric)
    known = _small_enough(_measured(pool, metric, draws, max_drop), max_bytes)
    guessed, refusals = _predicted(predictable(cells, metric), metric, draws, anatomy, max_bytes, max_drop)
    guessed = [c for c in guessed if not _was_run(c, known)]
    if refusals and not guessed and not any(c.entries and c.within for c in known):
        raise refusals[0]
    best = _best([*known, *guessed], max_drop)
    why = str(refusals[0]) if refusals and not guessed else None
    return replace(best, instead=_instead(best, known, guessed, max_drop), unpredicted=why)


def _instead(best: Choice, known: Sequence[Choice], guessed: Sequence[Choice], max_drop: float | None) -> Choice | None:
    """Of a prediction the best cell; of a cell the recipe that is smaller (without a limit: better) if its prediction holds."""
    if best.key is None:
        return _best(known, max_drop) if known else None
    guessed = [c for c in guessed if c.high - c.low < c.baseline]  # a wider interval tells nothing
    if max_drop is None:
        hopeful = [c for c in guessed if c.chosen_drop < best.chosen_drop]
        return min(hopeful, key=lambda c: c.chosen_drop, default=None)
    hopeful = [c for c in guessed if c.chosen_drop <= max_drop and c.model_bytes < best.model_bytes]
    return min(hopeful, key=lambda c: c.model_bytes, default=None)


def _best(choices: Sequence[Choice], max_drop: float | None) -> Choice:
    kept = [c for c in choices if c.within]
    if max_drop is not None and kept:
        return min(kept, key=lambda c: (c.model_bytes, c.judged))
    return min(choices, key=lambda c: (c.judged, c.model_bytes))


def _small_enough(choices: Sequence[Choice], max_bytes: int | None) -> list[Choice]:
    return [c for c in choices if max_bytes is None or c.model_bytes <= max_bytes]


def _was_run(guess: Choice, known: Sequence[Choice]) -> bool:
    """Whether a cell did the same. Of a larger table a setting may say more of the calibration, never less."""
    words = set(guess.setting.replace(",", "").split())
    return any(
        canonical_json(c.entries) == canonical_json(guess.entries) and words <= set(c.setting.replace(",", "").split())
        for c in known
    )


# ---- what was run


def _measured(pool: pd.DataFrame, metric: str, draws: Draws | None, max_drop: float | None) -> list[Choice]:
    """Every cell as a choice; the baseline loses nothing. Where some have outputs, only those."""
    scored, base, halved = _scores(pool, metric, draws)
    found = []
    for row in pool[pool["model_bytes"].notna()].to_dict("records"):
        chosen_on, shown = scored.get(row["key"], (np.nan, np.nan))
        if np.isfinite(chosen_on) and np.isfinite(shown):
            lost = 1 - chosen_on / base[0]
            found.append(
                Choice(row["setting"], lost, lost, max_drop is None or lost <= max_drop, entries(row["recipe_json"]),
                       int(row["model_bytes"]), float(row["bits_per_weight"]), shown, base[1] - shown, base[1],
                       halved, key=str(row["key"]))
            )  # fmt: skip
    return found


def _scores(
    pool: pd.DataFrame, metric: str, draws: Draws | None
) -> tuple[dict[str, tuple[float, float]], tuple[float, float], bool]:
    """{key: (on the images that choose, on the others)}, the same of the baseline, and whether the two differ."""
    if draws is not None and any(k in draws for k in pool.loc[pool["part"] != "none", "key"]):
        masks = draws.half(True), draws.half(False)
        first, second = (draws.value(draws.baseline, m) for m in masks)
        if min(first, second) > 0:
            own = [k for k in pool["key"] if k in draws]
            return {k: (draws.value(k, masks[0]), draws.value(k, masks[1])) for k in own}, (first, second), True
    base = float(pool.loc[pool["part"] == "none", metric].iloc[0])
    return {k: (float(v), float(v)) for k, v in zip(pool["key"], pool[metric], strict=True)}, (base, base), False


# ---- what was not


def _predicted(
    cells: pd.DataFrame,
    metric: str,
    draws: Draws | None,
    anatomy: Anatomy,
    max_bytes: int | None,
    max_drop: float | None,
) -> tuple[list[Choice], list[UserError]]:
    """The optimum of each setting with cells enough to fit, and why others have none.

    With a limit two: what keeps it at the bad end of its interval, and what keeps it if the prediction holds.
    """
    choices, refusals = list[Choice](), list[UserError]()
    try:
        found = problems(cells, anatomy)
    except UserError as error:
        return [], [error]
    for problem in found:
        try:
            split = halves(problem, metric, draws)
            for careful in (True, False)[: 1 if max_drop is None else 2]:
                choices.append(_choose(problem, split, max_bytes, max_drop, careful))
        except UserError as error:
            refusals.append(error)
    return [c for c in choices if c.entries], refusals


def _choose(
    problem: Problem, split: tuple[Half, Half, bool], max_bytes: int | None, max_drop: float | None, careful: bool
) -> Choice:
    first, second, halved = split
    widths = _kept(problem, first, max_bytes, max_drop, first.worst if careful else first.lost)
    worst = first.worst(problem, widths)
    recipe = problem.recipe(widths)
    kept, reach = 1 - second.lost(problem, widths), second.reach(problem, widths)
    value, low, high = (second.base * max(0.0, k) for k in (kept, kept - reach, kept + reach))
    sized = size(recipe, problem.params)
    return Choice(problem.setting, first.lost(problem, widths), worst, max_drop is None or worst <= max_drop,
                  targets(recipe), sized.model_bytes, sized.bits_per_weight, value, second.base - value, second.base,
                  halved, low, high)  # fmt: skip


def _kept(problem: Problem, half: Half, max_bytes: int | None, max_drop: float | None, loss: Loss) -> list[int]:
    """The optimum; where its loss, with the correction of the fit, exceeds the limit, that of a stricter limit.

    None of the limits may be strict enough, or the size may allow no stricter one: then each choice is given more bits until
    it keeps the drop, and the smallest wins. Whether the drop is kept in the end is for the caller to check.
    """
    mean = fit_mean(half.noise, half.kept, problem.atoms.groups)
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
    kept = [widths for widths in tried if loss(problem, widths) <= max_drop]
    return min(kept, key=problem.bytes) if kept else min(tried, key=lambda widths: loss(problem, widths))


def _widened(
    problem: Problem, half: Half, widths: list[int], max_bytes: int | None, max_drop: float, loss: Loss
) -> list[int]:
    """Atom by atom the width that gains most for its size by the corrected prediction, until the limit is kept.

    It ends, at the latest, with nothing compressed, or where the size allows no more.
    """
    saved = {(j, b): problem.saved_bits(j, b) for j, options in enumerate(problem.options) for b in options}
    spare = float("inf") if max_bytes is None else max_bytes * 8 - problem.params * FLOAT_BITS
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


def recipe_file(choice: Choice, told: Mapping[str, Any]) -> str:
    """The YAML that `recipe_file=` reads, with where it comes from as comments."""

    head = "".join(f"# {k}: {v}\n" for k, v in told.items())
    return head + yaml_text({"targets": choice.entries})
