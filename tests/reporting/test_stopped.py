"""What a reader is told of cells that stopped early: wherever an interval of theirs is shown, its level is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from blip2sweep.commands.budget import Budget
from blip2sweep.commands.recommend import run_recommend
from blip2sweep.commands.suggest import run_suggest
from blip2sweep.importing.table_csv import import_csv
from blip2sweep.reporting.captions import captions
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.html import build_report, page
from blip2sweep.reporting.overview import overview
from blip2sweep.reporting.pair import load_pair
from blip2sweep.reporting.prediction_quality import model_quality
from blip2sweep.reporting.ship import ship_table, shipped
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.side_by_side import side_by_side
from blip2sweep.reporting.source import Source, load_source
from blip2sweep.reporting.stopped_text import with_stopped
from blip2sweep.reporting.table_notes import notes
from blip2sweep.reporting.worst import worst_samples
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import list_sweeps
from tests.reporting.browser import chromium, errors, wait
from tests.synthetic import Entry, build, whole

N = 400
PARTS = (["vit"], ["llm"], ["qformer"], ["vit", "qformer", "llm"])


def stops(listed: Sequence[Entry]) -> tuple[int, str] | None:
    """The whole model stops at 3 bits and the vision part at 4, both when they are known; the language part at 8 bits
    with a verdict."""
    parts, bits = {str(e["target"]).split(":")[0] for e in listed}, {e["bits"] for e in listed}
    if bits == {2}:
        return 64, "below 50 %"
    if (bits == {3} and len(parts) == 3) or (bits == {4} and parts == {"vit"}):
        return 192, "known to ±5 %"
    return (256, "within 5 %") if bits == {8} and parts == {"llm"} else None


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("early")
    build(folder, [whole(p, b) for p in PARTS for b in (8, 4, 3, 2)], n=N, stops=stops)
    return load_source(folder)


@pytest.fixture(scope="module")
def made(early: Source) -> list[Figure]:
    return figures(early)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("plain")
    build(folder, [whole(p, b) for p in PARTS for b in (8, 3)], n=60)
    return load_source(folder)


def test_the_table_says_how_far_a_cell_got_why_and_the_level_of_its_interval(early: Source) -> None:
    shown = short_table(early.table).set_index(early.table["recipe"])
    own = shown.loc["vit:all:all=rtn4/channel"]
    assert own["images"] == "192 of 400"
    assert own["stopped"] == "known to ±5 %"
    assert own["95 % interval"].endswith(" (99.5 %)")
    other = shown.loc["vit:all:all=rtn8/channel"]
    assert other["images"] == "400"
    assert other["stopped"] == ""
    assert other["95 % interval"].endswith("%)") is False


def test_the_notes_under_it_say_what_its_numbers_are(early: Source) -> None:
    told = "\n".join(notes(early.table))
    assert "interval: 95 %, 99.5 % of cells that stopped early, paired" in told
    assert "7 cells stopped early (stopped, images): a metric is what the cell keeps" in told
    assert "1 cell that stopped with a verdict is not used for Shapley values and predictions" in told


def test_where_nothing_stopped_nothing_is_said(plain: Source) -> None:
    assert "stopped" not in "\n".join(notes(plain.table))
    assert not {"stopped", "images"} & {*short_table(plain.table)}
    assert not [f.name for f in figures(plain) if "stopped" in f.caption or "stopped" in f.data]
    assert "stopped" not in (model_quality(plain) or "")


def test_every_figure_with_such_a_cell_says_the_level(early: Source, made: list[Figure]) -> None:
    told, by_name = {f.name: f.caption for f in made}, {f.name: f for f in made}
    for name in ("dropoff", "frontier", "prices"):
        assert "stopped early, after " in told[name], name
        assert "of 400 images: their intervals have 99.5 %" in told[name]
    data = by_name["dropoff"].data.set_index("key")
    own = early.cells.set_index("key")
    key = own.index[own["recipe"] == "vit:all:all=rtn4/channel"][0]
    assert data.loc[key, "stopped"] == "stopped at 192 of 400 images (known to ±5 %)"
    assert "95 %, 99.5 % of cells that stopped early]" in by_name["prices"].table
    assert "stopped" not in told["view3d"]  # which shows no interval
    assert "7 cells that stopped early" not in told["dropoff"]


def test_sums_of_cells_have_an_interval_of_another_level(early: Source) -> None:
    figure = Figure("shapley", "", "Caption.", pd.DataFrame({"key": ["of the whole"]}), "")
    told = with_stopped(figure, early.cells).caption
    assert told.startswith("Caption. 6 cells stopped early, after 64 to 192 of 400 images: intervals of sums have 95 %")


def test_the_page_has_it_in_its_table_of_cells_and_in_what_it_says_of_intervals(
    early: Source, made: list[Figure]
) -> None:
    text = page(early, made)
    assert "stopped (low and high have 99.5 %)" in text
    assert "<dd>95 %, 99.5 % of cells that stopped early, paired" in text


def test_the_browser_of_outputs_knows_which_samples_a_cell_has_not(early: Source) -> None:
    told = captions(early)
    assert told is not None
    keys = [c["key"] for c in told["cells"]]  # type: ignore[attr-defined]
    key = next(iter(k for k, m in early.draws.seen.items() if m.sum() == 192))  # type: ignore[union-attr]
    index = told["index"][keys.index(key)]  # type: ignore[index]
    assert [i is not None for i in index] == early.draws.seen[key].tolist()  # type: ignore[union-attr]
    own = next(i for i, number in enumerate(index) if number is not None)
    assert told["texts"][own][index[own]]  # type: ignore[index]


def test_the_worst_samples_are_those_that_a_cell_has(early: Source) -> None:
    """Beside each stands the output for that very sample."""
    worst = worst_samples(early)
    draws = early.draws
    assert draws is not None
    places = dict(zip(draws.image_ids, range(N), strict=True))
    rows = [r for r in worst.to_dict("records") if r["key"] in draws.seen]
    assert rows
    for r in rows:
        assert draws.seen[r["key"]][places[r["image_id"]]]
        assert r["output"].endswith(f" on {places[r['image_id']]}")
        assert r["baseline"].endswith(f" on {places[r['image_id']]}")


def test_two_side_by_side_say_it_too(tmp_path: Path) -> None:
    """A pair of which one stopped is compared on its images, and the difference is of these."""
    for name, method, own in (("one", "rtn", stops), ("other", "gptq", None)):
        build(
            tmp_path, [whole(p, b, method) for p in PARTS for b in (8, 4)], name, n=N, **({"stops": own} if own else {})
        )
    pair = load_pair(tmp_path, ["one", "other"], {})
    found = side_by_side(pair)
    assert "2 cells stopped early, after 192 to 256 of 400 images: their intervals have 99.5 %" in found.figure.caption
    assert found.figure.table.count("] (99.5 %)</td>") == 4
    assert any("(95 %, 99.5 % of cells that stopped early each, paired by image)" in note for note in found.notes)
    one, other = (s.draws for s in pair.models)
    assert one is not None
    assert other is not None
    key = next(k for k, m in one.seen.items() if m.sum() == 192)
    own = pair.models[0].cells.set_index("key").loc[key]
    beside = pair.models[1].cells.set_index("recipe").loc[own["recipe"].replace("rtn", "gptq"), "key"]
    mask = one.seen[key]
    base = one.arrays[one.baseline][:, 0]
    scale = base.mean() / base[mask].mean()
    lost = scale * (one.arrays[key][:, 0].mean() - other.arrays[beside][mask, 0].mean())
    assert f"{lost:.3f} [".replace("-", "−") in found.figure.table


# ---- recommend and suggest


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Two cells that stopped, one of them the best within any limit, and two that did not."""
    folder = tmp_path_factory.mktemp("two")
    cells = [whole(PARTS[3], 8), whole(PARTS[3], 4), whole(PARTS[3], 3), whole(["vit"], 8)]
    build(folder, cells, n=N, stops=lambda e: (192, "known to ±5 %") if e[0]["bits"] in (3, 4) else None)
    return load_source(folder)


