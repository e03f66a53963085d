"""A model whose blocks accelerate brings inputs to, as `model.device_map=auto` leaves one that is larger than a GPU.

There is one device here. So the hooks that accelerate puts on a divided model are put on by force, and what would lose or go
round them is found: every block still has its own after a calibration, and rows are those of a model without hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from torch import nn

from blip2sweep.apply.calibration import Blocks, Calibrator
from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.cache.tensors import Memo
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe
from blip2sweep.tasks import Generation, load_task
from blip2sweep.tasks.calibration import Calibration, choose
from tests.checkpoints import TINY, conf, recipe, t5_config, tiny_config, write_t5

GREEDY, BEAMS = Generation("a photo of", 1, 8), Generation("a photo of", 2, 8)
Made = Callable[[], Loaded]


@pytest.fixture(scope="module", params=["opt", "t5"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    if request.param == "opt":
        return lambda: load(tiny_config(), TINY)
    folder = write_t5(tmp_path_factory.mktemp("t5"))
    return lambda: load(t5_config(), folder)


def blocks(loaded: Loaded) -> dict[str, nn.Module]:
    paths = (f"{s.path}.{i}" for part in loaded.anatomy.parts.values() for s in part.stacks for i in range(s.n))
    return {path: loaded.model.get_submodule(path) for path in paths}


def hooked(loaded: Loaded) -> Loaded:
    """The same, with accelerate's hooks on every block and on what is in no block."""
    inner = blocks(loaded)
    outside = {
        path for path, module in loaded.model.named_modules()
        if path and not any(b == path or b.startswith(f"{path}.") or path.startswith(f"{b}.") for b in inner)
    }  # fmt: skip
    top = {p for p in outside if not any(p.startswith(f"{other}.") for other in outside)}
    own = {name for name, _ in loaded.model.named_parameters(recurse=False)}
    dispatch_model(loaded.model, dict.fromkeys([*inner, *top, *own], "cpu"), main_device="cpu", force_hooks=True)
    assert all("forward" in vars(block) for block in inner.values())
    return loaded


def rows(loaded: Loaded, generation: Generation) -> list[dict[str, Any]]:
    task = load_task({**conf("task/shapes_caption"), "limit": 3})
    return evaluate(loaded, task, generation).records


def calibrated(loaded: Loaded) -> tuple[Recipe, dict[str, Any]]:
    """A recipe of all layers, and what calibration makes of it."""
    task = {**conf("task/shapes_caption"), "split": "train2014"}
    chosen = Calibration(task, choose(load_task(task), 4, 0), "task", 4, 0, "part", 1.0, False, None)
    memo = Memo(loaded.device, 0, 10**9)
    found = recipe(loaded.anatomy, "all", method="gptq")
    return found, Calibrator(loaded, "test", memo, Blocks(memo))(found, chosen)


def test_rows_and_calibrations_are_those_of_one_device(made: Made) -> None:
    plain, divided = made(), hooked(made())
    for generation in (GREEDY, BEAMS):
        assert rows(divided, generation) == rows(plain, generation)
    wrapped = {path: vars(block)["forward"] for path, block in blocks(divided).items()}
    (one, weights), (other, others) = calibrated(plain), calibrated(divided)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[path].weight, others[path].weight) for path in weights)
    assert all(vars(block)["forward"] is wrapped[path] for path, block in blocks(divided).items())
    with Patch(plain) as patch, Patch(divided) as other_patch:
        patch.apply(one, weights)
        other_patch.apply(other, others)
        assert rows(divided, GREEDY) == rows(plain, GREEDY)
