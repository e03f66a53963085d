"""The best recipe under a budget: the best cell that was measured, or the optimum of a fitted model.

A cell is judged by its score on the first half of the images. A recipe that was not run is judged by the bad end of its
prediction interval there (a one-sided 95 % bound, see spread.py), so it wins only by more than the prediction may be
off. Both are reported on the second half. The optimum is exact for the noise-power model (knapsack.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd

from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.held_by import HeldBy
from blip2sweep.analysis.holdout import Holdout, holdout
from blip2sweep.analysis.knapsack import Problem, problems
from blip2sweep.analysis.predict import predictable
from blip2sweep.analysis.recipes import Entry, entries
from blip2sweep.analysis.time_limit import fast_enough
from blip2sweep.analysis.within_limit import widths_within
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import expand, targets


@dataclass
class Choice:
    """A recommended recipe.

    On the images that chose it: chosen_drop is the share of the baseline that it loses, measured or predicted; judged
    is the same of a cell, and the bad end of the prediction interval of a recipe that was not run; within: whether
    `judged` keeps the limit.
    On the other images: value, drop and baseline are the metric, measured or predicted; low and high are the 90 %
    interval of a predicted value (see spread.py), NaN for a cell. held_out: whether the images differ. key: of the
    cell, where it was measured. instead: what else to look at, see `_instead`. unpredicted: why no recipe was
    predicted, where none was. passed: how many smaller ones keep the limit on the images that choose, and not on the others.
    """

    setting: str
    chosen_drop: float
    judged: float
    within: bool
    entries: list[Entry]
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
    passed: int = 0

    @property
    def other_drop(self) -> float:
        """The share of the baseline that is lost on the images that are reported."""
        return self.drop / self.baseline


def recommend(
    cells: pd.DataFrame,
    metric: str,
    draws: Draws | None,
    anatomy: Anatomy,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    measured: pd.DataFrame | None = None,
    held: HeldBy | None = None,
    max_latency: float | None = None,
) -> Choice:
    """The best choice over all cells, settings and widths.

    cells: what predictions are fitted on. measured: the cells that compete with predictions, `cells` where it is not
    given. draws: of both. max_bytes: of the whole model. max_drop: a share of the baseline; with it, the choice is the
    smallest that keeps it on both halves of the images, else on the half that chooses, or the one that loses least where none does. held: what the format holds that it is for, where
    there is one; nothing else competes. max_latency: a share of the time of the baseline in the same turns; with it, timed cells
    alone compete.
    The choice is made on one half of the images and its metric is of the other half. Without outputs all scores serve
    as both, and `held_out` is False; where some cells have outputs, those without do not compete. Raises UserError
    where no recipe is small enough, or none was run.
    """
    pool = predictable(cells if measured is None else measured, metric)
    measured_cells = _measured(pool, metric, draws, max_drop, held)
    if max_latency is not None:
        return _timed(measured_cells, fast_enough(pool, max_latency), max_bytes, max_drop)
    known = _small_enough(measured_cells, max_bytes)
    guessed, refusals = _predicted(predictable(cells, metric), metric, draws, anatomy, max_bytes, max_drop, held)
    guessed = [c for c in guessed if not _was_run(c, known)]
    if refusals and not guessed and not any(c.entries and c.within for c in known):
        raise _refused(known, measured_cells, refusals[0])
    if not known and not guessed:
        raise UserError("no cell is small enough, and no recipe can be predicted; right: a larger size, or more cells")
    best = _best([*known, *guessed], max_drop)
    why = str(refusals[0]) if refusals and not guessed else None
    return replace(best, instead=_instead(best, known, guessed, max_drop), unpredicted=why)


def _refused(known: Sequence[Choice], run: Sequence[Choice], why: UserError) -> UserError:
    """Why nothing is recommended where no cell that was run keeps the budget, and nothing is predicted.

    known: the cells that are small enough. run: all.
    """
    least = min((c for c in known if c.entries), key=lambda c: c.judged, default=None)
    small = min((c for c in run if c.entries), key=lambda c: c.model_bytes, default=None)
    if least is None and small is None:
        return why
    if least is None and small is not None:
        what = f"the smallest, {small.key}, has {small.model_bytes:,} bytes"
    elif least is not None:
        what = f"cell {least.key} loses {least.judged:.2%} on the images that choose"
    return UserError(f"no cell that was run keeps the budget ({what}), and {why}")


def _timed(known: Sequence[Choice], fast: pd.DataFrame, max_bytes: int | None, max_drop: float | None) -> Choice:
    """The best of the cells that are fast enough. Raises UserError where none of them is small enough or held."""
    of_speed = [c for c in known if c.key in set(fast["key"])]
    small = _small_enough(of_speed, max_bytes)
    if not small:
        least = min((c.model_bytes for c in of_speed), default=None)
        why = f"; the smallest that is fast enough has {least} bytes" if least is not None else ""
        raise UserError(
            f"no timed cell is fast and small enough{why}; right: a larger limit, or more cells with analysis.latency=true"
        )
    return _best(small, max_drop)


def _instead(best: Choice, known: Sequence[Choice], guessed: Sequence[Choice], max_drop: float | None) -> Choice | None:
    """What else to look at: beside a prediction the best cell; beside a cell a recipe that its prediction makes better.

    Better is smaller within the limit, or a smaller drop where there is no limit, on either half of the images.
    """
    if best.key is None:
        return _best(known, max_drop) if known else None
    guessed = [c for c in guessed if c.high - c.low < c.baseline]  # a wider interval says nothing
    if max_drop is None:
        hopeful = [c for c in guessed if c.chosen_drop < best.chosen_drop and c.other_drop < best.other_drop]
        return min(hopeful, key=lambda c: c.chosen_drop, default=None)
    hopeful = [c for c in guessed if max(c.chosen_drop, c.other_drop) <= max_drop and c.model_bytes < best.model_bytes]
    return min(hopeful, key=lambda c: c.model_bytes, default=None)


def _best(choices: Sequence[Choice], max_drop: float | None) -> Choice:
    within = [c for c in choices if c.within]
    if max_drop is None or not within:
        return min(choices, key=lambda c: (c.judged, c.model_bytes))
    kept = [c for c in within if c.other_drop <= max_drop] or within
    best = min(kept, key=lambda c: (c.model_bytes, c.judged))
    return replace(best, passed=sum((c.model_bytes, c.judged) < (best.model_bytes, best.judged) for c in within))


def _small_enough(choices: Sequence[Choice], max_bytes: int | None) -> list[Choice]:
    return [c for c in choices if max_bytes is None or c.model_bytes <= max_bytes]


def _was_run(guess: Choice, known: Sequence[Choice]) -> bool:
    """Whether a cell has the recipe of a prediction. In a larger table a setting may say more of the calibration."""
    same = [c for c in known if canonical_json(c.entries) == canonical_json(guess.entries)]
    return any(_setting_words(guess) <= _setting_words(c) for c in same)


def _setting_words(choice: Choice) -> set[str]:
    return set(choice.setting.replace(",", "").split())


# ---- what was run


def _measured(
    pool: pd.DataFrame, metric: str, draws: Draws | None, max_drop: float | None, held: HeldBy | None
) -> list[Choice]:
    """Every cell as a choice, the baseline among them. Where some cells have outputs, these alone."""
    scored, base, held_out = _scores(pool, metric, draws)
    refused = held.refused(pool) if held else {}
    found = []
    for row in pool[pool["model_bytes"].notna() & ~pool["key"].isin(list(refused))].to_dict("records"):
        chosen_on, shown = scored.get(row["key"], (np.nan, np.nan))
        if np.isfinite(chosen_on) and np.isfinite(shown):
            lost = 1 - chosen_on / base[0]
            found.append(
                Choice(row["setting"], lost, lost, max_drop is None or lost <= max_drop, entries(row["recipe_json"]),
                       int(row["model_bytes"]), float(row["bits_per_weight"]), shown, base[1] - shown, base[1],
                       held_out, key=str(row["key"]))
            )  # fmt: skip
    return found


def _scores(
    pool: pd.DataFrame, metric: str, draws: Draws | None
) -> tuple[dict[str, tuple[float, float]], tuple[float, float], bool]:
    """{key: metric on the images that choose and on the others}, the same of the baseline, and whether the two differ."""
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
    held: HeldBy | None,
) -> tuple[list[Choice], list[UserError]]:
    """The optima of each setting with cells enough to fit, and the messages of the others.

    With a limit a setting has two optima: one keeps the limit at the bad end of its interval, one if its prediction
    holds.
    """
    choices, refusals = list[Choice](), list[UserError]()
    try:
        found = problems(cells, anatomy)
    except UserError as error:
        return [], [error]
    for problem in found:
        try:
            halves = holdout(problem, metric, draws)
            if (open_to := held.narrowed(problem) if held else problem) is None:
                continue
            for careful in (True, False)[: 1 if max_drop is None else 2]:
                choices.append(_choose(open_to, halves, max_bytes, max_drop, careful))
        except UserError as error:
            refusals.append(error)
    return [c for c in choices if c.entries and not (held and _why_not(c, held))], refusals


def _why_not(choice: Choice, held: HeldBy) -> list[str]:
    """What the layers of a recipe are not refused for one by one, such as two schemes where a format has one."""
    return held.why_not(expand(cast("list[dict[str, object]]", choice.entries), held.anatomy))


def _choose(problem: Problem, halves: Holdout, max_bytes: int | None, max_drop: float | None, careful: bool) -> Choice:
    first, second, held_out = halves
    widths = widths_within(problem, first, max_bytes, max_drop, first.worst if careful else first.lost)
    worst = first.worst(problem, widths)
    recipe = problem.recipe(widths)
    retained, reach = 1 - second.lost(problem, widths), second.reach(problem, widths)
    value, low, high = (second.base * max(0.0, share) for share in (retained, retained - reach, retained + reach))
    return Choice(problem.setting, first.lost(problem, widths), worst, max_drop is None or worst <= max_drop,
                  cast("list[Entry]", targets(recipe)), problem.bytes(widths), problem.bits(widths) / problem.params, value,
                  second.base - value, second.base, held_out, low, high)  # fmt: skip
