"""Cells of checkpoints that are quantized already: what their rows say, what they are compared with, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from blip2sweep.analysis.cells import comparable
from blip2sweep.cache import disk as cache
from blip2sweep.commands.export import export
from blip2sweep.exporting import FORMATS
from blip2sweep.models.checkpoints import inspect, verdict
from blip2sweep.models.unpack import state_dict
from blip2sweep.planning.cell import Cell
from tests.checkpoints import TINY, fails
from tests.composing import plan
from tests.in_process import run
from tests.quantized_folders import awq, awq_config, compressed, compressed_config, gptq, gptq_config, write

WORDS = ("task.limit=4", "part=none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model in 4 bits."""
    path = tmp_path_factory.mktemp("held") / "gptq"
    write(path, gptq(), gptq_config())
    return path


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the child that compares names and shapes: tests/models/checkpoints/test_quantized.py asks it."""
    monkeypatch.setenv(cache.USER, str(tmp_path / "user"))
    monkeypatch.setattr(verdict, "_answer_of_child", lambda *_: [])


def cells(*words: str) -> list[Cell]:
    return [*plan(*WORDS, *words).cells.values()]


def columns(cell: Cell) -> dict[str, Any]:
    return dict(cell.columns())


def test_a_row_says_what_its_files_hold(folder: Path) -> None:
    (cell,) = cells(f"model.path={folder}")
    told, stored = columns(cell), load_file(folder / "model.safetensors")
    assert told["checkpoint"] == "gptq 4 bits, groups of 16, symmetric"
    assert (told["part"], told["bits_llm"], told["bits_language"], told["bits_vit"]) == ("none", 4, 4, None)
    assert (told["method"], told["group_size"], told["layers_touched"]) == ("gptq_checkpoint", 16, 36)
    assert told["recipe"] == "llm:all:all=gptq_checkpoint4/group16/sym"
    assert told["model_bytes"] == sum(t.numel() * t.element_size() for t in stored.values())
    params = columns(*cells())["params"]
    assert told["params"] == params
    assert told["compression_ratio"] == pytest.approx(2 * params / told["model_bytes"])
    inside = [t for n, t in stored.items() if n.endswith(("qweight", "qzeros", "scales", "g_idx"))]
    bits = 8 * sum(t.numel() * t.element_size() for t in inside)
    assert told["bits_per_weight_touched"] == pytest.approx(bits / told["params_touched"])
    assert cell.baseline().key == cell.key


def test_it_is_compared_with_its_original_where_that_is_named(folder: Path) -> None:
    base, cell = cells(f"model.path={folder}", "model.original=config")
    (alone,), (plain,) = cells(f"model.path={folder}"), cells()
    assert (base.key, cell.baseline().key, cell.job()["baseline"]) == (plain.key,) * 3
    assert cell.key not in (alone.key, plain.key)
    told = columns(cell)
    assert (told["part"], told["weights"], told["original"]) == (
        "llm",
        cell.model.fingerprint[:12],
        columns(base)["weights"],
    )
    assert json.loads(told["recipe_json"]) == [
        {"bits": 4, "group_size": 16, "method": "gptq_checkpoint", "strategy": "group", "symmetric": True, "target": "llm:all:all"}
    ]  # fmt: skip
    assert cells(f"model.path={folder}", f"model.original={TINY}")[1].key == cell.key


def test_its_other_layers_may_be_quantized(folder: Path) -> None:
    words = ("part=vit", "quant.bits=3", f"model.path={folder}")
    _, ours = cells("part=vit", "quant.bits=3", "model.stored=bfloat16")
    plain = columns(ours.baseline())
    base, cell = cells(*words)
    told, before = columns(cell), columns(base)
    assert (told["part"], told["bits_vit"], told["bits_llm"], told["layers_touched"]) == ("vit", 3, 4, 36 + 24)
    assert before["model_bytes"] - told["model_bytes"] == pytest.approx(
        plain["model_bytes"] - columns(ours)["model_bytes"], rel=0.02
    )
    whole = columns(cells(*words, "model.original=config")[1])
    assert (whole["part"], whole["method"], whole["group_size"]) == ("vit+llm", "mixed", "mixed")
    assert [e["method"] for e in json.loads(whole["recipe_json"])] == ["gptq_checkpoint", "rtn"]


def test_what_would_round_twice_is_refused(folder: Path) -> None:
    for words in (("part=llm", "quant.bits=4"), ("part=llm", "blocks=1", "layers=fc1", "quant.bits=8")):
        with fails("integers in the checkpoint already (gptq 4 bits", "part=none for the model as it is"):
            cells(f"model.path={folder}", *words)
    with fails("integers in the checkpoint already"):
        cells(f"model.path={folder}", "drop_blocks=llm:1")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_no_graphs_are_made_of_it(folder: Path, backend: str) -> None:
    """Its integers would be numbers in them, beside a size of integers."""
    words = (f"model.path={folder}", "model.dtype=float32", f"backend={backend}")
    for more in ((), ("model.original=config",)):
        with fails(f"backend={backend}: model.path's layers are integers already (gptq 4 bits", "right: backend=torch"):
            cells(*words, *more)


def test_it_is_not_exported(folder: Path, tmp_path: Path) -> None:
    for form in FORMATS:
        with fails(f"--to {form}: its layers are integers of others (gptq 4 bits", "right: the folder itself"):
            export(cells(f"model.path={folder}")[0].job(), form, tmp_path / "to", None, lambda _: pytest.fail("made"))


def test_an_original_that_means_nothing_is_refused(folder: Path) -> None:
    with fails("model.original=config", "is a plain checkpoint, its own baseline"):
        cells("model.original=config")
    with fails(f"model.original={folder}", "is quantized itself"):
        cells(f"model.path={folder}", f"model.original={folder}")
    with fails("no such folder"):
        cells(f"model.path={folder}", "model.original=nowhere")


def test_formats_have_their_words(tmp_path: Path) -> None:
    write(tmp_path / "awq", awq(32), awq_config(32), "vision_model")
    write(tmp_path / "rows", compressed(3, None, False), compressed_config(3, None, False), "qformer")
    (first,), (second,) = cells(f"model.path={tmp_path / 'awq'}"), cells(f"model.path={tmp_path / 'rows'}")
    assert columns(first)["checkpoint"] == "awq 4 bits, groups of 32, asymmetric"
    assert columns(second)["checkpoint"] == "compressed-tensors (pack-quantized) 3 bits, one scale a row, asymmetric"
    assert (columns(first)["bits_vision"], columns(second)["bits_connector"]) == (4, 3)


def test_analyses_compare_it_with_its_original() -> None:
    rows = [("none", "w1", None), ("llm", "w2", "w1"), ("llm", "w3", "w1")]
    same = {"status": "done", "model": "m", "task": "t", "recipe_json": "[]", "cider": 1.0, "drop_cider": 0.0}
    table = pd.DataFrame([{**same, "key": w, "part": p, "weights": w, "original": o} for p, w, o in rows])
    assert len(comparable(table)) == 3
    with fails("3 kinds of weights"):
        comparable(table.drop(columns="original"))


def test_it_answers_as_the_weights_that_its_integers_mean(folder: Path, tmp_path: Path) -> None:
    """The same folder with plain weights says the same, likelihoods too; `model.stored` rounds no integers."""
    plain = Path(shutil.copytree(TINY, tmp_path / "plain"))
    meant = {n: x.contiguous() for n, x in state_dict(inspect(folder), torch.float32).items()}
    save_file(meant, plain / "model.safetensors", {"format": "pt"})
    said = []
    for words in ([f"model.path={folder}", "model.stored=bfloat16"], [f"model.path={plain}"]):
        job = cells(*words)[0].job()
        said.append(run([job])[job["key"]][0])
    assert said[0] == said[1]
