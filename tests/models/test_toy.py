"""An architecture that is one file and one YAML (tests/toy): ragged rows, no connector, planned, run, shared, calibrated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from blip2sweep.apply.patch import Patch
from blip2sweep.backends.torch import propagation
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.config.compose import Composer
from blip2sweep.config.standalone import composer
from blip2sweep.errors import UserError
from blip2sweep.models import architecture
from blip2sweep.models.check import mistakes
from blip2sweep.models.checkpoints import inspect
from blip2sweep.models.images import Images, load_pixels
from blip2sweep.models.load import Loaded, load
from blip2sweep.planning.plan import Plan, PlannedJob, make_plan
from blip2sweep.recipe.chain import Prefixes
from blip2sweep.results.ledger import Ledger
from blip2sweep.tasks import Generation, TaskData, load_task
from tests import composing
from tests.apply.recovery.made import paths_of, recovery, samples, trained
from tests.checkpoints import believe, conf, recipe
from tests.in_process import told
from tests.params import quick
from tests.toy.architecture import write

CONF = Path(__file__).parent.parent / "toy" / "conf"
Made = Callable[..., Plan]


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architecture.ARCHITECTURES, "toy", "tests.toy.architecture")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def made() -> Composer:
    """The one of all tests is there first: it asks for a Hydra that nobody has started."""
    composing.composer()
    return composer(CONF)


@pytest.fixture
def planned(made: Composer, folder: Path) -> Made:
    """Plans commands with model=toy."""
    common = ("model=toy", f"model.path={folder}", "task.limit=24", "generation.max_new_tokens=5")

    def plan(*words: str) -> Plan:
        configs = [made.config((*common, *cell.split())) for cell in words]
        believe(folder, configs[0]["model"])
        return make_plan([PlannedJob((), c) for c in configs], Ledger(Path("/nonexistent")).refresh())

    return plan


@pytest.fixture
def loaded(planned: Made, folder: Path) -> Loaded:
    return load(next(iter(planned("part=none").cells.values())).model.config, folder)


def captions(n: int = 24) -> TaskData:
    return load_task({**conf("task/shapes_caption"), "limit": n})


def ran(plan: Plan, **settings: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    jobs = sorted((c.job() for c in plan.cells.values()), key=Prefixes())
    runner = TorchBackend({"device": "cpu", **settings})
    runner.expect(jobs)
    return {job["key"]: told(runner(job)) for job in jobs}


CELLS = (
    "part=eye blocks=2 quant.bits=2", "part=eye blocks=1-2 quant.bits=2", "part=eye quant.bits=3", "part=talker quant.bits=2",
    "part=all quant.bits=3", "part=talker quant=gptq quant.bits=3 calibration.n_samples=40",
    "part=all quant=awq quant.bits=3 calibration.n_samples=40 calibration.image_token_weight=2",
)  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("limits", quick([{}, {"batch_size": 5}, {"cache_memory_gb": 2e-6}]), ids=str)
def test_cells_are_planned_and_give_the_same_shared_and_alone(
    planned: Made, tmp_path: Path, limits: dict[str, Any]
) -> None:
    plan = planned(*CELLS)
    alone = ran(plan, cache="off", **limits)
    assert len({tuple(p.text) for p, _ in alone.values()}) == len(alone) == len(CELLS) + 1
    disk = {"cache": "disk", "cache_dir": str(tmp_path)}
    for settings in ({"cache": "memory"}, disk, disk):
        found = ran(plan, **settings, **limits)
        for key, (predictions, _) in alone.items():
            assert found[key][0].text == predictions.text
            assert found[key][0].nll_sum == pytest.approx(predictions.nll_sum, rel=1e-5)
    assert sum(info["cost"].get("hits_disk", 0) for _, info in found.values()) >= 3


def test_costs_and_hits_are_named_by_the_stages(planned: Made) -> None:
    costs = [info["cost"] for _, info in ran(planned(*CELLS[:4])).values()]
    assert {"seconds_images", "seconds_sight", "seconds_talk", "seconds_likelihood"} <= costs[0].keys()
    assert sorted(c["hits_sight_blocks"] for c in costs) == [0, 0, 1, 2, 3]  # the baseline and one from the start
    assert sorted(c["hits_sight"] for c in costs) == [0, 0, 0, 0, 24]  # the talker's has the baseline's


def test_pictures_have_rows_of_their_own_length(loaded: Loaded) -> None:
    data = captions()
    pixels = load_pixels(loaded, data, batch_size=7).rows
    assert pixels is not None
    assert pixels.lengths is not None
    assert len(set(pixels.lengths)) > 2
    assert pixels.further["size"].shape == (24, 2)
    images = Images(loaded, data)
    assert [part.rows.lengths for part in images.batches(24) if part.rows] == [pixels.lengths]


def test_the_batch_size_changes_no_word(loaded: Loaded) -> None:
    generation = Generation("a photo of", 1, 5)
    one, many = (evaluate(loaded, captions(), generation, batch_size=n) for n in (1, 24))
    assert [r["text"] for r in one.records] == [r["text"] for r in many.records]
    assert len({r["text"] for r in one.records}) > 8
    assert [r["nll_sum"] for r in one.records] == pytest.approx([r["nll_sum"] for r in many.records], rel=1e-4)
    given = evaluate(loaded, captions(), generation, features=one.features)
    assert [r["text"] for r in given.records] == [r["text"] for r in one.records]


def test_errors_propagate_to_the_logits(loaded: Loaded) -> None:
    task = conf("task/shapes_caption")
    chosen = propagation.first_samples(load_task(task), task, None, 6)
    plain = propagation.states(loaded, chosen)
    with Patch(loaded).apply(recipe(loaded.anatomy, "eye", "1", bits=2)):
        rows = {(r["part"], r["block"]): r for r in propagation.compare(plain, propagation.states(loaded, chosen))}
    assert rows["eye", 0]["snr_db"] is None
    assert all(rows[place]["snr_db"] > 0 for place in (("eye", 1), ("eye", 2), ("talker", 0), ("talker", None)))


def test_its_checkpoint_is_checked_as_any_other(planned: Made, folder: Path, tmp_path: Path) -> None:
    model = next(iter(planned("part=none").cells.values())).model.config
    assert mistakes(inspect(folder), model) == []
    other = write(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "width": 8}))
    (other / "processor_config.json").unlink()
    found = "; ".join(mistakes(inspect(other), model))
    assert "width is 8 in config.json, 16 in conf/model/toy.yaml" in found
    assert "processor_config.json cannot be read" in found
    (other / "config.json").write_text(json.dumps({**config, "model_type": "blip-2"}))
    assert "model_type is blip-2, not toy" in "; ".join(mistakes(inspect(other), model))


def test_an_architecture_that_nobody_knows_is_refused(planned: Made) -> None:
    with pytest.raises(UserError, match=r"model.architecture=tyo: unknown; did you mean 'toy'"):
        architecture.stages({**conf("model/tiny"), "architecture": "tyo"})
    with pytest.raises(UserError, match=r"model.family=opt: unknown; known: toy"):
        architecture.stages({**conf("model/tiny"), "architecture": "toy"})


def test_a_model_whose_passes_cannot_learn_is_told_so(loaded: Loaded) -> None:
    with pytest.raises(
        UserError, match=r"recover: toy has no logits to train on; right: an architecture whose passes can"
    ):
        trained(loaded, recovery(), paths_of(loaded, "talker"), samples("vqa"))
