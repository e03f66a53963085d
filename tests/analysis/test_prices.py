"""What the next bits cost: steps, prices, the ladder and what comes next, of planted drops and sizes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.prices import advised, prices, states
from blip2sweep.analysis.recipes import overrides_of
from tests.synthetic import WEIGHTS, build, damage, entry, whole

PARTS = ("vit", "qformer", "llm")
WIDTHS = (16, 8, 4, 3)


def recipe(widths: tuple[int, ...]) -> list[dict[str, Any]]:
    return [e for p, w in zip(PARTS, widths, strict=True) if w < 16 for e in whole([p], w)]


def made(folder: Path, recipes: list[list[dict[str, Any]]], n: int = 200, **more: Any) -> tuple[pd.DataFrame, Draws]:
    build(folder, recipes, n=n, **more)
    cells = comparable(pd.read_parquet(folder / "table.parquet"))
    draws = load_draws(folder, cells, "cider")
    assert draws is not None
    return cells, draws


@pytest.fixture(scope="module")
def factorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Draws]:
    recipes = [recipe(w) for w in product(WIDTHS, (16, 4), WIDTHS) if min(w) < 16]
    return made(tmp_path_factory.mktemp("factorial"), recipes, jitter=0.01)


def test_a_step_is_the_paired_difference_of_two_cells(factorial: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = factorial
    table = prices(cells, "cider", lambda keys: draws)
    here = table[table["kind"] == "here"]
    assert here.groupby("part")["step"].apply(set).loc["llm"] == {"narrower", "wider"}
    by_key = cells.set_index("key")
    for row in here.dropna(subset=["key"]).to_dict("records"):
        narrow, wide = (row["key"], row["beside"])[:: 1 if row["step"] == "narrower" else -1]
        assert row["lost"] == pytest.approx(by_key.loc[narrow, "drop_cider"] - by_key.loc[wide, "drop_cider"])
        assert row["saved_bytes"] == by_key.loc[wide, "model_bytes"] - by_key.loc[narrow, "model_bytes"] > 0
        assert (row["low"], row["high"]) == draws.paired(narrow, wide)[1:]
        assert np.isnan(row["price"]) == (row["low"] <= 0 <= row["high"])


def test_the_recipe_at_hand_is_the_smallest_that_loses_little_or_the_one_asked_for(
    factorial: tuple[pd.DataFrame, Draws],
) -> None:
    cells, draws = factorial
    (own,) = states(cells, "cider")
    at = own.standing()
    within = [w for w, s in own.known.items() if s.drop <= 0.02 * own.known[own.full].value]
    assert own.known[at].model_bytes == min(own.known[w].model_bytes for w in within)
    asked = own.known[4.0, 16.0, 4.0].key
    found = prices(cells, "cider", lambda keys: draws, asked)
    assert set(found.loc[found["kind"] == "here", "beside"]) == {asked}


def test_the_ladder_takes_the_least_loss_for_its_size_at_each_rung(factorial: tuple[pd.DataFrame, Draws]) -> None:
    """Against a search over all cells: no cell that is one part narrower had a lower price, and every rung is one step."""
    cells, draws = factorial
    (own,) = states(cells, "cider")
    table = prices(cells, "cider", lambda keys: draws)
    ladder = table[table["kind"] == "ladder"]
    now = own.full
    for row in ladder.to_dict("records"):
        to = own.of(row["key"])
        assert to is not None
        assert [i for i in range(3) if to[i] != now[i]] == [own.parts.index(row["part"])]
        rivals = [w for w in own.known if sum(a != b for a, b in zip(w, now, strict=True)) == 1 and w < now]
        price = {w: (own.known[w].drop - own.known[now].drop) / (own.known[now].model_bytes - own.known[w].model_bytes)
                 for w in rivals if own.known[w].model_bytes < own.known[now].model_bytes}  # fmt: skip
        assert min(price, key=lambda w: price[w]) == to
        now = to
    assert ladder["model_bytes"].is_monotonic_decreasing
    truth = [damage(recipe(tuple(map(int, own.of(k) or ()))), WEIGHTS) for k in ladder["key"]]
    assert truth == sorted(truth)


def test_what_comes_next_is_free_and_large_else_cheap() -> None:
    rows = [("vit", 0.3, 0.2, 0.4, 100), ("llm", 0.01, -0.01, 0.03, 50), ("qformer", 0.0, -0.01, 0.01, 20)]
    here = pd.DataFrame(rows, columns=["part", "lost", "low", "high", "saved_bytes"]).assign(step="narrower")
    found = advised(here)
    assert found is not None
    assert found["part"] == "llm"  # neither loss is significant; it saves more
    cheap = advised(here.assign(low=[0.2, 0.001, 0.001]))
    assert cheap is not None
    assert cheap["part"] == "qformer"
    assert advised(here.assign(step="wider")) is None
    assert advised(here.assign(lost=np.nan)) is None


def test_parts_that_were_only_run_alone_are_priced_from_full_precision(tmp_path: Path) -> None:
    cells, draws = made(tmp_path, [whole([p], b) for p in ("vit", "llm") for b in (8, 4, 3)])
    table = prices(cells, "cider", lambda keys: draws)
    assert set(table["kind"]) == {"alone"}
    own = table[table["part"] == "vit"]
    assert list(zip(own["now"], own["to"], strict=True)) == [(16, 8), (8, 4), (4, 3)]
    first = own.iloc[0]
    row = cells.set_index("key").loc[first["key"]]
    assert [first["lost"], first["low"], first["high"]] == pytest.approx(
        [row["drop_cider"], row["drop_cider_low"], row["drop_cider_high"]]
    )


def test_cells_beside_the_recipe_that_were_not_run_have_rows_without_a_key(tmp_path: Path) -> None:
    """Unions at one width: beside none of them a cell of two widths was run, so parts alone are shown too."""
    unions = (["vit"], ["llm"], ["vit", "llm"])
    cells, draws = made(tmp_path, [whole(u, b) for u in unions for b in (8, 4)], values=lambda e: 0.0)
    table = prices(cells, "cider", lambda keys: draws)
    here = table[table["kind"] == "here"]
    assert here["key"].isna().all()
    assert {(r["part"], r["to"]) for r in here.to_dict("records")} >= {("vit", 8.0), ("llm", 8.0)}
    assert set(table["kind"]) == {"here", "alone", "ladder"}


def test_without_outputs_a_price_has_no_interval(tmp_path: Path) -> None:
    cells, _ = made(tmp_path, [whole(u, 4) for u in (["vit"], ["llm"], ["vit", "llm"])])
    table = prices(cells.drop(columns=["drop_cider_low", "drop_cider_high"]), "cider", lambda keys: None)
    run = table.dropna(subset=["key"])
    assert run["low"].isna().all()
    assert run["price"].notna().all()


def test_groups_as_long_as_the_row_have_a_recipe_file_alone() -> None:
    """The recipe says `channel` of them, which the method does not take, and not which size they had."""
    listed: list[Any] = [entry("llm:all:all", 4, "nf4"), entry("llm:all:all", 4)]
    assert [overrides_of([e]) for e in listed] == [None, ["part=llm", "quant=rtn"]]
