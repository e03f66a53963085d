"""The table on the terminal: whole columns, by importance; markup and LaTeX as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.reporting import terminal
from blip2sweep.reporting.dropoff import draw_dropoff
from blip2sweep.reporting.short_table import short_table
from blip2sweep.reporting.table_notes import notes
from blip2sweep.reporting.table_text import Shown, latex
from blip2sweep.reporting.terminal import fitted
from tests.command_line import blip2sweep
from tests.synthetic import build, entry


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terminal")
    cells = [
        [entry(f"{p}:{b}:{layers}", 4)]
        for p in ("vit", "llm")
        for b in ("first", "last")
        for layers in ("mlp", "attention")
    ]
    build(path / "outputs", [*cells, [entry("vit:first:mlp", 4, strategy="group", group_size=32)]], n=60)
    return path


@pytest.mark.parametrize("width", [78, 80, 100, 120, 200])
def test_what_is_shown_is_whole(folder: Path, width: int) -> None:
    ran = blip2sweep("table", cwd=folder, env={"COLUMNS": str(width)})
    assert ran.code == 0, ran.err
    head = next(x for x in ran.out.splitlines() if "part" in x)
    assert "blocks" in head
    assert "95 % interval" in head
    drawn = [x for x in ran.out.splitlines() if x.startswith(("│", "┃"))]
    assert not any("… " in x for x in drawn)  # an interval's own stands between two numbers
    assert max(map(len, drawn)) <= width
    assert "attention" in ran.out
    left = [c for c in ("bits/weight", "key", "cider") if c not in head]
    assert (f"no room for {', '.join(left)}: " in ran.out) == bool(left)
    assert (width < 120) == bool(left)
    assert width < 100 or "key" in head


def test_a_pipe_has_every_column(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    terminal.print_table(pd.read_parquet(folder / "outputs/table.parquet"), "t")
    head = next(x for x in capsys.readouterr().out.splitlines() if "part" in x)
    assert all(c in head for c in ("strategy", "cider", "bits/weight", "key"))


def test_the_least_important_column_goes_first() -> None:
    short = pd.DataFrame({"part": ["vit"], "drop": ["0.1"], "bits/weight": ["4.16"], "key": ["0123456789ab"]})
    assert fitted(short, 80)[1] == []
    shown, left = fitted(short, 40)
    assert (shown["key"].iloc[0], left) == ("012345", [])
    assert fitted(short, 25)[1] == ["bits/weight"]
    assert fitted(short, 16)[1] == ["bits/weight", "key"]


def test_keys_are_shortened_as_far_as_they_can_be_told_apart() -> None:
    short = pd.DataFrame({"part": ["vit"] * 2, "key": ["0123456789ab", "0123456799ab"]})
    assert fitted(short, 20)[0]["key"].tolist() == ["012345678", "012345679"]


def test_rows_of_two_tasks_have_the_numbers_of_their_own(tmp_path: Path) -> None:
    build(tmp_path, [[entry("vit:all:all", 4)]], n=40)
    table = pd.read_parquet(tmp_path / "table.parquet")
    asked = table.rename(columns=lambda c: c.replace("cider", "vqa_accuracy")).assign(task="vqa")
    short = short_table(pd.concat([table, asked], ignore_index=True))
    assert (short[["cider", "vqa_accuracy"]] != "").sum(axis=1).tolist() == [1, 1, 1, 1]
    assert short["drop"].tolist()[1] == short["drop"].tolist()[3] != ""
    assert short["drop of"].tolist() == ["cider", "cider", "vqa_accuracy", "vqa_accuracy"]
    assert "drop of" not in short_table(table)


def test_the_drop_of_a_likelihood_is_a_rise(tmp_path: Path) -> None:
    build(tmp_path, [[entry("vit:all:all", 4)]], n=40)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert notes(table)[0].startswith("drop: baseline − cell, positive is worse")
    assert notes(table.drop(columns="cider"))[0].startswith("drop: nll of the cell − baseline, positive is worse")


def test_a_table_without_scores_says_what_to_do() -> None:
    assert "`blip2sweep answers`" in notes(pd.DataFrame({"model": ["mine"], "part": ["none"]}))[0]


def test_no_interval_is_claimed_where_there_is_none(tmp_path: Path) -> None:
    build(tmp_path, [[entry("vit:all:all", 4)]], n=40)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert "interval: 95 %, paired" in notes(table)[0]
    imported = table.assign(drop_cider_low=float("nan"), drop_cider_high=float("nan"))
    assert notes(imported)[0].endswith("interval: none, for there are no outputs")


def test_the_mean_of_two_widths_is_not_rounded(tmp_path: Path) -> None:
    build(tmp_path, [[entry("vit:all:mlp", 4), entry("vit:all:attention", 8)], [entry("vit:all:all", 4)]], n=40)
    table = pd.read_parquet(tmp_path / "table.parquet").sort_values("bits_vit", na_position="first")
    mean = table["bits_vit"].iloc[-1]
    assert 4.1 < mean < 7.9
    assert short_table(table)["bits"].tolist() == ["–", "4", f"{mean:.3g}"]


def test_a_noise_floor_without_a_number_is_not_nan(tmp_path: Path) -> None:
    build(tmp_path, [[entry("vit:all:all", 4)]], n=40)
    table = pd.read_parquet(tmp_path / "table.parquet").assign(noise_flip_rate=0.01)
    assert "changes 1.0% of outputs" in notes(table)[1]
    assert not any("nan" in line for line in notes(table))
    assert notes(table.assign(noise_cider=0.002))[1].endswith("of outputs, cider by 0.0020")


# ---- the picture of a sweep


def test_a_recipe_of_two_widths_is_no_point_between_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, [[entry("vit:all:mlp", 4), entry("vit:all:attention", 8)], [entry("vit:all:all", 4)]], n=40)
    figure = drawn(pd.read_parquet(tmp_path / "table.parquet"), tmp_path, monkeypatch)
    assert [x.get_text() for x in figure.axes[0].get_xticklabels()] == ["4"]


def drawn(table: pd.DataFrame, path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure that is saved."""
    from matplotlib.figure import Figure

    saved, save = list[Figure](), Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda own, *to, **how: (saved.append(own), save(own, *to, **how)))
    assert draw_dropoff(table, path / "d.png")
    return saved[-1]


