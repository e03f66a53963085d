"""The statistics against hand-computed and simulated truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis import bands, blocks, dropoff, frontier, methods, shapley
from blip2sweep.analysis.cells import comparable, headline, with_recipe_features
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS, weights
from blip2sweep.models.shipped import model_anatomy
from tests.synthetic import WEIGHTS, build, damage, entry, grid, whole

N = 200


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Draws]:
    folder = tmp_path_factory.mktemp("planted")
    build(folder, grid(), n=N)
    cells = comparable(pd.read_parquet(folder / "table.parquet"))
    draws = load_draws(folder, cells, "cider")
    assert draws is not None
    return cells, draws


# ---- intervals and bands


def paired(rng: np.random.Generator, truth: np.ndarray, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Drops of (m,) true sizes as n images see them: estimates (m,), per-image drops (m, n) with shared image effects."""
    shared = rng.exponential(1.0, n) - 1
    single = truth[:, None] + 0.1 * (shared + rng.normal(size=(len(truth), n)))
    return single.mean(axis=1), single


@pytest.mark.thorough
def test_coverage_of_intervals_and_bands_on_simulated_drops() -> None:
    rng, truth = np.random.default_rng(5), np.linspace(0, 0.3, 8)
    counts = weights(range(120), B=1000).counts.astype(float)
    pointwise, together, trials = [], [], 1500
    for _ in range(trials):
        estimates, single = paired(rng, truth)
        draws = single @ counts.T / 120
        low, high = bands.percentile(draws)
        pointwise.append((low <= truth) & (truth <= high))
        low, high = bands.max_t(estimates, draws)
        together.append(((low <= truth) & (truth <= high)).all())
    assert 0.93 <= np.mean(pointwise) <= 0.97
    assert 0.93 <= np.mean(together) <= 0.97
    assert np.mean(np.all(pointwise, axis=1)) < 0.9  # eight intervals at once are too sure of themselves


def test_a_band_of_one_estimate_and_of_none() -> None:
    low, high = bands.max_t(np.array([1.0]), np.random.default_rng(0).normal(1, 0.1, (1, 4000)))
    assert (high - low)[0] == pytest.approx(2 * 1.96 * 0.1, rel=0.05)
    assert bands.max_t(np.array([0.0]), np.zeros((1, 10)))[0].tolist() == [0.0]
    low, high = bands.max_t(np.array([0.0]), np.zeros((1, 10)), images=100, least=np.array([0.037]))
    assert (low[0], high[0]) == (-0.037, 0.037)  # what never moved among 100 images may move on others
    assert len(bands.max_t(np.empty(0), np.empty((0, 10)))[0]) == 0


