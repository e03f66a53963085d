"""The best recipe under a budget: the best cell that was measured, or the optimum of a fitted model.

A cell is judged by its score on the first half of the images. A recipe that was not run is judged by the bad end of its
prediction interval there (a one-sided 95 % bound, see spread.py), so it wins only by more than the prediction may be
off. Both are reported on the second half. The optimum is exact for the noise-power model (knapsack.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd

from blip2sweep.analysis.choice import (
    Choice,
    Compare,
    best_of,
    comparing,
    instead_of,
    least_loss,
    runner_up_of,
    small_enough,
)
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.held_by import HeldBy
from blip2sweep.analysis.holdout import Holdout, holdout
from blip2sweep.analysis.knapsack import Problem, problems
from blip2sweep.analysis.predict import competing, predictable
from blip2sweep.analysis.recipes import Entry, entries
from blip2sweep.analysis.time_limit import fast_enough
from blip2sweep.analysis.within_limit import widths_within
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import Anatomy
from blip2sweep.recipe.compact import expand, targets


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
    as both, and `held_out` is False; where some cells have outputs, those without do not compete. A cell that stopped
    competes, with each other cell on the images that both have; no prediction is fitted on one that stopped with a
    verdict. A prediction of less than half of the baseline competes with no cell, since nobody would run it. Raises
    UserError where no recipe is small enough, or none was run.
    """
    pool, compare = competing(cells if measured is None else measured, metric), comparing(draws)
    measured_cells = _measured(pool, metric, draws, max_drop, held)
    if max_latency is not None:
        return _timed(measured_cells, fast_enough(pool, max_latency), max_bytes, max_drop, compare)
    known = small_enough(measured_cells, max_bytes)
    guessed, refusals = _predicted(predictable(cells, metric), metric, draws, anatomy, max_bytes, max_drop, held)
    guessed = [c for c in guessed if not _was_run(c, known)]
    run = [c for c in known if c.entries]
    if refusals and not guessed and not run:
        raise _refused(measured_cells, max_bytes, compare, refusals[0])
    if not known and not guessed:
        raise UserError("no cell is small enough, and no recipe can be predicted; right: a larger size, or more cells")
    hopeful = [c for c in guessed if not (run and c.collapsed)]
    best = best_of([*known, *hopeful], max_drop, compare)
    why = str(refusals[0]) if refusals and not guessed else None
    instead = instead_of(best, known, hopeful, max_drop, compare)
    return replace(best, instead=instead, unpredicted=why, runner_up=runner_up_of(best, known, max_drop, compare))


def _refused(
    measured: Sequence[Choice], max_bytes: int | None, compare: Compare | None, why: UserError
) -> UserError:  # fmt: skip
    """Why nothing is recommended where no compressed cell is small enough, and nothing is predicted. measured: all cells."""
    run = [c for c in measured if c.entries]
    if not run or max_bytes is None:
        return UserError(f"no compressed cell was run, and {why}")
    size = min(c.model_bytes for c in run)
    best = least_loss([c for c in run if c.model_bytes == size], compare)
    where = " on the images that choose" if best.held_out else ""
    least = f"the smallest, cell {best.key}, has {size:,} bytes and keeps {1 - best.judged:.1%}{where}"
    return UserError(f"no cell that was run has at most {max_bytes:,} bytes ({least}), and {why}")


def _timed(
    known: Sequence[Choice], fast: pd.DataFrame, max_bytes: int | None, max_drop: float | None, compare: Compare | None
) -> Choice:
    """The best of the cells that are fast enough. Raises UserError where none of them is small enough or held."""
    of_speed = [c for c in known if c.key in set(fast["key"])]
    small = small_enough(of_speed, max_bytes)
    if not small:
        least = min((c.model_bytes for c in of_speed), default=None)
        why = f"; the smallest that is fast enough has {least} bytes" if least is not None else ""
        raise UserError(
            f"no timed cell is fast and small enough{why}; right: a larger limit, or more cells with analysis.latency=true"
        )
    best = best_of(small, max_drop, compare)
    return replace(best, runner_up=runner_up_of(best, small, max_drop, compare))


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
