"""What is recommended for a format is what the format can hold."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.analysis import knapsack
from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.held_by import HeldBy, format_named, left_out
from blip2sweep.analysis.recommend import recommend
from blip2sweep.errors import UserError
from blip2sweep.models.shipped import model_anatomy, model_config
from tests.command_line import blip2sweep, refused
from tests.synthetic import build, whole

TINY = model_anatomy("tiny")
PARTS = (["vit"], ["llm"], ["qformer"], ["vit", "qformer", "llm"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("held")
    recipes = [whole(p, b, m) for p in PARTS for b in (3, 4, 5) for m in ("rtn", "minmax")]
    build(path / "outputs", recipes, n=60)
    return path


@pytest.fixture(scope="module")
def cells(folder: Path) -> pd.DataFrame:
    return comparable(pd.read_parquet(folder / "outputs/table.parquet"))


def held(form: str, purpose: str | None = None) -> HeldBy:
    return HeldBy(form, purpose, model_config("tiny"), TINY)


@pytest.mark.thorough
def test_cells_and_predictions_are_of_what_the_format_holds(cells: pd.DataFrame) -> None:
    openvino = held("openvino")
    gone = openvino.refused(cells)
    own = cells.set_index("key")
    assert set(gone) == set(own[(own["method"] == "minmax") | (own["width"] == 5)].index)
    for most in (1_700_000, 1_000_000, 700_000):
        choice = recommend(cells, "cider", None, TINY, max_bytes=most, held=openvino)
        for one in filter(None, (choice, choice.instead)):
            assert one.key not in gone
            assert all(e["method"] == "rtn" and e["bits"] != 5 for e in one.entries)
            assert one.entries


def test_widths_without_a_type_are_no_option(cells: pd.DataFrame) -> None:
    found = {p.setting: held("openvino").narrowed(p) for p in knapsack.problems(cells, TINY)}
    (setting,) = (s for s in found if s.startswith("minmax"))
    assert found[setting] is None
    narrowed = found["rtn/channel"]
    assert narrowed is not None
    assert {b for options in narrowed.options for b in options} == {0, 3, 4}


def test_what_is_left_out_is_one_line(cells: pd.DataFrame) -> None:
    line = left_out("openvino", cells, held("openvino").refused(cells))
    assert line is not None
    assert line.startswith("openvino cannot hold 16 of 24 cells, which are left out: ")
    assert "minmax makes no integer codes with scales (12 cells)" in line
    assert "no type of 5 bits (4 cells)" in line
    assert "\n" not in line
    assert left_out("openvino", cells, {}) is None


def test_who_serves_names_its_format() -> None:
    assert format_named("vllm") == ("compressed-tensors", "vllm")
    assert format_named("onnx") == ("onnx", None)
    with pytest.raises(UserError, match="--for opnvino: no such format; did you mean 'openvino'"):
        format_named("opnvino")


@pytest.mark.thorough
def test_the_verb_says_what_is_left_out_and_ends_with_the_export(folder: Path) -> None:
    ran = blip2sweep("recommend", "--max-bytes", "1MB", "--for", "openvino", cwd=folder)
    assert ran.code == 0, ran.err
    assert "openvino cannot hold 16 of 24 cells" in ran.out
    # The cells of these rows were never planned here, so the recipe has to be measured first.
    end = ran.out.splitlines()[-1]
    recipe = "outputs/sweeps/planted/recommended.yaml"
    assert end.startswith(f"once it is measured, export it: blip2sweep export {recipe} ")
    assert end.endswith(" --to openvino tiny-openvino")
    refused(blip2sweep("recommend", "--max-bytes", "1MB", "--for", "gguf", cwd=folder), "--for gguf: no such format")
    none = blip2sweep("recommend", "--max-bytes", "1MB", "--for", "bitsandbytes", cwd=folder)
    refused(none, "bitsandbytes can hold none of the 24 compressed cells", "right: a sweep of what it holds: quant=nf4")


def test_checkpoints_of_others_are_left_out_with_a_reason(cells: pd.DataFrame) -> None:
    theirs = (
        '[{"target": "llm:all:all", "method": "gptq_checkpoint", "bits": 4, "strategy": "channel", "symmetric": true}]'
    )
    key = str(cells.loc[cells["part"] != "none", "key"].iloc[0])
    marked = cells.assign(recipe_json=cells["recipe_json"].mask(cells["key"] == key, theirs))
    for form in ("openvino", "onnx"):
        gone = held(form).refused(marked)
        assert gone[key] == ["others quantized its layers; right: a cell of a method here"]
        assert "others quantized its layers (1 cell)" in str(left_out(form, marked, gone))
        assert held(form).why_not_entries(json.loads(theirs))
