"""The benchmark: grids, arithmetic, the plain reference against ours, and a run of the script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.compression.quantize import minmax, rtn
from blip2sweep.compression.quantize.scheme import Weights
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.tree import verify
from blip2sweep.planning.plan import Plan
from blip2sweep.tasks import load_task
from scripts import bench_methods
from scripts.benchmarks import bound, floor, grids, models, reference, report, timing
from scripts.benchmarks.ours import Setting, planned
from tests.checkpoints import ROOT, build_meta, conf
from tests.composing import jobs, plan

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(("name", "cells"), [("card", 9), ("part_wise", 64), ("seed_grid", 60), ("role_wise", 27)])
def test_the_grids_have_as_many_cells_as_they_say(name: str, cells: int) -> None:
    made = grids.grid(name)
    assert len(made) == cells
    assert len({json.dumps(c, sort_keys=True) for c in made}) == cells


def test_the_card_is_that_of_conf() -> None:
    words = plan("+study=card")
    recipes = {words.cells[k].columns()["recipe"] for k in words.keys if k}
    assert {f"{c['part']}:all:all=rtn{c['quant']['bits']}/channel" for c in grids.card()} == recipes


def test_the_slice_is_of_the_published_grid() -> None:
    names = {"vision": "vit", "connector": "qformer", "language": "llm", "all": "all"}
    own = [
        ("+".join(names[w] for w in j.config["part"].split("+")), j.config["layers"]) for j in jobs("+study=seed_grid")
    ]
    known = {json.dumps(pair) for pair in own}
    assert {json.dumps([c["part"], c["layers"]]) for c in grids.seed_grid()} <= known


@pytest.mark.parametrize("name", ["tiny", "blip2-opt-2.7b"])
def test_configs_read_without_hydra_are_those_of_hydra(name: str) -> None:
    found, wanted = models.model_config(name), conf(f"model/{name}")
    assert {k: found[k] for k in ("name", "family", "dtype", "config", "parts", "tied")} == {
        k: wanted[k] for k in ("name", "family", "dtype", "config", "parts", "tied")
    }


def test_the_mid_size_model_has_the_anatomy_and_hundreds_of_megabytes() -> None:
    config = models.model_config("mid")
    built = build_meta(config)
    verify(built, anatomy(config))
    assert 2e8 < 4 * sum(p.numel() for p in built.parameters()) < 8e8


def test_the_mid_size_llava_has_576_tokens_a_picture() -> None:
    config = models.model_config("llava-mid")
    verify(build_meta(config), anatomy(config))
    vision = config["config"]["vision_config"]
    assert (vision["image_size"] // vision["patch_size"]) ** 2 == 576
    assert models.text_of(config) == "word7 <image> word1 word2 word3 word4 word5 word6 word8"


def test_the_arithmetic_of_llava_is_that_of_the_shapes() -> None:
    """LLaVA-1.5's 303.5 M weights of a CLIP tower, less the unread block, and 6.48 G of Llama's blocks: two operations each
    for every token, and the scores of attention."""
    found = floor.flops(models.model_config("llava-1.5-7b")["config"], 1)
    assert found.vision == pytest.approx(2 * 577 * 23 * 12 * 1024**2 + 23 * 4 * 577**2 * 1024, rel=1e-3)
    assert found.bridge == pytest.approx(2 * 576 * 4096 * 5120)
    assert found.language == pytest.approx(2 * 577 * 6.476e9 + 32 * 4 * 577**2 * 4096, rel=1e-3)


def test_the_arithmetic_is_that_of_the_shapes() -> None:
    """Per image at 224 px: ViT 520.7 GFLOP, Q-Former 12.9, prefill of 33 tokens 166.7, nine decode steps 47.7."""
    found = floor.flops(models.model_config("blip2-opt-2.7b")["config"], 10)
    assert found.vision == pytest.approx(520.7e9, rel=0.03)
    assert found.bridge == pytest.approx(12.9e9, rel=0.1)
    assert found.language == pytest.approx(214.4e9, rel=0.05)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_references_quantizers_are_ours(bits: int) -> None:
    weight, bias = torch.randn(48, 64), torch.randn(48)
    assert torch.equal(
        reference.rtn(weight, bits), rtn.quantize_dequantize(weight, Weights("rtn", bits, symmetric=False))
    )
    ours = minmax.apply(weight, bias, Weights("minmax", bits, strategy="tensor", quantize_bias=True))
    assert torch.equal(reference.minmax(weight, bits), ours[0])
    assert torch.equal(reference.minmax(bias, bits), ours[1])


def test_a_constant_bias_is_left_alone_by_both() -> None:
    """As the published formula makes NaN of it."""
    weight, bias = torch.randn(48, 64), torch.full((48,), 0.5)
    ours = minmax.apply(weight, bias, Weights("minmax", 4, strategy="tensor", quantize_bias=True))
    assert torch.equal(reference.minmax(bias, 4), bias)
    assert ours[1] is not None
    assert torch.equal(ours[1], bias)


def small_model() -> dict[str, Any]:
    """The mid-size model, 16 times narrower and with 3 blocks a part."""
    config = deepcopy(models.model_config("mid"))
    sizes = config["config"]
    sizes["vision_config"] |= {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 28,
    }
    sizes["qformer_config"] |= {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "encoder_hidden_size": 32,
    }
    sizes["text_config"] |= {
        "hidden_size": 40,
        "ffn_dim": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 40,
        "vocab_size": 500,
    }
    return config  # fmt: skip


def test_random_models_agree_on_cells_of_the_published_grid(tmp_path: Path) -> None:
    """Where biases are all zero the published formula makes NaN, and the reference writes nothing that can be compared."""
    config = small_model()
    models.write_model(config, tmp_path / "model", "cpu")
    task = models.write_images(tmp_path / "images", 2)
    given = Setting(
        {**config, "path": str(tmp_path / "model"), "hub_id": None}, task, "cpu", 6, False, tmp_path / "model"
    )
    made = grids.grid("seed_grid")
    found = planned(given, [made[i] for i in (1, 20, 31, 33, 45, 58)], tmp_path)
    samples, texts = load_task(task).samples, set()
    one = TorchBackend({"device": "cpu"})
    for cell in [c for c in found.cells.values() if not c.recipe.empty]:
        theirs, _ = reference.cell(
            tmp_path / "model", timing.layers(given, cell), [s.image for s in samples], [], "cpu", "float32", 6, False
        )
        assert one(cell.job()).predictions.text == theirs
        texts |= set(theirs)
    assert len(texts) > 1
    assert all(texts)


def small_llava() -> dict[str, Any]:
    """The mid-size model of LLaVA's kind with few, narrow blocks and 16 tokens a picture."""
    config = deepcopy(models.model_config("llava-mid"))
    vision, text = config["config"]["vision_config"], config["config"]["text_config"]
    vision |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    vision |= {"image_size": 56}
    text |= {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 24, "vocab_size": 500}
    return config


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setting, Plan]:
    """A setting on a small random model of LLaVA's kind, and its 27 cells."""
    folder, config = tmp_path_factory.mktemp("llava"), small_llava()
    models.write_model(config, folder / "model", "cpu")
    task = models.write_images(folder / "images", 3)
    section = {**config, "path": str(folder / "model"), "hub_id": None}
    given = Setting(section, task, "cpu", 4, False, folder / "model", models.text_of(config))
    return given, planned(given, grids.grid("role_wise"), folder)


