"""Whether a cell keeps a share of its baseline: against a second implementation, and how often its answers are wrong."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.keeps import NO, NOT_KNOWN, YES, OnImages, keeps, kept_of_row, kept_on
from blip2sweep.metrics import METRICS, Kept
from tests.synthetic import build, whole

N = 400


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Draws]:
    """Cells that lose nothing, 1 %, 3 % and 30 % of every image, with the noise of single images."""
    folder = tmp_path_factory.mktemp("keeps")
    lost = {8: 0.0, 4: 0.01, 3: 0.03, 2: 0.3}
    build(folder, [whole(["vit"], b) for b in lost], n=N, values=lambda e: lost[int(e[0]["bits"])], jitter=0.08)
    cells = comparable(pd.read_parquet(folder / "table.parquet"))
    draws = load_draws(folder, cells, "cider")
    assert draws is not None
    return cells, draws


def found(cell: OnImages | None) -> OnImages:
    assert cell is not None
    return cell


def dumb(base: list[float], cell: list[float], share: float) -> str:
    """The same answer, image by image: Student's interval of the ratio, by Hall's transformation of its influences."""
    m, whole_base, whole_cell = len(base), sum(base) / len(base), sum(cell) / len(cell)
    ratio = whole_cell / whole_base
    influence = [(c - ratio * b) / whole_base for b, c in zip(base, cell, strict=True)]
    mean = sum(influence) / m
    spread = math.sqrt(sum((u - mean) ** 2 for u in influence) / (m - 1))
    skew = sum((u - mean) ** 3 for u in influence) / m / spread**3
    ends = []
    for t in (stats.t.ppf(0.975, m - 1), stats.t.ppf(0.025, m - 1)):
        y = t / math.sqrt(m) - skew / (6 * m)
        ends.append(ratio - spread * float(np.cbrt(1 + skew * y) - 1) * 3 / skew)
    if ends[1] < share:
        return NO
    return YES if ends[0] >= share and -math.log(0.025) / m <= 1 - share else NOT_KNOWN


@pytest.mark.parametrize("held_out", [False, True])
def test_the_answer_is_that_of_a_second_implementation(planted: tuple[pd.DataFrame, Draws], held_out: bool) -> None:
    cells, draws = planted
    chosen = [not first or not held_out for first in draws.half(True)]
    base = [x for x, keep in zip(draws.arrays[draws.baseline][:, 0].tolist(), chosen, strict=True) if keep]
    answers = set()
    for row in cells[cells["part"] != "none"].to_dict("records"):
        own = [x for x, keep in zip(draws.arrays[row["key"]][:, 0].tolist(), chosen, strict=True) if keep]
        kept = found(kept_on(str(row["key"]), draws, held_out))
        assert (kept.images, kept.held_out) == (len(own), held_out)
        for share in np.arange(0.60, 1.05, 0.005).tolist():
            assert keeps(kept.kept, share, kept.images) == dumb(base, own, share), (row["recipe"], share)
            answers.add(keeps(kept.kept, share, kept.images))
    assert answers == {YES, NO, NOT_KNOWN}


def test_answers_are_rarely_wrong() -> None:
    """Images drawn anew from a population of which exactly 99 % is kept: yes and no are each said in some 2.5 %."""
    metric, rng, rounds, m = METRICS["cider"], np.random.default_rng(7), 400, 400
    answers = Counter[str]()
    for _ in range(rounds):
        base = rng.gamma(4.0, 0.3, m)
        cell = base * (0.99 + 0.15 * rng.standard_normal(m))
        arrays = {k: np.column_stack([x, np.ones(m)]) for k, x in (("b", base), ("c", cell))}
        answers[keeps(found(kept_on("c", Draws(metric, list(range(m)), arrays, "b", {}), False)).kept, 0.99, m)] += 1
    assert answers[NOT_KNOWN] > 0.9 * rounds
    assert 0.005 < answers[YES] / rounds < 0.05
    assert 0.005 < answers[NO] / rounds < 0.05


def test_few_images_cannot_vouch_for_a_percent() -> None:
    """A cell that changed nothing: what was not drawn may have broken, in up to 3.69/m of the images."""
    metric = METRICS["cider"]
    for m, answer in ((100, NOT_KNOWN), (368, NOT_KNOWN), (370, YES)):
        base = np.column_stack([np.linspace(0.5, 1.5, m), np.ones(m)])
        draws = Draws(metric, list(range(m)), {"b": base, "c": base.copy()}, "b", {})
        assert keeps(found(kept_on("c", draws, False)).kept, 0.99, m) == answer


def test_without_an_interval_nothing_is_known(planted: tuple[pd.DataFrame, Draws]) -> None:
    assert keeps(Kept(1.2, math.nan, math.nan), 0.99, 1000) == NOT_KNOWN
    assert keeps(Kept(1.0, 0.999, 1.001), 0.99, 368) == NOT_KNOWN  # however narrow
    assert keeps(Kept(1.0, 0.999, 1.001), 0.99, 369) == YES
    assert keeps(Kept(1.0, 1.0, 1.0), 1.0, 10**9) == NOT_KNOWN
    assert kept_on("no such key", planted[1], True) is None
    assert kept_on("any", None, True) is None


def test_a_row_whose_outputs_are_gone_is_judged_by_its_drop(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    for row in cells[cells["part"] != "none"].to_dict("records"):
        kept, exact = kept_of_row(row, "cider"), found(kept_on(str(row["key"]), draws, False)).kept
        assert kept.kept == pytest.approx(exact.kept)
        assert kept.low == pytest.approx(1 - row["drop_cider_high"] / row["baseline_cider"])
        assert (kept.low, kept.high) == pytest.approx((exact.low, exact.high), abs=0.02)
        assert math.isnan(kept_of_row({**row, "drop_cider_low": None}, "cider").low)
    assert math.isnan(kept_of_row({"baseline_cider": 0.0}, "cider").kept)


def test_questions_of_one_image_are_one_witness() -> None:
    """Three copies of each question say no more than one."""
    metric, rng = METRICS["cider"], np.random.default_rng(1)
    base = rng.gamma(4.0, 0.3, 120)
    cell = base * (0.99 + 0.15 * rng.standard_normal(120))
    once, thrice = (
        Draws(
            metric, [i for i in range(120) for _ in range(n)],
            {k: np.repeat(np.column_stack([x, np.ones(120)]), n, axis=0) for k, x in (("b", base), ("c", cell))}, "b", {},
        )
        for n in (1, 3)
    )  # fmt: skip
    assert found(kept_on("c", once, False)).kept == pytest.approx(found(kept_on("c", thrice, False)).kept)
