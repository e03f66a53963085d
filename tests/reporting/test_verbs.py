"""The verbs report, recommend, suggest and import as typed, and what they refuse."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from blip2sweep.analysis import knapsack
from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.draws import load_draws
from blip2sweep.analysis.layer_groups import noise
from blip2sweep.analysis.predict import Mean
from blip2sweep.commands.budget import Budget, parse_bytes, parse_drop, parse_ratio
from blip2sweep.errors import UserError
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.planning.sweep import new_sweep
from blip2sweep.recipe.size import Numbers, size
from blip2sweep.reporting.source import _narrowed
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import find_results, find_sweep
from tests.command_line import blip2sweep, refused
from tests.synthetic import build, entry, grid, source, whole

HALF, SINGLE = dict.fromkeys(("vit", "qformer", "llm"), 16), dict.fromkeys(("vit", "qformer", "llm"), 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verbs")
    build(path / "outputs", grid())
    return path


def test_report_writes_page_csvs_and_pictures(folder: Path) -> None:
    ran = blip2sweep("report", "planted", "--png", "--pdf", cwd=folder)
    assert ran.code == 0, ran.err
    data = folder / "outputs/sweeps/planted/report-data"
    for name in ("dropoff", "frontier", "blocks", "map", "shapley", "methods"):
        assert (data / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert (data / f"{name}.pdf").read_bytes()[:4] == b"%PDF"
    assert "report.html (" in ran.out


@pytest.mark.thorough
def test_recommend_writes_a_recipe_that_keeps_the_budget(folder: Path) -> None:
    ran = blip2sweep("recommend", "--max-bytes", "600kB", cwd=folder)
    assert ran.code == 0, ran.err
    recipe = yaml.safe_load((folder / "outputs/sweeps/planted/recommended.yaml").read_text())
    assert recipe["targets"]
    size = int(next(x for x in ran.out.splitlines() if "bits per weight" in x).split()[0].replace(",", ""))
    assert size <= 600_000
    assert "images that did not choose it" in ran.out
    refused(
        blip2sweep("recommend", "--max-bytes", "10", cwd=folder),
        "no recipe of the widths that were run",
        "the smallest has",
    )
    both = blip2sweep("recommend", "--max-bytes", "300kB", "--max-drop", "1%", cwd=folder).out
    assert "BEYOND --max-drop 1%: nothing within --max-bytes 300kB is known to keep 99 %; the best is cell " in both
    assert "the smallest with that drop has" in both
    refused(blip2sweep("recommend", cwd=folder), "no budget given")
    refused(blip2sweep("recommend", "--ratio", "0", cwd=folder), "--ratio 0: not a ratio")
    refused(blip2sweep("recommend", "--max-drop", "lots", cwd=folder), "--max-drop lots")


@pytest.mark.thorough
def test_a_ratio_is_of_the_model_at_16_bits(folder: Path) -> None:
    ran = blip2sweep("recommend", "--ratio", "3", cwd=folder)
    assert ran.code == 0, ran.err
    table = pd.read_parquet(folder / "outputs/table.parquet")
    base = table[table["part"] == "none"].iloc[0]
    line = next(x for x in ran.out.splitlines() if "bits per weight" in x)
    taken, ratio = int(line.split()[0].replace(",", "")), float(line.split("ratio ")[1].split()[0])
    plain = base["model_bytes"] * 16 / base["bits_per_weight"]
    assert taken <= plain / 3
    assert ratio == pytest.approx(plain / taken, abs=0.006)
    assert ratio >= 2.995
    assert "budget: --ratio 3" in (folder / "outputs/sweeps/planted/recommended.yaml").read_text()


@pytest.mark.parametrize("number_bits", [HALF, SINGLE, {**HALF, "qformer": 32}], ids=["half", "single", "mixed"])
def test_the_choice_is_the_optimum(folder: Path, number_bits: dict[str, int]) -> None:
    """Against trying every combination, whatever the model is stored in."""
    cells = comparable(pd.read_parquet(folder / "outputs/table.parquet"))
    own = cells[
        cells["line"].isin(
            ["none", "vit:all:all", "llm:all:all", "qformer:all:all", "vit:all:all; qformer:all:all; llm:all:all"]
        )
    ]
    found = knapsack.problems(_stored(own, number_bits), model_anatomy("tiny"))
    problem = next(p for p in found if p.setting == "rtn/channel")
    assert (problem.number_bits, problem.full) == (number_bits, _numbers(number_bits).total_bits)
    assert problem.params == _numbers(number_bits).total
    mean = Mean(np.array([0.5, 0.05, 0.2]), 1.5)
    import itertools

    everything = list(itertools.product(*problem.options))
    sizes = {w: size(problem.recipe(w), _numbers(number_bits)).model_bytes for w in everything}
    assert sizes == {w: problem.bytes(w) for w in everything}
    for budget in (500_000, 700_000, 1_000_000):
        chosen = tuple(knapsack.solve(problem, mean, budget, None))
        feasible = [w for w in everything if sizes[w] <= budget]
        best = min(float(mean.sensitivity(noise(np.array([w], float)))[0]) for w in feasible)
        assert sizes[chosen] <= budget
        assert float(mean.sensitivity(noise(np.array([chosen], float)))[0]) == pytest.approx(best, abs=1e-6)
    limit = mean.noise_for(0.9)
    chosen = tuple(knapsack.solve(problem, mean, None, 0.1))
    least = min(sizes[w] for w in everything if float(mean.sensitivity(noise(np.array([w], float)))[0]) <= limit)
    assert sizes[chosen] == least


def _numbers(number_bits: dict[str, int]) -> Numbers:
    """Of a model that is its linear layers alone, as the planted one."""
    parts = model_anatomy("tiny").parts
    params = {p.stage: sum(x.weights + x.out_features * x.bias for x in p.linears) for p in parts.values()}
    return Numbers(params, {p.stage: number_bits[name] for name, p in parts.items()})


def _stored(cells: pd.DataFrame, number_bits: dict[str, int]) -> pd.DataFrame:
    """The cells with the size of the baseline at these widths; solving reads no other."""
    numbers = _numbers(number_bits)
    text = " ".join(f"{part}:float{b}" for part, b in number_bits.items())
    base = cells["part"] == "none"
    return cells.assign(
        stored=text,
        model_bytes=cells["model_bytes"].mask(base, numbers.total_bits // 8),
        bits_per_weight=cells["bits_per_weight"].mask(base, numbers.total_bits / numbers.total),
    )


@pytest.mark.thorough
def test_suggest_writes_cells_that_were_not_run(folder: Path) -> None:
    ran = blip2sweep("suggest", "-n", "4", cwd=folder)
    assert ran.code == 0, ran.err
    paths = sorted((folder / "outputs/sweeps/planted/suggested").glob("*.yaml"))
    assert len(paths) == 4
    known = set(pd.read_parquet(folder / "outputs/table.parquet")["recipe_json"])
    for path in paths:
        assert (
            json.dumps(yaml.safe_load(path.read_text())["targets"], sort_keys=True, separators=(",", ":")) not in known
        )
    assert "run them: python -m blip2sweep -m output_dir=outputs recipe_file=" in ran.out
    assert len(re.findall(r"; about [\d.]+ (s|min|h)", ran.out)) == 4
    assert "in all, on one worker" in ran.out
    refused(blip2sweep("suggest", "-n", "0", cwd=folder), "right: a positive number")


def test_sizes_and_shares() -> None:
    assert parse_ratio("3") == parse_ratio(" 3x ") == 3
    assert parse_ratio(".5") == 0.5
    assert Budget(ratio="4", max_bytes="1kB").bytes(8000) == 1000
    assert Budget(ratio="32").bytes(8000) == 500
    assert parse_bytes("2GB") == 2_000_000_000
    assert parse_bytes("1.5 mb") == 1_500_000
    assert parse_bytes("123") == 123
    assert parse_bytes("2GiB") == parse_bytes("2 gib") == parse_bytes("2Gi") == 2 * 1024**3
    assert parse_bytes("1.5KiB") == 1536
    assert parse_drop("2%") == parse_drop("0.02") == 0.02
    for wrong in ("", "GB", "1.2.3GB", "2iB", "."):
        with pytest.raises(UserError, match="right: 2GB"):
            parse_bytes(wrong)
    for text, meant in (("2", "2% or 0.02"), ("1", "1% or 0.01"), ("250%", "2% or 0.02"), ("100%", "2% or 0.02")):
        with pytest.raises(UserError, match=f"the whole baseline or more; right: {meant}"):
            parse_drop(text)


# ---- bad input: one clear line each


@pytest.mark.thorough
def test_an_empty_ledger(tmp_path: Path) -> None:
    refused(blip2sweep("report", cwd=tmp_path), "no sweep here")
    refused(blip2sweep("report", "--all", cwd=tmp_path), "no rows")


@pytest.mark.thorough
def test_one_cell_only(tmp_path: Path) -> None:
    build(tmp_path / "outputs", [])
    ran = blip2sweep("report", cwd=tmp_path)
    assert ran.code == 0, ran.err
    refused(
        blip2sweep("recommend", "--max-drop", "1%", cwd=tmp_path),
        "no compressed cell was run",
        "such as 8 more cells by python -m",
    )


@pytest.mark.thorough
def test_no_baseline(tmp_path: Path) -> None:
    build(tmp_path / "outputs", [whole(["vit"], 4)], with_baseline=False)
    refused(blip2sweep("report", cwd=tmp_path), "no baseline cell", "add part=none")


@pytest.mark.thorough
def test_of_mixed_tasks_all_cells_are_those_of_the_larger_and_others_are_named(tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    build(out, [whole(["vit"], 4)], name="one")
    build(out, [whole(["vit"], b) for b in (4, 3)], name="two", made_from=source(task="other_caption"))
    said = blip2sweep("report", "--all", cwd=tmp_path)
    assert said.code == 0, said.err
    assert "all cells: tiny on other_caption, 200 samples, 3 cells" in said.out
    assert "2 cells of task shapes_caption (--task shapes_caption)" in said.out
    assert blip2sweep("report", "--all", "--task", "other_caption", cwd=tmp_path).code == 0
    refused(
        blip2sweep("report", "--all", "--task", "nothing", cwd=tmp_path),
        "--task nothing: no cell has it",
        "shapes_caption",
    )


def test_data_is_told_apart_by_what_people_call_it(tmp_path: Path) -> None:
    """The hash only where nothing else tells two sets of samples apart."""
    first = source(n=60)
    other = replace(first, identity={**first.identity, "samples": 200, "data": "0ddba11"})
    alike = replace(first, identity={**first.identity, "data": "deadbeef"})
    for i, origin in enumerate((first, other, alike)):
        build(tmp_path, [whole(["vit"], b) for b in (8, 4)[: 2 - i // 2]], name=f"s{i}", made_from=origin, n=60)
    table = pd.read_parquet(tmp_path / "table.parquet")
    with pytest.raises(UserError) as told:
        comparable(table[table["samples"].isin([60, 200]) & (table["data"] != "deadbeef")])
    assert "tiny on shapes_caption with 200 samples, tiny on shapes_caption with 60 samples (3 and 3 cells)" in str(
        told.value
    )
    assert "right: choose one sweep, or --only samples=200" in str(told.value)
    assert "0ddba11" not in str(told.value)
    with pytest.raises(UserError) as told:
        comparable(table[table["samples"] == 60])
    assert (
        "with 60 samples (deadbeef), tiny on shapes_caption with 60 samples (shapes_caption-data) (2 and 3 cells)"
        in str(told.value)
    )
    assert "--only data=shapes_caption-data" in str(told.value)


def test_generation_settings_are_told_by_what_differs(tmp_path: Path) -> None:
    first = source(n=40)
    for beams in (1, 5):
        settings = json.dumps({"max_new_tokens": 30, "num_beams": beams})
        build(
            tmp_path,
            [whole(["vit"], 4)],
            name=f"b{beams}",
            made_from=replace(first, identity={**first.identity, "generation": settings}),
            n=40,
        )
    with pytest.raises(UserError, match=r"samples \(num_beams=1\), .* samples \(num_beams=5\) \(2 and 2 cells\)"):
        comparable(pd.read_parquet(tmp_path / "table.parquet"))


# ---- which sweep is meant


@pytest.mark.thorough
def test_a_run_of_one_cell_is_not_what_a_table_speaks_of(tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    build(out, [whole(["vit"], b) for b in (8, 4)], name="real")
    build(out, [whole(["llm"], 4)], name="try")
    build(out, [whole(["llm"], 3)], name="verify-1")
    ran = blip2sweep("table", cwd=tmp_path)
    assert "sweep real" in ran.out
    assert "2 newer runs of one cell are not shown; the last is verify-1" in ran.out
    assert "sweep real" in blip2sweep("table", "-f", "csv", cwd=tmp_path).err
    assert "sweep try" in blip2sweep("table", "try", cwd=tmp_path).out
    ran = blip2sweep("report", cwd=tmp_path)
    assert ran.out.splitlines()[0] == "sweep real: tiny on shapes_caption, 200 samples, 3 cells"
    assert (out / "sweeps/real/report.html").exists()
    assert blip2sweep("status", cwd=tmp_path).out.startswith("sweep verify-1: ")  # what was started last


def test_where_there_is_nothing_else_the_one_cell_is_meant(tmp_path: Path) -> None:
    build(tmp_path, [whole(["llm"], 4)], name="first")
    build(tmp_path, [whole(["vit"], 4)], name="second")
    assert find_results(tmp_path, None).name == "second"
    build(tmp_path, [whole(["vit"], b) for b in (8, 4)], name="real")
    assert find_results(tmp_path, None).name == "real"
    assert find_results(tmp_path, "first").name == "first"


def test_what_was_asked_for_tells_a_sweep_from_a_try(tmp_path: Path) -> None:
    """A sweep whose other cells were skipped is one; the flag is in its file, and files without one are read as before."""
    from tests.composing import plan

    swept, one = plan("part=vit", "quant.bits=4,none"), plan("part=vit", "quant.bits=4")
    names = {"swept": swept, "one": one}
    for name, planned in names.items():
        new_sweep(planned, name, name, Ledger(tmp_path)).write(tmp_path)
    assert {n: find_sweep(tmp_path, n).of_one_cell for n in names} == {"swept": False, "one": True}
    for name in names:
        path = tmp_path / "sweeps" / name / "sweep.json"
        old = {k: v for k, v in json.loads(path.read_text()).items() if k != "single"}
        path.write_text(json.dumps(old | {"command": "import csv x" if name == "one" else name}))
    assert {n: find_sweep(tmp_path, n).of_one_cell for n in names} == {"swept": True, "one": False}


@pytest.mark.thorough
def test_a_folder_where_a_file_is_meant(folder: Path) -> None:
    refused(blip2sweep("report", "--out", ".", cwd=folder), "--out .: is a folder; right: the page's file")
    refused(blip2sweep("recommend", "--max-drop", "5%", "--out", ".", cwd=folder), "right: the recipe's file")


def test_whole_numbers_are_found_as_typed() -> None:
    table = pd.DataFrame({"samples": [60, 200, None]})
    assert len(_narrowed(table, {"samples": "200"})) == 1
    with pytest.raises(UserError, match="--only samples=7: no cell has it; right: one of 200, 60, nan"):
        _narrowed(table, {"samples": "7"})


# ---- W&B


@pytest.mark.thorough
def test_all_cells_are_not_sent_and_nothing_is_written_before_that_is_said(folder: Path) -> None:
    before = sorted((folder / "outputs").rglob("report.html"))
    refused(
        blip2sweep("report", "--all", "--wandb", "offline", cwd=folder),
        "not with --all",
        "right: blip2sweep report SWEEP",
    )
    refused(blip2sweep("report", "--wandb", "of", cwd=folder), "--wandb of: right: online or offline")
    assert sorted((folder / "outputs").rglob("report.html")) == before


@pytest.mark.thorough
def test_nan_metrics(tmp_path: Path) -> None:
    build(tmp_path / "outputs", [whole(["vit"], 4)], nan=lambda listed: True)
    refused(blip2sweep("report", cwd=tmp_path), "no cell has a metric that is a number")


@pytest.mark.thorough
def test_one_cell_without_a_number_does_not_stop_the_report(tmp_path: Path) -> None:
    """One of the method whose cells are fitted."""
    build(tmp_path / "outputs", grid()[:40], nan=lambda listed: listed == whole(["vit"], 6, "gptq"))
    ran = blip2sweep("report", cwd=tmp_path)
    assert ran.code == 0, ran.err


# ---- CSV


CSV = """part,bits,blocks,layers,method,cider,note
none,,,,,1.2,
vit,4,all,all,rtn,1.1,fine
llm,4,first,mlp,rtn,1.15,
"""


@pytest.mark.thorough
def test_any_csv_becomes_rows(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(CSV)
    ran = blip2sweep("import", "csv", "mine.csv", "--model", "tiny", "--task", "coco_caption", cwd=tmp_path)
    assert ran.code == 0, ran.err
    table = pd.read_parquet(tmp_path / "outputs/sweeps/csv-mine/table.parquet").set_index("recipe")
    assert table.loc["vit:all:all=rtn4/channel", "drop_cider"] == pytest.approx(0.1)
    assert table.loc["llm:first:mlp=rtn4/channel", "layers_touched"] == 4
    assert blip2sweep("report", "csv-mine", cwd=tmp_path).code == 0
    again = blip2sweep("import", "csv", "mine.csv", "--model", "tiny", cwd=tmp_path)
    assert again.code == 0
    spelled = "recipe,cider\nnone,1.2\nvit:all:all=rtn4/channel; llm:0-3:mlp=minmax8/tensor,1.0\n"
    (tmp_path / "spelled.csv").write_text(spelled)
    assert blip2sweep("import", "csv", "spelled.csv", "--model", "tiny", cwd=tmp_path).code == 0


@pytest.mark.parametrize(("text", "words"), [
    ("a,b\n1,2\n", "no column recipe or part"),
    ("part,bits\nvit,4\n", "no metric column"),
    ("part,bits,cider\nvit,4,much\n", "line 2: cider much: no number"),
    ("part,bits,cider\nvit,4,1.0\n", "no baseline line"),
    ("part,bits,cider\nnone,,1\nvitt,4,1.0\n", "line 3: part=vitt"),
    ("part,bits,cider\nnone,,1\nvit,4,1\nvit,4,1\n", "line 4: the same recipe"),
    ("recipe,cider\nnone,1\nvit4,1\n", "line 3: 'vit4' is no recipe"),
])  # fmt: skip
def test_bad_csv(tmp_path: Path, text: str, words: str) -> None:
    from blip2sweep.importing.table_csv import Options, import_csv

    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        import_csv(tmp_path / "x.csv", tmp_path / "outputs", Options("tiny", "t"))
    assert not (tmp_path / "outputs").exists()


def test_unknown_imports(tmp_path: Path) -> None:
    refused(blip2sweep("import", "blip2", ".", cwd=tmp_path), "import blip2: unknown")
    refused(blip2sweep("import", "blip2-coco", ".", cwd=tmp_path), "configs.json is missing")


def test_draws_do_not_read_what_they_do_not_need(tmp_path: Path) -> None:
    """Only score files and the baseline's predictions are opened."""
    build(tmp_path, [whole(["vit"], 4), [entry("llm:all:mlp", 3)]])
    for path in (tmp_path / "predictions").iterdir():
        table = collect(tmp_path)
        base = table[table["part"] == "none"].iloc[0]
        if not path.name.startswith(base["key"]):
            path.unlink()
            break
    cells = comparable(pd.read_parquet(tmp_path / "table.parquet"))
    shutil.rmtree(tmp_path / "samples.parquet")
    draws = load_draws(tmp_path, cells, "cider")
    assert draws is not None
    assert len(draws.arrays) == 3