def test_a_recommended_cell_that_stopped_comes_with_the_line_that_finishes_it(two: Source, tmp_path: Path) -> None:
    """And so does the runner-up, with a recipe file of its own."""
    path = tmp_path / "best.yaml"
    told = run_recommend(two, Budget(max_drop="99%"), path, verify=False)
    keys = two.cells.set_index("recipe")["key"]
    three, four = (keys[next(r for r in keys.index if r.startswith(f"vit:all:all=rtn{b}/"))] for b in (3, 4))
    assert told[0].startswith(f"recommended: cell {three}, measured: within --max-drop 99%, keeps ")
    assert told[0].endswith(" % of CIDEr, stopped at 192 of 400 images (known to ±5 %)")
    at = "stopped at 192 of 400 images (known to ±5 %): "
    assert f"cell {three} {at}finish it before you rely on it, by the command below" in told
    own = f"python -m blip2sweep output_dir={two.output_dir} recipe_file="
    assert f"run it: {own}{path} evaluation.stop=none" in told
    second = tmp_path / "best-runner-up.yaml"
    assert f"the runner-up, cell {four}, {at}finish it too: {own}{second} evaluation.stop=none" in told
    assert {e["bits"] for e in yaml.safe_load(second.read_text())["targets"]} == {4}


def test_its_intervals_are_said_to_have_another_level(two: Source, tmp_path: Path) -> None:
    told = "\n".join(run_recommend(two, Budget(max_drop="99%"), tmp_path / "best.yaml", verify=False))
    assert "keeps 99 % with 99.5 % confidence: no (" in told
    assert re.search(r"on the \d\d images that did not choose it; .* on all its 192\)", told)
    assert re.search(r"drop \S+ \[\S+, \S+\] \(99.5 %\)", told)


