"""What `recommend` says: the original first, every limit that is exceeded in the first line, times, and the last command."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from blip2sweep.analysis.held_by import holds_nothing
from blip2sweep.analysis.recommend import recommend
from blip2sweep.analysis.time_limit import fast_enough, left_untimed
from blip2sweep.commands.budget import Budget, parse_latency, parse_size
from blip2sweep.commands.chosen_cell import chosen_cell
from blip2sweep.commands.expectation import exceeded
from blip2sweep.commands.headline import _down_to
from blip2sweep.commands.recommend import run_recommend, source_for
from blip2sweep.commands.times import UNSTEADY, _time
from blip2sweep.errors import UserError, UserErrors
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.reporting.cells_to_fit import cells_to_fit
from blip2sweep.reporting.source import Source, load_source
from tests.synthetic import build, entry, whole

PARTS = (["vit"], ["llm"], ["qformer"], ["vit", "qformer", "llm"])
TINY = model_anatomy("tiny")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("recommended")
    build(folder, [whole(p, b) for p in PARTS for b in (8, 4, 3, 2)], n=120)
    return load_source(folder)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """So few cells of one method that nothing is predicted."""
    folder = tmp_path_factory.mktemp("few")
    build(folder, [whole(PARTS[3], 8), whole(PARTS[3], 4), whole(PARTS[3], 3), whole(["vit"], 4)], n=120)
    return load_source(folder)


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """Composing a cell outside of Hydra's main leaves Hydra initialized."""
    yield
    GlobalHydra.instance().clear()


def timed(source: Source, ratios: dict[str, float]) -> Source:
    """The source with times of some cells: {recipe: share of the baseline's}."""
    own = source.cells["recipe"].map(ratios)
    cells = source.cells.assign(
        latency_ratio=own, latency_ms_median=own * 20, latency_ms_baseline=20.0, latency_device="cpu", latency_threads=2
    )
    made = replace(source, cells=cells)
    made.__dict__["measured"] = (cells, source.draws)
    return made


def told(source: Source, asked: Budget, path: Path) -> list[str]:
    return run_recommend(source, asked, path / "r.yaml", verify=False)


def test_the_first_lines_have_the_original_and_the_last_is_a_command(few: Source, tmp_path: Path) -> None:
    lines = told(few, Budget(ratio="2"), tmp_path)
    base = few.cells[few.cells["part"] == "none"].iloc[0]
    size, plain = int(base["model_bytes"]), base["model_bytes"] * 16 / base["bits_per_weight"]
    assert lines[0].startswith("recommended: ")
    assert lines[1].startswith(f"original: {size:,} bytes")
    assert f"ratio {plain / size:.2f}; ratios are to its numbers at 16 bits, {plain:,.0f} bytes" in lines[1]
    words = shlex.split(lines[-1].partition("export it: ")[2])
    assert words[:3] == ["blip2sweep", "export", str(tmp_path / "r.yaml")]
    assert words[-5:-1] == ["--to", "compressed-tensors", "tiny-compressed-tensors", "--output-dir"]
    written = yaml.safe_load((tmp_path / "r.yaml").read_text())
    assert written["source"]["model"] == "tiny"
    assert written["source"]["overrides"]["model.dtype"] == "float32"
    chosen = chosen_cell("export", words[2:-5], None, tmp_path)  # what the last line copies means this recipe
    assert chosen.job["recipe"] == written["targets"]


# ---- limits


def test_a_cell_beyond_a_limit_says_so_in_its_first_line(planted: Source, tmp_path: Path) -> None:
    """Only cells of 2 bits are so fast, and they lose nearly all."""
    ratios = {r: 0.5 for r in planted.cells["recipe"] if re.search(r"rtn2/", str(r))}
    lines = told(timed(planted, ratios), Budget(max_drop="2%", latency="0.8"), tmp_path)
    assert re.match(
        r"BEYOND --max-drop 2%: nothing within --latency 0.8 is known to keep 98 %; the best is cell \w{12}, measured: "
        r"it loses \d+\.\d\d% on the images that chose it; it loses",
        lines[0],
    )
    assert any(line.startswith("the limit of 2.0% is NOT kept: ") for line in lines)


