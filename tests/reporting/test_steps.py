"""The report of a sweep with further steps: its sentences, figures in a real browser, pictures, and what others say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.commands.budget import Budget
from blip2sweep.commands.recommend import run_recommend
from blip2sweep.reporting.captions import captions
from blip2sweep.reporting.dropoff import _drawable
from blip2sweep.reporting.few_images import baseline_beaten
from blip2sweep.reporting.figure import Figure
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.html import build_report
from blip2sweep.reporting.influence import influence_of
from blip2sweep.reporting.next_steps import suggest_command
from blip2sweep.reporting.overview import overview
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.source import Source, load_source
from blip2sweep.reporting.static import write_static
from blip2sweep.reporting.table_notes import notes
from tests.reporting.browser import chromium, errors, open_report, wait
from tests.synthetic import build, whole
from tests.synthetic_steps import INFLUENCES, build_steps, dropped, recovered

FURTHER = ("kinds", "importance", "recovery", "together")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steps")
    build_steps(path)
    return path


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return load_source(folder)


@pytest.fixture(scope="module")
def made(source: Source) -> dict[str, Figure]:
    return {f.name: f for f in figures(source)}


def some(source: Source, *kinds: str) -> Source:
    """The source with the cells of these kinds alone."""
    return replace(source, cells=source.cells[source.cells["kind"].isin(["none", *kinds])])


def test_figures_of_further_steps_come_first_and_those_without_data_last(made: dict[str, Figure]) -> None:
    names = list(made)
    assert tuple(names[:4]) == FURTHER
    assert [f.empty for f in made.values()] == sorted(f.empty for f in made.values())


def test_a_sweep_without_further_steps_has_the_figures_it_had(tmp_path: Path) -> None:
    build(tmp_path, [whole(["vit"], b) for b in (4, 2)])
    found = load_source(tmp_path)
    names = ["dropoff", "frontier", "blocks", "map", "prices", "shapley", "methods", "view3d"]
    assert [f.name for f in figures(found)] == names
    assert "kind" not in build_and_read(found, tmp_path)["cells"]


def build_and_read(source: Source, folder: Path) -> dict[str, Any]:
    """The data of the page."""
    build_report(source, folder / "page.html")
    text = (folder / "page.html").read_text()
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


@pytest.mark.thorough
def test_the_page_says_against_what_a_loss_is(source: Source, made: dict[str, Figure], tmp_path: Path) -> None:
    for name in ("kinds", "recovery"):
        assert "Against the control: in % of the uncompressed model with the same recovery" in made[name].caption
    told = " ".join(overview(source, list(made.values())).sentences)
    assert "of the baseline), " in told
    assert "% of its control (drop 0." in told
    assert "Losses are told against the baseline unless they say control" in told
    assert {"drop", "drop against control", "low, control", "kind"} <= set(build_and_read(source, tmp_path)["cells"])


def test_sentences_say_which_blocks_matter_and_that_sums_mislead(source: Source, made: dict[str, Figure]) -> None:
    blocks, cheapest, recovered, controls, sums, *rest = overview(source, list(made.values())).sentences
    assert "llm least (block 4: 0.0" in blocks
    assert "and most (block 1: 0." in blocks
    assert "Influence orders them alike to this degree (Spearman's rank correlation): vit 0." in blocks
    assert cheapest.startswith("Of 6 sets of steps without training, least in CIDEr is lost by: without vit:2-3 0.")
    assert "without qformer:4-5 keeps 3" in recovered
    assert "500 steps (kept 120), the best of 3 recoveries" in recovered
    assert controls.startswith("The controls, the uncompressed model with the same recovery, have 100 to 103 %")
    assert sums.startswith(
        "Sums of single drops mislead: of 7 cells whose pieces were run alone 6 lose significantly more"
    )
    assert rest[0].startswith("With rtn/channel it breaks at 3 bits")


def test_where_nothing_was_quantized_nothing_is_said_of_bits(source: Source) -> None:
    own = some(source, "drop blocks")
    told = overview(own, figures(own)).sentences
    assert len(told) == 3
    assert "bits" not in " ".join(told)


def test_sets_of_blocks_alone_are_told_and_have_no_figure_of_widths(source: Source) -> None:
    sets = some(source, "drop blocks").cells
    own = replace(source, cells=sets[sets["what"].isin(["uncompressed", "without llm:4-5", "without vit:2-3"])])
    made = {f.name: f for f in figures(own)}
    assert {n for n, f in made.items() if not f.empty} - {"importance"} == {"kinds", "frontier"}
    told = overview(own, list(made.values())).sentences
    assert any(
        t.startswith("Of 2 sets of steps without training, least in CIDEr is lost by: without vit:2-3") for t in told
    )
    assert "bits" not in " ".join(told)


def test_figures_of_widths_leave_out_further_steps(source: Source, made: dict[str, Figure]) -> None:
    further = set(source.cells.loc[source.cells["further"] != "", "key"])
    for name in ("view3d", "dropoff", "blocks", "map", "prices"):
        assert not made[name].empty or name in ("map", "prices")
        assert "key" not in made[name].data or not further & set(made[name].data["key"].dropna())
    assert "Every cell that is quantized and nothing else by the width" in made["view3d"].caption


def test_a_control_that_was_not_trained_is_no_point_of_the_frontier(source: Source, made: dict[str, Figure]) -> None:
    assert "LoRA" in set(made["frontier"].data["setting"])
    untrained = source.cells.assign(recover_steps=source.cells["recover_steps"].map(lambda s: s if s != s else 0.0))
    (frontier,) = (f.data for f in figures(replace(source, cells=untrained)) if f.name == "frontier")
    assert "LoRA" not in set(frontier["setting"])


def test_what_has_no_width_is_not_called_mixed(source: Source) -> None:
    found = captions(some(source, "drop blocks", "drop blocks + quantize"))
    assert found is not None
    told = {c["key"]: c.get("unquantized", False) for c in found["cells"]}  # type: ignore[attr-defined]
    kinds = source.cells.set_index("key")["kind"]
    assert {k for k, alone in told.items() if alone} == {k for k in told if kinds[k] == "drop blocks"}


def test_notes_of_cells_without_widths_say_nothing_of_them(source: Source) -> None:
    for kind, said in (("drop blocks", False), ("quantize", True)):
        table = some(source, kind).cells.assign(images=20, changed_cider=12.0)
        assert any("no width is called safe" in line for line in notes(table)) == said


def test_cells_of_single_blocks_stand_in_one_figure_alone(made: dict[str, Figure]) -> None:
    assert not set(made["kinds"].data["key"]) & set(made["importance"].data["key"].dropna())
    assert "The 36 cells of single blocks are in the next figure." in made["kinds"].caption


def test_missing_figures_name_their_cells(source: Source) -> None:
    own = some(source, "quantize", "LoRA")
    found = {f.name: f for f in figures(own)}
    assert found["together"].missing.endswith(
        "part=none drop_blocks=qformer:each,qformer:2@first,qformer:2@middle,qformer:2@last"
    )
    alone = {f.name: f for f in figures(some(source, "drop blocks"))}
    assert "drop_blocks=qformer:2@last recover=none,lora recover.steps=50,150,500" in alone["recovery"].missing


def test_the_frontier_has_a_line_a_kind_and_further_sizes(made: dict[str, Figure]) -> None:
    data = made["frontier"].data
    assert {"bits_per_weight", "model_bytes", "params", "gflops"} == set(data["by"])
    assert {"all kinds", "quantize", "drop blocks", "drop blocks + LoRA"} <= set(data["setting"])
    assert "the broad one is the frontier over all kinds" in made["frontier"].caption


def test_influence_is_that_of_the_model_and_its_weights(source: Source, folder: Path, tmp_path: Path) -> None:
    assert influence_of(source) == INFLUENCES
    (tmp_path / "influence").mkdir()
    told = json.loads((folder / "influence" / "abc.json").read_text())
    wrong = [told | {"model": "other"}, told | {"parts": {"vit": [0.1]}}, {"parts": 3}]
    for i, text in enumerate(wrong):
        (tmp_path / "influence" / f"{i}.json").write_text(json.dumps(text))
    (tmp_path / "influence" / "torn.json").write_text('{"model": "ti')
    assert influence_of(replace(source, output_dir=tmp_path)) == {}  # of others, of too few blocks, and no such files


def test_without_an_anatomy_the_other_figures_are_there(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "anatomy", property(lambda self: None))
    own = replace(source)
    found = {f.name: f for f in figures(own)}
    assert found["importance"].empty
    assert found["together"].empty
    assert not found["recovery"].empty


def test_curves_of_the_drop_off_picture_are_of_one_recipe(source: Source) -> None:
    lines = _drawable(source.table).set_index("key")["line"]
    (both,) = source.cells.loc[source.cells["kind"] == "drop blocks + quantize", "key"]
    alone = source.cells.loc[source.cells["kind"].eq("quantize") & source.cells["part"].eq("all"), "key"]
    assert lines[both] == "all all without llm:4-5"
    assert set(lines[alone]) == {"all all"}


@pytest.mark.thorough
def test_pictures_of_further_steps(made: dict[str, Figure], tmp_path: Path) -> None:
    paths = write_static([made[n] for n in (*FURTHER, "frontier")], tmp_path, "png", "CIDEr")
    assert [p.stem for p in paths] == [*FURTHER, "frontier"]
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in paths)


def test_a_table_says_what_its_drops_are_against(source: Source) -> None:
    table = source.table
    told = " ".join(notes(table))
    assert "drop to control is against the uncompressed model with the same recovery" in told
    assert {"recover", "drop to control"} <= set(short_table(table))
    assert "control" not in " ".join(notes(table[[c for c in table if "control" not in str(c)]]))


def test_training_that_beats_the_baseline_is_no_reason_to_doubt_it(source: Source) -> None:
    trained = source.cells["kind"].str.contains("LoRA")
    better = source.cells.assign(drop_cider_high=[-0.1 if t else 0.1 for t in trained])
    assert baseline_beaten(better, "cider") is None
    assert baseline_beaten(better.drop(columns="recover"), "cider") is not None


def test_outputs_of_further_steps_are_shown_first(source: Source) -> None:
    found = captions(source)
    assert found is not None
    main = {c["key"] for c in found["cells"] if c["main"]}  # type: ignore[attr-defined]
    assert set(source.cells.loc[source.cells["further"] != "", "key"]) <= main


def test_cells_of_further_steps_teach_nothing_about_widths(source: Source) -> None:
    assert suggest_command(source) is not None
    assert suggest_command(some(source, "drop blocks", "drop blocks + LoRA")) is None


def test_a_recommended_recipe_has_its_steps_and_its_control(source: Source, tmp_path: Path) -> None:
    own = some(source, "drop blocks + LoRA", "LoRA")
    own.__dict__["measured"] = (own.cells, own.draws)
    path = tmp_path / "recipe.yaml"
    lines = run_recommend(own, Budget("1.8MB", "20%"), path, verify=False)
    assert any(line.startswith("qformer:4-5:all: dropped") for line in lines)
    assert any("lora r8" in line for line in lines)
    assert any("against the uncompressed model with the same recovery (cell " in line for line in lines)
    assert "step: drop_blocks" in path.read_text()
    assert "step: recover" in path.read_text()


@pytest.mark.thorough
def test_a_cell_of_another_sweep_and_an_interval_beyond_the_limit_are_told(source: Source, tmp_path: Path) -> None:
    own = some(source, "drop blocks")
    own.__dict__["measured"] = (source.cells, source.draws)
    path = tmp_path / "recipe.yaml"
    lines = run_recommend(own, Budget("1.8MB", "10%"), path, verify=False)
    key = next(x for x in lines if x.startswith("measured, cell ")).split()[2].rstrip(":")
    other = f"cell {key} is none of planted: another sweep with the same baseline ran it"
    assert other in lines
    assert other not in run_recommend(source, Budget("1.8MB", "10%"), path, verify=False)
    assert own.draws is not None
    half = own.draws.half(False)
    high = source.draws.only([key]).on(half).paired(key).high  # type: ignore[union-attr]
    share = high / own.draws.value(own.draws.baseline, half)
    told = run_recommend(own, Budget("1.8MB", f"{share - 0.0005:.5f}"), path, verify=False)
    assert f"its interval reaches {share:.1%}, beyond the limit of {share - 0.0005:.1%}" in told
    assert not any(x.startswith("its interval reaches ") for x in lines)


# ---- in a browser


@pytest.fixture(scope="module")
def page(source: Source, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    build_report(source, folder / "report.html")
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        open_report(driver, folder / "report.html")
        yield driver


@pytest.mark.xdist_group("chromium")
@pytest.mark.thorough
def test_every_figure_is_drawn(page: Any, made: dict[str, Figure]) -> None:
    for name in [n for n, f in made.items() if not f.empty and n != "view3d"]:
        drawn = f"document.querySelectorAll('#plot-{name} .trace, #plot-{name} .hm, #plot-{name} .bars').length"
        assert page.execute_script(f"return {drawn}") > 0, name
        assert "could not be drawn" not in page.execute_script(
            f"return document.getElementById('note-{name}').textContent"
        )
    assert errors(page) == []


def test_the_step_that_was_kept_is_told_and_a_control_of_step_0_is_no_cell_that_changed_little(tmp_path: Path) -> None:
    build(
        tmp_path,
        [[recovered("llm:all:all", 20)], [dropped("llm:5"), recovered("llm:all:all", 20)]],
        values=lambda e: 0.5,
        n=40,
    )
    table = load_source(tmp_path).table
    trained = table["recipe_json"].str.contains('"recover"')
    plain = trained & ~table["recipe_json"].str.contains("drop_blocks")
    table = table.assign(
        recover=["lora r8 20 steps" if t else None for t in trained],
        recover_steps=[(0.0 if p else 12.0) if t else float("nan") for t, p in zip(trained, plain, strict=True)],
        changed_cider=[0.0 if t else float("nan") for t in trained],
    )
    texts = dict(zip(table["key"], short_table(table)["recover"], strict=True))
    assert {texts[k] for k in table.loc[plain, "key"]} == {"lora r8 20 steps, kept 0"}
    assert sorted(texts.values()) == ["", "lora r8 20 steps, kept 0", "lora r8 20 steps, kept 12"]
    assert table["recover"].dropna().eq("lora r8 20 steps").all()
    told = "\n".join(notes(table))
    assert (
        "kept 0: training did not help on held-out images in 1 of 2 recovered cells, so they are as before it, and a control is the baseline"
        in told
    )
    assert "recover.holdout=0 takes the last step" in told
    assert f"cell {table.loc[trained & ~plain, 'key'].item()}: only 0 of 40 images changed" in told
    assert str(table.loc[plain, "key"].item()) not in told
    assert "kept 0" not in "\n".join(notes(table[~plain]))


@pytest.mark.xdist_group("chromium")
@pytest.mark.thorough
def test_recovery_is_shown_against_steps_or_bytes(page: Any) -> None:
    title = "document.querySelector('#plot-recovery .xtitle').textContent"
    assert wait(page, title) == "training steps"
    page.execute_script(
        "const s = document.querySelector('#tools-recovery select'); s.value = 'bytes'; s.dispatchEvent(new Event('change'))"
    )
    assert wait(page, f"{title} !== 'training steps' && {title}") == "kB, whole model"


@pytest.mark.xdist_group("chromium")
@pytest.mark.thorough
def test_on_a_dark_phone_nothing_sticks_out(folder: Path, page: Any, tmp_path: Path) -> None:
    with chromium(tmp_path, 390, 800, dark=True, phone=True) as driver:
        open_report(driver, folder / "report.html")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        assert errors(driver) == []
