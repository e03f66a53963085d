"""The replay of a study asks the product's own rule, many cells at once."""

from __future__ import annotations

import numpy as np
import pytest

from blip2sweep.metrics.stopping import Rule, image_sums, interval, kept, looks
from scripts.replay_stopping import CLASSES, RULES, Scores, estimators, is_wrong, replay, rounds, sums_at, table


@pytest.fixture(scope="module")
def scores() -> Scores:
    """A silent cell, a broken one, one that loses 3 % on every image, and one that is the baseline."""
    rng = np.random.default_rng(0)
    base = rng.exponential(1.2, 500)
    return Scores(np.array([base * 0, base * rng.uniform(0, 0.6, 500), base * 0.97, base]), base)


def test_all_cells_at_all_looks_are_what_one_cell_at_one_look_is(scores: Scores) -> None:
    chosen, at = np.random.default_rng(1).permutation(500), looks(500)
    low, high = interval(sums_at(scores, chosen, at))
    for i, cell in enumerate(scores.cells):
        for j, n in enumerate(at):
            found = kept(image_sums(cell[chosen[:n]], scores.base[chosen[:n]]))
            assert (low[i, j], high[i, j]) == pytest.approx(found[1:], abs=1e-6)


def test_where_they_stop(scores: Scores) -> None:
    chosen, at = np.arange(500), looks(500)
    found = replay(sums_at(scores, chosen, at), at, scores.kept)
    assert found["verdict, 5 %"].images.tolist() == [64, 64, 64, 128]
    assert found["verdict, 2 %"].images.tolist() == [64, 64, 64, 384]
    assert found["known to ±5 %"].images[:2].tolist() == [64, 64]
    assert found["known to ±5 %"].images[3] == 128
    assert not any(own.wrong.any() for own in found.values())
    assert all(own.holds.all() for own in found.values())


def test_what_is_wrong() -> None:
    known, verdict = Rule("known", 0.05), Rule("verdict", 0.05)
    assert is_wrong(known, "below 50 %", 0.4, 0.5)
    assert not is_wrong(known, "below 50 %", 0.4, 0.49)
    assert is_wrong(known, "known to ±5 %", 0.9, 0.96)
    assert not is_wrong(known, "known to ±5 %", 0.9, 0.94)
    assert is_wrong(verdict, "within 5 %", 0.99, 0.94)
    assert not is_wrong(verdict, "within 5 %", 0.99, 0.96)
    assert is_wrong(verdict, "loses more than 5 %", 0.9, 0.96)
    assert not is_wrong(verdict, "loses more than 5 %", 0.9, 0.94)


def test_the_tables_have_a_line_for_each_rule_and_class(scores: Scores) -> None:
    fresh, order = (rounds(scores, 3, own, 0) for own in (True, False))
    lines = table(scores, fresh, order)
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(RULES)
    assert {len(line.split("|")) for line in lines} == {len(CLASSES) + 9}
    assert fresh["verdict, 5 %"].images.shape == (3, 4)
    assert len(estimators(scores, 2, 0)) == 8
