"""Intervals of drops and of what is kept: the rule by hand, by simulation, and for every metric there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from blip2sweep.metrics import METRICS, Images, changed_images, images, kept, paired_drop, vqa_statistics
from blip2sweep.metrics.intervals import FEW, effective, fewest_images, hall, poisson, student_factor, unseen
from blip2sweep.metrics.statistics import CORE, FloatArray, Metric
from blip2sweep.metrics.yes_no import CATEGORIES, yes_no_statistics
from blip2sweep.tasks.task import KINDS, task_of
from scripts.bench_intervals import Case, drawn_from, errors, vqa_cases

CIDER, NLL = METRICS["cider"], METRICS["nll"]
# The core metrics, and of each further family those that differ in how they are made; variants have the same arithmetic.
NAMES = (*CORE, "yes_no_f1_mean", "yes_no_f1", "yes_no_accuracy", "option_accuracy", "mmmu_accuracy")
THREE = -math.log(0.025)  # 3.69


def scores(values: FloatArray) -> FloatArray:
    return np.column_stack([values, np.ones_like(values)])


def broken(base: FloatArray, n: int) -> FloatArray:
    """The first n images lose everything."""
    return scores(np.where(np.arange(len(base)) < n, 0.0, base[:, 0]))


@pytest.fixture(scope="module")
def base() -> FloatArray:
    return scores(np.random.default_rng(0).exponential(1.2, 400))


def statistic(name: str, m: int, seed: int = 0) -> FloatArray:
    """A statistic array as a metric's scorer would make it, of m samples."""
    rng, ones = np.random.default_rng(seed), np.ones(m)
    if name == "vqa":
        kinds, right = ("yes/no", "number", "other", "unanswerable"), ("yes", "2", "cat", "unanswerable")
        said = [right[(i + (rng.random() < 0.3)) % 4] for i in range(m)]
        truths = [[right[i % 4]] * 10 for i in range(m)]
        return vqa_statistics(said, truths, [kinds[i % 4] for i in range(m)])["vqa"]
    if name == "yes_no":
        said, labels = rng.choice(["yes", "no"], (2, m), p=(0.6, 0.4))
        return yes_no_statistics(said.tolist(), labels.tolist(), [CATEGORIES[i % 3] for i in range(m)])
    if name in ("bleu", "meteor"):
        lengths = rng.integers(6, 12, m)
        share = rng.uniform(0.4, 0.9, m)
        if name == "bleu":
            matches = [np.floor((lengths - i) * share ** (i + 1)) for i in range(4)]
            return np.column_stack([*matches, *(lengths - i for i in range(4)), lengths, lengths]).astype(float)
        found = np.floor(lengths * share)
        rows = np.zeros((m, 21))
        rows[:, [0, 1]], rows[:, [4, 5]], rows[:, 20] = lengths[:, None], found[:, None], np.ceil(found / 3)
        return rows
    if name == "health":
        return np.column_stack([np.zeros(m), rng.integers(5, 12, m), ones])
    return np.column_stack([rng.exponential(1.2, m), ones * (4 if name == "nll" else 1)])