def test_models_of_llavas_kind_agree_with_plain_generate(llava: tuple[Setting, Plan]) -> None:
    given, found = llava
    samples, one, texts = load_task(given.task).samples, TorchBackend({"device": "cpu"}), set()
    for cell in list(found.cells.values())[::9]:
        theirs, _ = reference.cell(
            given.folder,
            timing.layers(given, cell),
            [s.image for s in samples],
            [],
            "cpu",
            "float32",
            4,
            False,
            given.text,
        )
        assert one(cell.job()).predictions.text == theirs
        texts |= set(theirs)
    assert len(texts) > 1
    assert all(texts)


def test_the_bound_counts_what_recipes_have_in_common(llava: tuple[Setting, Plan]) -> None:
    given, found = llava
    assert bound.needed(given, found) == {"vision": 3, "connector": 9, "language": 27}
    images = [s.image for s in load_task(given.task).samples]
    measured = bound.costs(given.folder, images, given.text, "cpu", "float32", 4)
    assert measured.keys() == {"load", "vision", "connector", "language"}
    assert all(cost > 0 for cost in measured.values())


def test_the_share_of_the_bound_is_what_stages_cost_against_what_ours_cost() -> None:
    """10 cells of 2 images: load 1, vision 2 x 2 x .5, connector 0, language 10 x 2 x 1: 23 at least. Ours has 30 after its
    start of 4, in half as many seconds."""
    rounds = [{"load": 1.0, "vision": v, "connector": 0.0, "language": 1.0} for v in (0.4, 0.6)]
    mine = {
        "cells": 10, "device": "cpu", "seconds": 20.0, "before_first_cell": 3.0, "after_last_cell": 2.0, "in_cells": 14.0,
        "own_cpu_seconds": 34.0, "cpu_before_first_cell": 4.0, "seconds_load": 0.5, "seconds_vision": 1.5,
        "seconds_language": 10.0,
    }  # fmt: skip
    found = bound.against({"vision": 2, "connector": 4, "language": 10}, rounds, 2, mine, a_cell=4.6)
    assert found["bound"] == pytest.approx(46 / 23)
    assert found["share"] == pytest.approx(23 / 34)
    assert found["rows"]["language"] == pytest.approx((20, 20))
    assert found["rows"]["between cells"] == pytest.approx((0, 2))
    assert found["rows"]["start"] == (0, 4)
    assert any("68 % of it" in line for line in bound.lines(found, "cpu"))
    on_gpu = bound.against({"vision": 2, "connector": 4, "language": 10}, rounds, 2, {**mine, "device": "H200"}, 4.6)
    assert on_gpu["share"] == pytest.approx(23 / 18)


