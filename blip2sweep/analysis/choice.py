"""A recommended recipe, and which of several is the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.recipes import Entry
from blip2sweep.metrics.stopping import BELOW

Compare = Callable[[str, str], float]  # by how much the first of two cells is better than the second


@dataclass
class Choice:
    """A recommended recipe.

    On the images that chose it: chosen_drop is the share of the baseline that it loses, measured or predicted; judged
    is the same of a cell, and the bad end of the prediction interval of a recipe that was not run; within: whether
    `judged` keeps the limit.
    On the other images: value, drop and baseline are the metric, measured or predicted; low and high are the 90 %
    interval of a predicted value (see spread.py), NaN for a cell. held_out: whether the images differ. key: of the
    cell, where it was measured. instead: what else to look at, see `instead_of`. unpredicted: why no recipe was
    predicted, where none was. runner_up: of a cell, the one that would be chosen if it were not there. passed: how many
    smaller ones keep the limit on the images that choose, and not on the others.
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
    runner_up: Choice | None = None
    passed: int = 0

    @property
    def other_drop(self) -> float:
        """The share of the baseline that is lost on the images that are reported."""
        return self.drop / self.baseline

    @property
    def collapsed(self) -> bool:
        """Whether less than half is kept, or expected to be, on the images that choose."""
        return self.chosen_drop > 1 - BELOW


def instead_of(
    best: Choice,
    known: Sequence[Choice],
    guessed: Sequence[Choice],
    max_drop: float | None,
    compare: Compare | None = None,
) -> Choice | None:
    """What else to look at: beside a prediction the best cell; beside a cell a recipe that its prediction makes better.

    Better is smaller within the limit, or a smaller drop where there is no limit, on either half of the images.
    """
    if best.key is None:
        return best_of(known, max_drop, compare) if known else None
    guessed = [c for c in guessed if c.high - c.low < c.baseline]  # a wider interval says nothing
    if max_drop is None:
        hopeful = [c for c in guessed if c.chosen_drop < best.chosen_drop and c.other_drop < best.other_drop]
        return min(hopeful, key=lambda c: c.chosen_drop, default=None)
    hopeful = [c for c in guessed if max(c.chosen_drop, c.other_drop) <= max_drop and c.model_bytes < best.model_bytes]
    return min(hopeful, key=lambda c: c.model_bytes, default=None)


def best_of(choices: Sequence[Choice], max_drop: float | None, compare: Compare | None = None) -> Choice:
    """The smallest that keeps the limit on both halves, else on the half that chooses; of equal size, and where there is
    no limit or none keeps it, the one that loses least."""
    within = [c for c in choices if c.within]
    if max_drop is None or not within:
        return least_loss(choices, compare)
    kept = [c for c in within if c.other_drop <= max_drop] or within
    smallest = min(c.model_bytes for c in kept)
    best = least_loss([c for c in kept if c.model_bytes == smallest], compare)
    return replace(best, passed=sum((c.model_bytes, c.judged) < (best.model_bytes, best.judged) for c in within))


def least_loss(choices: Sequence[Choice], compare: Compare | None) -> Choice:
    """The choice that loses least; of equal ones the smallest. Cells of which one stopped are compared as `compare` has
    it: with what each loses on its own images, the one of the easier images would win."""
    ordered = sorted(choices, key=lambda c: (c.judged, c.model_bytes))
    best = ordered[0]
    for other in ordered[1:] if compare else ():
        if best.key and other.key and compare and compare(other.key, best.key) > 0:
            best = other
    return best


def comparing(draws: Draws | None) -> Compare | None:
    """How cells are compared on the images that choose, where some stopped; None where their values do."""
    if draws is None or not draws.seen:
        return None
    first = draws.half(True)
    return lambda key, other: draws.ahead(key, other, first) if {key, other} & draws.seen.keys() else 0.0


def runner_up_of(
    best: Choice, known: Sequence[Choice], max_drop: float | None, compare: Compare | None
) -> Choice | None:  # fmt: skip
    """The best of the other cells; None beside a recipe that was not run."""
    others = [c for c in known if c.key != best.key and c.entries]
    return best_of(others, max_drop, compare) if others and best.key else None


def small_enough(choices: Sequence[Choice], max_bytes: int | None) -> list[Choice]:
    """Those of at most so many bytes."""
    return [c for c in choices if max_bytes is None or c.model_bytes <= max_bytes]
