"""`export --to onnx`: the folder writes the cell's texts in a process of its own, with onnxruntime and transformers alone."""

from __future__ import annotations

import json
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

FRESH = """
import json, sys
sys.path.insert(0, ".")
from run import FOLDER, IMAGES, LANGUAGE, AutoProcessor, opened, session, write
processor, graphs = AutoProcessor.from_pretrained(FOLDER), ([session(n) for n in IMAGES], session(LANGUAGE))
assert "blip2sweep" not in sys.modules
print(json.dumps([write(*graphs, processor, opened(path)) for path in json.loads(sys.argv[1])]))
"""


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
    done = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(images)], cwd=tmp_path / "out", capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    cell = TorchBackend(settings)(job)
    assert json.loads(done.stdout.splitlines()[-1]) == cell.predictions.text
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
