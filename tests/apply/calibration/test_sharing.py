"""Calibrations that mean the same are one: equal keys, one pass, and no record that depends on what ran before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.apply.calibration import part_inputs
from blip2sweep.apply.calibration import samples as job_module
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.batching import is_out_of_memory
from blip2sweep.cache.disk import Store
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.errors import UserError
from blip2sweep.models.blip2.forward import Vision
from blip2sweep.models.load import Loaded, load
from blip2sweep.recipe import Recipe
from blip2sweep.tasks import load_task
from blip2sweep.tasks.calibration import Calibration, calibration, choose
from blip2sweep.tasks.disjoint import check_disjoint
from blip2sweep.tasks.sample import TaskData
from tests.apply.calibration.test_calibration import calibrator, samples
from tests.checkpoints import TINY, conf, recipe, t5_config, tiny_config, write_t5
from tests.composing import plan

pytestmark = pytest.mark.thorough

SHAPES = TINY.parent / "shapes"


@pytest.fixture(scope="module")
def opt() -> Loaded:
    return load(tiny_config(), TINY)


def same(*words: str) -> bool:
    """Whether all cells of a grid are one."""
    keys = plan("quant=gptq", *words).keys
    assert None not in keys
    return len(set(keys)) == 1


# ---- equal cells have equal keys


@pytest.mark.parametrize(
    ("words", "equal"),
    [
        (["part=vit", "calibration.upstream=part,model"], True),
        (["part=llm", "calibration.upstream=part,model"], True),
        (["part=vit+llm", "calibration.upstream=part,model"], False),
        (["part=vit", "calibration.upstream=part,full"], False),
        (["part=vit", "blocks=3", "calibration.upstream=part,full,model"], True),
        (["part=vit", "blocks=3-4", "calibration.upstream=part,full"], False),
        (["part=vit+llm", "blocks=3", "calibration.upstream=part,full"], True),
        (["part=vit+llm", "blocks=3", "calibration.upstream=part,model"], False),
        (["part=llm", "quant.strategy=group", "quant.group_size=64", "layers=fc1", "quant.static_groups=true,false"], True),
        (["part=llm", "quant.strategy=group", "quant.group_size=64", "layers=fc2", "quant.static_groups=true,false"], False),
        (["part=llm", "layers=fc1", "quant.strategy=group,channel", "quant.group_size=64"], True),
    ],
)  # fmt: skip
def test_cells_that_measure_the_same_are_one(words: list[str], equal: bool) -> None:
    assert same(*words) is equal


def test_the_weight_of_image_tokens_is_no_part_of_a_vit_cell() -> None:
    keys = plan("quant=gptq", "part=vit,llm", "calibration.image_token_weight=1,2").keys
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


# ---- nothing is done twice


def gptq_jobs(*words: str) -> list[dict[str, Any]]:
    cells = plan("quant=gptq", "task.limit=2", "calibration.n_samples=40", *words).cells.values()
    return [c.job() for c in cells if not c.recipe.empty]


def test_cells_share_the_samples_and_their_features(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    seen: list[int] = []
    monkeypatch.setattr(job_module, "load_task", lambda told: read.append(told["split"]) or load_task(told))
    plain = Vision.run
    monkeypatch.setattr(Vision, "run", lambda self, rows: seen.append(len(rows)) or plain(self, rows))
    runner = TorchBackend({"device": "cpu"})
    for job in gptq_jobs("part=llm", "blocks=0", "quant.bits=3,4,8"):
        runner(job)
    assert read == ["train2014"]
    assert seen == [32, 8]


def test_two_orders_of_cells_give_the_same(opt: Loaded, tmp_path: Path) -> None:
    """Layers, weights and records, through one calibrator and its store."""
    quants: list[dict[str, Any]] = [
        {"method": "smoothquant", "bits": 8},
        {"method": "gptq", "bits": 3},
        {"method": "awq", "bits": 3},
        {"method": "gptq", "bits": 4, "strategy": "group", "group_size": 32},
        {"method": "rtn", "bits": 4, "input": {"bits": 8, "strategy": "tensor", "dynamic": False}},
    ]
    recipes = [recipe(opt.anatomy, "vit", "0-1", **q) for q in quants]
    chosen = [samples(n=8, upstream=u) for u in ("full", "part")]
    there, back = (calibrator(opt, Store(tmp_path / name, 10**8)) for name in ("there", "back"))
    cells = [(r, c) for r in recipes for c in chosen]
    one = [there(*cell) for cell in cells]
    other = [back(*cell) for cell in reversed(cells)][::-1]
    for a, b in zip(one, other, strict=True):
        assert alike(a, b)


def alike(a: dict[str, Prepared], b: dict[str, Prepared]) -> bool:
    """All but the time it took."""

    def told(x: Prepared) -> list[Any]:
        tensors = [None if t is None else t.tolist() for t in (x.values(torch.float32), x.prescale, x.low, x.high)]
        return [x.key, *tensors, {k: v for k, v in x.info.items() if k != "seconds"}]

    return {p: told(x) for p, x in a.items()} == {p: told(x) for p, x in b.items()}


def test_a_method_of_ranges_says_the_same_after_one_of_second_moments(opt: Loaded) -> None:
    smooth = recipe(opt.anatomy, "qformer", "0", method="smoothquant", bits=8)
    alone, after = calibrator(opt), calibrator(opt)
    after(recipe(opt.anatomy, "qformer", "0", method="gptq"), samples(n=4))
    assert alike(alone(smooth, samples(n=4)), after(smooth, samples(n=4)))


def copied(folder: Path) -> dict[str, Any]:
    """The training split of the scenes, in a folder of one's own."""
    shutil.copytree(SHAPES, folder)
    return {**conf("task/shapes_caption"), "data_dir": str(folder), "split": "train2014"}


