"""Finds the frontier of size and metric of a grid while most of it is not run, and little of what is run is run whole.

1. **Looks.** A few cells at random, then rounds of `suggest`, each with a rough rule for stopping: one look of 64 images
   where nothing is special. After each round all cells are predicted. A cell is *open* while its upper end is better by
   MARGIN than the best cell at most as large, among those that were looked at. Only open cells are suggested, weighed by
   what they may add to the frontier. The looks end when no cell is open.
2. **Closer.** A cell is a *contender* while its upper end is better by MARGIN than the best whole cell at most as large.
   Those that would make the frontier see more images, and in the end all, in one launch with the looks. Where no cell is
   open, those that may make it do too, and some behind them. It ends when there is neither.

A launch waits in a queue and loads the model, so there are few of them: rounds are large, and each cell has its own rule.
So the cells on the frontier are whole, and no value of a cell that stopped is shown as one of them. What a cell keeps is
a share of the baseline on the same images. Nothing is seen twice: a rule that is stricter goes on from where a cell is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from blip2sweep.analysis.predict import Predictor, fit
from blip2sweep.analysis.screening_grid import Array, Belief, Family, Grid, Mask, Seen, improvement
from blip2sweep.analysis.suggest import suggest
from blip2sweep.console.remarks import many
from blip2sweep.metrics.stopping import Rule

HALF_WIDTHS = (0.2, 0.06, 0.03, 0.015)  # of the rules before a cell runs whole: the first is that of the looks
FIRST, ROUND = (16, 48), (10, 40)  # the fewest and the most cells at random, and of each round
MARGIN = 0.005  # of the baseline: what is no better than this is as good
BEHIND = 2  # how many rows of contenders behind the first are seen closer with it
OPEN = 2.0  # standard deviations of the upper ends of cells that were not looked at
# And of cells that are not whole, by the half width that they are asked for next, at least so many: what is cheap is generous.
CONTENDS = ((0.05, 3.0), (0.025, 2.0), (0.0, 1.64))
QUANTILE = 2.81  # of the normal distribution, two-sided 99.5 %
OWN = 0.0075  # standard deviation at least of what cells keep beside what a prediction can know of
PRIOR = 1.0, 1.0  # what a cell of which nothing is known keeps: mean and standard deviation


Run = Callable[[Mapping[int, Rule | None]], Mapping[int, Seen]]


@dataclass
class Screening:
    """A screening as it goes on. run: launches cells of the grid, each by its rule, None for all images, and says what is
    known of them then; a cell that it leaves out failed, and is not asked for again. half_widths: of the rule of the
    looks, and of those before a cell runs whole. seen: {cell: what is known of it}, to begin with what was known before.
    told: is called with a line before each launch. launches: how many there were."""

    grid: Grid
    run: Run
    half_widths: Sequence[float] = HALF_WIDTHS
    seen: dict[int, Seen] = field(default_factory=dict)
    told: Callable[[str], None] = lambda line: None
    failed: set[int] = field(default_factory=set)
    asked: dict[int, float] = field(default_factory=dict)  # {cell: half width of its last rule}
    fits: dict[int, Predictor] = field(default_factory=dict)  # {number of a family: its last fit}
    launches: int = 0

    def __call__(self, seed: int = 0) -> list[int]:
        """Screen. Returns the whole cells of the frontier, from small to large. seed: of the first cells."""
        todo = self._looks(self._first(seed)) or self._next_round()
        while todo:
            self._run(todo)
            todo = self._next_round()
        return self.frontier()

    def _next_round(self) -> dict[int, float]:
        """{cell: half width to run it to, 0 for all images} of what is open, and of what contends. {} where there is
        neither: the same is then known again to who begins with what was seen."""
        belief = self._belief()
        looks = self._looks(self._open(belief))
        return {**looks, **{i: self._next(i) for i in self._contenders(belief, bool(looks))}}

    def _looks(self, cells: Iterable[int]) -> dict[int, float]:
        return dict.fromkeys(cells, self.half_widths[0])

    def frontier(self) -> list[int]:
        """The whole cells, smaller than the baseline, that keep more than every whole cell at most as large."""
        whole = [i for i, s in self.seen.items() if s.whole and self.grid.smaller[i]]
        found, best = list[int](), -np.inf
        for i in sorted(whole, key=lambda i: (self.grid.sizes[i], -self.seen[i].kept)):
            if self.seen[i].kept > best:
                found.append(i)
                best = self.seen[i].kept
        return found

    # ---- what is run next

    def _run(self, todo: Mapping[int, float]) -> None:
        self.launches += 1
        self.told(f"round {self.launches}: {_words(todo)}; {len(self.seen)} of {many(len(self.grid.sizes), 'cell')} "
                  f"looked at so far, {sum(s.whole for s in self.seen.values())} on all images")  # fmt: skip
        self.asked |= todo
        self.seen |= self.run({i: Rule("known", width) if width else None for i, width in todo.items()})
        self.failed |= {i for i, width in todo.items() if i not in self.seen or (not width and not self.seen[i].whole)}

    def _first(self, seed: int) -> list[int]:
        """Some cells of each family at random, and all cells of none."""
        rng, inside = np.random.default_rng(seed), np.zeros(len(self.grid.sizes), dtype=bool)
        chosen = list[int]()
        for family in self.grid.families:
            inside[family.rows] = True
            drawn = rng.permutation(family.rows[self.grid.smaller[family.rows]])[: at_first(len(family.rows))]
            chosen += [int(i) for i in drawn]
        return [i for i in (*chosen, *np.flatnonzero(self.grid.smaller & ~inside).tolist()) if i not in self.seen]

    def _open(self, belief: Belief) -> list[int]:
        """The cells to look at next; none where no cell that was not looked at may be on the frontier."""
        there = self._mask(self.seen)
        best = self.grid.best(belief.mean, there)
        may = (belief.upper(OPEN) > best + MARGIN) & ~there & self.grid.smaller & ~self._mask(self.failed)
        chosen = list[int]()
        for number, family in enumerate(self.grid.families):
            own = may[family.rows]
            share = int(np.ceil(each_round(len(may)) * own.sum() / max(may.sum(), 1)))
            if own.any() and number in self.fits:
                gain = improvement(belief, best)[family.rows]
                picked = suggest(self.fits[number], family.noise, np.flatnonzero(~own).tolist(), share,
                                 self.grid.seconds[family.rows], gain)  # fmt: skip
            else:
                picked = np.flatnonzero(own)[:share].tolist()
            chosen += [int(family.rows[i]) for i in picked]
        return chosen

    def _contenders(self, belief: Belief, open_left: bool) -> list[int]:
        """The cells to see closer: those that would be on the frontier as far as is known. Where no cell is open, those that
        may be too, and the ones behind them, as far as that is not on all images: so that few launches do."""
        there = self._mask(self.seen)
        whole = self._mask(i for i, s in self.seen.items() if s.whole)
        best = self.grid.best(belief.mean, whole)
        upper = self._upper(belief)
        may = (upper > best + MARGIN) & there & ~whole & self.grid.smaller & ~self._mask(self.failed)
        found = {*self._ahead(belief.mean, best, may)}
        if open_left:
            return sorted(found)
        found |= {*self._ahead(upper, best, may)}
        for _ in range(BEHIND):
            left = may & ~self._mask(found)
            behind = [*self._ahead(belief.mean, best, left), *self._ahead(upper, best, left)]
            found |= {i for i in behind if self._next(i)}
        return sorted(found)

    def _upper(self, belief: Belief) -> Array:
        """The upper end of what each cell keeps that was looked at, the higher the rougher it is to be known next."""
        deviations = np.zeros(len(self.grid.sizes))
        for i in self.seen:
            deviations[i] = next(z for least, z in CONTENDS if self._next(i) >= least)
        return belief.upper(deviations)

    def _ahead(self, values: Array, best: Array, may: Mask) -> list[int]:
        """Of the cells of a mask, from small to large, each that is better by MARGIN than all before it and the best."""
        found, top = list[int](), -np.inf
        for i in sorted(np.flatnonzero(may).tolist(), key=lambda i: (self.grid.sizes[i], -values[i])):
            if values[i] > max(top, best[i]) + MARGIN:
                found.append(i)
                top = values[i]
        return found

    def _next(self, cell: int) -> float:
        """The half width that a cell is asked for next; 0 for all images."""
        known = min(QUANTILE * self.seen[cell].error, self.asked.get(cell, np.inf))
        return next((w for w in self.half_widths if w < known), 0.0)

    # ---- what is known

    def _belief(self) -> Belief:
        """What each cell keeps, from its own result and from those of its family."""
        mean, deviation = np.full(len(self.grid.sizes), PRIOR[0]), np.full(len(self.grid.sizes), PRIOR[1])
        for i, s in self.seen.items():
            mean[i], deviation[i] = s.kept, s.error
        for number, family in enumerate(self.grid.families):
            own = [i for i, row in enumerate(family.rows) if int(row) in self.seen]
            if not own:
                continue
            predictor = self._fitted(number, family, own)
            place = np.full(len(family.rows), -1)
            place[own] = np.arange(len(own))
            mean[family.rows], deviation[family.rows] = predictor.latent(family.noise, place)
        for i, s in self.seen.items():
            if s.whole:
                mean[i], deviation[i] = s.kept, 0.0
        return Belief(mean, deviation)

    def _fitted(self, number: int, family: Family, own: list[int]) -> Predictor:
        """The predictor of a family, fitted on the cells at these places of it and on the baseline."""
        known = [self.seen[int(family.rows[i])] for i in own]
        noise = np.vstack([family.noise[own], np.zeros((1, family.noise.shape[1]))])
        kept = np.array([*(s.kept for s in known), 1.0])
        errors = np.array([*(s.error for s in known), 0.0])
        fitted = fit(noise, kept, 1.0, family.groups, errors)
        fitted.scales[2] = max(fitted.scales[2], OWN**2)
        self.fits[number] = fitted.again(noise, kept, errors)
        return self.fits[number]

    def _mask(self, cells: Iterable[int]) -> Mask:
        mask = np.zeros(len(self.grid.sizes), dtype=bool)
        mask[list(cells)] = True
        return mask


def at_first(cells: int) -> int:
    """How many of the cells of a family are looked at before anything is predicted: a quarter, as far as FIRST goes."""
    return int(np.clip(cells // 4, *FIRST))


def each_round(cells: int) -> int:
    """How many of the cells of a grid are looked at in a round: a fifth, as far as ROUND goes."""
    return int(np.clip(cells // 5, *ROUND))


def _words(todo: Mapping[int, float]) -> str:
    """`40 cells to ±20 %, 2 on all images`."""
    counts = Counter(todo.values())
    told = [
        f"{many(n, 'cell')} {f'to ±{100 * w:g} %' if w else 'on all images'}" for w, n in sorted(counts.items())[::-1]
    ]
    return ", ".join(told)
