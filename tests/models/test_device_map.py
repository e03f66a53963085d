"""A model whose blocks accelerate brings inputs to, as `model.device_map=auto` leaves one that is larger than a GPU.

There is one device here. So the hooks that accelerate puts on a divided model are put on by force, and what would lose or go
round them is found: every block still has its own after a calibration, and rows are those of a model without hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from torch import nn

from blip2sweep.apply.calibration import Blocks, Calibrator
from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.cache.tensors import Memo
from blip2sweep.compression.undo import Undo
from blip2sweep.models import dropped
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe
from blip2sweep.tasks import Generation, load_task
from blip2sweep.tasks.calibration import Calibration, choose
from tests import image_text
from tests.checkpoints import TINY, conf, recipe, t5_config, tiny_config, write_t5
from tests.miniatures import blip_config, instructblip_config, write_blip, write_instructblip

pytestmark = pytest.mark.thorough

GREEDY, BEAMS = Generation("Question: {} Answer:", 1, 6), Generation("Question: {} Answer:", 2, 6)
Made = Callable[[], Loaded]


FAMILY: dict[str, tuple[dict[str, Any], Callable[[Path], Path]]] = {
    "blip2-t5": (t5_config(), write_t5),
    "instructblip": (instructblip_config("llama"), partial(write_instructblip, family="llama")),
    "blip-caption": (blip_config("blip-image-captioning-base"), partial(write_blip, name="blip-image-captioning-base")),
    "blip-vqa": (blip_config("blip-vqa-base"), partial(write_blip, name="blip-vqa-base")),
}


# One of each type of model.
NEWER = {conf(f"model/{name}")["config"]["model_type"]: name for name in image_text.SMALL}.values()


@pytest.fixture(scope="module", params=["blip2-opt", *FAMILY, *NEWER])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Loads a miniature of an architecture."""
    torch.set_num_threads(1)
    name, folder = request.param, tmp_path_factory.mktemp("model")
    if name == "blip2-opt":
        return lambda: load(tiny_config(), TINY)
    if name in FAMILY:
        config, write = FAMILY[name]
        path = write(folder)
        return lambda: load(config, path)
    section = image_text.write(name, folder)
    return lambda: load(section, folder)


def blocks(loaded: Loaded) -> dict[str, nn.Module]:
    paths = (path for part in loaded.anatomy.parts.values() for s in part.stacks for path in s.block_paths)
    return {path: loaded.model.get_submodule(path) for path in paths}


def hooked(loaded: Loaded) -> Loaded:
    """The same, with accelerate's hooks on every block and on what is in no block."""
    inner = blocks(loaded)
    outside = {
        path for path, module in loaded.model.named_modules()
        if path and not any(b == path or b.startswith(f"{path}.") or path.startswith(f"{b}.") for b in inner)
    }  # fmt: skip
    top = {p for p in outside if not any(p.startswith(f"{other}.") for other in outside)}
    placed = [*inner, *top]
    own = {name for name, _ in loaded.model.named_parameters() if not name.startswith(tuple(f"{p}." for p in placed))}
    dispatch_model(loaded.model, dict.fromkeys([*placed, *own], "cpu"), main_device="cpu", force_hooks=True)
    assert all("forward" in vars(block) for block in inner.values())
    return loaded


def rows(loaded: Loaded, generation: Generation) -> list[dict[str, Any]]:
    task = load_task({**conf("task/shapes_vqa"), "limit": 2})
    return evaluate(loaded, task, generation).records


def calibrated(loaded: Loaded) -> tuple[Recipe, dict[str, Any]]:
    """A recipe of all layers, and what calibration makes of it."""
    task = {**conf("task/shapes_vqa"), "split": "train2014"}
    chosen = Calibration(task, choose(load_task(task), 2, 0), "task", 2, 0, "part", 1.0, False, None)
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
    assert all(torch.equal(*(w[path].values(torch.float32) for w in (weights, others))) for path in weights)
    assert all(vars(block)["forward"] is wrapped[path] for path, block in blocks(divided).items())
    with Patch(plain) as patch, Patch(divided) as other_patch:
        patch.apply(one, weights)
        other_patch.apply(other, others)
        assert rows(divided, GREEDY) == rows(plain, GREEDY)


def test_blocks_are_dropped_and_put_back_with_their_hooks(made: Made) -> None:
    """The last block of every list that has several; of the language model the first one."""
    plain, divided = made(), hooked(made())
    wrapped = {path: vars(block)["forward"] for path, block in blocks(divided).items()}
    gone = {
        s.block_paths[-1] for p in plain.anatomy.parts.values() for s in p.stacks if p.role != "connector" and s.n > 1
    }
    *_, last = plain.anatomy.parts.values()
    gone = gone - {s.block_paths[-1] for s in last.stacks} | {s.block_paths[0] for s in last.stacks}
    found = []
    for loaded in (plain, divided):
        with Undo() as undo:
            for change in dropped.changes(loaded.model, gone):
                undo.attribute(*change)
            found.append(rows(loaded, GREEDY))
    assert found[0] == found[1]
    assert all(vars(block)["forward"] is wrapped[path] for path, block in blocks(divided).items())
    assert rows(divided, GREEDY) == rows(plain, GREEDY)
