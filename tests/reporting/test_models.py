"""One sweep of several models: their drops by role, what is not compared and why, tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.analysis.models import by_role, largest_group, role_label
from blip2sweep.commands.budget import Budget
from blip2sweep.commands.recommend import run_recommend
from blip2sweep.commands.report import report
from blip2sweep.errors import UserError
from blip2sweep.reporting import models_page
from blip2sweep.reporting.captions import captions
from blip2sweep.reporting.comparison import _missing_of, compare, drawn
from blip2sweep.reporting.dropoff import draw_dropoff
from blip2sweep.reporting.embedded import embedded_note
from blip2sweep.reporting.figure import roles_of
from blip2sweep.reporting.figures import figures
from blip2sweep.reporting.models_page import folder_names
from blip2sweep.reporting.prices import terminal_prices
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.source import load_source
from blip2sweep.reporting.sources import load_sources
from blip2sweep.reporting.table_notes import notes
from tests.command_line import blip2sweep
from tests.reporting.two_models import BLIP2, LLAVA, cells, sweep
from tests.synthetic import entry

TWO = {"tiny": cells(BLIP2), "tiny-llava": cells(LLAVA)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    sweep(path / "outputs", TWO)
    return path


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "outputs/sweeps/planted/table.parquet")


# ---- drops by role


def test_drops_are_shares_of_each_models_own_baseline(folder: Path, table: pd.DataFrame) -> None:
    sources = load_sources(folder / "outputs")
    compared = compare(sources)
    data = compared.figure.data
    assert list(dict.fromkeys(data["role"])) == ["vision", "connector", "language", "all"]
    assert data[["role", "width", "model"]].head(4).to_numpy().tolist() == [
        ["vision", 8.0, "tiny"], ["vision", 8.0, "tiny-llava"], ["vision", 4.0, "tiny"], ["vision", 4.0, "tiny-llava"]
    ]  # fmt: skip
    own = table.set_index("key")
    for row in data.to_dict("records"):
        cell = own.loc[row["key"]]
        base = own.loc[cell["baseline"]]
        assert cell["model"] == row["model"] == base["model"]
        assert row["drop"] == pytest.approx(100 * cell["drop_cider"] / base["cider"])
        assert row["baseline"] == base["cider"]
        assert row["saved_bytes"] == base["model_bytes"] - cell["model_bytes"] > 0
        assert row["drop_low"] <= row["drop"] <= row["drop_high"]
    for source in sources.models:
        assert source.draws is not None
        mine = data[data["model"] == source.model].iloc[-1]
        _, low, high = source.draws.kept(mine["key"])[:3]
        assert (mine["drop_low"], mine["drop_high"]) == pytest.approx((100 - 100 * high, 100 - 100 * low))
    assert compared.notes == ["tiny and tiny-llava were scored on the same 60 samples of shapes_caption"]
    assert len(drawn(data)) == len(data) == 24


def test_a_likelihood_rises(folder: Path, table: pd.DataFrame) -> None:
    source = load_sources(folder / "outputs").models[0]
    rises = by_role(source.cells, "nll", None, roles_of(source)).set_index("key")["drop"]
    own = table.set_index("key").loc[rises.index]
    assert rises.tolist() == pytest.approx((100 * own["drop_nll"] / own["baseline_nll"]).tolist())
    assert rises.max() > 0


@pytest.mark.parametrize(("line", "label"), [
    ("a:all:all", "vision"), ("c:all:mlp", "language, mlp"), ("a:all:all; c:all:all", "vision + language"),
    ("a:all:all; b:all:all; c:all:all; d:all:all", "all"), ("b:all:all", None), ("b:all:all; d:all:all", "connector"),
    ("c.encoder:all:all", None), ("none", None),
])  # fmt: skip
def test_a_line_has_a_role_where_it_has_all_parts_of_it(line: str, label: str | None) -> None:
    roles = {"a": "vision", "b": "connector", "d": "connector", "c": "language"}
    assert role_label(line, roles) == label


def test_models_on_other_samples_are_not_compared_but_reported(tmp_path: Path) -> None:
    models = {"tiny": cells(BLIP2), "one": cells(LLAVA), "two": cells(LLAVA, [4])}
    like = {"one": "tiny-llava", "two": "tiny-llava"}
    sweep(
        tmp_path,
        models,
        like,
        samples={"tiny": 40},
        identity={"two": {"generation": '{"num_beams": 5, "prompt": "x"}'}},
    )
    sources = load_sources(tmp_path)
    assert sources.heading == "tiny, one and two on shapes_caption, 31 cells"
    compared = compare(sources)
    assert compared.notes[0] == "one and two were scored on the same 60 samples of shapes_caption"
    assert "generation settings differ: num_beams None (one), 5 (two)" in compared.notes
    assert "each model was asked with its own prompt" in compared.notes
    assert (
        "tiny is not compared with one and two: it was scored on 40 samples and they on 60; its own analysis is below"
        in compared.notes
    )
    # Models that are not shipped and were not planned here have no roles.
    assert "one: its parts are not known here, so it is in no panel" in compared.notes
    assert compared.figure.empty
    assert largest_group({"a": ("x",), "b": ("y",), "c": ("y",)}) == ["b", "c"]


def test_equal_numbers_of_other_samples_are_not_compared(tmp_path: Path) -> None:
    sweep(tmp_path, TWO, identity={"tiny-llava": {"data": "other"}})
    compared = compare(load_sources(tmp_path))
    assert compared.figure.empty
    assert compared.notes == [
        "tiny-llava is not compared with tiny: it was scored on other samples or pictures of the same number; its own analysis is below"
    ]


def test_samples_that_no_row_names_are_said_to_be_unknown(tmp_path: Path) -> None:
    sweep(tmp_path, TWO, identity={model: {"data": None} for model in TWO})
    (told,) = compare(load_sources(tmp_path)).notes
    assert (
        told
        == "whether tiny and tiny-llava were scored on the same 60 samples of shapes_caption is not known: their rows do not say"
    )


def test_models_without_a_common_role_have_no_panel(tmp_path: Path) -> None:
    sweep(tmp_path, {"tiny": cells(BLIP2[:1], [4]), "tiny-llava": cells(LLAVA[2:], [4])})
    compared = compare(load_sources(tmp_path))
    assert len(compared.figure.data) == 2
    assert compared.notes[1:] == [
        "language: no line of tiny (not run)",
        "vision: no line of tiny-llava (not run)",
        "no role was compressed at one width in two models with the same setting, so no panel is drawn",
    ]
    nothing = tmp_path / "blocks"
    sweep(nothing, {"tiny": [[entry("vit:0:all", 4)]], "tiny-llava": [[entry("vision:0:all", 4)]]})
    compared = compare(load_sources(nothing))
    assert compared.figure.empty
    assert len(compared.notes) == 2


def test_why_a_model_has_no_line() -> None:
    data = pd.DataFrame({"role": ["vision", "connector", "all", "all", "language"], "model": ["a", "a", "a", "b", "a"]})
    told = list(_missing_of("b", {"vision", "language"}, {"connector": "its norm has no linear layer"}, data))
    assert told == [
        "vision: no line of b (not run)", "connector: no line of b (its norm has no linear layer)",
        "language: no line of b (not run)", "all of b is vision + language",
    ]  # fmt: skip
    assert "connector: no line of b (it has no connector part that can be compressed)" in list(
        _missing_of("b", {"vision", "language"}, {}, data)
    )


# ---- what is refused, what is left out


@pytest.mark.parametrize("column", ["dtype", "task"])
def test_models_of_two_dtypes_or_tasks_are_refused(tmp_path: Path, column: str) -> None:
    sweep(tmp_path, TWO, identity={"tiny-llava": {column: "other"}})
    with pytest.raises(UserError, match=f"cells of 2 kinds of {column} are not compared: .*right: choose one sweep"):
        load_sources(tmp_path)


def test_of_two_weights_of_one_model_all_cells_are_those_with_more(tmp_path: Path) -> None:
    sweep(tmp_path, TWO)
    sweep(
        tmp_path,
        {"tiny": cells(BLIP2), "big": cells(LLAVA)},
        {"big": "tiny-llava"},
        identity={"tiny": {"weights": "x"}},
        name="second",
    )
    sources = load_sources(tmp_path, all_cells=True)
    tiny = sources.models[sources.names.index("tiny")]
    assert tiny.cells["weights"].map(str).nunique() == 1
    assert any(line.startswith("tiny: left out, ") and "cells of weights tiny" in line for line in sources.meant)


@pytest.mark.thorough
def test_a_model_without_a_baseline_is_left_out_with_the_reason(tmp_path: Path) -> None:
    sweep(tmp_path, TWO, without_baseline=["tiny"])
    sources = load_sources(tmp_path)
    assert sources.meant[-1].startswith("model tiny is left out: no baseline cell")
    report(sources, None, png=False, pdf=False)
    text = (tmp_path / "sweeps/planted/report.html").read_text()
    assert "<li>tiny is left out: no baseline cell" in text
    assert text.count("data-model aria-pressed") == 1


def test_where_no_model_can_be_reported_every_reason_is_told(tmp_path: Path) -> None:
    sweep(tmp_path, TWO, without_baseline=["tiny", "tiny-llava"])
    with pytest.raises(UserError, match=r"model tiny: no baseline cell.*; model tiny-llava: no baseline cell"):
        load_sources(tmp_path)


def test_verbs_about_one_model_name_the_option(folder: Path, tmp_path: Path) -> None:
    """`recommend` and `suggest` read their cells as `load_source` does."""
    with pytest.raises(UserError, match=r"cells of 2 kinds of model are not compared: tiny, tiny-llava .*--model tiny"):
        load_source(folder / "outputs")
    source = load_source(folder / "outputs", only={"model": "tiny-llava"})
    said = "\n".join(run_recommend(source, Budget(None, "50%"), tmp_path / "r.yaml", verify=False))
    assert "vision" in said
    assert not any(part in said for part in BLIP2)


def test_one_model_of_a_sweep_of_several_has_its_own_parts_alone(folder: Path) -> None:
    source = load_source(folder / "outputs", only={"model": "tiny-llava"})
    assert not {"bits_vit", "bits_qformer", "bits_llm"} & {*source.cells, *source.measured[0]}
    assert {"bits_vision", "bits_connector", "bits_language"} <= {*source.cells}


# ---- files


@pytest.mark.thorough
def test_report_writes_one_page_and_a_folder_a_model(folder: Path) -> None:
    ran = blip2sweep("report", cwd=folder)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0] == "sweep planted: tiny and tiny-llava on shapes_caption, 60 samples, 26 cells"
    data = folder / "outputs/sweeps/planted/report-data"
    assert len(pd.read_csv(data / "models.csv")) == 24
    assert sorted(p.name for p in data.iterdir()) == ["models.csv", "tiny", "tiny-llava"]
    assert [len(pd.read_csv(data / model / "dropoff.csv")) for model in TWO] == [12, 12]
    text = (folder / "outputs/sweeps/planted/report.html").read_text()
    compared = json.loads(text.partition('id="compared">')[2].partition("</script>")[0])
    assert (compared["models"], compared["settings"]) == (["tiny", "tiny-llava"], ["rtn/channel"])


@pytest.mark.thorough
def test_pictures_lie_where_their_csvs_do(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        models_page, "figures", lambda source: [f for f in figures(source) if f.name in ("dropoff", "map")]
    )
    monkeypatch.setattr(models_page, "body", lambda *rest: "")
    monkeypatch.setattr(models_page, "packs", lambda *rest: "")
    report(load_sources(folder / "outputs"), tmp_path / "mine.html", png=True, pdf=False)
    wanted = [tmp_path / "mine-data" / place for place in ("models.png", "tiny/dropoff.png", "tiny-llava/dropoff.png")]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in wanted)


def test_folders_of_models_stay_inside_and_differ() -> None:
    assert folder_names(["a/b", "a_b", "..", "A_B", "é", "a b"]) == ["a_b", "a_b-2", "model", "A_B-3", "é", "a_b-4"]


def test_models_share_the_room_for_outputs(folder: Path) -> None:
    source = load_sources(folder / "outputs").models[0]
    whole, shared = captions(source), captions(source, 250)
    assert whole is not None
    assert shared is not None
    assert whole["left_out"] == 0
    assert shared["left_out"] == len(source.cells) - 8


# ---- the terminal


def test_parts_stand_by_role_and_models_below_each_other(table: pd.DataFrame) -> None:
    short = short_table(table)
    assert short[["model", "part", "bits"]].head(4).to_numpy().tolist() == [
        ["tiny", "none", "–"], ["tiny-llava", "none", "–"], ["tiny", "vision (vit)", "8"], ["tiny-llava", "vision", "8"],
    ]  # fmt: skip
    assert list(dict.fromkeys(short["part"]))[1:] == [
        "vision (vit)", "vision", "connector (qformer)", "connector", "language (llm)", "language", "all"
    ]  # fmt: skip
    assert short["model"].tolist() == ["tiny", "tiny-llava"] * 13
    alone = table[table["model"] == "tiny"]
    assert short_table(alone)["part"].tolist() == alone["part"].tolist()
    same = pd.concat([alone, alone.assign(model="other")], ignore_index=True)
    assert short_table(same)["part"].tolist() == same["part"].tolist()


def test_what_is_of_one_model_is_said_with_its_name(folder: Path, table: pd.DataFrame) -> None:
    told = notes(table.assign(noise_flip_rate=[0.01 if m == "tiny" else None for m in table["model"]]))
    assert told[0].startswith("drop: ")
    assert "tiny: noise floor: the baseline at another batch size changes 1.0% of outputs" in told
    assert sum(t.startswith("tiny, tiny-llava: no width is called safe within 2%") for t in told) == 1
    assert (
        told[-1]
        == "models tiny and tiny-llava are embedded: they prove the plumbing and rank no methods or models for the world"
    )
    prices = terminal_prices(folder / "outputs", table, "-m model=tiny,tiny-llava")
    titles = [p.partition(" with ")[0] for p in prices if "what the next bits cost" in p]
    assert titles == ["tiny: what the next bits cost", "tiny-llava: what the next bits cost"]
    second = prices[prices.index(next(p for p in prices if p.startswith("tiny-llava: "))) :]
    assert not any(part in line for line in second for part in BLIP2)


def test_the_note_on_embedded_models() -> None:
    assert (
        embedded_note({"tiny"})
        == "model tiny is the embedded default: it proves the plumbing and ranks no methods for the world"
    )
    assert (
        embedded_note(["tiny-llava"])
        == "model tiny-llava is embedded: it proves the plumbing and ranks no methods for the world"
    )
    assert embedded_note(["llava-1.5-7b", "mine"]) is None


# ---- the picture of a sweep


def test_the_picture_has_a_panel_a_role_and_a_line_a_model(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawing(table, tmp_path, monkeypatch)
    assert [a.get_title().split(",")[0] for a in figure.axes] == ["vision", "connector", "language", "all"]
    for axis in figure.axes:
        assert [t.get_text() for t in axis.get_legend().get_texts()] == ["tiny", "tiny-llava"]
        assert len({line[0].get_color() for line in axis.containers}) == 2
    own = table[(table["model"] == "tiny") & (table["part"] == "vit")].sort_values("bits_vit")
    kept = 100 * (1 - own["drop_cider"] / own["baseline_cider"])
    assert figure.axes[0].containers[0][0].get_ydata().tolist() == pytest.approx(kept.tolist())


def test_names_of_models_are_no_formulas_in_pictures(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = table.assign(model=table["model"].replace({"tiny-llava": "_$\\bad{$"}))
    figure = drawing(named, tmp_path, monkeypatch)
    assert len(figure.axes[0].get_legend().get_texts()) == 2


def test_models_that_share_no_role_have_a_panel_each(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = table[((table["model"] == "tiny") & (table["part"] == "vit")) | (table["part"] == "language")]
    figure = drawing(some, tmp_path, monkeypatch)
    assert [a.get_title() for a in figure.axes] == ["tiny, shapes_caption, rtn", "tiny-llava, shapes_caption, rtn"]


def drawing(table: pd.DataFrame, path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure that is saved."""
    from matplotlib.figure import Figure

    saved, save = list[Figure](), Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda own, *to, **how: (saved.append(own), save(own, *to, **how)))
    assert draw_dropoff(table, path / "d.png")
    return saved[-1]