def timed(cell: Any, images: int, generate: float) -> timing.Timed:
    steps = {"load": 1.0, "quantize": 0.0, "generate": generate, "score": 2.0}
    return timing.Timed(cell, images, ["a"] * images, steps, 10.0, 5)


def test_a_reference_on_fewer_images_is_scaled_where_images_count(monkeypatch: pytest.MonkeyPatch) -> None:
    task = models.task("shapes_caption", "pkg://blip2sweep.assets/shapes", 20)
    given = Setting(models.model_config("tiny"), task, "cpu", 6, False, Path())
    monkeypatch.setattr(report, "_agreement", lambda *_: {})
    found = report.judged(given, [timed(None, 5, 3.0), timed(None, 5, 5.0)], Path())
    assert found["steps"] == {"load": 1.0, "quantize": 0.0, "generate": 16.0, "score": 2.0}
    assert (found["seconds_per_cell"], found["images_timed"], found["peak_memory_bytes"]) == (19.0, 5, 5)
    assert found["cpu_per_cell"] == pytest.approx((10 * 15 / 6 + 10 * 23 / 8) / 2)


@pytest.mark.parametrize(
    ("dtype", "differing", "gaps", "wrong"),
    [
        ("float32", 0, [], None),
        ("float32", 1, [0.0], "1 of 9 captions differ in float32"),
        ("bfloat16", 2, [0.5, -3.9], None),
        ("bfloat16", 3, [0.5, -8.0, 5.0], "2 captions part where tokens are up to -8.0 roundings apart"),
        ("bfloat16", 1, [float("nan")], "1 captions part"),
    ],
)
def test_predictions_that_differ_are_an_error(dtype: str, differing: int, gaps: list[float], wrong: str | None) -> None:
    found = report.disagreement(dtype, {"captions": 9, "differing": differing, "gaps": gaps})
    assert (found or "").startswith(wrong or "")
    assert (found is None) == (wrong is None)


def test_what_was_remembered_is_no_speed_and_workers_share_the_machine() -> None:
    given = Setting(models.model_config("tiny"), {}, "cpu", 6, False, Path())
    mine = {
        "cells": 10,
        "workers": 1,
        "hits_vision_blocks": 30,
        "hits_bridge": 500,
        "hits_language": 0,
        "seconds_language": 4.0,
    }
    share = report.shares(given, mine, 1000, 1e12)["share_language"]
    assert report.shares(given, {**mine, "hits_language": 750}, 1000, 1e12)["share_language"] == pytest.approx(
        share / 4
    )
    assert report.shares(given, {**mine, "workers": 2}, 1000, 1e12)["share_language"] == pytest.approx(2 * share)


def test_the_reference_is_tried_with_few_and_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert [env.get("OMP_NUM_THREADS") for env in timing.ways("cpu")] == ["1", "3", "3"]
    assert timing.ways("cuda") == [{}]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert timing.ways("cpu") == [{}]


def test_a_bare_machine_is_enough() -> None:
    """torch and transformers alone: the benchmark travels to a GPU that has nothing else."""
    code = "import sys, scripts.benchmark, blip2sweep.workers.worker; print({'hydra', 'omegaconf', 'pandas', 'pyarrow', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_the_script_compares_both_and_they_agree(tmp_path: Path) -> None:
    words = "--images 3 --cells 2 --reference-cells 1 --reference-images 2 --json".split()
    command = [sys.executable, str(ROOT / "scripts/benchmark.py"), *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["ratio"] == pytest.approx(found["reference"]["seconds_per_cell"] / found["ours"]["seconds_per_cell"])
    assert found["reference"]["agreement"] == {"captions": 2, "differing": 0, "gaps": []}
    assert found["disagreement"] is None
    assert found["cells"] == 3
    assert found["scored"]
    for name in (
        "hits_bridge",
        "hits_vision_blocks",
        "seconds_language",
        "seconds_load",
        "peak_memory_bytes",
        "after_last_cell",
    ):
        assert name in found["ours"]
    assert 0 < found["floor"]["share_language"] < 1.5
    table = found["stages"]["rows"]
    assert {"start-up", "vision", "bridge", "begin", "likelihood", "greedy", "scoring", "other"} <= table.keys()
    assert all(table[name]["floor"] > 0 for name in ("apply", "vision", "bridge", "begin", "likelihood", "greedy"))


def test_the_methods_script_times_layers_and_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_methods, "TOKENS", 64)
    monkeypatch.setattr(bench_methods, "SAMPLES", 4)
    bench_methods.layers(["rtn", "gptq"], "cpu", [(16, 32)])
    bench_methods.tiny(["rtn", "awq"], "cpu")
    lines = [re.sub(r"\d+\.\d\d s", "… s", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["16 x 32: second moment of 64 tokens … s", "16 x 32: rtn … s", "16 x 32: gptq … s"]
    assert lines[3:] == [f"tiny {p}: {m} 3 bits … s" for p in ("vit", "qformer", "llm") for m in ("rtn", "awq")]