NAMES_A_CELL = re.compile(
    r"(?:recommended: (?:a recipe that.*?; the best measured, )?|BEYOND.*?: (?:nothing.*?the best is )?|the best measured is |"
    r"no compressed cell.*?: the best, )"
    r"(?:the original itself, )?cell (\w{12})"
)


@pytest.mark.thorough
def test_no_line_names_a_cell_beyond_the_limit_without_saying_so(few: Source, planted: Source, tmp_path: Path) -> None:
    """Over many budgets: wherever a cell is named, its line says whether it loses more, on either half of the images."""
    budgets = [(few, None, "0.1%"), (few, None, "10%"), (few, "40%", "3%"), (few, "30%", "40%")]
    beyond = [_beyond(*one, tmp_path) for one in [*budgets, (planted, "50%", "5%")]]
    assert {x for found in beyond for x in found} == {True, False}


def _beyond(source: Source, size: str | None, most: str, path: Path) -> list[bool]:
    """Whether each line that names a cell says that it is beyond the limit, which it has to."""
    found = list[bool]()
    assert source.draws is not None
    halves = (source.draws.half(True), source.draws.half(False))
    try:
        lines = told(source, Budget(max_bytes=size, max_drop=most), path)
    except UserError:
        return []
    for line in lines:
        if named := NAMES_A_CELL.match(line):
            values = ((source.draws.value(named[1], h), source.draws.value(source.draws.baseline, h)) for h in halves)
            lost = [1 - cell / base for cell, base in values]
            told_so = "BEYOND" in line or line.startswith("no compressed cell")
            assert told_so == (max(lost) > float(most[:-1]) / 100), (line, lost)
            found.append(told_so)
    return found


def test_what_is_exceeded_is_told_by_half(planted: Source) -> None:
    choice = recommend(planted.cells, "cider", planted.draws, TINY, max_drop=0.02)
    cell = replace(
        choice, key="0" * 12, chosen_drop=0.01, judged=0.01, within=True, drop=0.03, baseline=1.0, held_out=True
    )
    assert exceeded(cell, 0.02) == ["it loses 3.00% on those that did not"]
    assert exceeded(replace(cell, drop=0.01), 0.02) == []
    assert exceeded(cell, None) == []
    assert exceeded(replace(cell, chosen_drop=0.05, within=False, held_out=False), 0.02) == ["it loses 5.00%"]
    guess = replace(cell, key=None, judged=0.04, within=False, drop=0.01)
    assert exceeded(guess, 0.02) == ["it may lose 4.00% on the images that chose it, by its prediction interval"]


@pytest.mark.thorough
def test_whether_it_is_kept_is_asked_of_the_limit_too(few: Source, planted: Source, tmp_path: Path) -> None:
    lines = told(few, Budget(max_drop="10%"), tmp_path)
    kept = [re.match(r"keeps (\S+) % with 95 % confidence: (yes|no|not known)", line) for line in lines]
    assert [k[1] for k in kept if k] == ["99", "90"]
    assert sum("keeps 99 %" in line for line in told(few, Budget(max_drop="1%"), tmp_path)) == 1
    predicted = told(planted, Budget(max_bytes="1MB"), tmp_path)
    if predicted[0].startswith("recommended: a recipe that was not run"):
        assert predicted[2] == "keeps 99 % with 95 % confidence: not known (it was not measured)"


def test_a_format_that_holds_no_cell_says_what_it_holds_once() -> None:
    why = [
        f"--for vllm: no kernel for 4 bits asymmetric of a layer of {n} x 64 (12 layers, such as a); right: groups of 32"
        for n in (64, 256)
    ]
    cells = pd.DataFrame({"key": ["a", "b", "c"], "part": ["none", "llm", "vit"]})
    told = holds_nothing("vllm", cells, {"b": why, "c": why})
    assert told == (
        "vllm can hold none of the 2 compressed cells: no kernel for 4 bits asymmetric (2 cells); "
        "right: a sweep of what it holds: groups of 32"
    )
    assert holds_nothing("vllm", cells, {"b": why}) is None


# ---- times


def time_text(source: Source, key: str, p90: float) -> str:
    return _time({**source.cells[source.cells["key"] == key].iloc[0].to_dict(), "latency_ms_p90": p90})


