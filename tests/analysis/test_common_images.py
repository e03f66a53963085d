"""Cells that stopped are ranked by what they lose on the images that both have, wherever a text or a table ranks them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis.common_images import (
    BY_COMMON,
    BY_VALUES,
    least_first,
    lost_on_common,
    order_note,
    resampled_on_common,
)
from blip2sweep.analysis.draws import Draws
from blip2sweep.analysis.importance import _ranks
from blip2sweep.analysis.prices import State, States
from blip2sweep.analysis.together import _Cell, _compared
from blip2sweep.metrics import METRICS
from blip2sweep.reporting.answers import _extremes
from blip2sweep.reporting.metric_text import metric_text
from blip2sweep.reporting.overview import _first_broken
from blip2sweep.reporting.steps_text import _importance
from blip2sweep.reporting.which_part import which_part
from blip2sweep.reporting.worst_blocks import worst_blocks

N, SEEN = 200, 64
CIDER = METRICS["cider"]
TEXT = metric_text("cider")


def planted() -> Draws:
    """`vit` loses .6 on the first 64 images and nothing on the others; `llm`, which stopped there, loses .4. So by the
    values of the table `llm` is the worse of the two, and on the images that both have it is the better one."""
    first = np.arange(N) < SEEN
    scores = {"base": np.ones(N), "vit": np.where(first, 0.4, 1.0), "llm": np.full(SEEN, 0.6), "both": np.full(N, 0.3)}
    arrays = {k: np.column_stack([s, np.ones(len(s))]) for k, s in scores.items()}
    return Draws(CIDER, list(range(N)), arrays, "base", {}, {"llm": first})


DRAWS = planted()
LOST = {k: float(CIDER.drop(DRAWS.value("base"), DRAWS.value(k))) for k in ("vit", "llm", "both")}


def curves(**more: object) -> pd.DataFrame:
    """The two parts alone at 3 bits, as `dropoff` has them."""
    rows = [{"key": k, "parts": k, "drop": LOST[k], "retained": 100 * (1 - LOST[k])} for k in ("vit", "llm")]
    same = {"setting": "rtn", "width": 3.0, "point": False, "baseline": 1.0, "drop_low": np.nan, "drop_high": np.nan,
            "retained_low": np.nan, "retained_high": np.nan, "lowest": np.nan}  # fmt: skip
    return pd.DataFrame(rows).assign(**same, **more)


def test_what_is_lost_is_of_the_images_that_all_have_and_a_share_of_the_whole_baseline() -> None:
    assert LOST["llm"] > LOST["vit"]
    assert lost_on_common(DRAWS, ["vit", "llm"]) == pytest.approx({"vit": 0.6, "llm": 0.4})
    assert lost_on_common(DRAWS, ["vit"]) == pytest.approx({"vit": LOST["vit"]})
    harder = Draws(
        CIDER, DRAWS.image_ids, {**DRAWS.arrays, "base": DRAWS.arrays["base"] * [2, 1]}, "base", {}, DRAWS.seen
    )
    assert lost_on_common(harder, ["vit", "llm"]) == pytest.approx({"vit": 1.6, "llm": 1.4})


def test_rows_of_cells_that_stopped_are_in_the_order_on_common_images() -> None:
    ordered = least_first(curves(), DRAWS)
    assert list(ordered["key"]) == ["llm", "vit"]
    assert list(curves().sort_values("drop")["key"]) == ["vit", "llm"]
    assert order_note(ordered, DRAWS) == BY_COMMON
    assert order_note(ordered.iloc[:1], DRAWS) == ""


def test_rows_of_whole_cells_are_sorted_by_their_values() -> None:
    rows = pd.DataFrame({"key": ["c", "a", "b"], "drop": [0.2, 0.1, 0.2]})
    assert list(least_first(rows, DRAWS)["key"]) == ["a", "c", "b"]
    assert order_note(least_first(rows, DRAWS), DRAWS) == ""


def test_values_of_unlike_images_are_said_to_be_where_nothing_better_is_known() -> None:
    """Of imported scores, without outputs."""
    told = least_first(curves(stopped=["", "stopped at 64 of 200 images (known to ±5 %)"]), None)
    assert list(told["key"]) == ["vit", "llm"]
    assert order_note(told, None) == BY_VALUES


def test_effects_of_sparing_are_compared_on_the_images_of_all_four_cells() -> None:
    rows = pd.DataFrame({"key": ["vit", "llm"], "other": ["both", "both"], "effect": [0.5, 0.3]})
    assert list(least_first(rows, DRAWS, "effect")["key"]) == ["vit", "llm"]  # .7 − .6 is less than .7 − .4


def test_the_page_ranks_parts_on_common_images() -> None:
    said = which_part(curves(), pd.DataFrame(), ["rtn"], TEXT, 1.0, DRAWS)
    assert "of the parts alone at 3 bits, vit costs most" in said
    assert BY_COMMON in said
    best = _extremes(curves(), TEXT, DRAWS)
    assert best.startswith("At 3 bits llm is best")
    assert "vit is worst" in best
    assert BY_COMMON in best
    broken = curves().assign(drop=lambda own: own["drop"] + 0.5)
    assert "it breaks at 3 bits: vit keeps" in _first_broken(broken, "rtn", TEXT, DRAWS)


def test_blocks_are_ranked_on_common_images() -> None:
    rows = {"key": ["vit", "llm"], "effect": [LOST["vit"], LOST["llm"]], "first": [0, 1], "last": [0, 1], "other": None}
    same = {"kind": "quantize one", "setting": "rtn", "width": 3.0, "part": "vision", "headline": True,
            "band_low": np.nan, "band_high": np.nan}  # fmt: skip
    data = pd.DataFrame(rows).assign(**same)
    said = worst_blocks(data, TEXT, DRAWS)
    assert said.index("vision block 0") < said.index("vision block 1")
    assert BY_COMMON in said
    assert _ranks(data, DRAWS).to_dict() == {0: 1.0, 1: 2.0}
    assert _ranks(data, None).to_dict() == {0: 2.0, 1: 1.0}


def test_of_recipes_of_one_size_the_better_one_on_common_images_stands() -> None:
    known = {(16.0,): ("base", 0.0), (3.0,): ("vit", 0.01), (2.0,): ("llm", 0.02)}
    made = {w: State(k, 10.0 + (k == "base"), 1.0 - d, d, np.nan, np.nan) for w, (k, d) in known.items()}
    lost = lambda here, to: {"vit": 0.6, "llm": 0.4}[to.key] - {"vit": 0.6, "llm": 0.4}[here.key]  # noqa: E731
    assert States("rtn", ("vision",), made).standing() == (3.0,)
    assert States("rtn", ("vision",), made, lost).standing() == (2.0,)


def test_a_sum_of_drops_is_of_the_images_that_the_cell_and_all_its_pieces_have() -> None:
    cell, *pieces = (
        _Cell({"key": k, "what": k, "drop_cider": LOST[k]}, [], frozenset(), frozenset())
        for k in ("both", "vit", "llm")
    )
    found = _compared(cell, pieces, "cider", DRAWS)
    assert found["together"] == pytest.approx(0.7)
    assert found["sum"] == pytest.approx(1.0)
    assert found["low"] <= found["excess"] <= found["high"]  # type: ignore[operator]
    assert resampled_on_common(DRAWS, ["both", "llm"]).drop("llm").mean() == pytest.approx(0.4, abs=1e-6)


def test_the_interval_of_a_dropped_block_has_its_level() -> None:
    """99.5 % of a cell that stopped, which is said behind it."""
    rows = [
        {"measure": "drop one", "part": "vit", "block": i, "effect": LOST[k], "low": 0.1, "high": 0.7, "key": k}
        for i, k in enumerate(("vit", "llm"))
    ]
    told = _importance(pd.DataFrame(rows), TEXT, DRAWS, {"vit": "", "llm": " (99.5 %)"})
    assert "vit least (block 1: 0.400 [0.100, 0.700] (99.5 %)) and most (block 0: 0.192 [0.100, 0.700])" in told
