"""Tables and analyses of cells that stopped: compared on the images that both have, and never by means of prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis.choice import Choice, best_of, comparing
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.dropoff import dropoff
from blip2sweep.analysis.frontier import frontier
from blip2sweep.analysis.predict import competing, predictable
from blip2sweep.analysis.prices import prices
from blip2sweep.analysis.shapley import additivity, shapley, shapley_over_bits
from blip2sweep.analysis.stopped import verdicts_line
from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.metrics.stopping import ratio
from blip2sweep.reporting.source import Source, load_source
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.predictions import read_predictions, read_statistics
from tests.synthetic import Entry, build, whole

N = 240
CIDER = METRICS["cider"]
Cells = tuple[Source, Draws]


def stops(listed: Sequence[Entry]) -> tuple[int, str] | None:
    """Cells of 2 bits collapse, those of 3 bits are known, those of 6 bits of one part have a verdict."""
    bits = {e["bits"] for e in listed}
    if bits == {2}:
        return 64, "below 50 %"
    if bits == {3}:
        return 128, "known to ±5 %"
    return (192, "within 5 %") if bits == {6} and len(listed) == 1 else None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same planted sweep, run whole and stopped early."""
    here = tmp_path_factory.mktemp("stopped")
    recipes = [whole(p.split("+"), b) for p in ("vit", "qformer", "llm", "vit+llm", "vit+qformer+llm", "vit+qformer", "qformer+llm") for b in (8, 6, 4, 3, 2)]  # fmt: skip
    for name, own in (("whole", None), ("early", stops)):
        build(here / name, recipes, n=N, **({"stops": own} if own else {}))
    return here / "whole", here / "early"


@pytest.fixture(scope="module")
def both(folders: tuple[Path, Path]) -> tuple[Cells, Cells]:
    found = [load_source(folder) for folder in folders]
    assert found[0].draws is not None
    assert found[1].draws is not None
    return (found[0], found[0].draws), (found[1], found[1].draws)


def row(source: Source, recipe: str) -> pd.Series:
    return source.cells[source.cells["recipe"] == recipe].iloc[0]


VIT6, VIT3, VIT2 = (f"vit:all:all=rtn{b}/channel" for b in (6, 3, 2))
LLM4, LLM3 = (f"llm:all:all=rtn{b}/channel" for b in (4, 3))


# ---- the table


def test_a_row_says_how_many_images_of_how_many_and_why(both: tuple[Cells, Cells]) -> None:
    table = both[1][0].table.set_index("recipe")
    told = table[["images", "images_of", "stopped"]].apply(tuple, axis=1)
    assert told[VIT2] == (64, N, "below 50 %")
    assert told[VIT3] == (128, N, "known to ±5 %")
    assert told[LLM4] == (N, N, "")
    assert set(both[0][0].table["stopped"]) == {""}


def test_the_value_is_the_ratio_on_its_images_times_the_whole_baseline(
    folders: tuple[Path, Path], both: tuple[Cells, Cells]
) -> None:
    """By hand, from the files: not the mean over its images, which were easy or hard ones."""
    early, own = both[1][0], row(both[1][0], VIT3)
    names = [f"{key}-{hashed[:12]}" for key, hashed in zip(early.cells["key"], early.cells["predictions"], strict=True)]
    of = dict(zip(early.cells["key"], names, strict=True))
    cell, base = (
        (read_predictions(folders[1], of[k]).id, read_statistics(folders[1], of[k])["cider"][:, 0])
        for k in (own["key"], early.cells.loc[early.cells["part"] == "none", "key"].iloc[0])
    )
    same = np.array([dict(zip(*base, strict=True))[sample] for sample in cell[0]])
    share = cell[1].sum() / same.sum()
    assert len(cell[0]) == 128
    assert own["cider"] == pytest.approx(share * base[1].mean())
    assert own["drop_cider"] == pytest.approx((1 - share) * base[1].mean())
    assert own["baseline_cider"] == pytest.approx(base[1].mean())
    found = ratio(CIDER, np.column_stack([cell[1], cell[1] * 0 + 1]), np.column_stack([same, same * 0 + 1]))
    assert own[["retained_cider_low", "retained_cider_high"]].tolist() == pytest.approx([100 * e for e in found[1:]])
    assert own["drop_cider_high"] == pytest.approx((1 - found.low) * base[1].mean())
    assert abs(own["cider"] - cell[1].mean()) > 0.01