def test_timed_cells_alone_compete_and_the_others_are_told_apart(planted: Source, tmp_path: Path) -> None:
    eight = next(r for r in planted.cells["recipe"] if str(r).count("rtn8") == 3)
    slow = next(r for r in planted.cells["recipe"] if str(r) == "llm:all:all=rtn8/channel")
    source = timed(planted, {eight: 0.64, slow: 0.95})
    lines = told(source, Budget(latency="80%"), tmp_path)
    key = source.cells.loc[source.cells["recipe"] == eight, "key"].iloc[0]
    assert lines[0].startswith(f"recommended: cell {key}, measured: within --latency 80%, keeps ")
    assert "time: 0.64 of its baseline's in the same run, 12.8 ms an image against 20 ms on cpu, 2 threads" in lines
    steady, varied = (time_text(source, key, most) for most in (14.0, 19.0))
    assert (
        steady
        == "0.64 of its baseline's in the same run, 12.8 ms an image (nine of ten at most 14) against 20 ms on cpu, 2 threads"
    )
    assert varied == steady.replace("14)", "19)") + UNSTEADY
    wanted = (
        "14 of 16 compressed cells have no time and are left out: 14 quantization is simulated without quant.packed"
    )
    assert wanted in lines
    assert not any("prediction" in line for line in lines[:6])
    either = told(source, Budget(latency="1.5"), tmp_path)
    assert {line.split()[2].rstrip(",") for line in either if line.startswith("recommended: cell")} <= set(
        source.cells["key"]
    )


def test_where_nothing_is_so_fast_the_fastest_is_named(planted: Source, tmp_path: Path) -> None:
    recipe = str(planted.cells["recipe"].iloc[3])
    key = planted.cells["key"].iloc[3]
    with pytest.raises(
        UserError, match=rf"--latency 0.5: none of 1 timed cells is so fast; cell {key} is the fastest and takes 0.60"
    ):
        told(timed(planted, {recipe: 0.6}), Budget(latency="0.5"), tmp_path)
    with pytest.raises(UserError, match=r"--latency 0.5: no compressed cell was timed; right: .*analysis.latency=true"):
        told(planted, Budget(latency="0.5"), tmp_path)
    with pytest.raises(
        UserError, match=r"no timed cell is fast and small enough; the smallest that is fast enough has \d+"
    ):
        told(timed(planted, {recipe: 0.6}), Budget(latency="0.7", max_bytes="10"), tmp_path)
    assert not (tmp_path / "r.yaml").exists()


def test_which_cells_are_fast_enough() -> None:
    """A second implementation, row by row."""
    rng = np.random.default_rng(3)
    ratios: Sequence[Any] = [None if rng.random() < 0.3 else float(x) for x in rng.uniform(0.3, 1.4, 60)]
    cells = pd.DataFrame({"key": [f"{i:012x}" for i in range(60)], "part": "vit", "latency_ratio": ratios})
    cells["latency_ratio"] = cells["latency_ratio"].astype(float)
    for limit in (0.5, 0.8, 1.2):
        wanted = [f"{i:012x}" for i, x in enumerate(ratios) if x is not None and x <= limit]
        assert fast_enough(cells, limit)["key"].tolist() == wanted
    line = left_untimed(cells, None)
    assert line is not None
    assert line.startswith(f"{sum(x is None for x in ratios)} of 60 compressed cells have no time and are left out: ")
    assert left_untimed(cells[cells["latency_ratio"].notna()], None) is None


# ---- what is typed


def test_shares_sizes_and_times() -> None:
    assert parse_latency("0.8") == parse_latency("80%") == parse_latency(" 80 % ") == 0.8
    assert parse_latency("1.5") == 1.5
    for wrong in ("", "0", "0%", "20ms", "-1", "12", "fast"):
        with pytest.raises(UserError, match=f"--latency {wrong}: no share of the baseline's time; right: 0.8 or 80%"):
            parse_latency(wrong)
    assert parse_size("2GB") == 2e9
    assert Budget(max_bytes="50%").bytes(1000, 4000) == 2000
    assert Budget(max_bytes="25%", ratio="1").bytes(1000, 4000) == 1000
    for wrong in ("0%", "100%", "250%"):
        with pytest.raises(UserError, match=f"--max-bytes {wrong}: no share of the original"):
            parse_size(wrong)


