"""The forecast of where a cell stops: it is one of the looks to come, and it is neither late nor far off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2sweep.metrics.forecast import forecast, likely, satisfied
from blip2sweep.metrics.metric import FloatArray
from blip2sweep.metrics.stopping import Rule, Sums, decide, image_sums, interval, kept, looks

RULES = [Rule("known", 0.05), Rule("verdict", 0.05), Rule("known", 0.01), Rule("verdict", 0.02)]
COMING = [n for n in looks(1000) if n > 64]


def cell(seed: int, changed: float, keeps: float) -> tuple[FloatArray, FloatArray]:
    """Scores of a cell and of its baseline on 1000 images: a share of them changed, to about a share of their score."""
    rng = np.random.default_rng(seed)
    base = rng.exponential(1.2, 1000)
    return np.where(rng.random(1000) < changed, base * rng.uniform(0, 2 * keeps, 1000), base), base


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1), st.sampled_from(RULES), st.integers(0, len(COMING) - 1))
def test_it_is_a_look_to_come_and_no_later_without_caution(
    seed: int, changed: float, keeps: float, rule: Rule, first: int
) -> None:
    x, b = cell(seed, changed, keeps)
    found = forecast(rule, image_sums(x[:64], b[:64]), 64, COMING[first:])
    assert found in COMING[first:]
    sums = image_sums(x[:64], b[:64])
    for n in COMING[first:-1]:
        assert likely(rule, sums, 64, n) >= likely(rule, sums, 64, n, caution=1.0)
        assert bool(likely(rule, sums, 64, n)) == (n == found or n > found) or n > found


def test_a_cell_that_did_not_change_is_known_when_the_exact_bound_says_so() -> None:
    """117 images for 5 %, 597 for 1 %, and 297 for a verdict of 2 %, whose value may move on the way."""
    b = cell(0, 0, 1)[1][:64]
    assert forecast(RULES[0], image_sums(b, b), 64, COMING) == 128
    assert forecast(RULES[3], image_sums(b, b), 64, COMING) == 128
    assert forecast(RULES[2], image_sums(b, b), 64, COMING) == 512


def test_a_cell_that_no_look_can_tell_goes_to_the_end() -> None:
    x, b = cell(0, 1, 0.7)
    assert forecast(RULES[2], image_sums(x[:64], b[:64]), 64, COMING) == 1000
    assert forecast(RULES[2], image_sums(x[:64], b[:64]), 64, [1000]) == 1000


@pytest.mark.parametrize("b", [[0.0, 0.0, 0.0], [0.0, 0.0, 3.0], [np.nan, 1.0, 1.0]])
def test_where_nothing_is_known_of_the_baseline_the_next_look_is_asked_for(b: list[float]) -> None:
    sums = image_sums(np.ones(3), np.array(b))
    assert [forecast(rule, sums, 64, COMING) for rule in RULES] == [96] * 4


def test_it_is_seldom_far_from_where_cells_stop() -> None:
    """Of 60 cells of `known`, the mean of what is asked for beyond the stop is below 5 %, in no more than 3 rounds."""
    rule, beyond, used, rounds = RULES[0], 0, 0, 0
    for seed in range(60):
        x, b = cell(seed, 0.1 + 0.9 * seed / 60, 0.5 + (seed % 7) / 14)
        known = [n for n in looks(1000)[:-1] if decide(rule, kept(image_sums(x[:n], b[:n])))]
        stop, there = min(known, default=1000), 64
        rounds += 1
        while there < stop:
            there = forecast(rule, image_sums(x[:there], b[:there]), there, [n for n in looks(1000) if n > there])
            rounds += 1
        beyond, used = beyond + there - stop, used + stop
    assert beyond < 0.05 * used
    assert rounds <= 3 * 60


def test_many_cells_at_once_are_each_by_itself() -> None:
    cells = [cell(seed, 0.5, 0.8) for seed in range(6)]
    each = [image_sums(x[:64], b[:64]) for x, b in cells]
    together = Sums(*(np.array(column) for column in zip(*each, strict=True)))
    for rule in RULES:
        assert likely(rule, together, 64, 256).tolist() == [bool(likely(rule, one, 64, 256)) for one in each]
        assert satisfied(rule, *interval(together)).tolist() == [decide(rule, kept(one)) is not None for one in each]
