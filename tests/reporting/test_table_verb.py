"""`blip2sweep table`: which rows and columns, and the forms for programs and for papers."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.commands.table import show_table
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.reporting.table_asked import Asked
from blip2sweep.reporting.table_text import Shown, latex, markdown
from blip2sweep.reporting.terminal import rich_table
from blip2sweep.results.schema import FIXED
from tests.command_line import blip2sweep
from tests.command_line import refused as refused_line
from tests.latex_tables import read
from tests.params import quick
from tests.synthetic import build, entry, source, whole

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table")
    build(path / "outputs", [whole([p], b) for p in ("vit", "llm") for b in (8, 4, 3)], n=60, name="grid")
    return path


def shown(folder: Path, capsys: Captured, all_cells: bool = False, **asked: Any) -> str:
    capsys.readouterr()
    show_table(folder / "outputs", None if all_cells else "grid", all_cells, Asked(**asked))
    return capsys.readouterr().out


def records(folder: Path, capsys: Captured, **asked: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shown(folder, capsys, format="json", **asked))
    return found


def refused(folder: Path, **asked: Any) -> str:
    with pytest.raises(UserError) as told:
        show_table(folder / "outputs", "grid", False, Asked(**asked))
    return str(told.value)


# ---- rows


@pytest.mark.parametrize(("where", "count"), [
    (["bits<=4"], 4), (["bits<4"], 2), (["bits>=8"], 2), (["bits != 4"], 5), (["bits=3,8"], 4), (["part=vit", "bits>3"], 2),
    (["part==llm"], 3), (["bits=null"], 1), (["bits!=null"], 6), (["sweeps=grid"], 7), (["stale=false"], 7),
    (["finished>2020-01-01"], 7), (["failure=null"], 7), (["latency_ms_median=null"], 7), (["method!=rtn"], 1),
    (["setting=rtn/channel"], 6),
])  # fmt: skip
def test_conditions(folder: Path, capsys: Captured, where: list[str], count: int) -> None:
    assert len(records(folder, capsys, where=where)) == count


def test_nothing_of_a_condition_is_evaluated(folder: Path) -> None:
    assert "no such column" in refused(folder, where=["__import__=1"])
    assert "no condition" in refused(folder, where=["__import__('os').system('true')"])
    assert "no row has it; right: one of llm, none, vit" in refused(folder, where=["part=@x"])


def test_rows_are_sorted_and_nulls_come_last(folder: Path, capsys: Captured) -> None:
    rows = records(folder, capsys, columns="part,bits", sort="-bits,part")
    assert [(r["bits"], r["part"]) for r in rows] == [
        (8, "llm"), (8, "vit"), (4, "llm"), (4, "vit"), (3, "llm"), (3, "vit"), (None, "none")
    ]  # fmt: skip
    assert [r["bits"] for r in records(folder, capsys, columns="bits", sort="bits")][-1] is None


# ---- columns, for programs


def test_csv_and_json_have_every_column(folder: Path, capsys: Captured) -> None:
    first = next(iter(records(folder, capsys)))
    assert FIXED.keys() <= first.keys()
    assert list(next(csv.reader(io.StringIO(shown(folder, capsys, format="csv"))))) == list(first)
    assert first["sweeps"] == ["grid"]
    assert isinstance(first["samples"], int)
    assert first["latency_ms_median"] is None


def test_digits_round_what_programs_read(folder: Path, capsys: Captured) -> None:
    whole_number = records(folder, capsys, columns="cider", where=["bits=3", "part=vit"])[0]["cider"]
    assert records(folder, capsys, columns="cider", where=["bits=3", "part=vit"], digits=2)[0]["cider"] == round(
        whole_number, 2
    )
    lines = shown(folder, capsys, format="csv", columns="part,cider,sweeps", digits=1).splitlines()
    assert re.fullmatch(r"vit,\d\.\d,grid", lines[1 + 1])


# ---- pivots


def test_a_pivot_has_a_row_for_each_part_and_a_column_for_each_width(folder: Path, capsys: Captured) -> None:
    table = pd.read_parquet(folder / "outputs/table.parquet")
    value = table.set_index(["part", "bits"])["cider"]
    rows = records(folder, capsys, pivot="part,bits")
    assert [list(r) for r in rows] == [["part", "bits=3", "bits=4", "bits=8"]] * 2
    assert rows[0] == {"part": "vit", **{f"bits={b}": value["vit", b] for b in (3, 4, 8)}}
    lost = records(folder, capsys, pivot="setting,part,bits", value="drop_cider", where=["bits!=8"], sort="-bits")
    assert [list(r) for r in lost] == [["setting", "part", "bits=4", "bits=3"]] * 2
    said = shown(folder, capsys, pivot="part,bits")
    assert re.search(r"the baseline: cider \d\.\d+", said)


def test_two_cells_of_one_place_are_refused_with_what_tells_them_apart(folder: Path) -> None:
    told = refused(folder, pivot="method,part")
    assert re.match(
        r"--pivot method,part: 3 cells have method=rtn part=vit \(\w{12}, \w{12}\); they differ in bits", told
    )
    assert told.endswith("right: --where bits=8, or --pivot bits,method,part")
    assert "no cell has all of" in refused(folder, pivot="part,calibration")


# ---- the best


def test_the_best_is_bold_without_the_baseline(folder: Path, capsys: Captured) -> None:
    text = shown(folder, capsys, format="md", best=True)
    bold = [line for line in text.splitlines() if "**" in line]
    table = pd.read_parquet(folder / "outputs/table.parquet")
    touched = table[table["part"] != "none"]
    assert f"**{touched['cider'].max():.3f}**" in text
    assert not any(line.startswith("| none") for line in bold)
    by_width = shown(folder, capsys, format="md", pivot="part,bits", best=True)
    assert by_width.count("**") == 2 * 3
    assert "bits" not in re.findall(r"\*\*(\w+)\*\*", by_width)


def test_what_looks_alike_is_alike_and_lower_is_better_where_it_is(folder: Path, capsys: Captured) -> None:
    rough = shown(folder, capsys, format="md", columns="part,bits,drop_cider", digits=0, best=True, where=["bits>3"])
    assert rough.count("**") > 2
    exact = shown(folder, capsys, format="md", columns="part,bits,drop_cider", digits=9, best=True)
    least = pd.read_parquet(folder / "outputs/table.parquet").query("part != 'none'")["drop_cider"].min()
    assert f"**{least:.9f}**".replace("-", "−") in exact


def test_a_terminal_has_it_bold() -> None:
    best = pd.DataFrame({"part": [False, False], "cider": [False, True]})
    drawn = rich_table(pd.DataFrame({"part": ["a", "b"], "cider": ["1", "2"]}), best=best)
    assert [str(getattr(c, "style", "")) for c in drawn.columns[1]._cells] == ["", "bold"]


# ---- LaTeX


@pytest.mark.parametrize("asked", [
    {}, {"best": True}, {"pivot": "part,bits"}, {"pivot": "setting,part,bits", "best": True, "caption": "50 % of a & b", "label": "tab:x"},
    {"columns": "key,sweeps,part,setting,recipe,bits,drop_cider,drop_cider_low,generation,finished"},
    {"columns": "part,drop_cider,retained_cider", "best": True, "digits": 1, "caption": "$x_1^2$ \\ ~ # {"},
])  # fmt: skip
def test_latex_is_what_latex_takes(folder: Path, capsys: Captured, asked: dict[str, Any]) -> None:
    found = read(shown(folder, capsys, format="latex", **asked))
    assert len(found.rows) >= 3


def test_latex_has_math_minus_en_dash_and_a_line_above_a_pivot(folder: Path, capsys: Captured) -> None:
    text = latex(
        Shown(pd.DataFrame({"cider": ["−0.5", "0.5"], "95 % interval": ["−0.1…0.2", "0.1…0.3"], "part": ["–", "a"]}))
    )
    assert read(text).rows == [
        ["CIDEr", r"95 \% interval", "part"], ["$-0.5$", "$-0.1$--0.2", "--"], ["0.5", "0.1--0.3", "a"]
    ]  # fmt: skip
    assert read(text).spec == "rll"
    bold = latex(Shown(pd.DataFrame({"drop": ["−0.5"]}), pd.DataFrame({"drop": [True]})))
    assert r"$\mathbf{-0.5}$" in bold
    spanned = read(shown(folder, capsys, format="latex", pivot="part,bits"))
    assert spanned.rows[0] == ["", r"\multicolumn{3}{c}{bits}"]
    assert spanned.rows[1] == ["part", "3", "4", "8"]
    floating = shown(folder, capsys, format="latex", caption="5 % lost", label="tab:a")
    assert floating.startswith(
        "\\begin{table}[t]\n\\centering\n\\caption{5 \\% lost}\n\\label{tab:a}\n\\begin{tabular}"
    )


def test_the_strict_reader_is_strict() -> None:
    good = latex(Shown(pd.DataFrame({"a": ["x"], "b": ["1"]})))
    for wrong in ("x_1", "x & y", "5 %", "$1", "{", r"\foo", "−1", "a<b", "x\\\\"):
        with pytest.raises(AssertionError):
            read(good.replace("x &", f"{wrong} &"))
    assert read(good).rows[1] == ["x", "1"]


def test_markdown_has_numbers_to_the_right() -> None:
    lines = markdown(Shown(pd.DataFrame({"a": ["x"], "b": ["−1.5"], "c": [""]}))).splitlines()
    assert lines[1] == "| --- | ---: | --- |"


# ---- what is refused


@pytest.mark.thorough
def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    ran = blip2sweep(
        "table", "grid", "--where", "part", "--where", "bits<x", "--where", "part<vit", "--where", "stale=maybe", "--where", "nope=1",
        "--columns", "prt,bits", "--sort", "-nope", "--digits", "99", "--caption", "c", "--label", "a b", "--best", "-f", "csv", cwd=folder,
    )  # fmt: skip
    assert (ran.code, ran.out) == (2, "")
    for told in (
        "--where part: no condition; right: COLUMN=VALUE", "--where bits<x: bits is a number, which 'x' is not; right: such as 'bits<8'",
        "--where part<vit: part is text, which has no <; right: part=vit", "--where stale=maybe: stale is a boolean, which 'maybe' is not; right: such as stale=false",
        "--where nope: no such column", "--columns prt: no such column; right: part, or another of docs/columns.md",
        "--sort nope: no such column", "--digits 99: right: from 0 to 12", "--caption: of LaTeX alone; right: --format latex",
        "--label a b: right: letters, digits", "--best: csv has no bold; right: --format rich, md or latex",
    ):  # fmt: skip
        assert told in ran.err


@pytest.mark.parametrize(("asked", "told"), [
    ({"format": "xlsx"}, "--format xlsx: unknown format"), ({"pivot": "part"}, "--pivot part: right: different columns"),
    ({"pivot": "bits,bits"}, "--pivot bits,bits: right: different columns"),
    ({"pivot": "part,bits", "columns": "part"}, "--pivot and --columns: a pivot has columns of its own"),
    ({"value": "cider"}, "--value cider: of a pivot alone; right: --pivot part,bits --value cider"),
    ({"columns": "part,bits", "best": True}, "--best: none of these columns has a best value"),
    ({"where": ["bits=8", "part=vit", "method=gptq"]}, "--where method=gptq: no row has it; method is rtn wherever it is known"),
    ({"where": ["bits>8"]}, "--where bits>8: no row has it; right: from 3 to 8"),
])  # fmt: skip
def test_one_mistake(folder: Path, asked: dict[str, Any], told: str) -> None:
    assert told in refused(folder, **asked)


def test_mistakes_are_told_beside_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(UserErrors, match="no sweep here"):
        show_table(tmp_path, None, False, Asked(format="pdf"))


# ---- all cells


def test_all_cells_are_shown_and_only_what_can_be_compared_is(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "outputs"
    build(out, [whole(["vit"], b) for b in (4, 3)], n=30, name="many")
    build(out, [[entry("vit:all:all", 4)]], n=30, name="stray", made_from=source(task="other_caption", n=30))
    text = shown(tmp_path, capsys, all_cells=True)
    assert text.count("│ other_caption ") == 2
    assert "compare 3 of these: left out, for they are not compared with these: 2 cells of task other_caption" in text
    pivoted = shown(tmp_path, capsys, all_cells=True, pivot="part,bits")
    assert (
        "left out, for they are not compared with these: 2 cells of task other_caption (--where task=other_caption)"
        in pivoted
    )
    assert "bits=3" in pivoted


@pytest.mark.parametrize("verb", quick(["table", "report", "recommend", "suggest"]))
def test_a_name_and_all_cells_are_not_asked_for_together(folder: Path, verb: str) -> None:
    refused_line(blip2sweep(verb, "nosuch", "--all", cwd=folder), "nosuch and --all: ", "right: a name, or --all")


def test_all_cells_stand_by_task_and_part_and_name_the_metric_of_a_drop(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "outputs"
    build(out, [whole([p], b) for p in ("vit", "llm") for b in (4, 3)], n=30, name="many")
    build(out, [whole(["llm"], 8)], n=30, name="late")
    rows = json.loads(shown(tmp_path, capsys, all_cells=True, format="json", columns="part,bits"))
    assert [(r["part"], r["bits"]) for r in rows] == [
        ("none", None), ("llm", 3), ("llm", 4), ("llm", 8), ("vit", 3), ("vit", 4)
    ]  # fmt: skip


# ---- what newcomers type


@pytest.mark.parametrize(("typed", "columns"), [
    ("part,drop", ["part", "drop_cider"]), ("95 % interval", ["drop_cider_low", "drop_cider_high"]),
    ("bits/weight,dropped", ["bits_per_weight", "blocks_dropped"]), ("ms", ["latency_ms_median"]),
])  # fmt: skip
def test_heads_of_the_table_are_names_of_columns(
    folder: Path, capsys: Captured, typed: str, columns: list[str]
) -> None:
    assert list(records(folder, capsys, columns=typed)[0]) == columns


def test_heads_sort_filter_and_stand_in_a_pivot(folder: Path, capsys: Captured) -> None:
    by_column = records(folder, capsys, columns="key", sort="-drop_cider", where=["drop_cider>0"])
    assert records(folder, capsys, columns="key", sort="-drop", where=["drop>0"]) == by_column
    assert records(folder, capsys, pivot="part,bits", value="drop") == records(
        folder, capsys, pivot="part,bits", value="drop_cider"
    )


def test_a_role_is_a_word_for_the_part_of_it(folder: Path, capsys: Captured) -> None:
    own = records(folder, capsys, where=["part=vit"])
    assert len(own) == 3
    assert records(folder, capsys, where=["part=vision"]) == own
    assert len(records(folder, capsys, where=["part=vision,llm"])) == 6
    assert len(records(folder, capsys, where=["part!=vision"])) == 4
    assert "no row has it; right: one of" in refused(folder, where=["part=connector"])


def test_a_second_condition_needs_its_own_option(folder: Path) -> None:
    right = "right: --where bits=4"
    refused_line(blip2sweep("table", "grid", "--where", "part=vit", "bits=4", cwd=folder), right)
    with pytest.raises(UserError, match=f"bits=4: a condition, and no sweep; {right}"):
        show_table(folder / "outputs", "bits=4", False, Asked(where=["part=vit"]))


@pytest.mark.parametrize("form", ["md", "latex"])
def test_a_pivot_has_the_baseline_below_it(folder: Path, capsys: Captured, form: str) -> None:
    table = pd.read_parquet(folder / "outputs/table.parquet")
    value = table.loc[table["part"] == "none", "cider"].iloc[0]
    assert f"the baseline: cider {value:.2f}" in shown(folder, capsys, format=form, pivot="part,bits", digits=2)
    assert "the baseline" not in shown(folder, capsys, format=form)


def test_programs_read_whole_widths_as_integers_and_hear_of_the_baseline(folder: Path, capsys: Captured) -> None:
    text = shown(folder, capsys, format="csv", columns="part,bits,bits_vit", where=["bits!=3", "bits!=8"], sort="part")
    assert text.splitlines() == ["part,bits,bits_vit", "llm,4,", "none,,", "vit,4,4"]
    pivoted = records(folder, capsys, pivot="bits,part")
    assert [type(r["bits"]) for r in pivoted] == [int] * 3
    show_table(folder / "outputs", "grid", False, Asked(format="csv", pivot="bits,part"))
    assert "the baseline: cider " in capsys.readouterr().err


def test_a_file_has_what_is_printed(folder: Path, capsys: Captured, tmp_path: Path) -> None:
    for name, form in (("a.csv", "csv"), ("a.md", "md"), ("a.tex", "latex"), ("a.json", "json")):
        said = shown(folder, capsys, out=tmp_path / name)
        assert said.rstrip().endswith(f"wrote {tmp_path / name}")
        assert (tmp_path / name).read_text().rstrip() == shown(folder, capsys, format=form).rstrip()
    assert "right: a name that ends with .csv" in refused(folder, out=tmp_path / "a.xlsx")
