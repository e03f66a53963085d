"""Cells of small image-text models: planned, calibrated on every part, and the same shared and alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.models.architecture import asked_as
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.results.ledger import Ledger
from tests import composing
from tests.checkpoints import believe
from tests.in_process import told
from tests.models.image_text.made import FIRST, Made
from tests.params import quick
from tests.ragged_pictures import scenes

FIXED = ("task=shapes_caption", "task.limit=6", "generation.max_new_tokens=4", "quant.bits=3")
SHARING = ("part=vision blocks=1", "part=vision blocks=1-2", "part=connector", "part=language quant.bits=2")
FEW = "calibration.n_samples=4"
CALIBRATED = (f"part=all quant=gptq {FEW}", f"part=all quant=awq quant.grid=3 {FEW} calibration.image_token_weight=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes(tmp_path_factory.mktemp("data") / "scenes")


def planned(m: Made, data: Path, *cells: str) -> Plan:
    """The plan of cells of a small checkpoint on pictures of different shapes."""
    believe(Path(m.section["path"]), m.section)
    fixed = (*FIXED, f"task.data_dir={data}")
    jobs = [job for cell in cells for job in composing.jobs(*fixed, *cell.split())]
    here = [PlannedJob(j.overrides, {**j.config, "model": m.section}) for j in jobs]
    return make_plan(here, Ledger(Path("/nonexistent")).refresh())


def ran(plan: Plan, **settings: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    jobs = sorted((c.job() for c in plan.cells.values()), key=Prefixes())
    runner = TorchBackend({"device": "cpu", **settings})
    runner.expect(jobs)
    return {job["key"]: told(runner(job)) for job in jobs}


@pytest.mark.parametrize("name", quick(FIRST, "llava-1.5-7b", "qwen2.5-vl-3b"))
def test_cells_are_the_same_shared_and_alone(name: str, small: Callable[[str], Made], data: Path) -> None:
    m = small(name)
    cells = [c for c in SHARING if m.loaded.anatomy.role("connector") or "connector" not in c]
    plan = planned(m, data, *cells)
    alone, shared = ran(plan, cache="off"), ran(plan, cache="memory", batch_size=4)
    assert len({tuple(p.nll_sum) for p, _ in alone.values()}) == len(alone) == len(cells) + 1
    for key, (predictions, _) in alone.items():
        assert shared[key][0].text == predictions.text
        assert shared[key][0].nll_sum == pytest.approx(predictions.nll_sum, rel=1e-4)
    costs = [info["cost"] for _, info in shared.values()]
    assert sum(c.get("hits_vision_blocks", 0) for c in costs) > m.loaded.images[0].n_blocks  # type: ignore[attr-defined]
    assert sum(c.get("hits_connector", 0) for c in costs) >= 6


@pytest.mark.parametrize("name", quick(FIRST, "llava-1.5-7b", "qwen2.5-vl-3b"))
def test_every_part_is_calibrated(name: str, small: Callable[[str], Made], data: Path) -> None:
    plan = planned(small(name), data, *CALIBRATED)
    found = ran(plan, cache="memory")
    assert len({tuple(p.nll_sum) for p, _ in found.values()}) == len(CALIBRATED) + 1
    for key, (_, info) in found.items():
        assert info["layers_changed"] == plan.cells[key].columns()["layers_touched"]


@pytest.mark.thorough
def test_blocks_calibrated_under_one_chat_are_not_taken_for_another(
    small: Callable[[str], Made], data: Path, tmp_path: Path
) -> None:
    m = small("llava-1.5-7b")
    cell = f"part=language quant=gptq {FEW} calibration=task"
    chats = ["USER: {image}\n{} ASSISTANT:", "{image} Question: {} Answer:"]
    alone, after = (dict[str, Any](), dict[str, Any]())
    for i, chat in enumerate(chats):
        other = m._replace(section={**m.section, "chat": chat})
        plan = planned(other, data, cell)
        alone |= ran(plan, cache="off")
        after |= ran(plan, cache="disk", cache_dir=str(tmp_path / "cache"))
        assert len(alone) == 2 * (i + 1)  # the baseline and the cell have keys of their own
        assert {c.columns()["chat"] for c in plan.cells.values()} == {chat}
    assert {k: p.hash for k, (p, _) in alone.items()} == {k: p.hash for k, (p, _) in after.items()}


def test_only_what_is_unusual_is_part_of_an_identity() -> None:
    usual = {"features": "list", "first_position": 0, "token_types": "image", "image_token": "<image>"}
    assert asked_as({"adapter": usual}) == asked_as({}) == {}
    assert asked_as({"adapter": {**usual, "first_position": 1}, "chat": "template"}) == {
        "adapter": {"first_position": 1}, "chat": "template"
    }  # fmt: skip
