"""The benchmark: grids, arithmetic, the plain reference against ours, and a run of the script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blip2sweep.anatomy import anatomy
from blip2sweep.methods import minmax, rtn
from blip2sweep.methods.scheme import Weights
from blip2sweep.models import build_meta, verify
from scripts import bench_methods
from scripts.benchmarks import floor, grids, models, reference
from tests.checkpoints import ROOT, conf
from tests.composing import jobs, plan


@pytest.mark.parametrize(("name", "cells"), [("card", 9), ("part_wise", 64), ("seed_grid", 60)])
def test_the_grids_have_as_many_cells_as_they_say(name: str, cells: int) -> None:
    made = grids.grid(name)
    assert len(made) == cells
    assert len({json.dumps(c, sort_keys=True) for c in made}) == cells


def test_the_card_is_that_of_conf() -> None:
    words = plan("+study=card")
    recipes = {words.cells[k].columns()["recipe"] for k in words.keys if k}
    assert {f"{c['part']}:all:all=rtn{c['quant']['bits']}/channel" for c in grids.card()} == recipes


def test_the_slice_is_of_the_published_grid() -> None:
    known = {json.dumps([j.config[k] for k in ("part", "layers")]) for j in jobs("+study=seed_grid")}
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


def test_the_arithmetic_is_that_of_the_shapes() -> None:
    """Per image at 224 px: ViT 520.7 GFLOP, Q-Former 12.9, prefill of 33 tokens 166.7, nine decode steps 47.7."""
    found = floor.flops(models.model_config("blip2-opt-2.7b")["config"], 10)
    assert found.vision == pytest.approx(520.7e9, rel=0.03)
    assert found.bridge == pytest.approx(12.9e9, rel=0.1)
    assert found.language == pytest.approx(214.4e9, rel=0.05)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_references_quantizers_are_ours(bits: int) -> None:
    weight, bias = torch.randn(48, 64), torch.randn(48)
    assert torch.equal(reference.rtn(weight, bits), rtn.apply(weight, None, Weights("rtn", bits, symmetric=False))[0])
    ours = minmax.apply(weight, bias, Weights("minmax", bits, strategy="tensor", quantize_bias=True))
    assert torch.equal(reference.minmax(weight, bits), ours[0])
    assert torch.equal(reference.minmax(bias, bits), ours[1])


def test_the_script_compares_both_and_they_agree(tmp_path: Path) -> None:
    words = "--images 3 --cells 2 --reference-cells 1 --json".split()
    command = [sys.executable, str(ROOT / "scripts/benchmark.py"), *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["ratio"] == pytest.approx(found["reference"]["seconds_per_cell"] / found["ours"]["seconds_per_cell"])
    assert found["reference"]["agreement"] == {"captions": 3, "differing": 0, "gaps": []}
    assert found["cells"] == 3
    assert found["scored"]
    for name in ("hits_bridge", "hits_vision_blocks", "seconds_language", "peak_memory_bytes", "after_last_cell"):
        assert name in found["ours"]
    assert 0 < found["floor"]["share_language"] < 1.5


def test_the_methods_script_times_layers_and_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_methods, "SHAPES", ((16, 32),))
    monkeypatch.setattr(bench_methods, "TOKENS", 64)
    monkeypatch.setattr(bench_methods, "SAMPLES", 4)
    bench_methods.layers(["rtn", "gptq"], "cpu")
    bench_methods.tiny(["rtn", "awq"], "cpu")
    lines = [re.sub(r"\d+\.\d\d s", "… s", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["16 x 32: second moment of 64 tokens … s", "16 x 32: rtn … s", "16 x 32: gptq … s"]
    assert lines[3:] == [f"tiny {p}: {m} 3 bits … s" for p in ("vit", "qformer", "llm") for m in ("rtn", "awq")]
