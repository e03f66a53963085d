"""GFLOPs and parameters in the rows of cells: what other cells computed counts all the same."""

from __future__ import annotations

import pytest
import torch

from tests.in_process import jobs, run

CELLS = ("part=vision,language", "quant.bits=4", "generation.max_new_tokens=6")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_shared_work_counts_for_every_cell() -> None:
    made = jobs(*CELLS, limit=4)
    shared, alone = (run(made, cache=mode) for mode in ("memory", "off"))
    for job in made:
        own, other = (r[job["key"]][1]["cost"] for r in (shared, alone))
        named = {name: value for name, value in own.items() if name.startswith(("gflops", "tokens_written"))}
        assert named == {name: other[name] for name in named}
        stages = [named[f"gflops_{s}"] for s in ("vision", "bridge", "language")]
        assert sum(stages) == pytest.approx(named["gflops"], rel=1e-6)
        assert 1 <= named["tokens_written"] <= 6
        assert job["columns"]["params"] == job["columns"]["params_nonzero"]
    assert any("hits_bridge" in r[1]["cost"] for r in shared.values())


def test_tokens_written_are_those_of_the_texts_with_their_ends() -> None:
    (job,) = jobs("part=none", "generation.max_new_tokens=9", limit=6)
    predictions, found = run([job])[job["key"]]
    assert found["cost"]["tokens_written"] == pytest.approx(
        sum(min(n + 1, 9) for n in predictions.tokens) / 6, rel=1e-4
    )


def test_dropped_blocks_lose_parameters_and_flops() -> None:
    plain, dropped = jobs("drop_blocks=none,llm:2", "part=none", limit=2)
    if "blocks_dropped" in plain["columns"]:
        plain, dropped = dropped, plain
    block = 4 * (64 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64) + 4 * 64  # attention, mlp, two norms
    for name in ("params", "params_language", "params_nonzero"):
        assert plain["columns"][name] - dropped["columns"][name] == block
    assert plain["columns"]["params_vision"] == dropped["columns"]["params_vision"]