def test_other_pictures_under_the_same_names_are_measured_again(opt: Loaded, tmp_path: Path) -> None:
    task, quant = copied(tmp_path / "shapes"), recipe(opt.anatomy, "vit", "0", method="gptq")
    store, made = Store(tmp_path / "cache", 10**8), []
    for turn in range(3):
        data = choose(load_task(task), 4, 0)
        if turn == 2:
            first, second = list(data.images.values())[:2]
            shutil.copyfile(second, first)
        work = calibrator(opt, store)
        work(quant, Calibration(task, data, "test", 4, 0, "part", 1.0, False, None))
        made.append(work.blocks.made)
    assert made == [1, 0, 1]


# ---- running out of memory


def test_a_calibration_out_of_memory_frees_all_that_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(part_inputs, "measure", full)
    runner = TorchBackend({"device": "cpu"})
    with pytest.raises(MemoryError, match=r"calibration\.n_samples") as caught:
        runner(gptq_jobs("part=vit", "blocks=0")[0])
    assert is_out_of_memory(caught.value)
    assert runner.state is None


# ---- refused in planning


def test_an_evaluated_picture_is_found_whatever_the_folder_and_split(tmp_path: Path) -> None:
    task = copied(tmp_path / "shapes")
    words = ["quant=gptq", "part=vit", "calibration=shapes_caption"]
    folder = f"task.data_dir={tmp_path / 'shapes'}"
    with pytest.raises(UserError, match=r"calibration\.split=train2014: 256 of its images are evaluated"):
        plan(*words, folder, "task.split=train2014")
    assert plan(*words, folder).todo  # the validation split of the copy shares none
    whole, part = load_task(task), load_task({**task, "limit": 3})
    with pytest.raises(UserError, match="3 of its images"):
        check_disjoint(whole, task, part, {**task, "data_dir": str(tmp_path / "elsewhere"), "split": "val2014"})


def test_the_same_number_of_another_picture_is_no_overlap(tmp_path: Path) -> None:
    """Scenes and COCO number their images independently."""
    task = copied(tmp_path / "shapes")
    for path in (tmp_path / "shapes" / "train2014").glob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"other")
    scenes = {**task, "data_dir": "pkg://blip2sweep.assets/shapes"}
    check_disjoint(load_task(scenes), scenes, load_task(task), task)


def test_a_split_without_samples_is_refused() -> None:
    empty = TaskData("none", "caption", (), "")
    with pytest.raises(UserError, match=r"calibration\.n_samples=8: none has 0"):
        calibration({**conf("calibration/task"), "n_samples": 8}, empty, {}, conf("generation/greedy"), "opt")


T5_TEXT = ["quant=gptq", "part=llm", "calibration=text"]


def t5_cell(folder: Path, *words: str) -> Recipe:
    from blip2sweep.planning.cell_builder import CellBuilder
    from tests.composing import jobs

    (job,) = jobs(*words)
    return CellBuilder()({**job.config, "model": {**job.config["model"], **t5_config(), "path": str(folder)}}).recipe


def test_t5_does_not_calibrate_on_captions_without_pictures(tmp_path: Path) -> None:
    """Its encoder would read the end of an empty text, again and again: a second moment of rank 1."""
    write_t5(tmp_path)
    with pytest.raises(UserError, match=r"calibration=text: a caption has no question.*right: calibration=task"):
        t5_cell(tmp_path, *T5_TEXT)
    assert not t5_cell(tmp_path, *T5_TEXT, "task=shapes_vqa").empty
    assert plan(*T5_TEXT).todo  # OPT reads the caption itself


def test_a_packed_layer_before_a_calibrated_one_is_refused() -> None:
    pytest.importorskip("bitsandbytes")
    words = ["part=llm", "quant=gptq", "rules.a.target=llm:all:fc1", "rules.a.method=nf4", "rules.a.bits=4", "rules.a.packed=cpu"]  # fmt: skip
    with pytest.raises(UserError, match=r"calibration\.upstream=part: llm is measured behind packed layers"):
        plan(*words)
    assert plan(*words, "calibration.upstream=full").todo
    assert plan(*words, "rules.a.target=llm:5:fc1").todo  # nothing is measured behind it
    before = ["part=vit+llm", "quant=gptq", "quant.bits=4", "per_part.vit.method=nf4", "per_part.vit.packed=cpu"]
    assert plan(*before).todo  # the vit is in full precision for the language model anyway
    with pytest.raises(UserError, match=r"calibration\.upstream=model: llm is measured behind packed layers"):
        plan(*before, "calibration.upstream=model")
