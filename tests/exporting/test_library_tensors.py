"""torchao and bitsandbytes: transformers' own loaders make the cell's weights of their tensors, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.export import export
from blip2sweep.exporting import bitsandbytes, torchao
from blip2sweep.models.anatomy import anatomy
from blip2sweep.recipe import resolve_recipe
from blip2sweep.tasks import planned_task
from tests.composing import jobs
from tests.exporting.fresh import DEQUANTIZED, PLAIN, README, digests, reload
from tests.exporting.test_compressed_tensors import GROUPS, job_of

CELLS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "rows of 8 bits": ("torchao", ("part=vit+llm", "quant.bits=8", "quant.symmetric=true"), PLAIN),
    "asymmetric groups": ("torchao", ("part=llm", "quant.bits=8", *GROUPS), PLAIN),
    "float8": ("torchao", ("part=llm", "quant=float8"), PLAIN),
    "nf4": ("bitsandbytes", ("part=vit+llm", "quant=nf4"), PLAIN),
    "fp4": ("bitsandbytes", ("part=llm", "quant=fp4", "blocks=1-3"), PLAIN),
    "int8": ("bitsandbytes", ("part=llm", "quant=int8"), DEQUANTIZED),
}
REFUSED: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "the connector": ("torchao", ("part=all", "quant.bits=8", "quant.symmetric=true"), "leaves the connector dense"),
    "of bitsandbytes": ("bitsandbytes", ("part=qformer", "quant=nf4"), "leaves the connector dense"),
    "4 bits": ("torchao", ("part=llm", "quant.bits=4"), "no packed type for 4 bits, which it stores as 8"),
    "one scale a tensor": ("torchao", ("part=llm", "quant.bits=8", "quant.strategy=tensor"), "no packed type for one scale a tensor"),
    "a method of ours": ("bitsandbytes", ("part=llm", "quant.bits=4"), "rtn is none of its own"),
    "two methods": ("bitsandbytes", ("part=vit+llm", "quant=nf4", "per_part.llm.method=fp4"), "it loads one method a model"),
    "hqq": ("torchao", ("part=llm", "quant=hqq", "quant.bits=8"), "hqq has zero points that are no integers"),
}  # fmt: skip


@pytest.mark.thorough
def test_their_loaders_make_the_cells_weights(tmp_path: Path) -> None:
    backend, wanted = TorchBackend({"device": "cpu"}), []
    for name, (form, words, _) in CELLS.items():
        job = job_of(*words, limit=3)
        texts = backend(job).predictions.text
        export(job, form, tmp_path / name, None, backend.made)
        assert backend.state is not None
        wanted.append((digests(backend.state.loaded.model), texts))
        images = [s.image for s in planned_task(job["task"]).samples]
        manifest = json.loads((tmp_path / name / "blip2sweep.json").read_text())
        assert manifest["payload"] == pytest.approx(job["columns"]["model_bytes"], rel=0.01), name
    found = reload([(tmp_path / name, how) for name, (_, _, how) in CELLS.items()], images)
    for name, (weights, texts), again in zip(CELLS, wanted, found, strict=True):
        assert again.weights == weights, name
        assert again.texts == texts, name


STORED = (
    ("bitsandbytes", "float16", ("part=llm", "quant=nf4")),
    ("bitsandbytes", "bfloat16", ("part=llm", "quant=int8")),
    ("torchao", "float16", ("part=llm", "quant.bits=8", "quant.symmetric=true")),
    ("compressed-tensors", "bfloat16", ("part=llm", "quant.bits=4")),
)


@pytest.mark.thorough
def test_what_is_stored_in_16_bits_loads_as_its_readme_says(tmp_path: Path) -> None:
    backend, wanted, folders = TorchBackend({"device": "cpu"}), [], []
    for i, (form, dtype, words) in enumerate(STORED):
        job = job_of(*words, f"model.stored={dtype}", limit=20)
        wanted.append(backend(job).predictions.text)
        export(job, form, tmp_path / str(i), None, backend.made)
        assert backend.state is not None
        folders.append((tmp_path / str(i), README, digests(backend.state.loaded.model)))
    images = [s.image for s in planned_task(job["task"]).samples]
    found = reload([(folder, how) for folder, how, _ in folders], images)
    for (*_, weights), texts, again, what in zip(folders, wanted, found, STORED, strict=True):
        assert again.weights == weights, what
        assert again.texts == texts, what


def test_of_parts_in_several_dtypes_what_is_stored_in_one_is_refused() -> None:
    words = ("part=llm", "quant=nf4", "model.stored=float16", "model.dtype_per_part.vit=float16")
    (job,) = [j for j in jobs(*words) if j.config["part"] != "none"]
    recipe = resolve_recipe(job.config, anatomy(job.config["model"]))
    (told,) = bitsandbytes.mistakes(recipe, job.config["model"], None)
    assert "this computes in float16, float32; right: model.stored=null" in told


@pytest.mark.parametrize("name", REFUSED)
def test_what_they_cannot_hold_is_one_line_each(name: str) -> None:
    form, words, told = REFUSED[name]
    (job,) = [j for j in jobs(*words) if j.config["part"] != "none"]
    recipe = resolve_recipe(job.config, anatomy(job.config["model"]))
    found = {"torchao": torchao, "bitsandbytes": bitsandbytes}[form].mistakes(recipe, job.config["model"], None)
    assert any(told in line for line in found), found
    assert all("; right: " in line and "\n" not in line for line in found)