def test_all_mistakes_are_told_at_once(planted: Source, tmp_path: Path) -> None:
    asked = Budget("much", "200%", "0", "20ms")
    with pytest.raises(UserErrors) as caught:
        run_recommend(planted, asked, tmp_path, verify=True, form="gguf")
    lines = caught.value.lines
    starts = ("--max-bytes much", "--max-drop 200%", "--ratio 0", "--latency 20ms", "--out ", "--verify", "--for gguf")
    assert all(any(line.startswith(start) for line in lines) for start in starts if start != "--verify")
    assert all("\n" not in line for line in lines)
    with pytest.raises(UserErrors, match="no budget given; right: --max-bytes 2GB, --ratio 3"):
        run_recommend(planted, Budget(), None, verify=False)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_nothing_keeps_names_the_original(few: Source, planted: Source, tmp_path: Path) -> None:
    size = int(planted.cells.loc[planted.cells["part"] == "none", "model_bytes"].iloc[0])
    with pytest.raises(UserError, match=rf"has at most 10 bytes; .*; the original: {size:,} bytes"):
        told(planted, Budget("10"), tmp_path)
    with pytest.raises(
        UserError,
        match=r"no cell that was run has at most 378,009 bytes \(the smallest, cell \w{12}, has [\d,]+ bytes and keeps [\d.]+% on the images that choose\), "
        r"and too few cells to predict others: 4 of rtn/channel; right: at least 6 of one method, such as 8 more cells by "
        r"python -m blip2sweep -m .*; the original",
    ):
        told(few, Budget("20%"), tmp_path)


def test_a_unit_and_a_choice_without_a_baseline_are_told_from_a_sweep_and_a_lack_of_cells(few: Source) -> None:
    for unit in ("GB", "%", "kib"):
        with pytest.raises(UserError, match=f"{unit}: a unit, and no sweep; right: behind its number without a space"):
            source_for(few.output_dir, unit, False, {}, None)
    with pytest.raises(
        UserError, match=r"--only bits=4: leaves out the baseline, .*; of rows alone: blip2sweep table --where bits=4"
    ):
        source_for(few.output_dir, None, False, {"bits": "4"}, None)


# ---- few cells, and predictions that lose nearly all


def test_with_few_cells_the_best_of_them_is_recommended_and_the_missing_ones_are_a_command(
    few: Source, tmp_path: Path
) -> None:
    """The command's grid has what was run too; what it says to run is the rest."""
    lines = told(few, Budget(max_drop="40%"), tmp_path)
    assert re.match(r"recommended: cell \w{12}, measured: within --max-drop 40%, keeps \d\d\.\d % of CIDEr$", lines[0])
    (line,) = [x for x in lines if x.startswith("only measured cells competed: ")]
    why, _, command = line.partition(" by python -m blip2sweep -m ")
    assert why.endswith(": 4 of rtn/channel; right: at least 6 of one method, such as 8 more cells")
    given = dict(word.split("=", 1) for word in shlex.split(command))
    grid = {(part, int(b)) for part in given["part"].split(",") for b in given["quant.bits"].split(",")}
    assert len(grid) >= 6
    assert len(grid - {("all", 8), ("all", 4), ("all", 3), ("vit", 4)}) == 8
    assert given["quant"] == "rtn"


def test_where_other_sweeps_ran_the_missing_cells_these_are_named(tmp_path: Path) -> None:
    build(tmp_path, [whole(p, b) for p in PARTS for b in (3, 4)], n=60, name="many")
    build(tmp_path, [whole(["vit"], b) for b in (3, 4)], n=60, name="few")
    assert cells_to_fit(load_source(tmp_path, "many")) is None
    assert cells_to_fit(load_source(tmp_path, "few")) == "those of all sweeps, by --all"


def test_cells_of_blocks_alone_are_missing_whole(tmp_path: Path) -> None:
    build(tmp_path, [[entry(f"vit:{b}:mlp", 4, "gptq")] for b in range(3)], n=60)
    found = cells_to_fit(load_source(tmp_path))
    assert found is not None
    assert found.startswith("8 more cells by ")
    assert not any(word in found for word in ("blocks=", "layers="))
    assert "quant=gptq" in found


def test_where_no_cell_keeps_the_limit_the_best_is_named_before_the_original(few: Source, tmp_path: Path) -> None:
    first = told(few, Budget(max_drop="0.1%"), tmp_path)[0]
    assert re.match(
        r"no compressed cell keeps 99\.9 %: the best, cell \w{12} \(vit:all:all=8; qformer:all:all=8; llm:all:all=8, "
        r"ratio 1\.\d\d\), keeps 99\.\d\d% of CIDEr on the images that choose; recommended: the original itself, cell ",
        first,
    )


