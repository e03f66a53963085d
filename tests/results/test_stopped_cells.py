"""What is measured of a cell that stopped: on its own samples, whatever their order, and never by halves of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest

from blip2sweep.importing.rows import Recipes, result
from blip2sweep.metrics import METRICS, images
from blip2sweep.metrics.prefix import carried, prefix_drop, prefix_kept
from blip2sweep.metrics.stopping import ratio
from blip2sweep.results.drop_columns import columns
from blip2sweep.results.drops import Baseline, measure
from blip2sweep.results.lines import parse_old
from blip2sweep.results.predictions import stem, write_predictions, write_statistics
from blip2sweep.results.scored import Scored
from blip2sweep.tasks.predictions import Predictions
from tests.synthetic import source, whole

VQA, NLL, EMPTY = (METRICS[name] for name in ("vqa_accuracy", "nll", "empty_rate"))
IMAGES, EACH = 120, 3
N = IMAGES * EACH
FIRST = [q for q in range(N) if (q // EACH) % 2 == 0]  # all questions of every other image


def scored(folder: Path, key: str, right: float, rows: Sequence[int]) -> Scored:
    """A cell that answers a share of the questions as it should, with some of its samples."""
    rng = np.random.default_rng(len(key))
    answers = (rng.random(N) < right)[list(rows)].astype(float)
    said = Predictions(list(rows), [r // EACH for r in rows], [f"{a:g}" for a in answers], [1] * len(rows), [None] * len(rows), [0] * len(rows))  # fmt: skip
    name = stem(key, said.hash)
    write_predictions(folder, name, said)
    ones = np.ones(len(rows))
    statistics = {
        "vqa": np.column_stack([answers, ones] * 5),
        "nll": np.column_stack([2.0 - answers, ones]),
        "health": np.column_stack([answers * 0 + (np.array(rows) % 50 == 0), ones, ones]),
    }
    write_statistics(folder, name, statistics)
    return Scored(folder, name)


def baseline(cell: Scored) -> Baseline:
    made = Baseline.__new__(Baseline)
    made.cell, made.noise, made.current, made._cut = cell, {}, True, {}
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return baseline(scored(tmp_path_factory.mktemp("base"), "b" * 12, 0.8, range(N)))


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return scored(tmp_path_factory.mktemp("cell"), "a" * 11, 0.5, FIRST)


def test_all_questions_of_an_image_count_together(base: Baseline, cell: Scored) -> None:
    found = columns(measure(cell, base))
    own, same = cell.statistics["vqa"], base.cell.statistics["vqa"][FIRST]
    expected = ratio(VQA, own, same, images([q // EACH for q in FIRST]))
    whole = base.cell.value(VQA)
    assert found["images"] == IMAGES / 2
    assert found["images_of"] == IMAGES
    assert found["scored_samples"] == len(FIRST)
    assert found["vqa_accuracy"] == pytest.approx(expected.value * whole)
    assert found["drop_vqa_accuracy_low"] == pytest.approx((1 - expected.high) * whole)
    assert found["retained_vqa_accuracy_high"] == pytest.approx(100 * expected.high)
    assert found["baseline_vqa_accuracy"] == pytest.approx(whole)


def test_the_order_of_its_samples_does_not_matter(base: Baseline, cell: Scored, tmp_path: Path) -> None:
    """Prefixes may be kept in the random order or in the file's."""
    mixed = [FIRST[i] for i in np.random.default_rng(3).permutation(len(FIRST))]
    other = measure(scored(tmp_path, "a" * 11, 0.5, mixed), base)
    assert columns(other) == pytest.approx(columns(measure(cell, base)))


