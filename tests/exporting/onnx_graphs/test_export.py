"""`export --to onnx`: the folder writes the cell's texts in a process of its own, with onnxruntime and transformers alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.export import checked, export
from blip2sweep.exporting import onnx as form
from blip2sweep.models.anatomy import anatomy
from blip2sweep.recipe.compact import expand
from blip2sweep.tasks import planned_task
from blip2sweep.wire.pack import Settings
from tests.checkpoints import fails
from tests.composing import plan

# What README.md says, in a process that cannot import this package.
FRESH = "import runpy, sys; sys.modules['blip2sweep'] = None; runpy.run_path('run.py', run_name='__main__')"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FRESH, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.thorough
def test_a_folder_writes_the_texts_of_its_cell_in_a_fresh_process(tmp_path: Path) -> None:
    words = ("part=all", "quant.bits=4", "quant.strategy=group", "quant.group_size=32", "task=shapes_caption")
    (job,) = [c.job() for c in plan(*words, "task.limit=8").cells.values() if not c.recipe.empty]
    settings = Settings(cache="off", device="cpu", threads=1)
    told = export(job, "onnx", tmp_path / "out", None, TorchBackend(settings).made)
    assert "in the table" in told[1]
    assert "NOT what the row says" not in told[1]
    assert "files as they were written" in checked(tmp_path / "out")
    data = planned_task(job["task"])
    images = [str(data.images[s.image_id]) for s in data.samples]
    done = run(tmp_path / "out", *images)
    assert done.returncode == 0, done.stderr[-2000:]
    cell = TorchBackend(settings)(job)
    assert done.stdout.splitlines() == cell.predictions.text
    missing = run(tmp_path / "out", "nope.jpg")
    assert (missing.returncode, missing.stderr.splitlines()[-1][:29]) == (1, "nope.jpg: no picture that can")
    cut = tmp_path / "out" / "language.onnx.data"
    cut.write_bytes(cut.read_bytes()[:1000])
    with fails("language.onnx.data has 1000 bytes of", "right: the export again"):
        checked(tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quant.bits=5",), "5 bits have no type in ONNX"),
        (("quant=hqq", "quant.bits=4", "quant.strategy=channel", "per_part.vit.bits=8"), "hqq with 8 bits in channels"),
    ],
)
def test_what_it_cannot_hold_is_a_sentence(words: tuple[str, ...], said: str) -> None:
    (job,) = [c.job() for c in plan(*words, "task.limit=4").cells.values() if not c.recipe.empty]
    recipe = expand(job["recipe"], anatomy(job["model"]))
    (why,) = form.mistakes(recipe, job["model"], None)
    assert why.startswith(said)
    assert "\n" not in why
    assert (
        form.mistakes(recipe, job["model"], "vllm")[0]
        == "onnx serves nothing by the name of vllm; right: without --for"
    )
