"""Error propagation: nothing moves without a recipe, errors grow from the block that is quantized, T5 too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.propagation import compare, first_samples, states
from blip2sweep.models.load import Loaded, load
from blip2sweep.results.collect import collect
from blip2sweep.tasks import load_task
from tests.checkpoints import TINY, conf, recipe, t5_config, tiny_config, write_t5
from tests.command_line import blip2sweep


@pytest.fixture(params=["opt", "t5"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Loaded:
    return load(tiny_config(), TINY) if request.param == "opt" else load(t5_config(), write_t5(tmp_path))


def rows(loaded: Loaded, **target: Any) -> dict[tuple[str, int | None], dict[str, Any]]:
    task = conf("task/shapes_caption")
    chosen = first_samples(load_task(task), task, None, 6)
    plain = states(loaded, chosen)
    with Patch(loaded).apply(recipe(loaded.anatomy, **target)):
        return {(r["part"], r["block"]): r for r in compare(plain, states(loaded, chosen))}


def test_noise_begins_where_the_recipe_does(loaded: Loaded) -> None:
    found = rows(loaded, part="vit", blocks="3", bits=3)
    assert {k for k in found if k[0] == "vit"} == {("vit", i) for i in range(6)}
    assert all(found["vit", i]["snr_db"] is None and found["vit", i]["cosine"] == pytest.approx(1) for i in range(3))
    assert all(0 < found["vit", i]["snr_db"] < 60 for i in range(3, 6))
    assert found["qformer", 0]["cosine"] < 1
    assert math.isfinite(found["llm", None]["snr_db"])


def test_ratio_and_cosine_are_what_they_say() -> None:
    x, y = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])
    found = compare({("vit", 0, 0): x}, {("vit", 0, 0): y})[0]
    assert found["snr_db"] == pytest.approx(10 * math.log10(25 / 1))
    assert found["cosine"] == pytest.approx(21 / (5 * 18**0.5))


@pytest.mark.thorough
def test_a_sweep_writes_a_parquet_of_its_own(tmp_path: Path) -> None:
    words = ["-m", "part=vit", "quant.bits=3,8", "task.limit=8", "analysis.propagation=true", "output_dir=out"]
    assert blip2sweep(*words, cwd=tmp_path).code == 0
    table = pd.read_parquet(tmp_path / "out" / "propagation.parquet")
    assert set(table.columns) == {"key", "part", "block", "snr_db", "cosine"}
    assert len(table) == 2 * (6 + 6 + 6 + 1)
    logits = table[table.block.isna()].snr_db
    assert logits.max() > logits.min() + 10  # 8 bits against 3
    left = tmp_path / "out" / "propagation" / f"{table.key[0]}-000000000000.json"
    left.write_text(json.dumps([{"part": "vit", "block": 0, "snr_db": 0.0, "cosine": 0.0}]))
    collect(tmp_path / "out")  # what an earlier run of the cell left beside other predictions
    assert len(pd.read_parquet(tmp_path / "out" / "propagation.parquet")) == len(table)
