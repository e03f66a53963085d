"""CSV files of others: sizes of the whole model, columns that count, and one line for what is wrong, with its place."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.importing.params import PARAMS, model_params
from blip2sweep.importing.table_csv import Options, import_csv
from blip2sweep.models.shipped import model_config, shipped_models
from tests.command_line import blip2sweep, refused

LINES = "part,bits,cider\nnone,,1.2\nvit,4,1.1\n"


def imported(tmp_path: Path, text: str, *words: str) -> pd.DataFrame:
    (tmp_path / "mine.csv").write_text(text)
    ran = blip2sweep("import", "csv", "mine.csv", *words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    return pd.read_parquet(tmp_path / "outputs/sweeps/csv-mine/table.parquet").set_index("part")


@pytest.mark.parametrize("name", shipped_models())
def test_parameters_are_those_of_the_module_tree(name: str) -> None:
    from blip2sweep.models.checkpoints import inspect
    from blip2sweep.models.location import locate
    from tests.checkpoints import build_meta

    config = model_config(name)
    if config.get("path"):
        assert PARAMS[name] == inspect(locate(config).folder, config.get("tied", [])).params
        return
    tensor = {n: min(group) for group in config.get("tied") or () for n in group}
    named = build_meta(config).named_parameters(remove_duplicate=False)  # transformers may tie what the files do not
    counted = {tensor.get(path, path): p.numel() for path, p in named}
    assert PARAMS[name] == sum(counted.values())


def test_sizes_count_the_whole_model(tmp_path: Path) -> None:
    """The block linears alone are 93 % of BLIP-2: embeddings, norms and biases count too."""
    table = imported(tmp_path, LINES)
    vit = 39 * 1408 * (4 * 1408 + 2 * 6144)
    total = PARAMS["blip2-opt-2.7b"]
    assert table.loc["none", "model_bytes"] == 2 * total
    assert table.loc["vit", "bits_per_weight"] == pytest.approx(16 - 12 * vit / total, abs=0.01)


def test_parameters_can_be_given(tmp_path: Path) -> None:
    assert imported(tmp_path, LINES, "--params", "5000000000").loc["none", "model_bytes"] == 10_000_000_000
    refused(blip2sweep("import", "csv", "mine.csv", "--params", "0", cwd=tmp_path), "--params 0")
    with pytest.raises(UserError, match="model mine: its number of parameters is not known"):
        model_params("mine")


def test_columns_say_what_the_rows_are_of(tmp_path: Path) -> None:
    text = "model,task,dtype,samples,part,bits,cider,note\ntiny,mine,float16,500,none,,1.2,\ntiny,mine,float16,500,vit,4,1.1,x\n"
    table = imported(tmp_path, text)
    assert table.loc["vit", ["model", "task", "dtype", "samples"]].tolist() == ["tiny", "mine", "float16", 500]
    assert "columns that are not used: note" in blip2sweep("import", "csv", "mine.csv", cwd=tmp_path).out
    refused(
        blip2sweep("import", "csv", "mine.csv", "--task", "vqav2", cwd=tmp_path), "column task says mine, --task vqav2"
    )


@pytest.mark.thorough
def test_a_heading_without_the_number_of_samples(tmp_path: Path) -> None:
    imported(tmp_path, LINES, "--model", "tiny")
    assert blip2sweep("report", cwd=tmp_path).code == 0
    page = (tmp_path / "outputs/sweeps/csv-mine/report.html").read_text()
    assert "<h1>tiny on coco_caption, 2 cells</h1>" in page


@pytest.mark.parametrize(("text", "words"), [
    ("recipe,cider\nnone,1\nvitt:all:all=rtn4/channel,1\n", "line 3: target vitt:all:all: model tiny has no part 'vitt'"),
    ("recipe,cider\nnone,1\nvit:0-99:all=rtn4/channel,1\n", "line 3: .*: '0-99' is outside vit"),
    ("recipe,cider\nnone,1\nvit:all:crossattention=rtn4/channel,1\n", "line 3: .*vit of tiny has no layer 'crossattention'"),
    ("recipe,cider\nnone,1\nvit:a:b:c=rtn4/channel,1\n", "line 3: target=vit:a:b:c: not a target"),
    ("recipe,cider\nnone,1\nvit=rtm4/channel,1\n", "line 3: method 'rtm'"),
    ("recipe,cider\nnone,1\nvit=rtn99/channel,1\n", "line 3: rtn has no 99 bits"),
    ("part,bits,blocks,cider\nnone,,,1\nvit,4,9,1\n", "line 3: .*'9' is outside vit"),
    ("part,bits,cider\nnone,,1\n\nvitt,4,1.0\n", "line 4: part=vitt"),
    ("model,part,bits,cider\ntiny,none,,1\nother,vit,4,1\n", "column model has 2 values"),
    ("samples,part,bits,cider\nmany,none,,1\nmany,vit,4,1\n", "column samples says many"),
])  # fmt: skip
def test_bad_lines(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=words) as told:
        import_csv(tmp_path / "x.csv", tmp_path / "outputs", Options(None if "model" in text else "tiny"))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "outputs").exists()


def test_sizes_count_what_a_file_says_of_its_storage(tmp_path: Path) -> None:
    """16 bits where it says nothing, whatever it was computed in."""
    half, single = (imported(tmp_path, LINES, "--set", f"stored={s}").loc["none"] for s in ("fp16", "float32"))
    assert (half["stored"], single["stored"]) == ("float16", "float32")
    assert single["model_bytes"] == 2 * half["model_bytes"]
    plain = imported(tmp_path, LINES, "--set", "dtype=float32").loc["none"]
    assert (plain["stored"], plain["model_bytes"]) == ("float16", half["model_bytes"])
