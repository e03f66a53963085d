"""A cell's model as it is handed out says what the cell says, and the next cell finds the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.compression.quantize.codes import dequantize
from blip2sweep.exporting.made import Made
from blip2sweep.tasks import Generation
from blip2sweep.tasks.predictions import Predictions
from tests.in_process import jobs

pytestmark = pytest.mark.thorough
FEW = ("calibration.n_samples=8",)


def texts(backend: TorchBackend, made: Made) -> list[str]:
    generation, task = Generation(**made.job["generation"]), backend.task(made.job)
    return Predictions.of(evaluate(made.loaded, task, generation, batch_size=8, nll_references=0).records).text


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("shapes_caption", ("quant=rtn", "quant.bits=4")),
        ("shapes_caption", ("quant=gptq", "quant.bits=3", *FEW)),
        ("shapes_caption", ("quant=awq", "quant.bits=4", "part=all", *FEW)),
        ("shapes_vqa", ("quant=awq", "quant.bits=4", "part=all", *FEW)),
    ],
)
def test_it_says_what_the_cell_says(task: str, words: tuple[str, ...]) -> None:
    baseline, job = jobs(*words, f"task={task}", limit=24)
    backend: Any = TorchBackend({"device": "cpu", "batch_size": 8})
    cell, plain = backend(job).predictions.text, backend(baseline).predictions.text
    made = backend.made(job)
    assert texts(backend, made) == cell
    assert made.codes.keys() == made.recipe.schemes.keys()
    assert bool(made.folds) == ("quant=awq" in words)
    for path, codes in made.codes.items():
        assert torch.equal(made.loaded.model.get_submodule(path).weight, dequantize(codes))
    assert cell != plain
    assert backend(baseline).predictions.text == plain
    assert backend(job).predictions.text == cell


def test_codes_are_there_after_weights_were_remembered() -> None:
    """Nor are they kept with the weights that later cells share."""
    _, job = jobs("quant=rtn", "quant.bits=4", "part=vit", "blocks=0", limit=2)
    backend: Any = TorchBackend({"device": "cpu"})
    backend(job)
    first, again = backend.made(job).codes, backend.made(job).codes
    assert len(first) == len(again) == 4
    assert all(torch.equal(first[path].values, again[path].values) for path in first)


def test_a_method_without_codes_hands_out_its_weights_alone() -> None:
    _, job = jobs("quant=minmax", "quant.bits=8", "part=vit", "blocks=0", limit=2)
    made = TorchBackend({"device": "cpu"}).made(job)  # type: ignore[arg-type]
    assert not made.codes
    assert len(made.recipe.schemes) == 4
