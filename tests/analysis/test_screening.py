"""Screening a made-up grid whose truth is known: what is run, what is not, and how good the frontier is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest

from blip2sweep.analysis.layer_groups import noise
from blip2sweep.analysis.screening import Screening
from blip2sweep.analysis.screening_grid import Belief, Family, Grid, Seen, improvement, seen_of
from blip2sweep.metrics import METRICS, images
from blip2sweep.metrics.stopping import Rule

WIDTHS = np.array([w for w in product((0, 8, 5, 4, 3), repeat=3) if any(w)], dtype=np.float64)
LAYERS = np.array([30.0, 5.0, 65.0])
IMAGES = 1000


def truth() -> np.ndarray:
    kept: np.ndarray = 1 / (1 + (noise(WIDTHS) @ np.array([0.02, 0.01, 0.08])) ** 1.2)
    return kept + np.random.default_rng(5).normal(0, 0.002, len(WIDTHS))


def grid(families: bool = True) -> Grid:
    sizes = np.where(WIDTHS > 0, WIDTHS, 16) @ LAYERS
    own = [Family(np.arange(len(WIDTHS)), noise(WIDTHS), ["a", "b", "c"])] if families else []
    return Grid(sizes, np.ones(len(WIDTHS)), 16 * LAYERS.sum(), own)


class Fake:
    """Runs cells on paper: a look is off by an error, a whole run is not. calls: what was asked."""

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.truth, self.failing, self.seed = truth(), failing, 0
        self.calls: list[Mapping[int, Rule | None]] = []
        self.images: dict[int, int] = {}

    def __call__(self, cells: Mapping[int, Rule | None]) -> Mapping[int, Seen]:
        self.calls.append(cells)
        found = {}
        for i, rule in cells.items():
            if i in self.failing:
                continue
            n = IMAGES if rule is None else 64 if rule.margin > 0.1 else 256
            self.images[i] = max(n, self.images.get(i, 0))
            error = 0.0 if n == IMAGES else 0.15 / np.sqrt(n)
            off = np.random.default_rng([i, n]).normal(0, error)
            found[i] = Seen(float(self.truth[i] + off), error, n)
        return found


@pytest.fixture(scope="module")
def screened() -> tuple[Screening, list[int], Fake]:
    run = Fake()
    screening = Screening(grid(), run)
    return screening, screening(), run


def below(found: Sequence[int]) -> float:
    """How far the cells are below the best of each size, at worst."""
    kept, sizes = truth(), grid().sizes
    best = grid().best(kept, np.ones(len(kept), dtype=bool))
    ours = grid().best(kept, np.isin(np.arange(len(kept)), found))
    return float((best - ours)[sizes < grid().base].max())


def test_the_frontier_is_found_with_a_part_of_the_images(screened: tuple[Screening, list[int], Fake]) -> None:
    _, found, run = screened
    assert below(found) <= 0.01
    assert sum(run.images.values()) < 0.6 * IMAGES * len(WIDTHS)  # a fifth of this grid is its frontier
    assert len(run.images) < len(WIDTHS)  # some were never looked at


def test_what_is_on_the_frontier_is_whole_and_in_order(screened: tuple[Screening, list[int], Fake]) -> None:
    screening, found, _ = screened
    assert all(screening.seen[i].whole for i in found)
    sizes, kept = [screening.grid.sizes[i] for i in found], [screening.seen[i].kept for i in found]
    assert sizes == sorted(sizes)
    assert kept == sorted(kept)
    assert max(sizes) < screening.grid.base


def test_no_cell_is_asked_for_twice_by_one_rule(screened: tuple[Screening, list[int], Fake]) -> None:
    asked = [one for cells in screened[2].calls for one in cells.items()]
    assert len(asked) == len(set(asked))
    margins = {i: [rule.margin if rule else 0.0 for j, rule in asked if j == i] for i, _ in asked}
    assert all(own == sorted(own, reverse=True) for own in margins.values())


def test_the_same_words_again_run_nothing_that_is_known(screened: tuple[Screening, list[int], Fake]) -> None:
    screening, found, _ = screened
    run = Fake()
    again = Screening(grid(), run, seen=dict(screening.seen))
    assert again() == found
    assert run.calls == []


@pytest.mark.thorough
def test_a_cell_that_fails_is_asked_for_once_and_named(screened: tuple[Screening, list[int], Fake]) -> None:
    gone = screened[1][len(screened[1]) // 2]
    run = Fake(failing=[gone])
    screening = Screening(grid(), run)
    found = screening()
    assert gone not in found
    assert screening.failed == {gone}
    assert sum(gone in cells for cells in run.calls) == 1


def test_cells_that_nothing_predicts_are_all_looked_at() -> None:
    run = Fake()
    found = Screening(grid(families=False), run)()
    assert len(run.images) == len(WIDTHS)
    assert below(found) <= 0.02
    assert sum(n == IMAGES for n in run.images.values()) < len(WIDTHS) / 2


def test_cells_no_smaller_than_the_baseline_are_not_run() -> None:
    made = grid()
    larger = Grid(made.sizes, made.seconds, float(np.median(made.sizes)), made.families)
    run = Fake()
    found = Screening(larger, run)()
    assert found
    assert all(larger.sizes[i] < larger.base for i in run.images)


def test_a_collapsed_cell_that_no_rule_takes_further_ends_whole() -> None:
    """Such a cell stops by every rule: a narrower one changes nothing, and must not be asked for without end."""
    sizes = np.array([1.0, 2.0])

    def run(cells: Mapping[int, Rule | None]) -> Mapping[int, Seen]:
        return {i: Seen(0.1 * (i + 1), 0.05 if r else 0.0, 64 if r else IMAGES) for i, r in cells.items()}

    screening = Screening(Grid(sizes, np.ones(2), 3.0, []), run)
    assert screening() == [0, 1]


def test_what_is_known_of_a_cell_that_stopped() -> None:
    metric, n, of = METRICS["vqa_accuracy"], 100, 400
    rng = np.random.default_rng(0)
    right = rng.random(of) < 0.8
    base = np.stack([right, np.ones(of)], axis=1).astype(float)
    cell = base.copy()
    cell[::10, 0] = 0
    ids = [str(i) for i in range(of)]
    whole = seen_of(metric, cell, base, images(ids), None)
    assert whole == Seen(pytest.approx(cell[:, 0].sum() / base[:, 0].sum()), 0.0, of)
    assert whole.whole
    part = seen_of(metric, cell[:n], base[:n], images(ids[:n]), of)
    assert part.images == n
    assert 0.01 < part.error < 0.05
    assert seen_of(metric, base[:n], base[:n], None, of).error > 0  # nothing changed yet, and may


def test_the_expected_improvement_is_never_negative_and_grows_with_what_is_not_known() -> None:
    belief = Belief(np.array([0.9, 0.9, 0.2]), np.array([0.0, 0.1, 0.01]))
    gained = improvement(belief, np.array([0.95, 0.95, 0.95]))
    assert gained[0] == pytest.approx(0, abs=1e-9)
    assert gained[1] > 0.01
    assert gained[2] == pytest.approx(0, abs=1e-9)