def test_every_value_of_a_stopped_cell_is_near_that_of_its_whole_run(both: tuple[Cells, Cells]) -> None:
    """Also of metrics that are no share of anything, and of those whose baseline is 0."""
    tables = [s.table.set_index("key").loc[lambda t: t.index] for s, _ in both]
    early = tables[1][tables[1]["stopped"] != ""]
    assert len(early) >= 10
    for metric, off in (("cider", 0.08), ("nll", 0.02), ("empty_rate", 0.01), ("mean_length", 0.2)):
        whole_run = tables[0].loc[early.index, metric]
        assert (early[metric] - whole_run).abs().max() < off
        drop = early[f"baseline_{metric}"] - early[metric]
        assert early[f"drop_{metric}"].tolist() == pytest.approx((CIDER if metric in ("cider", "mean_length") else METRICS[metric]).sign * drop, abs=1e-9)  # fmt: skip
    inside = tables[0].loc[early.index, "drop_cider"].between(early["drop_cider_low"], early["drop_cider_high"])
    assert inside.all()


def test_whole_cells_have_the_same_row_whether_others_stopped_or_not(both: tuple[Cells, Cells]) -> None:
    tables = [s.table.set_index("key").drop(columns=["finished", "sweeps"]) for s, _ in both]
    same = tables[1].index[tables[1]["stopped"] == ""]
    assert len(same) >= 10
    pd.testing.assert_frame_equal(tables[0].loc[same], tables[1].loc[same], check_dtype=False)


def test_without_its_baseline_a_stopped_cell_has_no_metric(tmp_path: Path) -> None:
    """A mean over its images would look like that of all."""
    build(tmp_path, [whole(["vit"], 2)], n=N, stops=stops, with_baseline=False)
    one = load_table(tmp_path).iloc[0]
    assert (one["images"], one["images_of"], one["stopped"]) == (64, N, "below 50 %")
    assert pd.isna(one.get("cider"))


def load_table(folder: Path) -> pd.DataFrame:
    from blip2sweep.results.table import build_table

    return build_table(Ledger(folder).refresh())


# ---- draws


def test_a_cell_and_its_draws_say_what_the_table_says(both: tuple[Cells, Cells]) -> None:
    source, draws = both[1]
    for recipe in (VIT3, VIT2, LLM4):
        own = row(source, recipe)
        key = str(own["key"])
        assert draws.value(key) == pytest.approx(own["cider"])
        assert draws.paired(key) == pytest.approx(own[["drop_cider", "drop_cider_low", "drop_cider_high"]].tolist())
        ends = [100 * end for end in draws.kept(key)[1:]]
        assert ends == pytest.approx(own[["retained_cider_low", "retained_cider_high"]].tolist())
        assert draws.changed(key) == own["changed_cider"]
        assert draws.count(key) == own["images"]
        assert np.nanmean(draws.drop(key)) == pytest.approx(own["drop_cider"], abs=0.01)
    assert draws.level(str(row(source, VIT3)["key"])) == 0.995
    assert draws.level(str(row(source, LLM4)["key"])) == 0.95


