"""What is chosen, on which images, and what is said where the limit is not kept; cells that are no numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from blip2sweep.analysis import difference, knapsack, recommend, within_limit
from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.choice import best_of, instead_of
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.frontier import frontier
from blip2sweep.analysis.holdout import Half, holdout
from blip2sweep.analysis.predict import predictable
from blip2sweep.errors import UserError
from blip2sweep.metrics import weights
from blip2sweep.models.shipped import model_anatomy
from tests.synthetic import build, whole

pytestmark = pytest.mark.thorough

TINY = model_anatomy("tiny")
PARTS = (["vit"], ["llm"], ["qformer"], ["vit", "qformer", "llm"])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Draws]:
    folder = tmp_path_factory.mktemp("recommend")
    build(folder, [whole(p, b, m) for p in PARTS for b in (8, 4, 3, 2) for m in ("rtn", "gptq")], n=120)
    return opened(folder)


def opened(folder: Path, metric: str = "cider") -> tuple[pd.DataFrame, Draws]:
    cells = comparable(pd.read_parquet(folder / "table.parquet"))
    draws = load_draws(folder, cells, metric)
    assert draws is not None
    return cells, draws


def on_halves(planted: tuple[pd.DataFrame, Draws], method: str, first: float, second: float) -> Draws:
    """The draws with the scores of one method's cells replaced: shares of the baseline on either half of the images."""
    cells, draws = planted
    base, inside = draws.arrays[draws.baseline], draws.half(True)
    changed = base.copy()
    changed[:, 0] *= np.where(inside, first, second)
    own = set(cells.loc[cells["method"] == method, "key"])
    arrays = {k: changed if k in own else a for k, a in draws.arrays.items()}
    return Draws(draws.metric, draws.image_ids, arrays, draws.baseline, draws.resampled)


def test_the_setting_is_chosen_on_the_first_half_alone(planted: tuple[pd.DataFrame, Draws]) -> None:
    """GPTQ loses nearly all on the half that chooses and nothing on the half that is reported."""
    draws = on_halves(planted, "gptq", first=0.05, second=1.0)
    chosen = recommend.recommend(planted[0], "cider", draws, TINY, max_bytes=900_000)
    assert chosen.setting == "rtn/channel"
    assert chosen.chosen_drop < 0.5
    lucky = on_halves(planted, "gptq", first=1.0, second=0.05)
    chosen = recommend.recommend(planted[0], "cider", lucky, TINY, max_bytes=900_000)
    assert chosen.setting == "gptq/channel"
    assert chosen.drop / chosen.baseline > 0.5  # and the other half says what it is worth


