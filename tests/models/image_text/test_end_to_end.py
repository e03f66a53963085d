"""A checkpoint written of one cell of a model of every type. It is checked, loaded and evaluated again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from blip2sweep.commands.quantize import write_checkpoint
from blip2sweep.errors import UserError
from blip2sweep.models.anatomy import anatomy
from blip2sweep.models.check import mistakes
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.load import load
from blip2sweep.models.shipped import model_config, shipped_models
from blip2sweep.planning.cell_builder import CellBuilder
from blip2sweep.tasks import coco
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.task import KINDS
from tests.checkpoints import believe
from tests.command_line import blip2sweep
from tests.composing import jobs
from tests.in_process import run
from tests.models.image_text.made import FIRST
from tests.small_models import RETRIEVAL, small

pytestmark = pytest.mark.thorough

OF_BLIP = (
    "blip2-opt-2.7b", "blip2-flan-t5-xl", "instructblip-vicuna-7b", "instructblip-flan-t5-xl",
    "blip-image-captioning-base", "blip-vqa-base",
)  # fmt: skip
WORDS = ("task=shapes_vqa", "task.limit=2", "generation.max_new_tokens=3", "quant=rtn", "quant.bits=3")
MATCH = (
    "task=shapes_caption",
    "task.kind=match",
    "task.main_metric=toy_recall",
    'generation.prompt="Question: {} Answer:"',
)
Write = Callable[..., dict[str, Any]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(name: str) -> dict[str, Any]:
        """The section of a small checkpoint of a model, which is written."""
        section, checkpoint = small(name)
        checkpoint(tmp_path / name)
        own = {**section, "name": f"small-{name}", "path": str(tmp_path / name)}
        believe(tmp_path / name, own)
        return own

    return made


def composed(section: dict[str, Any], *words: str) -> dict[str, Any]:
    (job,) = jobs(*WORDS, *words)
    return {**job.config, "model": section, "output_dir": section["path"]}


def predictions(config: dict[str, Any]) -> Predictions:
    ((found, _),) = run([CellBuilder()(config).job()], cache="off").values()
    return found


def exported(section: dict[str, Any], *words: str) -> tuple[dict[str, Any], Predictions]:
    """The section of the checkpoint that `quantize` writes of a cell, and the predictions of the cell."""
    config, folder = composed(section, *words), Path(section["path"]).parent / "written"
    assert write_checkpoint(config, folder).startswith(f"wrote {folder}: ")
    written = {**section, "path": str(folder)}
    assert mistakes(inspect(folder, section.get("tied") or ()), written) == []
    believe(folder, written)
    return written, predictions(config)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: x for path in folder.glob("*.safetensors") for name, x in load_file(path).items()}


def test_every_type_of_model_is_here() -> None:
    def kind(name: str) -> tuple[object, ...]:
        model = model_config(name)
        config = model["config"]
        text = config.get("text_config") or {}
        return model.get("architecture"), config.get("model_type"), model["family"], text.get("model_type")

    here = {kind(name) for name in (*FIRST, *OF_BLIP, RETRIEVAL)}
    assert {name for name in shipped_models() if kind(name) not in here} == set()


@pytest.mark.parametrize("name", [*FIRST, *OF_BLIP])
def test_a_cell_becomes_a_checkpoint(write: Write, name: str) -> None:
    section = write(name)
    part = list(anatomy(section).parts.values())[-1]
    task = ("task=shapes_caption",) if "captioning" in name else ()
    written, cell = exported(section, f"part={part.name}", *task)
    again = predictions({**composed(section, "part=none", *task), "model": written})
    assert (again.text, again.tokens) == (cell.text, cell.tokens)
    assert again.nll_sum == pytest.approx(cell.nll_sum, rel=1e-6)  # where weights lie in memory changes the last digit
    before, after = (tensors(Path(s["path"])) for s in (section, written))
    assert before.keys() == after.keys()
    assert sum(not torch.equal(before[n], after[n]) for n in before) == len(part.linears)


def test_a_retrieval_model_becomes_a_checkpoint_where_the_task_matches(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = write(RETRIEVAL)
    with pytest.raises(UserError, match="model small-blip2-itm-vit-g answers match alone; right: a model or a task"):
        write_checkpoint(composed(section, "part=connector"), Path(section["path"]).parent / "no")
    monkeypatch.setitem(KINDS, "match", "tests.toy.matching")
    monkeypatch.setattr(coco, "KINDS", (*coco.KINDS, "match"))
    written, cell = exported(section, *MATCH, "part=connector")
    plain = composed(section, *MATCH, "part=none")
    assert predictions({**plain, "model": written}).scores == cell.scores != predictions(plain).scores


def test_by_the_command_line(write: Write, tmp_path: Path) -> None:
    section = write("smolvlm-256m")
    (tmp_path / "site" / "model").mkdir(parents=True)
    (tmp_path / "site" / "model" / "mine.yaml").write_text(yaml.safe_dump(section, sort_keys=False))
    words = ("--config-dir", "site", "model=mine", "part=language", "quant=rtn", "quant.bits=3", "--to", "written")
    ran = blip2sweep("quantize", *words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    again = load({**section, "path": "written"}, tmp_path / "written")
    layer = again.anatomy.parts["language"].linears[0].path
    assert all(len(row.unique()) <= 8 for row in again.model.get_submodule(layer).weight)