def test_two_cells_are_compared_on_the_images_that_both_have(both: tuple[Cells, Cells]) -> None:
    """By hand: of the longer one's images those that the shorter one has too."""
    (_, whole_run), (source, draws) = both
    one, other = (str(row(source, r)["key"]) for r in (VIT2, LLM3))
    mask = draws.seen[one]
    assert mask.sum() == 64
    assert (mask <= draws.seen[other]).all()
    rows = [whole_run.arrays[k][mask] for k in (one, other, draws.baseline)]
    scale = whole_run.value(draws.baseline) / CIDER.value(rows[2])
    found = draws.paired(one, other)
    assert found.drop == pytest.approx(scale * (CIDER.value(rows[1]) - CIDER.value(rows[0])))
    assert found.low < found.drop < found.high
    assert draws.count(one, other) == 64
    assert draws.paired(other, one).drop == pytest.approx(-found.drop)
    half = draws.half(True)
    own = [CIDER.value(whole_run.arrays[k][mask & half]) for k in (one, other)]
    assert draws.ahead(one, other, half) == pytest.approx(own[0] - own[1])


def test_whole_cells_have_the_same_draws_whether_others_stopped_or_not(both: tuple[Cells, Cells]) -> None:
    (_, before), (source, draws) = both
    one, other = (str(row(source, r)["key"]) for r in (LLM4, "vit:all:all=rtn4/channel"))
    assert draws.paired(one, other) == before.paired(one, other)
    assert (draws.drop(one) == before.drop(one)).all()
    assert (draws.half(True) == before.half(True)).all()
    chosen = draws.only([one, other]).on(draws.half(False))
    assert chosen.kept(one) == before.only([one, other]).on(before.half(False)).kept(one)


def test_a_half_of_the_images_cuts_a_stopped_cell_too(both: tuple[Cells, Cells]) -> None:
    (_, before), (source, draws) = both
    key = str(row(source, VIT3)["key"])
    half, seen = draws.half(False), draws.seen[key]
    rows = [before.arrays[k][seen & half] for k in (key, draws.baseline)]
    share = CIDER.value(rows[0]) / CIDER.value(rows[1])
    assert draws.on(half).value(key) == pytest.approx(share * before.value(draws.baseline, half))
    assert draws.value(key, half) == pytest.approx(draws.on(half).value(key))
    assert draws.on(half).kept(key).kept == pytest.approx(share)
    assert draws.only([key]).on(half).count(key) == len({draws.image_ids[i] for i in np.flatnonzero(seen & half)})


def test_single_images_that_a_cell_has_not_are_no_number(both: tuple[Cells, Cells]) -> None:
    source, draws = both[1]
    key = str(row(source, VIT2)["key"])
    found = draws.by_sample(key)
    assert np.isnan(found).sum() == N - 64
    assert (found[draws.seen[key]] == draws.arrays[key][:, 0]).all()


def test_bands_of_stopped_cells_are_never_narrower_than_their_intervals(both: tuple[Cells, Cells]) -> None:
    source, draws = both[1]
    curves = dropoff(source.cells, "cider", draws)
    own = curves[curves["key"].isin(list(draws.seen))]
    assert len(own) >= 10
    assert (own["band_low"] <= own["drop_low"] + 1e-9).all()
    assert (own["band_high"] >= own["drop_high"] - 1e-9).all()


# ---- what is made of them


def test_shapley_values_need_values_that_are_known(both: tuple[Cells, Cells]) -> None:
    """Those of 3 bits stopped when they were known, those of 6 bits with a verdict."""
    (before, whole_draws), (source, draws) = both
    key = str(row(source, f"{VIT3}; qformer:all:all=rtn3/channel; {LLM3}")["key"])
    found, full = (
        shapley(s.cells, "cider", d, key).set_index("term") for s, d in ((source, draws), (before, whole_draws))
    )
    assert (found["value"] - full["value"]).abs().max() < 0.1
    assert full["value"].between(found["low"], found["high"]).all()
    six = str(row(source, f"{VIT6}; qformer:all:all=rtn6/channel; {VIT6.replace('vit', 'llm')}")["key"])
    with pytest.raises(UserError, match=r"stopped with a verdict; right: the same command with evaluation.stop=none"):
        shapley(source.cells, "cider", draws, six)
    table, refusals = shapley_over_bits(source.cells, "cider", draws)
    assert set(table["width"]) == {8, 4, 3, 2}
    assert len(refusals) == 1
    sums = additivity(source.cells, "cider", draws)
    assert set(sums["width"]) == {8, 4, 3, 2}
    assert set(additivity(before.cells, "cider", whole_draws)["width"]) == {8, 6, 4, 3, 2}


