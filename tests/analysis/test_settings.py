"""Settings, lines and seeds of cells as a plan really makes them; what is compared with what, and what is refused."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blip2sweep.analysis import blocks, knapsack, methods, shapley
from blip2sweep.analysis.cells import comparable, headline, one_seed
from blip2sweep.analysis.draws import Draws, load_draws
from blip2sweep.analysis.dropoff import dropoff, lowest_safe
from blip2sweep.errors import UserError
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.reporting.source import load_source, narrowing
from blip2sweep.results.schema import known
from tests.composing import plan
from tests.synthetic import WEIGHTS, build, build_planned, damage, entry, grid, source, whole

pytestmark = pytest.mark.thorough
SMALL = ("task.limit=4", "calibration.n_samples=4")
UNIONS = "part=vit,qformer,llm,vit+qformer,vit+llm,qformer+llm,all"


def planted(job: dict[str, Any]) -> float:
    return damage(job["recipe"], WEIGHTS) + 0.01 * (job["columns"].get("calibration_seed") or 0)


def table_of(folder: Path, *words: str) -> tuple[pd.DataFrame, Draws]:
    """Comparable cells of a planned sweep with planted scores."""
    build_planned(folder, plan(*words).cells.values(), planted)
    cells = comparable(pd.read_parquet(folder / "table.parquet"))
    draws = load_draws(folder, cells, "cider")
    assert draws is not None
    return cells, draws


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Draws]:
    """RTN and GPTQ of all unions of parts, two calibration seeds; the digests of the parts differ."""
    words = (UNIONS, "quant=rtn,gptq", "quant.bits=8,3", "calibration.seed=0,1", *SMALL)
    return table_of(tmp_path_factory.mktemp("calibrated"), *words)


def test_gptq_of_every_part_and_seed_is_one_setting(calibrated: tuple[pd.DataFrame, Draws]) -> None:
    cells = calibrated[0]
    assert cells["recipe_json"].str.contains('"calibration"').any()
    assert set(cells["setting"]) == {"none", "rtn/channel", "gptq/channel"}
    assert not cells["several_methods"].any()
    assert set(cells.loc[cells["method"] == "gptq", "seed"]) == {0, 1}
    own = dropoff(headline(cells), "cider", None)
    lines = own[~own["point"]]
    assert not lines.duplicated(["setting", "parts", "width"]).any()
    assert (own["setting"] == "gptq/channel").sum() == 2 * (lines["setting"] == "gptq/channel").sum() == 28
    assert set(own.loc[own["point"], "seed"]) == {1}


def test_calibrated_cells_have_shapley_values_additivity_partners_and_a_fit(
    calibrated: tuple[pd.DataFrame, Draws],
) -> None:
    cells, draws = calibrated
    found, refused = shapley.shapley_over_bits(cells, "cider", draws)
    assert refused == []
    assert not found.duplicated(["setting", "width", "term"]).any()
    assert set(found["setting"]) == {"rtn/channel", "gptq/channel"}
    three = found[(found["setting"] == "gptq/channel") & (found["width"] == 3)].set_index("term")["value"]
    assert three["vit"] > three["llm"] > three["qformer"]
    added = shapley.additivity(cells, "cider", draws)
    assert len(added) == 4 * 2 * 3  # unions × widths × (RTN, two seeds of GPTQ)
    assert {p.setting for p in knapsack.problems(cells, model_anatomy("tiny"))} == {"rtn/channel", "gptq/channel"}


def test_seeds_are_points_of_a_comparison(calibrated: tuple[pd.DataFrame, Draws]) -> None:
    cells, draws = calibrated
    found = methods.matched(cells, "cider", draws)
    assert len(found) == 7 * 2 * 2
    assert found.groupby("label")["seed"].nunique().eq(2).all()
    assert set(found["label"]) >= {"vit 3 bits", "vit + qformer + llm 8 bits"}


def test_the_worst_seed_decides_what_is_safe(tmp_path: Path) -> None:
    words = ("part=vit", "quant=gptq", "quant.bits=8,4", "calibration.seed=0,1", *SMALL)
    cells = plan(*words).cells.values()
    build_planned(
        tmp_path,
        cells,
        lambda job: 0.2 * (job["columns"]["calibration_seed"] == 0 and job["recipe"][0]["bits"] == 4),
        n=200,
    )
    curves = dropoff(comparable(pd.read_parquet(tmp_path / "table.parquet")), "cider", None)
    assert lowest_safe(curves)["lowest_safe"].tolist() == [8]
    assert lowest_safe(curves[curves["seed"] == 1])["lowest_safe"].tolist() == [4]


def test_other_calibration_samples_are_another_setting(tmp_path: Path) -> None:
    words = ("part=vit", "quant=gptq", "quant.bits=8,4", "calibration.n_samples=4,8", "task.limit=4")
    cells, _ = table_of(tmp_path, *words)
    assert set(cells["setting"]) == {"none", "gptq/channel 4 samples", "gptq/channel 8 samples"}
    assert len(one_seed(cells)) == len(cells)


def test_quantized_inputs_are_part_of_the_setting(tmp_path: Path) -> None:
    words = (
        "part=llm",
        "quant=rtn",
        "quant.symmetric=true",
        "quant.bits=4,8",
        "quant.input.bits=8,none",
        "task.limit=4",
    )
    cells, draws = table_of(tmp_path, *words)
    assert set(cells["setting"]) == {"none", "rtn/channel/sym", "rtn/channel/sym/a8"}
    assert methods.matched(cells, "cider", draws, reference="none").empty
    static = plan(
        "part=llm",
        "quant=rtn",
        "quant.input.bits=8",
        "quant.input.strategy=tensor",
        "quant.input.dynamic=false",
        *SMALL,
    )
    build_planned(tmp_path, static.cells.values(), planted, name="static")
    cells = comparable(pd.read_parquet(tmp_path / "table.parquet"))
    assert "rtn/channel/a8 tensor static" in set(cells["setting"])


def test_a_method_for_each_part_says_which_has_which(tmp_path: Path) -> None:
    words = (
        "part=vit+llm",
        "quant=rtn",
        "quant.bits=4",
        "per_part.vit.method=rtn,mse",
        "per_part.llm.method=rtn,mse",
        "task.limit=4",
    )
    cells, _ = table_of(tmp_path, *words)
    told = dict(zip(cells["setting"], cells["several_methods"], strict=True))
    assert told == {
        "none": False,
        "rtn/channel": False,
        "mse/channel": False,
        "vit rtn/channel + llm mse/channel": True,
        "vit mse/channel + llm rtn/channel": True,
    }


# ---- matched cells


def matched_recipes(*recipes: list[dict[str, Any]], folder: Path) -> pd.DataFrame:
    build(folder, recipes)
    return methods.matched(comparable(pd.read_parquet(folder / "table.parquet")), "cider", None)


def test_a_channel_is_not_matched_with_groups_nor_symmetric_with_not(tmp_path: Path) -> None:
    """Whole-model bits per weight hardly move for a small part: the place and what was touched decide."""
    at = "qformer:0:attention"
    others = [
        entry(at, 4, "gptq", strategy="group", group_size=32),
        entry(at, 4, "gptq", symmetric=True),
        entry(at, 4, "gptq", input={"bits": 8, "strategy": "token", "symmetric": True, "dynamic": True}),
    ]
    assert matched_recipes([entry(at, 4)], *([e] for e in others), folder=tmp_path / "none").empty
    found = matched_recipes([entry(at, 4)], [others[0]], [entry(at, 4, "mse")], folder=tmp_path / "one")
    assert found["method"].tolist() == ["mse"]
    # float8 knows no symmetry and stores 32-bit scales: the size of the layers touched tells it apart
    sized = matched_recipes(
        [entry(at, 8)], [{"target": at, "method": "float8", "bits": 8, "strategy": "channel"}], folder=tmp_path / "size"
    )
    assert sized.empty


def test_thirds_and_mixed_widths_keep_their_places_apart(tmp_path: Path) -> None:
    places = [[entry(f"vit:{third}:all", 4)] for third in ("first", "last")]
    places.append([*whole(["vit"], 4), *whole(["llm"], 8)])
    both = [[{**e, "method": m} for e in p] for p in places for m in ("rtn", "gptq")]
    found = matched_recipes(*both, folder=tmp_path)
    assert found["label"].tolist() == ["vit first 4 bits", "vit last 4 bits", "vit 4 + llm 8 bits"]


# ---- blocks


def test_single_blocks_and_thirds_are_two_lines(tmp_path: Path) -> None:
    thirds = [[entry(f"{p}:{t}:all", 3)] for p in ("vit", "llm") for t in ("first", "middle", "last")]
    build(tmp_path, [*grid(), *thirds])
    cells = comparable(pd.read_parquet(tmp_path / "table.parquet"))
    found = blocks.sensitivity(cells, "cider", load_draws(tmp_path, cells, "cider"), model_anatomy("tiny"))
    one = found[(found["kind"] == blocks.ONE) & (found["part"] == "vit")]
    lines = {line: own["first"].tolist() for line, own in one.groupby("line")}
    assert lines == {"vit all, single blocks": [0, 1, 2, 3, 4, 5], "vit all, thirds": [0, 2, 4]}
    assert set(one.loc[one["headline"], "line"]) == {"vit all, single blocks"}


# ---- what is not compared


def mixed(folder: Path, **column: Any) -> pd.DataFrame:
    """A table of two kinds of cells that differ in one column."""
    build(folder, [whole(["vit"], 4)])
    table = known(pd.read_parquet(folder / "table.parquet"))
    name, value = next(iter(column.items()))
    before = table.assign(**{name: table.get(name, "before")})
    return pd.concat([before, before.assign(**{name: value}, key=before["key"] + "x")], ignore_index=True)


@pytest.mark.parametrize("column", [
    {"dtype": "float16"}, {"data": "other"}, {"generation": '{"num_beams":5,"prompt":"a photo of"}'}, {"weights": "abcdef"}, {"weights": None},
    {"task": "another"}, {"model": "else"},
])  # fmt: skip
def test_kinds_of_cells_are_not_mixed_and_the_remedy_exists(tmp_path: Path, column: dict[str, str]) -> None:
    table = mixed(tmp_path, **column)
    with pytest.raises(UserError, match=f"2 kinds of {next(iter(column))}") as told:
        comparable(table)
    option, value = shlex.split(str(told.value).rpartition("or ")[2])
    if option == "--only":
        chosen = narrowing(None, None, [value])
    else:
        chosen = narrowing(**{"model": None, "task": None, option.removeprefix("--"): value, "only": []})
    from blip2sweep.reporting.source import _narrowed

    assert len(comparable(_narrowed(table, chosen))) == 2


def test_two_baselines_are_refused(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)])
    table = pd.read_parquet(tmp_path / "table.parquet")
    again = table.assign(key=table["key"] + "x", baseline=table["baseline"] + "x")
    with pytest.raises(
        UserError, match=r"2 baselines are not compared: .* right: choose one sweep, or --only baseline="
    ):
        comparable(pd.concat([table, again], ignore_index=True))


def test_only_is_checked(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], 4)], made_from=source())
    with pytest.raises(UserError, match="--only dtype: right: COLUMN=VALUE"):
        narrowing(None, None, ["dtype"])
    with pytest.raises(UserError, match="--only dtyp=x: no such column; did you mean 'dtype'"):
        load_source(tmp_path, only=narrowing(None, None, ["dtyp=x"]))
    with pytest.raises(UserError, match="--only dtype=x: no cell has it; right: one of float32"):
        load_source(tmp_path, only=narrowing(None, None, ["dtype=x"]))


def test_the_lowest_seed_stands_for_all() -> None:
    rows = [("[]", "none", np.nan), ('[{"target":"vit:all:all","method":"gptq","bits":4}]', "gptq", 3.0)]
    rows.append((rows[1][0], "gptq", 1.0))
    cells = pd.DataFrame(rows, columns=["recipe_json", "setting", "seed"])
    assert one_seed(cells).index.tolist() == [0, 2]