def test_the_picture_has_every_task_and_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, [[entry("vit:all:all", b)] for b in (8, 4)], n=40)
    table = pd.read_parquet(tmp_path / "table.parquet")
    asked = table.rename(columns=lambda c: c.replace("cider", "vqa_accuracy")).assign(task="vqa")
    figure = drawn(pd.concat([table, asked], ignore_index=True), tmp_path, monkeypatch)
    assert [a.get_ylabel() for a in figure.axes] == ["CIDEr, % of the baseline", "VQA accuracy, % of the baseline"]
    assert figure._suptitle is None
    many = pd.concat([table.assign(task=f"task{i}") for i in range(8)], ignore_index=True)
    figure = drawn(many, tmp_path, monkeypatch)
    assert len(figure.axes) == 6
    assert figure._suptitle.get_text() == "the first 6 of 8 panels; all are in the table"


def test_a_rise_is_drawn_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, [[entry("vit:all:all", b)] for b in (8, 2)], n=40)
    table = pd.read_parquet(tmp_path / "table.parquet")
    figure = drawn(table[[c for c in table if "cider" not in c]], tmp_path, monkeypatch)
    (line,) = figure.axes[0].containers
    values = table[table["part"] != "none"].sort_values("bits_vit")
    assert line[0].get_ydata().tolist() == pytest.approx((100 * values["nll"] / values["baseline_nll"]).tolist())
    assert figure.axes[0].get_ylabel() == "NLL, % of the baseline (↑ worse)"


def test_latex_and_markup_are_text() -> None:
    assert r"a\_b\{c\}\textbackslash{}d" in latex(Shown(pd.DataFrame({"part": ["a_b{c}\\d"]})))
    drawn = terminal.rich_table(pd.DataFrame({"part": ["[red]x"]}), "sweep csv-[bold]")
    assert str(drawn.title) == "sweep csv-[bold]"


def timed(folder: Path, devices: list[str]) -> pd.DataFrame:
    """The table with times of its first rows."""
    table = pd.read_parquet(folder / "outputs/table.parquet")
    left = [float("nan")] * (len(table) - len(devices))
    return table.assign(
        latency_ms_median=[12.345] * len(devices) + left, latency_ratio=[0.5] * len(devices) + left,
        latency_ms_baseline=[24.69, 26.0][: len(devices)] + left,
        latency_device=devices + [None] * len(left), latency_threads=[1.0] * len(devices) + left,
    )  # fmt: skip


def test_times_stand_in_the_rows_that_have_them_and_their_note_says_where(folder: Path) -> None:
    table = timed(folder, ["a gpu"])
    short = short_table(table)
    shown = short[["ms", "baseline ms", "× baseline"]].to_numpy().tolist()
    assert shown[:2] == [["12.35", "24.69", "0.50"], ["", "", ""]]
    (note,) = (line for line in notes(table) if line.startswith("ms:"))
    assert note == (
        "ms: median of one image alone on a gpu, 1 thread; baseline ms: the baseline's in turns with that row, and not "
        "its own row's; × baseline: ms / baseline ms; other cells simulate their kernels, or were not timed"
    )
    several = next(line for line in notes(timed(folder, ["a gpu", "a cpu"])) if line.startswith("ms:"))
    assert "on a gpu, 1 thread and a cpu, 1 thread; baseline ms" in several
    assert "; baseline ms is from 24.69 to 26, so compare rows by ×, not by ms; other" in several


def test_a_table_without_times_says_nothing_of_them(folder: Path) -> None:
    table = pd.read_parquet(folder / "outputs/table.parquet")
    assert not {"ms", "× baseline"} & set(short_table(table))
    assert not any(line.startswith("ms:") for line in notes(table))


def test_times_are_left_out_before_the_key(folder: Path) -> None:
    short = pd.DataFrame(
        {
            "part": ["vit"],
            "drop": ["0.1"],
            "ms": ["12.3"],
            "baseline ms": ["24.6"],
            "× baseline": ["0.50"],
            "key": ["0123456789ab"],
        }
    )
    assert fitted(short, 38)[1] == ["ms", "baseline ms"]  # no time stands beside a ratio to another one
    assert fitted(short, 25)[1] == ["ms", "baseline ms", "× baseline"]