def test_no_prediction_is_fitted_on_a_verdict(both: tuple[Cells, Cells]) -> None:
    source, _ = both[1]
    gone = set(source.cells["key"]) - set(predictable(source.cells, "cider")["key"])
    assert gone == set(source.cells.loc[source.cells["stopped"].str.startswith("within"), "key"])
    assert len(gone) == 3
    assert set(competing(source.cells, "cider")["key"]) == set(source.cells["key"])
    told = verdicts_line(source.cells, "predictions")
    assert told is not None
    assert told.startswith("3 cells that stopped with a verdict are not used for predictions")
    assert verdicts_line(both[0][0].cells, "predictions") is None


def test_the_frontier_compares_on_the_images_that_both_have(both: tuple[Cells, Cells]) -> None:
    """A cell that is better than a smaller one by its value, and worse on the images that both have, is not on it."""
    source, draws = both[1]
    on_it = set(frontier(source.cells, "cider", draws)["key"])
    assert on_it == set(frontier(both[0][0].cells, "cider", both[0][1])["key"])
    small, large = (str(row(source, r)["key"]) for r in (VIT3, "vit:all:all=rtn4/channel"))
    own = source.cells[source.cells["key"].isin([small, large, draws.baseline])]
    half, seen = draws.half(True), draws.seen[small]
    scores = draws.arrays[large].copy()
    scores[seen & half] *= [0.1, 1]
    scores[half & ~seen] *= [4.0, 1]
    planted = replace(draws, arrays={**draws.arrays, large: scores})
    assert planted.value(large, half) > planted.value(small, half)
    assert set(frontier(own, "cider", planted)["key"]) == {small}
    assert set(frontier(own, "cider", draws)["key"]) == {small, large}
    alike = own.assign(bits_per_weight=own["bits_per_weight"].where(own["part"] == "none", 4.0))
    assert set(frontier(alike, "cider", planted)["key"]) == {small}  # of one size one, and not the better by its value
    assert set(frontier(alike, "cider", draws)["key"]) == {large}


def test_the_best_of_two_is_the_better_one_on_the_images_that_both_have(both: tuple[Cells, Cells]) -> None:
    source, draws = both[1]
    one, other = (str(row(source, r)["key"]) for r in (VIT3, LLM4))
    first = draws.half(True)
    made = [
        Choice("rtn", lost, lost, True, [{"target": "a:all:all"}], 10, 4.0, 1.0, 0.0, 1.2, True, key=k)  # type: ignore[list-item]
        for k, lost in ((one, 0.01), (other, 0.02))
    ]
    ahead = draws.ahead(other, one, first)
    assert ahead > 0
    assert best_of(made, None).key == one
    assert best_of(made, None, comparing(draws)).key == other
    assert best_of(made, 0.1, comparing(draws)).key == other
    assert comparing(both[0][1]) is None
    assert comparing(draws)(one, other) == -ahead  # type: ignore[misc]


def test_a_price_is_of_the_images_that_both_cells_have(both: tuple[Cells, Cells]) -> None:
    source, draws = both[1]
    found = prices(source.cells, "cider", lambda keys: draws.only(keys))
    steps = found.dropna(subset=["key", "beside"])
    assert set(steps["key"]) & draws.seen.keys()
    for r in steps.to_dict("records"):
        narrow, wide = (r["key"], r["beside"]) if r["step"] != "wider" else (r["beside"], r["key"])
        assert (r["lost"], r["low"], r["high"]) == draws.paired(narrow, wide)
    verdicts = set(source.cells.loc[source.cells["stopped"].str.startswith("within"), "key"])
    assert not verdicts & {*steps["key"], *steps["beside"]}
