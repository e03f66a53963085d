"""When a cell may stop: its looks, its interval against a second implementation, its reasons, and how often it errs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from blip2sweep.metrics import METRICS, images
from blip2sweep.metrics.metric import FloatArray
from blip2sweep.metrics.stopping import (
    FEW,
    Ratio,
    Rule,
    can_stop,
    decide,
    image_sums,
    is_stricter,
    kept,
    looks,
    ratio,
)

CIDER, VQA, TAIL = METRICS["cider"], METRICS["vqa_accuracy"], 0.0025


def known(half: float) -> Rule:
    return Rule("known", half)


def of_images(x: FloatArray, b: FloatArray) -> Ratio:
    return kept(image_sums(x, b))


def verdict(tolerance: float) -> Rule:
    return Rule("verdict", tolerance)


def cell(seed: int, n: int, changed: float, keeps: float) -> tuple[FloatArray, FloatArray]:
    """Scores of a cell and of its baseline on n images: a share of the images changed, to about a share of their score."""
    rng = np.random.default_rng(seed)
    base = rng.exponential(1.2, n)
    return np.where(rng.random(n) < changed, base * rng.uniform(0, 2 * keeps, n), base), base


# ---- looks


def test_looks_by_hand() -> None:
    assert looks(1) == [1]
    assert looks(64) == [64]
    assert looks(65) == [64, 65]
    assert looks(1000) == [64, 96, 128, 192, 256, 384, 512, 768, 1000]
    assert looks(11_000)[-3:] == [6144, 8192, 11_000]
    assert looks(40_504) == [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 40_504]


@given(st.integers(1, 200_000))
def test_looks_rise_to_all_images_and_no_more_often_than_the_level_allows(n: int) -> None:
    found = looks(n)
    assert found == sorted({*found})
    assert found[-1] == n
    assert len(found) <= (17 if n <= 11_000 else 13)


# ---- the interval


def by_root_finding(x: FloatArray, b: FloatArray) -> tuple[float, float]:
    """The ends where a t-test of x − r b against 0 has a p-value of twice the tail, with the floors by scipy's test of
    a binomial share."""

    def excess(r: float) -> float:
        return float(stats.ttest_1samp(x - r * b, 0).pvalue) - 2 * TAIL

    value = x.mean() / b.mean()
    low = optimize.brentq(excess, value - 1e4, value - 1e-9, xtol=1e-12)
    high = optimize.brentq(excess, value + 1e-9, value + 1e4, xtol=1e-12)

    def most(k: int) -> float:
        return float(stats.binomtest(k, len(x)).proportion_ci(1 - 2 * TAIL, "exact").high)

    if (changed := int((x != b).sum())) < FEW:
        low, high = min(low, 1 - most(changed)), max(high, 1 + most(changed))
    if (scores := int((x > 0.05 * b.mean()).sum())) < FEW:
        high = max(high, most(scores))
    return low, high


@pytest.mark.parametrize("n", [64, 192, 1000])
@pytest.mark.parametrize(("changed", "kept"), [(1, 0.9), (1, 0.01), (0.5, 0.5), (0.2, 0.9), (0.03, 0.5), (0.03, 0)])
def test_both_ends_agree_with_root_finding(n: int, changed: float, kept: float) -> None:
    x, b = cell(n, n, changed, kept)
    found = of_images(x, b)
    assert found.value == pytest.approx(x.sum() / b.sum())
    assert found[1:] == pytest.approx(by_root_finding(x, b), rel=1e-6, abs=1e-7)


def test_where_nothing_changed_the_ends_are_the_exact_bound() -> None:
    """An identical cell needs 117 images for 5 % and 297 for 2 %."""
    b = cell(0, 300, 0, 1)[1]
    for n, margin in ((116, 0.05), (117, 0.05), (296, 0.02), (297, 0.02)):
        found, share = of_images(b[:n], b[:n]), 1 - TAIL ** (1 / n)
        assert found == pytest.approx((1, 1 - share, 1 + share), abs=1e-6)
        assert (decide(verdict(margin), found) is not None) == (n in (117, 297))


def test_where_all_broke_the_upper_end_is_the_exact_bound() -> None:
    b = cell(0, 64, 0, 1)[1]
    silent = of_images(np.zeros(64), b)
    assert silent == pytest.approx((0, 0, 1 - TAIL ** (1 / 64)))
    assert of_images(b * 0.001, b).high == pytest.approx(silent.high)  # rarely more than nothing is as good as silent


@pytest.mark.parametrize(
    ("x", "b"), [([1.0], [1.0]), ([0.0, 0.0], [0.0, 0.0]), ([1.0, 1.0, 1.0], [0.0, 0.0, 3.0]), ([math.nan, 1], [1, 1])]
)
def test_without_a_baseline_that_is_surely_above_0_nothing_is_known(x: list[float], b: list[float]) -> None:
    found = of_images(np.array(x, dtype=float), np.array(b, dtype=float))
    assert found.low == -math.inf
    assert found.high == math.inf
    assert [decide(r, found) for r in (known(0.5), verdict(0.5))] == [None, None]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 400), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 100))
def test_the_value_is_inside_and_units_and_order_do_not_matter(
    seed: int, n: int, changed: float, kept: float, unit: float
) -> None:
    x, b = cell(seed, n, changed, kept)
    found, order = of_images(x, b), np.random.default_rng(1).permutation(n)
    assert found.low <= found.value + 1e-6
    assert found.value <= found.high + 1e-6
    assert of_images(unit * x[order], unit * b[order]) == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_more_images_of_the_same_kind_narrow_it() -> None:
    x, b = cell(0, 200, 0.8, 0.8)
    widths = [np.diff(of_images(np.tile(x, k), np.tile(b, k))[1:])[0] for k in (1, 2, 4, 8)]
    assert widths == sorted(widths, reverse=True)


def test_questions_of_an_image_count_as_one() -> None:
    """The ratio is of sums over images; what only moves between the questions of an image has not changed it."""
    x, b = cell(0, 100, 0.7, 0.8)
    ids = np.repeat(np.arange(100), 2)
    shares = np.tile([0.25, 0.75], 100)
    base, own, moved = (
        np.column_stack([np.repeat(v, 2) * s, np.full(200, 0.5)])
        for v, s in ((b, shares), (x, shares), (b, 1 - shares))
    )
    assert ratio(VQA, own, base, images(ids.tolist())) == pytest.approx(of_images(x, b)[:], abs=1e-9)
    still = ratio(VQA, moved, base, images(ids.tolist()))
    assert still == pytest.approx((1, TAIL ** (1 / 100), 2 - TAIL ** (1 / 100)), abs=1e-6)


def test_what_cells_may_stop_on() -> None:
    """Not a likelihood, no corpus metric, no mean of F1 scores, and no metric that only details another."""
    refused = {"nll", "meteor", "bleu_4", "yes_no_f1_mean", "recall_mean", "rouge_l", "vqa_accuracy_number"}
    assert not [name for name in refused if can_stop(METRICS[name])]
    assert all(can_stop(METRICS[name]) for name in ("cider", "vqa_accuracy", "gqa_accuracy", "option_accuracy"))
    rows = np.ones((3, 21))
    with pytest.raises(ValueError, match="meteor: no share of image sums"):
        ratio(METRICS["meteor"], rows, rows)
    with pytest.raises(ValueError, match="a baseline of 3 samples, a cell of 2"):
        ratio(CIDER, rows[:2], rows)


def test_cells_that_count_other_samples_are_not_known() -> None:
    x, b = cell(0, 100, 1, 0.01)
    half = (np.arange(100) % 2).astype(float)
    assert ratio(CIDER, np.column_stack([x, half]), np.column_stack([b, 1 - half])).high == math.inf


# ---- reasons


@pytest.mark.parametrize(
    ("rule", "ends", "reason"),
    [
        (known(0.05), (0.3, 0.499), "below 50 %"),
        (verdict(0.02), (0.3, 0.499), "below 50 %"),
        (known(0.05), (0.45, 0.5), "known to ±5 %"),
        (known(0.025), (0.9, 0.95), "known to ±2.5 %"),
        (known(0.05), (0.85, 0.96), None),
        (verdict(0.05), (0.951, 1.2), "within 5 %"),
        (verdict(0.05), (0.6, 0.949), "loses more than 5 %"),
        (verdict(0.05), (0.949, 0.951), None),
        (known(0.05), (-math.inf, math.inf), None),
    ],
)
def test_reasons(rule: Rule, ends: tuple[float, float], reason: str | None) -> None:
    assert decide(rule, Ratio(0.5, *ends)) == reason


def test_who_asks_for_more_gets_more() -> None:
    two, five = verdict(0.02), verdict(0.05)
    assert not is_stricter(None, None)
    assert not is_stricter(five, None)
    assert all(is_stricter(None, had) for had in (five, known(0.05)))
    assert is_stricter(known(0.03), known(0.05))
    assert not is_stricter(known(0.05), known(0.03))
    assert not is_stricter(five, known(0.05))
    assert is_stricter(two, known(0.05))
    assert is_stricter(known(0.5), two)
    assert is_stricter(two, five)
    assert is_stricter(five, two)
    assert is_stricter(None, known(0.05), "below 50 %")
    assert not is_stricter(known(0.01), five, "below 50 %")
    assert is_stricter(known(0.01), five, "loses more than 5 %")


def test_it_is_a_partial_order() -> None:
    """What answers a rule answers all that the rule answers; two rules that answer each other are one."""
    rules = [None, *(Rule(stop, m) for stop in ("known", "verdict") for m in (0.01, 0.05, 0.2))]
    answers = {(had, asked) for had, asked in itertools.product(rules, rules) if not is_stricter(asked, had)}
    assert {(r, r) for r in rules} <= answers
    assert all((a, d) in answers for a, b in answers for c, d in answers if b == c)
    assert all(a == b for a, b in answers if (b, a) in answers)


# ---- how often it errs


def test_an_unseen_break_does_not_pass() -> None:
    """3 % of the images lose everything. Without the floor, cells whose first images had none would pass 2 % at once."""
    rng, passed, rule = np.random.default_rng(0), 0, verdict(0.02)
    for _ in range(200):
        b = rng.exponential(1.2, 512)
        x = np.where(rng.random(512) < 0.03, 0, b)
        passed += any(decide(rule, of_images(x[:n], b[:n])) == "within 2 %" for n in looks(512))
    assert passed <= 4


def test_looking_often_does_not_make_a_verdict_wrong() -> None:
    """Cells that keep exactly 95 %: a wrong verdict of either side in at most 5 % of them, of a nominal 2 × 1.5 %."""
    rng, wrong, rule = np.random.default_rng(1), 0, verdict(0.05)
    for _ in range(300):
        b = rng.exponential(1.2, 384)
        x = b * 0.95 * rng.uniform(0, 2, 384)
        wrong += any(decide(rule, of_images(x[:n], b[:n])) is not None for n in looks(384)[:-1])
    assert wrong <= 15
