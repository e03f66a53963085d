"""Further steps against planted truth: words, importance of blocks, recovery and controls, sums of single drops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis.blocks import sensitivity
from blip2sweep.analysis.cells import comparable, headline, quantized
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.dropoff import dropoff
from blip2sweep.analysis.frontier import ALL, frontier, over_all_kinds
from blip2sweep.analysis.grid import width_grid
from blip2sweep.analysis.importance import DROP_ONE, INFLUENCE, agreement, importance
from blip2sweep.analysis.kinds import every_kind
from blip2sweep.analysis.methods import matched
from blip2sweep.analysis.prices import states
from blip2sweep.analysis.recommend import recommend
from blip2sweep.analysis.recovery import recovery
from blip2sweep.analysis.shapley import additivity
from blip2sweep.analysis.together import together
from blip2sweep.errors import UserError
from blip2sweep.models.shipped import model_anatomy
from tests.synthetic_steps import ALONE, INFLUENCES, TOGETHER, build_steps, lost, recipes

TINY = model_anatomy("tiny")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Draws]:
    folder = tmp_path_factory.mktemp("steps")
    build_steps(folder)
    cells = comparable(pd.read_parquet(folder / "sweeps/planted/table.parquet"))
    draws = load_draws(folder, cells, "cider")
    assert draws is not None
    return cells, draws


def test_rows_of_further_steps_are_told_apart(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells = planted[0]
    assert len(cells) == len(recipes()) + 1  # none is left out
    kinds = cells.groupby("kind").size()
    assert set(kinds.index) == {
        "none",
        "drop blocks",
        "quantize",
        "drop blocks + quantize",
        "LoRA",
        "drop blocks + LoRA",
    }
    both = cells[cells["kind"] == "drop blocks + quantize"].iloc[0]
    assert (both["what"], both["width"]) == ("without llm:4-5 + vit+qformer+llm rtn/channel 4 bits", 4)
    assert both["setting"] == "without llm:4-5 + rtn/channel"
    trained = cells[cells["kind"] == "drop blocks + LoRA"].iloc[0]
    assert (trained["what"], trained["further"]) == ("without llm:4-5", "without llm:4-5 + lora r8 50 steps qformer")


def test_what_goes_by_bits_takes_cells_that_are_quantized_alone(planted: tuple[pd.DataFrame, Draws]) -> None:
    """The frames of a sweep with further steps are those of its quantized cells."""
    cells, draws = planted
    alone = quantized(cells)
    assert set(alone["kind"]) == {"none", "quantize"}
    for made in (
        lambda c: headline(c),
        lambda c: dropoff(c, "cider", draws),
        lambda c: width_grid(c, "cider"),
        lambda c: sensitivity(c, "cider", draws, TINY),
        lambda c: matched(c, "cider", draws),
        lambda c: additivity(c, "cider", draws),
    ):
        pd.testing.assert_frame_equal(made(cells), made(alone))
    assert states(cells, "cider") == states(alone, "cider")


def test_a_table_without_further_steps_gets_empty_frames(planted: tuple[pd.DataFrame, Draws]) -> None:
    """Older tables lack the columns of recovery, of controls and of FLOPs."""
    cells, draws = planted
    gone = [
        c
        for c in cells
        if "control" in c or c in ("recover", "recover_steps", "merged", "params", "gflops", "blocks_dropped")
    ]
    older = quantized(cells).drop(columns=gone)
    assert importance(older, "cider", draws, TINY).empty
    assert recovery(older, "cider", draws).empty
    assert together(older, "cider", draws, TINY).empty
    assert set(every_kind(older, "cider", draws)["how"]) == {""}
    bare = recovery(cells.drop(columns=gone), "cider", draws)
    assert bare["retained"].notna().all()
    assert bare["retained_control"].isna().all()


# ---- importance


def test_importance_has_three_measures_side_by_side(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = importance(cells, "cider", draws, TINY, INFLUENCES)
    assert set(found["measure"]) == {DROP_ONE, INFLUENCE, "quantize one, rtn/channel 3 bits"}
    assert found.groupby(["measure", "part"])["block"].apply(list).map(lambda b: b == list(range(6))).all()
    base = float(cells.loc[cells["part"] == "none", "cider"].iloc[0])
    for part, shares in ALONE.items():
        own = found[(found["part"] == part) & (found["measure"] == DROP_ONE)]
        assert own["effect"].to_numpy(float) / base == pytest.approx(np.array(shares), abs=0.03)
        assert int(own.loc[own["rank"] == 1, "block"].iloc[0]) == int(np.argmax(shares))
        assert ((own["band_low"] <= own["low"]) & (own["high"] <= own["band_high"])).all()
    told = found[found["measure"] == INFLUENCE]
    assert told.loc[told["part"] == "vit", "effect"].tolist() == INFLUENCES["vit"]
    assert told["low"].isna().all()


def test_ranks_of_two_measures_are_compared_part_by_part(planted: tuple[pd.DataFrame, Draws]) -> None:
    found = agreement(
        importance(*planted[:1], "cider", planted[1], TINY, ALONE)
    )  # influence as planted: the same order
    own = found[(found["one"] == DROP_ONE) & (found["other"] == INFLUENCE)].set_index("part")["rho"]
    assert own["llm"] == 1
    assert own.min() > 0.9
    assert (found["blocks"] == 6).all()


# ---- recovery


def test_a_recovery_begins_at_the_cell_without_it(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = recovery(cells, "cider", draws)
    own = found[found["what"] == "without qformer:4-5"]
    assert own["steps"].tolist() == [0, 50, 150, 500]
    before = cells[cells["what"].eq("without qformer:4-5") & cells["kind"].eq("drop blocks")].iloc[0]
    assert own["key"].iloc[0] == before["key"]
    assert own["retained"].iloc[0] == pytest.approx(100 * before["cider"] / before["baseline_cider"])
    assert own["retained"].iloc[0] < 40 < 80 < own["retained"].iloc[2]
    assert (own["retained_low"] < own["retained"]).all()
    assert (own["model_bytes"].iloc[1:] > own["model_bytes"].iloc[0]).all()  # the adapter is not merged


def test_a_recovered_cell_has_a_loss_against_its_control(planted: tuple[pd.DataFrame, Draws]) -> None:
    """The controls beat the baseline, so a loss against them is larger."""
    found = recovery(planted[0], "cider", planted[1])
    controls, own = (
        found[found["is_control"] & (found["steps"] >= 150)],
        found[~found["is_control"] & (found["steps"] >= 150)],
    )
    assert (controls["retained"] > 100).all()
    assert controls["retained_control"].isna().all()
    assert (own["retained_control"] < own["retained"]).all()
    assert own["retained_control"].to_numpy(float) == pytest.approx(
        (100 * own["value"] / own["control"]).to_numpy(float)
    )


def test_further_seeds_are_points_and_other_options_are_told(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells = planted[0]
    one = cells[cells["kind"] == "drop blocks + LoRA"].iloc[:1]
    seed = one.assign(key="seed", recipe_json=one["recipe_json"].str.replace('"seed":0', '"seed":7'))
    rate = one.assign(
        key="rate", recipe_json=one["recipe_json"].str.replace('"learning_rate":0.002', '"learning_rate":0.01')
    )
    found = recovery(pd.concat([cells, seed, rate], ignore_index=True), "cider", None).set_index("key")
    assert (found.loc["seed", "point"], found.loc["seed", "seed"]) == (True, 7)
    assert found.loc["rate", "how"] == "LoRA r8 task learning_rate 0.01 on qformer"
    assert not found.loc["rate", "point"]


# ---- all kinds


def test_every_cell_is_in_the_frame_of_all_kinds(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = every_kind(cells, "cider", draws)
    assert sorted(found["key"]) == sorted(cells.loc[cells["part"] != "none", "key"])
    own = found[found["what"] == "without llm:4-5"]
    assert own["how"].tolist() == ["", *(f"LoRA r8 task on qformer, {n} steps" for n in (50, 150, 500))]
    assert {"params", "gflops", "bits_per_weight"} <= set(found)
    assert "latency_ms_median" not in found


def test_the_frontier_over_all_kinds_is_that_of_the_best_of_each(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = over_all_kinds(cells, "cider", draws, "model_bytes")
    best = found[found["setting"] == ALL]
    assert set(best["key"]) <= set(found.loc[found["setting"] != ALL, "key"])
    assert {"quantize", "drop blocks"} <= set(found["setting"])
    assert len(over_all_kinds(cells, "cider", draws, "gflops"))
    with pytest.raises(UserError, match=r"no cell has latency_ms_median; right: analysis.latency=true"):
        frontier(cells, "cider", draws, "latency_ms_median")


# ---- together


def test_sums_of_single_drops_mislead_as_planted(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = planted
    found = together(cells, "cider", draws, TINY)
    blocks = found[found["by"] == "blocks"]
    assert (blocks["misleads"]).all()
    assert (blocks["together"] / blocks["sum"]).to_numpy(float) == pytest.approx(TOGETHER, abs=0.08)
    parts = found[found["by"] == "parts"].iloc[0]
    assert parts["pieces"] == "without llm:4-5; without qformer:4-5"
    assert parts["misleads"] is False or not parts["misleads"]
    assert ((found["low"] <= found["excess"]) & (found["excess"] <= found["high"])).all()


def test_quantization_of_what_is_left_is_a_piece(planted: tuple[pd.DataFrame, Draws]) -> None:
    """Four bits everywhere alone touch the dropped blocks, too; they do the same to all that is left."""
    cells, draws = planted
    (row,) = together(cells, "cider", draws, TINY).query("by == 'steps'").to_dict("records")
    assert (row["n"], row["pieces"]) == (2, "without llm:4-5; vit+qformer+llm rtn/channel 4 bits")
    other = cells[~((cells["kind"] == "quantize") & (cells["width"] == 4))]
    assert together(other, "cider", draws, TINY).query("by == 'steps'").empty  # three bits are no piece of four


# ---- recommend


@pytest.mark.thorough
def test_measured_cells_of_all_kinds_compete(planted: tuple[pd.DataFrame, Draws]) -> None:
    """The smallest within a limit: what was planted says which."""
    cells, draws = planted
    choice = recommend(cells, "cider", draws, TINY, max_drop=0.5)
    small = cells[cells["part"] != "none"].assign(share=[lost(r) for r in recipes()]).query("share < 0.4")
    assert choice.model_bytes <= int(small["model_bytes"].min())
    assert choice.within
    only = cells[(cells["kind"].isin(["none", "drop blocks", "drop blocks + LoRA", "LoRA"]))]
    best = recommend(only, "cider", draws, TINY, max_bytes=1_800_000)
    assert best.key in set(only["key"])
    assert any(e.get("step") == "drop_blocks" for e in best.entries)


def test_without_quantized_cells_nothing_is_predicted(planted: tuple[pd.DataFrame, Draws]) -> None:
    cells = planted[0][planted[0]["kind"].isin(["none", "drop blocks"])]
    choice = recommend(cells, "cider", planted[1], TINY, max_drop=0.05)
    assert choice.key is not None
    assert choice.unpredicted == "too few cells to predict others: none; right: at least 6 of one method"
