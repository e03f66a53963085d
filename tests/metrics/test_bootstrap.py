"""The bootstrap: exact, reproducible, clustered, and as wide as it should be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blip2sweep.metrics import (
    METRICS,
    CaptionScorer,
    Weights,
    drop_samples,
    health_statistics,
    interval,
    nll_statistics,
    paired_drop,
    resample,
    same_as_baseline,
    weights,
)
from blip2sweep.metrics.statistics import FloatArray
from tests.metrics.conftest import Pycocoevalcap

ACCURACY = METRICS["rouge_l"]  # any plain mean


def _mean(values: FloatArray) -> FloatArray:
    return np.column_stack([values, np.ones_like(values)])


def test_rows_sum_to_the_number_of_images() -> None:
    drawn = weights([1, 1, 2, 3, 3, 3], B=500)
    assert (drawn.counts.sum(axis=1) == 3).all()
    assert drawn.dense().shape == (500, 6)
    assert (drawn.dense()[:, 0] == drawn.dense()[:, 1]).all()
    assert drawn.counts.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)


def test_the_draw_is_reproducible_and_belongs_to_the_images() -> None:
    ids = [f"image {number}" for number in range(40)]
    first, again, other = weights(ids, B=50), _fresh(ids), weights(ids, B=50, seed=1)
    assert weights(ids, B=50) is first
    np.testing.assert_array_equal(first.counts, again.counts)
    assert (first.counts != other.counts).any()
    order = np.random.default_rng(0).permutation(40)
    shuffled = weights([ids[index] for index in order], B=50)
    np.testing.assert_array_equal(shuffled.dense(), first.dense()[:, order])


def _fresh(ids: list[str]) -> Weights:
    from blip2sweep.metrics.bootstrap import _weights

    return _weights.__wrapped__(tuple(ids), 50, 0)


@pytest.mark.thorough
@pytest.mark.xdist_group("java")
def test_equals_recomputing_on_resampled_lists(pycocoevalcap: Pycocoevalcap) -> None:
    references = [
        ["a dog runs on the red table", "dog"],
        ["two cats"],
        ["a man sits under the table"],
        ["red dog"],
    ]
    candidates = ["a dog runs on a table", "two cats sit", "a man", "red dog"]
    statistics = CaptionScorer(references).statistics(candidates)
    drawn = weights([1, 2, 2, 3], B=12)
    values = {
        name: resample(METRICS[name], statistics[METRICS[name].statistic], drawn) for name in ("bleu_4", "meteor")
    }
    for row, counts in enumerate(drawn.dense()):
        lists = [np.repeat(np.array(side, dtype=object), counts).tolist() for side in (references, candidates)]
        assert values["bleu_4"][row] == pytest.approx(pycocoevalcap.score("bleu", *lists)[0][3], rel=1e-9)
        assert values["meteor"][row] == pytest.approx(pycocoevalcap.score("meteor", *lists)[0], abs=1e-12)


def test_a_drop_is_positive_when_worse() -> None:
    drawn = weights(range(50), B=200)
    good, bad = _mean(np.full(50, 0.8)), _mean(np.full(50, 0.5))
    assert paired_drop(ACCURACY, good, bad, drawn) == pytest.approx((0.3, 0.3, 0.3))
    low, high = (nll_statistics([value] * 50, [2] * 50)["nll"] for value in (2.0, 3.0))
    assert paired_drop(METRICS["nll"], low, high, drawn) == pytest.approx((0.5, 0.5, 0.5))


def test_a_drop_is_paired() -> None:
    generator = np.random.default_rng(0)
    level = generator.normal(size=300)
    base, cell = _mean(level), _mean(level - 0.1 + 0.01 * generator.normal(size=300))
    drop, low, high = paired_drop(ACCURACY, base, cell, weights(range(300)))
    assert low < drop < high
    assert high - low < 0.005  # the level itself is uncertain by 0.2
    assert len(drop_samples(ACCURACY, base, cell, weights(range(300)))) == 2000


def _coverage(drawn: Weights, images: int, questions: int, trials: int) -> float:
    """How often the interval of a drop holds the true drop, 0.1, when the questions of an image go wrong together."""
    generator, hits = np.random.default_rng(7), 0
    for _ in range(trials):
        level = np.repeat(generator.normal(size=images), questions)
        damage = np.repeat(generator.exponential(0.1, size=images), questions)
        noise = 0.05 * generator.normal(size=images * questions)
        _, low, high = paired_drop(ACCURACY, _mean(level), _mean(level - damage + noise), drawn)
        hits += low <= 0.1 <= high
    return hits / trials


def test_coverage_of_paired_drops_clustered_by_image() -> None:
    images, questions = 250, 4
    ids = np.repeat(np.arange(images), questions).tolist()
    assert 0.93 <= _coverage(weights(ids, B=1000), images, questions, 1500) <= 0.97
    # The same with questions drawn singly is far too sure of itself: clustering is not decoration.
    assert _coverage(weights(range(images * questions), B=1000), images, questions, 300) < 0.85


def test_nan_where_a_resample_has_nothing_to_score() -> None:
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert all(math.isnan(end) for end in interval(np.array([np.nan])))


def test_other_samples_than_the_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="statistics of 3 samples, weights for 2"):
        resample(ACCURACY, _mean(np.ones(3)), weights([1, 2], B=5))
    with pytest.raises(ValueError, match="0 samples"):
        weights([])


def test_output_health() -> None:
    array = health_statistics(["a dog", "  ", "", "one two three four"])["health"]
    assert METRICS["empty_rate"].value(array) == 0.5
    assert METRICS["mean_length"].value(array) == 1.5
    assert same_as_baseline(["a", "b", ""], ["a", "c", ""]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="1 outputs but 2"):
        same_as_baseline(["a"], ["a", "b"])


def test_likelihood_is_per_token() -> None:
    array = nll_statistics([2.0, 6.0], [1, 3])["nll"]
    assert METRICS["nll"].value(array) == 2
    with pytest.raises(ValueError, match="nll_sum has 1"):
        nll_statistics([1.0], [1, 2])