def test_the_frontier_is_not_chosen_by_what_it_shows(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    one = frontier(cells, "cider", draws)
    rng, second = np.random.default_rng(0), draws.half(False)
    arrays = {k: a.copy() for k, a in draws.arrays.items()}
    for a in arrays.values():
        a[second, 0] = rng.permutation(a[second, 0]) * rng.random()
    other = frontier(cells, "cider", Draws(draws.metric, draws.image_ids, arrays, draws.baseline, draws.resampled))
    assert one["key"].tolist() == other["key"].tolist()
    assert not np.allclose(one["value"], other["value"])


def test_the_frontier_against_time_is_of_packed_cells(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells = planted[0]
    with pytest.raises(UserError, match=r"no cell has seconds_batch_1; right: cells of quant.packed=true"):
        frontier(cells, "cider", planted[1], "latency")
    timed = cells.assign(seconds_batch_1=np.where(cells["width"] == 4, cells["bits_per_weight"] / 100, np.nan))
    found = frontier(timed, "cider", planted[1], "latency")
    assert set(found["width"]) == {4}
    assert found.groupby("setting")["seconds_batch_1"].apply(lambda s: s.is_monotonic_increasing).all()
    with pytest.raises(UserError, match="size bytes is unknown"):
        frontier(cells, "cider", planted[1], "bytes")


# ---- limits that are not kept


def test_a_limit_that_is_still_exceeded_is_said(
    planted: tuple[pd.DataFrame, Draws], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a size that no cell has which keeps it: the baseline keeps any."""
    monkeypatch.setattr(Half, "lost", lambda half, problem, widths: 0.3)
    cells = planted[0][~planted[0]["parts"].str.contains("+", regex=False)]
    chosen = recommend.recommend(cells, "cider", planted[1], TINY, max_bytes=1_100_000, max_drop=0.02)
    assert not chosen.within
    assert chosen.chosen_drop == 0.3


def test_a_choice_is_widened_until_it_keeps_the_limit_or_the_size_ends_it(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    problem = next(p for p in knapsack.problems(cells, TINY) if p.setting == "rtn/channel")
    half = holdout(problem, "cider", draws)[0]
    narrow = [min(b for b in options if b) for options in problem.options]
    assert half.lost(problem, narrow) > 0.5
    widened = within_limit._widened(problem, half, narrow, None, 0.1, half.worst)
    assert half.lost(problem, widened) < half.worst(problem, widened) <= 0.1
    assert problem.bytes(widened) < problem.bytes([0] * len(narrow))
    limit = (problem.bytes(narrow) + problem.bytes(widened)) // 2
    stopped = within_limit._widened(problem, half, narrow, limit, 0.1, half.worst)
    assert problem.bytes(narrow) < problem.bytes(stopped) <= limit
    assert half.worst(problem, stopped) > 0.1


def test_a_size_that_allows_nothing_stricter_keeps_the_last_choice(
    planted: tuple[pd.DataFrame, Draws], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without cells of all parts, which would keep it."""
    cells, draws = planted[0][~planted[0]["parts"].str.contains("+", regex=False)], planted[1]
    loose = recommend.recommend(cells, "cider", draws, TINY, max_drop=0.2)
    assert loose.key is None
    monkeypatch.setattr(Half, "lost", lambda half, problem, widths: 0.5)
    chosen = recommend.recommend(cells, "cider", draws, TINY, max_bytes=loose.model_bytes, max_drop=0.2)
    assert chosen.model_bytes <= loose.model_bytes
    assert not chosen.within


# ---- what was measured against what is predicted


def test_a_measured_cell_that_is_smaller_and_better_is_recommended(planted: tuple[pd.DataFrame, Draws]) -> None:
    """Of all cells of RTN only that of all parts at 4 bits kept anything, so the fit expects nothing of it."""
    cells, draws = on_rtn_alone(planted)
    lucky = cells.loc[(cells["parts"] == "vit+qformer+llm") & (cells["width"] == 4), "key"].iloc[0]
    own = (draws.half(True), draws.half(False))
    arrays = {k: a.copy() for k, a in draws.arrays.items()}
    for key, a in arrays.items():
        if key not in (lucky, draws.baseline):
            a[:, 0] *= 0.3
    arrays[lucky] = draws.arrays[draws.baseline] * np.where(own[0], 0.97, 0.96)[:, None] ** [1, 0]
    changed = Draws(draws.metric, draws.image_ids, arrays, draws.baseline, draws.resampled)
    for limits in ({"max_drop": 0.1}, {"max_bytes": 1_000_000}):
        chosen = recommend.recommend(cells, "cider", changed, TINY, **limits)
        assert chosen.key == lucky
        assert chosen.chosen_drop == pytest.approx(0.03, abs=1e-3)  # of the half that chooses
        assert chosen.drop / chosen.baseline == pytest.approx(0.04, abs=1e-3)  # of the other
        assert chosen.instead is None or chosen.instead.key is None


def test_a_cell_that_keeps_the_limit_on_both_halves_goes_before_a_smaller_one(
    planted: tuple[pd.DataFrame, Draws],
) -> None:
    ran = recommend.recommend(planted[0], "cider", planted[1], TINY, max_drop=0.1)
    one = replace(ran, baseline=1.0, within=True, chosen_drop=0.0, judged=0.0)
    lucky, kept = replace(one, key="a", model_bytes=10, drop=0.04), replace(one, key="b", model_bytes=20, drop=0.01)
    best = best_of([lucky, kept, replace(kept, key="c", model_bytes=30)], 0.02)
    assert (best.key, best.passed) == ("b", 1)
    assert best_of([lucky], 0.02).key == "a"
    assert best_of([lucky, kept], None).key == "a"
    assert best_of([lucky, replace(kept, within=False)], 0.02).key == "a"


def test_a_prediction_that_reads_worse_on_the_other_half_is_not_named(planted: tuple[pd.DataFrame, Draws]) -> None:
    ran = recommend.recommend(planted[0], "cider", planted[1], TINY, max_drop=0.1)
    best = replace(ran, key="a", baseline=1.0, chosen_drop=0.01, drop=0.01, model_bytes=20)
    guess = replace(best, key=None, chosen_drop=0.0, drop=0.03, model_bytes=10, low=0.9, high=1.0)
    good = replace(guess, drop=0.0)
    for limit in (None, 0.02):
        assert instead_of(best, [best], [guess], limit) is None
        assert instead_of(best, [best], [good], limit) == good


def on_rtn_alone(planted: tuple[pd.DataFrame, Draws]) -> tuple[pd.DataFrame, Draws]:
    cells = planted[0][planted[0]["method"] != "gptq"]
    return cells, planted[1].only(list(cells.loc[cells["part"] != "none", "key"]))


def test_cells_of_other_sweeps_compete_and_are_not_fitted(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells = planted[0][planted[0]["method"] != "gptq"]
    alone = recommend.recommend(cells, "cider", planted[1], TINY, max_bytes=700_000)
    both = recommend.recommend(cells, "cider", planted[1], TINY, max_bytes=700_000, measured=planted[0])
    assert alone.setting == "rtn/channel"
    assert (both.setting, both.key is None) == ("gptq/channel", False)  # half the noise, planted
    assert both.judged < alone.judged


def test_a_prediction_is_judged_by_the_bad_end_of_its_interval(planted: tuple[pd.DataFrame, Draws]) -> None:
    """Parts alone were run: a recipe of all of them is predicted, with an interval about what is expected."""
    cells = planted[0][~planted[0]["parts"].str.contains("+", regex=False)]
    chosen = recommend.recommend(cells, "cider", planted[1], TINY, max_bytes=1_000_000)
    assert chosen.key is None
    assert chosen.judged > chosen.chosen_drop
    assert 0 <= chosen.low < chosen.value < chosen.high
    assert chosen.instead is None  # no cell is as small
    loose = recommend.recommend(cells, "cider", planted[1], TINY, max_drop=0.2)
    assert loose.chosen_drop < loose.judged <= 0.2


def test_what_was_run_is_not_predicted(planted: tuple[pd.DataFrame, Draws]) -> None:
    """A cell that was a disappointment is no better for being predicted well; one calibrated otherwise is another."""
    ran = recommend.recommend(planted[0], "cider", planted[1], TINY, max_drop=0.1)
    guess = replace(ran, key=None, setting="gptq/channel")
    for setting, same in (("gptq/channel", True), ("gptq/channel on coco, 128 samples", True), ("rtn/channel", False)):
        assert recommend._was_run(guess, [replace(ran, setting=setting)]) == same
    calibrated = replace(guess, setting="gptq/channel 32 samples")
    assert not recommend._was_run(calibrated, [replace(ran, setting="gptq/channel on coco, 128 samples")])
    assert not recommend._was_run(replace(guess, entries=guess.entries[:1]), [replace(ran, setting="gptq/channel")])


# ---- what is no number


def test_a_cell_without_a_number_is_left_out_of_the_fit(tmp_path: Path) -> None:
    """The cell is one of the setting that is fitted."""
    recipes = [whole(p, b) for p in PARTS for b in (8, 4, 3, 2)]
    build(tmp_path, recipes, nan=lambda listed: listed == recipes[5], n=80)
    cells, draws = opened(tmp_path)
    assert cells["cider"].isna().sum() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # resamples of nothing
        chosen = recommend.recommend(cells, "cider", draws, TINY, max_drop=0.05)
    assert chosen.entries
    assert len(predictable(cells, "cider")) == len(cells) - 1


def test_a_baseline_of_zero_or_no_number_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "zero", [whole(p, b) for p in PARTS for b in (8, 4)], scale=0.0, n=40)
    cells, draws = opened(tmp_path / "zero")
    with pytest.raises(UserError, match="the baseline's cider is 0, so nothing can be predicted"):
        recommend.recommend(cells, "cider", draws, TINY, max_drop=0.05)
    cells.loc[cells["part"] == "none", "cider"] = np.nan
    with pytest.raises(UserError, match="the baseline's cider is nan"):
        predictable(cells, "cider")


def test_the_likelihood_is_not_predicted(planted: tuple[pd.DataFrame, Draws]) -> None:
    with pytest.raises(UserError, match="nll is no share of the baseline"):
        recommend.recommend(planted[0], "nll", None, TINY, max_drop=0.05)


def test_likelihoods_of_equal_outputs_are_their_cells_own(tmp_path: Path) -> None:
    build(
        tmp_path,
        [whole(["vit"], b) for b in (8, 4, 2)],
        texts=lambda i, kept: [f"the same {k}" for k in range(50)],
        n=50,
    )
    cells, draws = opened(tmp_path, "nll")
    assert cells["predictions"].nunique() == 1
    for row in cells.to_dict("records"):
        assert draws.value(row["key"]) == pytest.approx(row["nll"])
    assert cells["nll"].nunique() == 4


# ---- the difference of two cells


def test_a_difference_against_a_second_implementation(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    keys = cells.loc[cells["width"] == 3, "key"].tolist()[:2]
    found = difference(cells, "cider", draws, *keys)
    base, one, other = (draws.arrays[k][:, 0] for k in (draws.baseline, *keys))
    assert found.value == pytest.approx(float(((base - one) - (base - other)).mean()))
    resampled = []
    for counts in weights(draws.image_ids).counts:
        picked = [i for i, times in enumerate(counts.tolist()) for _ in range(times)]
        resampled.append(sum(other[i] - one[i] for i in picked) / len(picked))
    near = 0.1 * (found.high - found.low)  # many images changed here, so resamples see what there is to see
    assert (found.low, found.high) == pytest.approx(np.percentile(resampled, [2.5, 97.5]).tolist(), abs=near)
    lost = other - one
    m, skew, t = (
        len(lost),
        stats.skew(lost) * ((len(lost) - 1) / len(lost)) ** 1.5,
        stats.t.ppf([0.975, 0.025], len(lost) - 1),
    )
    ends = (np.cbrt(1 + skew * (t / np.sqrt(m) - skew / (6 * m))) - 1) * 3 / skew  # Hall, 1992
    assert [found.low, found.high] == pytest.approx((lost.mean() - lost.std(ddof=1) * ends).tolist())
    swapped = difference(cells, "cider", draws, *keys[::-1])
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-found.value, -found.high, -found.low))
    with pytest.raises(UserError, match="0 cells have a key that begins with 'zz'"):
        difference(cells, "cider", draws, "zz", keys[0])


def test_a_difference_without_outputs_has_no_interval(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells: Any = planted[0]
    found = difference(cells, "cider", None, *cells["key"].iloc[1:3])
    assert np.isnan([found.low, found.high]).all()