def test_what_loses_nearly_all_is_not_recommended_without_saying_so(planted: Source, tmp_path: Path) -> None:
    """The first line says what is kept, and down to which size more is; a measured cell goes before a prediction."""
    first = told(planted, Budget(ratio="6"), tmp_path)[0]
    smallest = planted.cells.sort_values("model_bytes").iloc[0]
    assert re.match(
        rf"NOT recommended: nothing within --ratio 6 is known to keep half of CIDEr; the best is cell {smallest['key']}, measured: "
        r"keeps \d\.\d % of CIDEr; 90 % is kept down to ratio 1\.\d\d, [\d,]+ bytes \(cell \w{12}\)$",
        first,
    )
    third = told(planted, Budget(ratio="3"), tmp_path)[0]
    assert re.match(
        r"recommended: cell \w{12}, measured: within --ratio 3, keeps 6\d\.\d % of CIDEr; 90 % is kept", third
    )


def test_down_to_which_size_more_is_kept_is_a_size_beyond_the_limit(few: Source) -> None:
    """Never a cell that the limit allows; and one that stopped is said to have."""
    cells = few.cells
    (three,) = cells.loc[cells["recipe"].str.count("rtn3/") == 3, "model_bytes"]
    (four,) = cells.loc[cells["recipe"].str.count("rtn4/") == 3, "model_bytes"]
    share = float(1 - cells.set_index("model_bytes").loc[four, "drop_cider"] / cells["baseline_cider"].iloc[0]) - 1e-6
    assert re.match(r"; [\d.]+ % is kept down to ratio [\d.]+, ", _down_to(few, share, Budget(max_bytes=f"{three}")))
    assert _down_to(few, share, Budget(max_bytes=f"{four}")) == ""
    assert _down_to(few, share, Budget(max_drop="2%")) == ""
    assert _down_to(few, 1.5, Budget(ratio="2")).startswith("; no compressed cell of any size keeps 150 %")
    early = cells.assign(stopped="known to ±5 %", images=64, images_of=120)
    stopped = replace(few)
    stopped.__dict__["measured"] = (early, few.draws)
    told = _down_to(stopped, share, Budget(max_bytes=f"{three}"))
    assert told.endswith(", stopped at 64 of 120 images (known to ±5 %))")


def test_the_smallest_cell_of_several_is_the_one_that_loses_least(planted: Source) -> None:
    """It is named where nothing is small enough."""
    alike = planted.cells.assign(
        model_bytes=planted.cells["model_bytes"].where(planted.cells["part"] == "none", 300_000)
    )
    with pytest.raises(UserError, match="no cell that was run has at most 200,000 bytes") as caught:
        recommend(alike[alike["width"].isna() | (alike["width"] == 2) | (alike["width"] == 4)].groupby("setting").head(5),
                  "cider", planted.draws, TINY, max_bytes=200_000)  # fmt: skip
    named = re.search(
        r"\(the smallest, cell (\w+), has 300,000 bytes and keeps ([\d.]+)% on the images that choose\)",
        str(caught.value),
    )
    assert named
    assert float(named[2]) > 90


def test_a_prediction_of_less_than_half_competes_with_no_cell(
    planted: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However much better than the cells it is. Where it competes, the best cell stands in its line."""
    chosen = sys.modules["blip2sweep.analysis.recommend"]
    monkeypatch.setattr(chosen, "_was_run", lambda *_: False)
    cell = recommend(planted.cells, "cider", planted.draws, TINY, max_bytes=300_000)
    for lost, wins in ((0.7, False), (0.4, True)):
        guess = replace(cell, key=None, chosen_drop=lost, judged=lost, drop=lost * cell.baseline, low=0.1, high=0.2)
        monkeypatch.setattr(chosen, "_predicted", lambda *_, guess=guess: ([guess], []))
        first = told(planted, Budget(ratio="6"), tmp_path)[0]
        assert first.startswith("recommended: a recipe that was not run, predicted: ") == wins
        assert (f"the best measured, cell {cell.key}, keeps 7.0 % of CIDEr with 280,800 bytes" in first) == wins