# ---- by hand


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("m", [1, 2, 12, 60, 500])
def test_where_nothing_changed_it_is_the_rule_of_three(name: str, m: int) -> None:
    """A cell equal to its baseline is not known to be so: 3.69/m of all images may break unseen, whatever the metric."""
    metric = METRICS[name]
    array = statistic(metric.statistic, 4 * m)
    own = Images(np.arange(4 * m) // 4, m)
    whole = max(metric.value(array), metric.worst)
    assert paired_drop(metric, array, array, own) == pytest.approx((0, -THREE / m * whole, THREE / m * whole))
    if metric.value(array) > 0:
        assert kept(metric, array, array, own) == pytest.approx((1, max(0, 1 - THREE / m), 1 + THREE / m))
    assert changed_images(metric, array, array, own) == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_widens_as_images_get_fewer_and_turns_with_its_sign(name: str) -> None:
    metric = METRICS[name]
    for m in (20, 300):
        one, other = statistic(metric.statistic, m), statistic(metric.statistic, m, seed=1)
        found, back = paired_drop(metric, one, other), paired_drop(metric, other, one)
        assert found.low < found.drop < found.high
        assert found.drop == pytest.approx(metric.drop(metric.value(one), metric.value(other)))
        assert back.drop == pytest.approx(-found.drop)
        assert back.low < back.drop < back.high
    assert METRICS[name].drop(1.0, 0.5) == (-0.5 if name in ("nll", "empty_rate") else 0.5)


def columns_of(metric: Metric) -> int:
    """The least number of columns that a metric's sums have."""
    for k in range(1, 200):
        try:
            metric.finish(np.ones(k))
        except (IndexError, ValueError):
            continue
        return k
    raise AssertionError(metric.name)


def counts(metric: Metric, m: int, seed: int) -> FloatArray:
    """Random counts of m samples, each a share of another column; what is counted at all depends on the answers."""
    if metric.statistic.startswith(("bleu", "meteor")):
        return statistic(metric.statistic.removesuffix("_none"), m, seed)
    rows = (np.random.default_rng(seed).random((m, columns_of(metric) + 1)) < 0.6).astype(float)
    for above, below in [metric.ratio] if metric.ratio else [(i, i + 1) for i in range(0, rows.shape[1] - 1, 2)]:
        rows[:, above] *= rows[:, below]
    return rows


@pytest.mark.parametrize("m", [12, 300])
def test_a_drop_is_the_difference_of_the_two_values_of_every_metric_there_is(m: int) -> None:
    """Also where the baseline counts other samples than the cell, as of a share whose denominator depends on answers."""
    image = Images(np.arange(m) // 2, m // 2)
    for kind in KINDS:
        task_of(kind)
    for metric in METRICS.values():
        base, cell = (counts(metric, m, seed) for seed in (0, 1))
        for own in (None, image):
            found, values = paired_drop(metric, base, cell, own), (metric.value(base), metric.value(cell))
            assert found.drop == pytest.approx(metric.drop(*values), abs=1e-12), metric.name
            left = kept(metric, base, cell, own)
            assert left.kept == pytest.approx(values[1] / values[0]), metric.name
            if metric.interval:
                assert found.low <= found.drop <= found.high, metric.name
                assert found.low < found.high, metric.name
            else:
                assert math.isnan(found.low), metric.name


def test_few_broken_images_by_hand(base: FloatArray) -> None:
    """One of 400 images lost 2: a gamma interval of mean 2 plus one more loss, gains by the rule of three, put together."""
    lost = scores(base[:, 0])
    lost[7] = (base[7, 0] - 0.5, 1)
    unit, m = max(CIDER.value(base), 0.5), 400
    spread = (0.5**2 - 0.5**2 / m) * m / (m - 1)
    low, high = (stats.gamma(a**2 / v, scale=v / a).ppf(q) for a, v, q in
                 ((0.5, spread, 0.025), (0.5 + unit, spread + unit**2, 0.975)))  # fmt: skip
    wanted = (0.5 - math.hypot(0.5 - low, THREE * unit), 0.5 + math.hypot(high - 0.5, 0))
    found = paired_drop(CIDER, base, lost)
    assert effective(CIDER, base, lost) == pytest.approx(1)
    assert (found.low * m, found.high * m) == pytest.approx(wanted)
    assert kept(CIDER, base, lost)[1:] == pytest.approx(
        (1 - found.high / CIDER.value(base), 1 - found.low / CIDER.value(base))
    )


def test_many_changed_images_by_hand() -> None:
    """Without skewness Hall's interval is Student's; with it the end on the long side goes further out."""
    values = np.concatenate([np.linspace(-1, 1, 101), [0.0]])
    s, t = values.std(ddof=1), stats.t.ppf(0.975, 101)
    assert hall(0.3, values) == pytest.approx((0.3 - t * s / np.sqrt(102), 0.3 + t * s / np.sqrt(102)))
    skewed = np.random.default_rng(0).exponential(1, 100)
    low, high = hall(skewed.mean(), skewed)
    assert high - skewed.mean() > 1.15 * (skewed.mean() - low)
    assert student_factor(1.96, 50) == pytest.approx(np.sqrt(50 / 49) * stats.t.ppf(stats.norm.cdf(1.96), 49) / 1.96)


def test_the_effective_number_decides_not_the_plain_one(base: FloatArray) -> None:
    """300 images changed by a hair and two broke: the two are what the drop is made of."""
    hair = base[:, 0] - 1e-4 * (np.arange(400) < 300)
    hair[:2] = 0
    assert changed_images(CIDER, base, scores(hair)) == 300
    assert effective(CIDER, base, scores(hair)) < 3
    assert effective(CIDER, base, broken(base, 100)) > FEW
    below, above = poisson(base[:, 0] - hair, CIDER.value(base))
    found = paired_drop(CIDER, base, scores(hair))
    assert (found.drop - found.low, found.high - found.drop) == pytest.approx((below / 400, above / 400), rel=1e-3)


def test_all_questions_of_an_image_are_one() -> None:
    """Two of 40 images broke, five questions each: what counts is two, and the order of the samples is nothing."""
    image = np.repeat(np.arange(40), 5)
    good, bad = scores(np.ones(200)), scores(np.where(image < 2, 0.0, 1.0))
    found = paired_drop(CIDER, good, bad, images(image.tolist()))
    assert found == pytest.approx(paired_drop(CIDER, 5 * good[::5], 5 * bad[::5]))
    order = np.random.default_rng(0).permutation(200)
    assert paired_drop(CIDER, good[order], bad[order], images(image[order].tolist())) == pytest.approx(found)
    assert found.high > 1.5 * paired_drop(CIDER, good, bad, images(range(200))).high


def test_images_that_a_metric_does_not_ask_about_do_not_count() -> None:
    """Ten of 400 images have a question for a number: of ten the rule of three is spoken."""
    kinds = ["number" if i < 10 else "other" for i in range(400)]
    array = vqa_statistics(["2"] * 400, [["2"] * 10] * 400, kinds)["vqa"]
    found = {n: paired_drop(METRICS[n], array, array) for n in METRICS if n.startswith("vqa")}
    assert found["vqa_accuracy_number"].high == pytest.approx(THREE / 10)
    assert found["vqa_accuracy_other"].high == pytest.approx(THREE / 390)
    assert all(math.isnan(x) for x in found["vqa_accuracy_yes_no"])
    assert all(math.isnan(x) for x in kept(METRICS["vqa_accuracy_yes_no"], array, array))


def test_a_silent_model_keeps_nothing_and_no_more_than_may_be_unseen(base: FloatArray) -> None:
    silent = scores(np.zeros(400))
    assert kept(CIDER, base, silent) == pytest.approx((0, 0, THREE / 400))
    assert paired_drop(CIDER, base, silent).drop == CIDER.value(base)
    assert math.isnan(kept(CIDER, silent, base).kept)  # of nothing nothing can be kept
    assert kept(CIDER, base[:3], base[:3]).low == 0  # never less than nothing


def test_a_likelihood_rises_and_a_cell_beside_a_cell_has_the_models_own_scale(base: FloatArray) -> None:
    low, high = (np.column_stack([np.full(50, v), np.full(50, 2.0)]) for v in (2.0, 3.0))
    assert paired_drop(NLL, low, high).drop == 0.5
    assert kept(NLL, low, high).kept == 1.5
    collapsed = scores(np.full(400, 0.01))
    alone = paired_drop(CIDER, collapsed, collapsed)
    assert paired_drop(CIDER, collapsed, collapsed, whole=1.2).high == pytest.approx(120 * alone.high)


@pytest.mark.parametrize("changed", [0, 5, 300])
def test_what_is_no_function_of_sums_has_no_interval(base: FloatArray, changed: int) -> None:
    alone, cell = replace(CIDER, interval=False), broken(base, changed)
    drop, left = paired_drop(alone, base, cell), kept(alone, base, cell)
    assert (drop.drop, left.kept) == (paired_drop(CIDER, base, cell).drop, kept(CIDER, base, cell).kept)
    assert all(math.isnan(end) for end in (*drop[1:], *left[1:]))


def test_what_may_go_unseen() -> None:
    assert unseen(100) == pytest.approx(0.0369, abs=1e-4)
    assert (unseen(1), unseen(0)) == (1, 1)
    assert [fewest_images(m) for m in (0.02, 0.05)] == [185, 74]
    assert unseen(185) <= 0.02 < unseen(184)


def test_other_samples_are_refused(base: FloatArray) -> None:
    with pytest.raises(ValueError, match="400 samples, a cell of 399"):
        paired_drop(CIDER, base, base[:-1])
    with pytest.raises(ValueError, match="0 samples"):
        images([])


# ---- by simulation


def captions() -> list[Case]:
    """Populations of 1000 images with scores as CIDEr's are, some captions said anew and worse; METEOR; two captions an image."""
    rng, found = np.random.default_rng(3), []
    level = np.clip(rng.normal(1.2, 0.8, 1000), 0, None)
    for changed, loss, together in ((0.05, 0.3, 1), (0.3, 0.1, 2), (0.8, 0.15, 1)):
        anew = 0.6 * level + 0.4 * rng.permutation(level) + rng.normal(0, 0.3, 1000) - 1.2 * loss
        cell = np.where(rng.random(1000) < changed, np.clip(anew, 0, None), level)
        found.append(drawn_from("CIDEr", CIDER, scores(level), scores(cell), together))
    rows = statistic("meteor", 1000)
    worse, hit = rows.copy(), rng.random(1000) < 0.1
    worse[hit, 4:6] = np.floor(rows[hit, 4:6] * rng.uniform(0, 1, (hit.sum(), 1)))
    return [*found, drawn_from("METEOR", METRICS["meteor"], rows, worse)]


@pytest.mark.thorough
@pytest.mark.parametrize("cases", [vqa_cases, captions], ids=["vqa", "captions"])
def test_the_truth_is_rarely_on_the_bad_side(cases: Callable[[], list[Case]]) -> None:
    """At most 3.5 % plus two standard errors of these rounds, where percentile intervals err in up to half of them.
    scripts/bench_intervals.py counts 2000 rounds a case, of its cases and of the published study's."""
    rounds = 200
    limit = 0.035 + 2 * math.sqrt(0.035 * 0.965 / rounds)
    for case in cases():
        for m in (50, 100, 200, 500):
            found = errors(case, m, rounds)
            assert found.drop[0] <= limit, (case.name, m, found)
            assert found.kept[0] <= limit, (case.name, m, found)