def test_a_whole_cell_is_recommended_as_before(two: Source, tmp_path: Path) -> None:
    told = run_recommend(two, Budget(max_drop="2%"), tmp_path / "best.yaml", verify=False)
    assert not [
        line for line in told if "finish it before" in line or ("evaluation.stop" in line and "runner-up" not in line)
    ]
    assert any("with 95 % confidence" in line for line in told)


def test_suggest_says_which_cells_it_did_not_fit_on(early: Source, tmp_path: Path) -> None:
    told = run_suggest(early, 1, tmp_path)
    assert told[0].startswith("1 cell that stopped with a verdict is not used for the fit, since its value is known")


# ---- further texts


def test_the_first_screen_says_it_once_and_behind_the_intervals(early: Source, made: list[Figure]) -> None:
    told = overview(early, made)
    text = " ".join([*told.sentences, *(f"{a.short} {a.text}" for a in told.answers)])
    assert "7 cells stopped early (stopped, images)" in text
    assert "] (99.5 %)" in text
    assert "64 images" not in text  # the fewest that some cell has say nothing of the others
    assert "on 400 images" in text


def test_what_stopped_early_is_not_shipped(early: Source) -> None:
    here = replace(early, cells=early.cells.assign(imported=None))
    kept = set(early.cells.loc[early.cells["stopped"] == "", "key"])
    assert {one.key for one in shipped(here)} <= kept
    assert "7 cells that stopped early are left out: finish first what is to ship" in ship_table([here])


def test_a_table_that_is_imported_again_knows_it(early: Source, tmp_path: Path) -> None:
    """Other columns would make whole cells of them, with intervals of 95 %."""
    path = tmp_path / "ours.csv"
    early.table.to_csv(path, index=False)
    import_csv(path, tmp_path)
    again = load_source(tmp_path).table.set_index("recipe")
    before = early.table.set_index("recipe").loc[again.index]
    for column in ("images", "images_of"):
        assert again[column].dropna().tolist() == before.loc[before["stopped"] != "", column].tolist()
    assert again["stopped"].tolist() == before["stopped"].tolist()
    assert "99.5 % of cells that stopped early" in "\n".join(notes(again.reset_index()))
    ledger, (sweep,) = Ledger(tmp_path).refresh(), list_sweeps(tmp_path)
    assert all(sweep.done(ledger, key) for key in sweep.keys)  # there is nothing to compute


@pytest.mark.xdist_group("chromium")
@pytest.mark.thorough
def test_the_page_says_that_a_cell_stopped_before_a_sample(early: Source, tmp_path: Path) -> None:
    build_report(early, tmp_path / "report.html")
    draws = early.draws
    assert draws is not None
    missed = int(np.flatnonzero(~np.logical_or.reduce([*draws.seen.values()]))[0])
    with chromium(tmp_path / "profile") as driver:
        driver.get((tmp_path / "report.html").as_uri())
        driver.execute_script("document.getElementById('captions').scrollIntoView()")
        wait(driver, "document.getElementById('outputs') !== null")
        driver.execute_script(
            "const s = document.querySelectorAll('#browser select')[1]; s.value = ''; s.dispatchEvent(new Event('change'))"
        )
        find = driver.execute_script("return document.querySelector('#browser input')")
        driver.execute_script(f"arguments[0].value = '{draws.image_ids[missed]}'", find)
        driver.execute_script(
            "[...document.querySelectorAll('#browser button')].find(b => b.textContent === 'Find next').click()"
        )
        told = driver.execute_script("return document.getElementById('outputs').textContent")
        assert told.count("stopped before this one") == len(draws.seen)
        hover = "JSON.stringify(document.getElementById('plot-dropoff').data.map(t => t.text))"
        wait(driver, "document.getElementById('plot-dropoff').data !== undefined")
        assert "stopped at 64 of 400 images (below 50 %); intervals of 99.5 %" in driver.execute_script(
            f"return {hover}"
        )
        assert errors(driver) == []
