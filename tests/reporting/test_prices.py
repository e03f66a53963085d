"""Price tables as they are read: in the report, by `recommend` and on a terminal; and the words about few images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.analysis.dropoff import dropoff, lowest_safe
from blip2sweep.analysis.prices import prices
from blip2sweep.commands.budget import Budget
from blip2sweep.commands.recommend import run_recommend
from blip2sweep.reporting.few_images import baseline_beaten
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.html import page
from blip2sweep.reporting.overview import overview
from blip2sweep.reporting.price_table import Sizes
from blip2sweep.reporting.prices import price_lines, price_tables, terminal_prices
from blip2sweep.reporting.source import Source, load_source
from blip2sweep.reporting.static import write_static
from blip2sweep.reporting.table_notes import notes
from tests.synthetic import build, whole

UNIONS = (["vit"], ["llm"], ["vit", "llm"])


def opened(folder: Path, recipes: list[list[dict[str, Any]]], n: int = 200, **more: Any) -> Source:
    build(folder, recipes, n=n, **more)
    return load_source(folder)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Source:
    pairs = [(v, t) for v in (16, 8, 4) for t in (16, 8, 4) if (v, t) not in ((16, 16), (8, 4))]
    return opened(tmp_path_factory.mktemp("mixed"), [whole(["vit"], v) * (v < 16) + whole(["llm"], t) * (t < 16) for v, t in pairs],
                  jitter=0.01)  # fmt: skip


def lines(source: Source) -> list[str]:
    return price_lines(source, prices(source.cells, source.metric, lambda keys: source.draws), source.cells)


def test_a_row_says_loss_interval_size_and_price(mixed: Source) -> None:
    told = lines(mixed)
    assert told[0].startswith("what the next bits cost with rtn/channel, at vit 8 and llm 8 bits (cell ")
    assert told[1].split("  ")[-1] == "per 100 kB"
    vit = next(t for t in told if "vit      8 → 4" in t or "vit   8 → 4" in t)
    assert vit.count("[") == 1
    assert any("8 → none" in t and "no loss known, within ±0.0" in t for t in told)
    assert any(t.startswith("  the ladder from full precision with rtn/channel") and "→" in t for t in told)


def test_what_was_not_run_has_the_line_that_runs_it(mixed: Source) -> None:
    (line,) = [t for t in lines(mixed) if "not run" in t]
    assert line.startswith("  not run: llm 8 → 4 bits: python -m blip2sweep -m ")
    words = shlex.split(line.partition("-m blip2sweep -m ")[2])
    assert words[-4:] == ["part=vit+llm", "quant=rtn", "per_part.vit.bits=8", "per_part.llm.bits=4"]


@pytest.mark.thorough
def test_page_recommend_terminal_and_picture_show_the_same(mixed: Source, tmp_path: Path) -> None:
    made = figures(mixed)
    text = page(mixed, made)
    (own,) = price_tables(mixed, next(f for f in made if f.name == "prices").data)
    assert own.html(mixed.output_dir) in text
    assert all(v in own.html(mixed.output_dir) for v in own.rows[0])
    assert terminal_prices(mixed.output_dir, mixed.table, mixed.command)[0] == own.lines()[0]
    said = run_recommend(mixed, Budget(None, "5%"), tmp_path / "r.yaml", verify=False)
    assert any(s.startswith("what the next bits cost with rtn/channel, at ") for s in said)
    assert "The ladder from full precision" in overview(mixed, made).sentences[1]
    pictures = write_static([f for f in made if f.name == "prices"], tmp_path, "png", "CIDEr")
    assert [p.name for p in pictures] == ["prices.png"]


def test_shapley_values_are_of_one_recipe_in_units_of_the_metric_with_their_widths(tmp_path: Path) -> None:
    source = opened(tmp_path, [whole(u, b) for u in UNIONS for b in (8, 4, 3)])
    shapley = next(f for f in figures(source) if f.name == "shapley")
    assert "of one recipe" in shapley.caption
    assert "at 3, 4, 8 bits" in shapley.caption
    assert "%" not in shapley.caption
    told = overview(source, figures(source)).sentences[1]
    assert "(Shapley values, of this recipe)" in told
    assert "%" not in told.partition("(Shapley")[0]


def test_other_tasks_and_empty_tables_have_no_prices(tmp_path: Path) -> None:
    build(tmp_path, [], n=20)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert terminal_prices(tmp_path, table, "") == []
    assert terminal_prices(tmp_path, pd.concat([table, table.assign(task="vqa")]), "") == []


@pytest.mark.parametrize(("base", "per", "told"), [
    (7.5e9, 1e8, "100 MB"), (1.9e6, 1e5, "100 kB"), (3e8, 1e7, "10,000 kB"), (2.5e10, 1e9, "1,000 MB"),
])  # fmt: skip
def test_prices_are_of_a_hundredth_of_the_model(base: float, per: float, told: str) -> None:
    assert (Sizes(base).per, Sizes(base)(per)) == (per, told)


# ---- few images


@pytest.mark.thorough
def test_no_width_is_safe_on_few_images_whatever_its_interval(tmp_path: Path) -> None:
    """Nothing lost and all images changed a little: the interval is narrow, but a break in 3.7 % of images went unseen."""
    for n, safe in ((100, False), (184, False), (185, True)):
        source = opened(tmp_path / str(n), [whole(["vit"], 8)], n=n, values=lambda e: 0.0, jitter=0.001)
        curves = dropoff(source.cells, "cider", source.draws)
        assert curves["drop_high"].max() < 0.02 * curves["baseline"].iloc[0]
        assert lowest_safe(curves)["lowest_safe"].notna().all() == safe
        assert ("185 show a loss of 2 %" in overview(source, figures(source)).sentences[2]) != safe
        assert any("no width is called safe within 2%" in line for line in notes(source.table)) != safe
        assert ("at least 185 images" in overview(source, figures(source)).sentences[-1]) != safe


def test_a_cell_that_changed_nothing_says_what_went_unseen(tmp_path: Path) -> None:
    source = opened(tmp_path, [whole(["vit"], 8), whole(["vit"], 4)], values=lambda e: 0.0, jitter=0.0)
    row = source.cells[source.cells["part"] != "none"].iloc[0]
    whole_score = row["baseline_cider"]
    assert (row["drop_cider_low"], row["drop_cider_high"]) == pytest.approx(
        (-3.689 / 200 * whole_score, 3.689 / 200 * whole_score), rel=1e-3
    )
    assert (row["changed_cider"], row["images"]) == (0, 200)
    wanted = "fewer than 10 of 200 images changed: a break in up to 1.8% of the images could have gone unseen"
    assert any(wanted in line for line in notes(source.table))
    assert wanted in overview(source, figures(source)).sentences[2]
    curves = dropoff(source.cells, "cider", source.draws)
    assert (curves["retained_high"] - curves["retained_low"] > 3).all()
    assert (curves["band_high"] - curves["band_low"] > 0.03).all()  # no band without a width either
    said = run_recommend(source, Budget(None, "2%"), tmp_path / "r.yaml", verify=False)
    assert any("only 0 of these 100 images changed: a break in up to 3.7%" in s for s in said)
    assert any("a limit of 2.0% is not known to be kept" in s for s in said)


@pytest.mark.thorough
def test_a_baseline_that_many_cells_beat_is_remarked_on(tmp_path: Path) -> None:
    better = opened(tmp_path / "b", [whole([p], b) for p in ("vit", "llm") for b in (8, 4)], values=lambda e: -0.2)
    told = "4 of 4 cells are significantly better than the baseline in cider"
    assert any(told in line for line in notes(better.table))
    assert any(told in s for s in overview(better, figures(better)).sentences)
    few = better.table.copy()
    few.loc[few.index[3:], "drop_cider_high"] = 0.1
    assert baseline_beaten(few, "cider") is None
    assert baseline_beaten(few, "meteor") is None