def test_draws_equal_the_tables_own_intervals(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    for row in cells.iloc[[0, 3, 40]].to_dict("records"):
        ends = [row[f"drop_cider{end}"] for end in ("", "_low", "_high")]
        assert ends == pytest.approx(draws.paired(row["key"]) if row["part"] != "none" else [0, 0, 0], abs=1e-12)
        assert row["images"] == N


def test_halves_are_disjoint_whole_and_the_same_in_any_order(planted: tuple[pd.DataFrame, Draws]) -> None:
    draws = planted[1]
    first, second = draws.half(True), draws.half(False)
    assert (first ^ second).all()
    assert first.sum() == N // 2
    other = Draws(draws.metric, draws.image_ids[::-1], draws.arrays, draws.baseline, {})
    assert (other.half(True)[::-1] == first).all()


def test_a_band_of_few_images_is_students_and_no_narrower_than_what_went_unseen() -> None:
    rng, estimates = np.random.default_rng(0), np.zeros(5)
    draws = np.vstack([rng.normal(0, 0.1, (4, 4000)), np.zeros((1, 4000))])
    plain = bands.max_t(estimates, draws)[1]
    ratio = [bands.max_t(estimates, draws, images=n)[1][0] / plain[0] for n in (50, 100, 500)]
    assert ratio == pytest.approx([1.06, 1.03, 1.01], abs=0.015)
    least = np.array([0.0, 0.0, 0.0, 0.5, 0.05])
    high = bands.max_t(estimates, draws, images=50, least=least)[1]
    assert high[0] == pytest.approx(ratio[0] * plain[0])
    assert high[3] > 0.5 * 1.2  # the pointwise half width, grown as the others are
    assert high[4] > 0.05


# ---- drop-off


def test_drop_off_is_what_was_planted(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    curves = dropoff.dropoff(headline(cells), "cider", draws)
    own = curves[(curves["setting"] == "rtn/channel") & (curves["parts"] == "vit")].set_index("width")
    for bits in (8, 6, 4, 3, 2):
        truth = 100 * (1 - damage(whole(["vit"], bits), WEIGHTS))
        # The noise of single images is the cell's own: so is its interval.
        assert own.loc[bits, "retained"] == pytest.approx(truth, abs=8)
    assert (curves["band_low"] <= curves["drop_low"] + 1e-9).mean() > 0.9
    assert (curves["band_high"] >= curves["drop_high"] - 1e-9).mean() > 0.9


def test_what_is_no_function_of_sums_has_no_band(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    alone = replace(draws, metric=replace(draws.metric, interval=False))
    curves = dropoff.dropoff(headline(cells), "cider", alone)
    assert curves[["band_low", "band_high", "retained_low", "retained_high"]].isna().all(axis=None)
    assert curves["retained"].notna().all()


def test_what_is_left_of_nothing_is_nothing(planted: tuple[pd.DataFrame, Draws]) -> None:
    """The interval is that of the ratio: a drop in shares of a fixed baseline would leave less than nothing."""
    cells, draws = planted
    key = headline(cells).query("part == 'vit'")["key"].iloc[0]
    silent = replace(draws, arrays={**draws.arrays, key: draws.arrays[key] * [0, 1]})
    row = dropoff.dropoff(headline(cells), "cider", silent).set_index("key").loc[key]
    # Of a model that says nothing nothing is kept; what it may say on images that were not drawn is the rule of three's.
    assert (row["retained_low"], row["retained_high"]) == (0, pytest.approx(100 * 3.689 / N, rel=1e-3))
    whole = dropoff.dropoff(headline(cells), "cider", draws).set_index("key")
    strong = headline(cells).query("part == 'all' and width == 2")["key"].iloc[0]
    ends = [whole.loc[strong, f"retained_{end}"] for end in ("low", "high")]
    resampled = 100 * draws.resampled[strong] / draws.resampled[draws.baseline]
    assert ends == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.4)
    assert whole.loc[key, "retained_low"] <= whole.loc[key, "retained"] <= whole.loc[key, "retained_high"]


def curve(widths: dict[int, tuple[float, float]]) -> pd.DataFrame:
    rows = [{"setting": "s", "parts": "vit", "line": "vit:all:all", "width": w, "drop": d, "drop_high": h, "baseline": 1.0}
            for w, (d, h) in widths.items()]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_lowest_safe_width_is_found_in_fixed_sequence() -> None:
    found = dropoff.lowest_safe(curve({8: (0, 0.01), 6: (0, 0.015), 5: (0.01, 0.03), 4: (0, 0.001)})).iloc[0]
    assert found["lowest_safe"] == 6  # 4 bits are not tested once 5 have failed
    assert found["stopped"] == "5 bits: drop up to 3.0 %"
    assert found["not_run"] == ""
    found = dropoff.lowest_safe(curve({8: (0, 0.01), 4: (0, 0.01), 3: (0, np.nan)})).iloc[0]
    assert (found["lowest_safe"], found["not_run"]) == (4, "6, 5")
    assert found["stopped"] == "3 bits: no outputs, so no interval"
    assert np.isnan(dropoff.lowest_safe(curve({8: (0, 0.5)})).astype({"lowest_safe": float})["lowest_safe"].iloc[0])


def test_widths_outside_the_sequence_are_not_tested_and_are_named() -> None:
    found = dropoff.lowest_safe(curve({16: (0, 0.5), 8: (0, 0.01), 7: (0, 0.5), 6: (0, 0.01)})).iloc[0]
    assert (found["lowest_safe"], found["not_tested"], found["not_run"]) == (6, "16, 7", "5, 4, 3, 2")


@pytest.mark.parametrize(("widths", "wanted"), [
    ({8: 0.01, 4: 0.5}, ([6, 5], "between 8 bits, safe, and 4, not shown to be")),
    ({4: 0.5}, ([8, 6, 5], "4 bits are not shown to be safe")),
    ({8: 0.01, 4: 0.01}, ([3], "4 bits are still safe")),
    ({8: 0.5}, None),
    ({8: 0.01, 6: 0.5}, None),
    ({8: 0.01, 6: 0.01, 5: 0.01, 4: 0.01, 3: 0.01, 2: 0.01}, None),
    ({8: 0.01, 4: np.nan}, None),
    ({7: 0.5}, None),
])  # fmt: skip
def test_what_carries_a_sequence_on(widths: dict[int, float], wanted: tuple[list[int], str] | None) -> None:
    found = dropoff.extending(dropoff.lowest_safe(curve({w: (0.0, high) for w, high in widths.items()})))
    assert [(r.widths, r.why) for r in found.itertuples()] == ([wanted] if wanted else [])


@pytest.mark.thorough
def test_a_sequence_errs_in_one_of_forty() -> None:
    """All widths lose exactly the margin: calling any of them safe is an error, made 2.5 % of the time at most."""
    rng, wrong, trials = np.random.default_rng(1), 0, 400
    counts = weights(range(120), B=1000).counts.astype(float)
    for _ in range(trials):
        estimates, single = paired(rng, np.full(3, 0.02))
        high = np.quantile(single @ counts.T / 120, 0.975, axis=1)
        found = dropoff.lowest_safe(curve({w: (e, h) for w, e, h in zip((8, 6, 4), estimates, high, strict=True)}))
        wrong += found["lowest_safe"].notna().iloc[0]
    assert wrong / trials < 0.045  # two standard errors above .025


# ---- Shapley values


def test_shapley_values_by_hand() -> None:
    v = {frozenset(s): x for s, x in [((), 0.0), ("a", 1.0), ("b", 2.0), ("ab", 5.0)]}
    assert shapley.shapley_values("ab", v) == {"a": 2.0, "b": 3.0}
    assert shapley.interaction("ab", v) == 2.0
    assert shapley.pair_interaction("ab", v, "a", "b") == 2.0


def test_shapley_of_an_additive_game_are_the_parts_and_sum_to_the_whole() -> None:
    rng, players = np.random.default_rng(0), ("p", "q", "r", "s")
    alone = dict(zip(players, rng.normal(size=4), strict=True))
    v = {s: sum(alone[p] for p in s) for s in shapley.subsets(players)}
    assert shapley.shapley_values(players, v) == pytest.approx(alone)
    assert shapley.interaction(players, v) == pytest.approx(0)
    v = {s: float(rng.normal()) for s in shapley.subsets(players)} | {frozenset(): 0.0}
    assert sum(shapley.shapley_values(players, v).values()) == pytest.approx(v[frozenset(players)])


@pytest.mark.thorough
def test_planted_shapley_values_are_recovered_and_the_part_without_effect_is_not_significant(tmp_path: Path) -> None:
    effect = {"vit": 0.25, "qformer": 0.0, "llm": 0.1}
    cells = [
        whole(p, 3)
        for p in (
            ["vit"],
            ["qformer"],
            ["llm"],
            ["vit", "qformer"],
            ["vit", "llm"],
            ["qformer", "llm"],
            ["vit", "qformer", "llm"],
        )
    ]

    def lost(entries: object) -> float:
        return sum(effect[str(e["target"]).split(":")[0]] for e in entries)  # type: ignore[attr-defined]

    inside, trials = [], 24
    for trial in range(trials):
        folder = tmp_path / str(trial)
        build(folder, cells, n=150, seed=trial, values=lost)
        table = comparable(pd.read_parquet(folder / "table.parquet"))
        draws = load_draws(folder, table, "cider")
        assert draws is not None
        key = table.loc[table["parts"] == "vit+qformer+llm", "key"].iloc[0]
        found = shapley.shapley(table, "cider", draws, key).set_index("term")
        base = draws.value(draws.baseline)
        inside += [[found.loc[p, "low"] <= effect[p] * base <= found.loc[p, "high"] for p in effect]]
    share = np.mean(inside, axis=0)
    assert (share >= 0.8).all(), share  # 24 trials of 95 %: .8 is three standard errors below
    assert share[1] >= 0.8  # the part without effect: its interval covers 0


def test_missing_cells_are_named(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    three = cells[(cells["line"] == "vit:all:all; qformer:all:all; llm:all:all") & (cells["width"] == 4)].iloc[0]
    without = cells[cells["recipe"] != "vit:all:all=rtn4/channel; qformer:all:all=rtn4/channel"]
    with pytest.raises(UserError, match=r"need all 8 cells; missing: vit:all:all=4; qformer:all:all=4$"):
        shapley.shapley(without, "cider", draws, three["key"])


def test_additivity_has_its_interval(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = shapley.additivity(cells, "cider", draws)
    row = found[(found["parts"] == "vit+llm") & (found["width"] == 2) & (found["setting"] == "rtn/channel")].iloc[0]
    assert row["excess"] == pytest.approx(row["joint"] - row["sum"])
    assert row["low"] < row["excess"] < row["high"] < 0  # saturation: together less than the sum


# ---- blocks, frontier, methods


def test_block_sensitivity_quantize_one_beside_leave_one_out(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = blocks.sensitivity(cells, "cider", draws, model_anatomy("tiny"))
    one = found[(found["kind"] == blocks.ONE) & (found["part"] == "vit")]
    out = found[(found["kind"] == blocks.LEFT_OUT) & (found["part"] == "vit")]
    assert one["first"].tolist() == out["first"].tolist() == [0, 1, 2, 3, 4, 5]
    assert one["effect"].is_monotonic_increasing  # as planted
    assert (one["nll"] > 0).all()
    for frame in (one, out):
        assert (frame["band_low"] < frame["effect"]).all()
        assert (frame["band_high"] >= frame["high"] - 1e-9).all()


def test_thirds_of_the_published_study_count_as_blocks() -> None:
    rows = [
        [],
        [entry("vit:first:all", 4)],
        [entry("vit:first+last:all", 4)],
        [entry("vit:all:all", 4)],
        [entry("vit:middle:all", 4)],
        [entry("vit:middle+last:all", 4)],
    ]
    import json

    table = pd.DataFrame(
        {
            "recipe_json": [json.dumps(r) for r in rows],
            "key": list("abcdef"),
            "drop_cider": [0, 0.1, 0.4, 0.5, 0.2, 0.45],
        }
    )
    found = blocks.sensitivity(with_recipe_features(table), "cider", None, model_anatomy("tiny"))
    out = found[found["kind"] == blocks.LEFT_OUT].set_index("first")["effect"]
    assert out.to_dict() == pytest.approx({0: 0.05, 2: 0.1})  # the first, the middle third spared
    one = found[found["kind"] == blocks.ONE].set_index("first")["effect"]
    assert one.to_dict() == {0: 0.1, 2: 0.2}


def test_the_frontier_is_shown_on_images_that_did_not_choose_it(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = frontier.frontier(cells, "cider", draws)
    own = found[found["setting"] == "rtn/channel"]
    assert own["bits_per_weight"].is_monotonic_increasing
    key = own["key"].iloc[-1]
    assert own["value"].iloc[-1] == pytest.approx(draws.value(key, draws.half(False)))
    assert own["like_baseline"].iloc[-1]
    assert not own["like_baseline"].iloc[0]


def test_the_winner_of_many_equals_does_not_look_good_on_held_out_images() -> None:
    rng = np.random.default_rng(3)
    arrays = {f"k{i}": np.column_stack([rng.normal(1, 1, 400), np.ones(400)]) for i in range(180)}
    draws = Draws(METRICS["cider"], list(range(400)), arrays, "k0", {})
    first, second = draws.half(True), draws.half(False)
    best = max(arrays, key=lambda k: draws.value(k, first))
    assert draws.value(best, first) > 1.12
    assert draws.value(best, second) < 1.12


def test_methods_are_compared_on_matched_cells_only(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = methods.matched(cells, "cider", draws)
    assert set(found["method"]) == {"gptq"}
    assert len(found) == 35  # 7 unions × 5 widths; block cells have no partner
    four = found[(found["parts"] == "vit") & (found["width"] == 3)].iloc[0]
    assert four["low"] > 0
    heavier = cells.copy()
    heavier.loc[heavier["method"] == "gptq", "bits_per_weight"] += 0.03
    assert methods.matched(heavier, "cider", draws).empty