@pytest.mark.parametrize("rows", [FIRST[:-1], [*FIRST, 10**6], [*FIRST, FIRST[0]]])
def test_other_samples_have_no_drop(base: Baseline, tmp_path: Path, rows: list[int]) -> None:
    """A part of an image's questions, a sample that the baseline has not, and one that is there twice."""
    own = scored(tmp_path, "c" * 12, 0.5, [r % N for r in rows])
    if rows[-1] >= N:
        own.predictions = Predictions(**{**own.predictions.columns, "id": rows})  # type: ignore[arg-type]
    found = measure(own, base)
    assert "images" not in found
    assert len(found["metrics"]["vqa_accuracy"]) == 1


def test_a_control_has_to_be_whole(base: Baseline, cell: Scored, tmp_path: Path) -> None:
    control = baseline(scored(tmp_path, "d" * 10, 0.7, range(N)))
    found = columns(measure(cell, base, control))
    own, same = cell.value(VQA), control.cell.statistics["vqa"][FIRST][:, 0].mean()
    assert found["control_vqa_accuracy"] == control.cell.value(VQA)
    assert found["drop_control_vqa_accuracy"] == pytest.approx((1 - own / same) * control.cell.value(VQA))
    half = baseline(scored(tmp_path, "d" * 9, 0.7, FIRST))
    assert "controlled" not in measure(cell, base, half)
    assert "controlled" not in measure(half.cell, base, half)


@pytest.mark.parametrize("metric", [VQA, NLL, EMPTY])
def test_a_whole_prefix_is_the_whole_run(base: Baseline, metric: object) -> None:
    assert isinstance(metric, type(VQA))
    array = base.cell.by_image(metric)
    value = metric.value(array)
    assert carried(metric, value, value, value) == pytest.approx(value)
    found = prefix_drop(metric, array, array, None, value)
    assert found.drop == pytest.approx(0, abs=1e-12)
    assert found.low < 0 < found.high


def test_what_is_no_share_of_the_baseline_is_shifted() -> None:
    """A rate of empty outputs may be 0 in the baseline, and is no more than 1."""
    assert carried(EMPTY, 0.5, 0.0, 0.0) == 0.5
    assert carried(EMPTY, 1.0, 0.0, 0.1) == 1.0
    assert carried(EMPTY, 0.0, 0.2, 0.1) == 0.0
    assert carried(VQA, 0.4, 0.8, 0.7) == pytest.approx(0.35)
    assert carried(NLL, 3.0, 2.0, 2.2) == pytest.approx(3.3)
    assert carried(VQA, np.array([0.4, 0.0]), np.array([0.8, 0.0]), np.array([0.7, 0.7])) == pytest.approx([0.35, 0.7])


def test_a_likelihood_that_rose_is_worse_with_its_interval_on_that_side(base: Baseline, cell: Scored) -> None:
    found = columns(measure(cell, base))
    assert 0 < found["drop_nll_low"] < found["drop_nll"] < found["drop_nll_high"]  # type: ignore[operator]
    assert found["retained_nll_low"] > 100  # type: ignore[operator]
    kept = prefix_kept(
        NLL, base.cell.statistics["nll"][FIRST], cell.statistics["nll"], images([q // EACH for q in FIRST])
    )
    assert found["nll"] == pytest.approx(kept.kept * base.cell.value(NLL))


@pytest.mark.parametrize(
    ("told", "valid"),
    [
        ({"images": 64, "of": 240, "reason": "below 50 %", "stop": "known", "margin": 0.05}, True),
        (None, True),
        ({"images": "64", "of": 240, "reason": "below 50 %", "stop": "known", "margin": 0.05}, False),
        ({"images": 64, "of": 240, "reason": 50, "stop": "known", "margin": 0.05}, False),
        ([64, 240], False),
    ],
)
def test_a_line_without_a_checksum_says_it_in_its_types_or_not_at_all(told: object, valid: bool) -> None:
    """Of another type it would break the table."""
    origin = source(n=240)
    line = {
        **result(origin, Recipes(origin.anatomy)(whole(["vit"], 2)), {}, predictions="a" * 12),
        "pid": 1,
        "stopped": told,
    }
    assert (parse_old(orjson.dumps(line)) is not None) == valid
