"""compressed-tensors: plain transformers reloads the weights and texts of the cell, offline, in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.commands.export import export
from blip2sweep.exporting import compressed_tensors
from blip2sweep.models.anatomy import anatomy
from blip2sweep.recipe import resolve_recipe
from blip2sweep.tasks import planned_task
from blip2sweep.wire.pack import CellJob
from tests.composing import jobs, plan
from tests.exporting.fresh import LOADER, PLAIN, Found, digests, reload

GROUPS = ("quant.strategy=group", "quant.group_size=32")
FEW = ("calibration.n_samples=4",)
CELLS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "asymmetric groups": (("part=all", "quant.bits=4", *GROUPS), PLAIN),
    "symmetric rows of 3 bits": (("part=vit", "quant.bits=3", "quant.symmetric=true"), PLAIN),
    "several schemes": (
        ("part=all", "quant.bits=5", "per_part.vit.bits=8", "per_part.vit.symmetric=true", "per_part.llm.bits=2",
         "per_part.llm.strategy=group", "per_part.llm.group_size=16"), LOADER),
}  # fmt: skip
SLOW: Mapping[str, tuple[tuple[str, ...], str]] = {
    **{f"{bits} bits": (("part=llm", f"quant.bits={bits}"), PLAIN) for bits in (1, 6, 7)},
    "one scale a tensor": (("part=llm", "quant.bits=6", "quant.strategy=tensor"), PLAIN),
    "gptq": (("part=llm", "quant=gptq", "quant.bits=3", *FEW), PLAIN),
    "gptq in groups by importance": (("part=vit", "quant=gptq", "quant.bits=4", *GROUPS, "quant.act_order=true", *FEW), PLAIN),
    "awq": (("part=llm", "quant=awq", "quant.bits=3", *GROUPS, *FEW), PLAIN),
    "mse": (("part=vit+llm", "quant=mse", "quant.bits=3", *GROUPS), PLAIN),
    "blocks left out": (("part=llm", "quant.bits=4", "drop_blocks=qformer:4-5+llm:0+3"), PLAIN),
    "half precision": (("part=all", "quant.bits=4", *GROUPS, "model.dtype=bfloat16"), LOADER),
    "float16": (("part=all", "quant.bits=4", *GROUPS, "model.dtype=float16"), LOADER),
    "stored in float16": (("part=all", "quant.bits=4", *GROUPS, "model.stored=float16"), LOADER),
    "llava": (("model=tiny-llava", "part=all", "quant.bits=4", *GROUPS), PLAIN),
}  # fmt: skip


class Exported(NamedTuple):
    """A cell, its folder, what the command said, and what the cell's own model is."""

    job: CellJob
    folder: Path
    told: list[str]
    weights: dict[str, str]
    texts: list[str]


def job_of(*words: str, limit: int = 6) -> CellJob:
    """The job of one cell."""
    (job,) = [c.job() for c in plan(*words, f"task.limit={limit}").cells.values() if not c.recipe.empty]
    return job


def exported(cells: Mapping[str, tuple[tuple[str, ...], str]], to: Path) -> dict[str, tuple[Exported, Found]]:
    """Each cell exported, and loaded again in one process for all."""
    backend = TorchBackend({"device": "cpu"})
    made = {name: one(backend, job_of(*words), to / name) for name, (words, _) in cells.items()}
    images = [s.image for s in planned_task(made[min(made)].job["task"]).samples]
    found = reload([(x.folder, cells[name][1]) for name, x in made.items()], images)
    return {name: (x, again) for (name, x), again in zip(made.items(), found, strict=True)}


def one(backend: TorchBackend, job: CellJob, folder: Path) -> Exported:
    texts = list(backend(job).predictions.text or ())
    told = export(job, "compressed-tensors", folder, None, backend.made)
    assert backend.state is not None
    return Exported(job, folder, told, digests(backend.state.loaded.model), texts)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Exported, Found]]:
    return exported(CELLS, tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Exported, Found]]:
    return exported(SLOW, tmp_path_factory.mktemp("slow"))


def check(cell: Exported, again: Found) -> None:
    if again.texts:
        assert again.texts == cell.texts
    if "drop_blocks" in str(cell.job["recipe"]):  # the blocks that stay have other numbers there
        assert sorted(again.weights.values()) == sorted(cell.weights.values())
    else:
        assert again.weights == cell.weights


@pytest.mark.thorough
@pytest.mark.parametrize("name", CELLS)
def test_transformers_reloads_the_cell(name: str, quick: dict[str, tuple[Exported, Found]]) -> None:
    check(*quick[name])


@pytest.mark.thorough
@pytest.mark.parametrize("name", SLOW)
def test_transformers_reloads_every_kind_of_cell(name: str, slow: dict[str, tuple[Exported, Found]]) -> None:
    check(*slow[name])


def sizes(found: dict[str, tuple[Exported, Found]]) -> Iterator[float]:
    for cell, _ in found.values():
        manifest = json.loads((cell.folder / "blip2sweep.json").read_text())
        yield manifest["payload"] / cell.job["columns"]["model_bytes"]


@pytest.mark.thorough
def test_the_payload_is_what_the_row_says(quick: dict[str, tuple[Exported, Found]]) -> None:
    assert all(abs(ratio - 1) < 0.01 for ratio in sizes(quick))
    assert all("NOT what" not in line for cell, _ in quick.values() for line in cell.told)


@pytest.mark.thorough
def test_a_folder_has_its_recipe_and_says_how_it_is_loaded(quick: dict[str, tuple[Exported, Found]]) -> None:
    one, several = (quick[name][0].folder / "README.md" for name in ("asymmetric groups", "several schemes"))
    assert 'Blip2ForConditionalGeneration.from_pretrained(".")' in one.read_text()
    assert "from load import load" in several.read_text()
    for cell, _ in quick.values():
        (again,) = [
            k
            for k, c in plan(f"recipe_file={cell.folder / 'recipe.yaml'}", "task.limit=6").cells.items()
            if not c.recipe.empty
        ]
        assert again == cell.job["key"]


@pytest.mark.thorough
def test_no_other_user_is_locked_out(quick: dict[str, tuple[Exported, Found]]) -> None:
    folder = quick["asymmetric groups"][0].folder
    assert len({p.stat().st_mode for p in folder.iterdir()}) == 1


REFUSED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "a tail": (("part=vit", "quant.strategy=group", "quant.group_size=48", "quant.bits=4"), "group_size=48 does not divide rows of 64"),
    "a float zero point": (("part=vit", "quant=hqq", "quant.bits=4"), "hqq has zero points that are no integers"),
    "a prescale": (("part=vit", "quant=smoothquant", "quant.bits=4"), "smoothquant divides inputs"),
    "another of awq": (("part=vit", "quant=awq_prescale", "quant.bits=4"), "awq_prescale divides inputs"),
    "minmax": (("part=vit", "quant=minmax", "quant.bits=4"), "minmax makes no integer codes"),
    "nf4": (("part=vit", "quant=nf4"), "nf4 makes no integer codes"),
    "float8": (("part=vit", "quant=float8"), "float8 makes no integer codes"),
    "inputs": (("part=vit", "quant.bits=8", "quant.input.bits=8"), "quantizers of inputs cannot be written"),
    "packed": (("part=vit", "quant=nf4", "quant.packed=true"), "packed layers are another format"),
    "zeros": (("part=vit", "quant.bits=4", "sparsity=magnitude", "sparsity.pattern=2of4"), "is stored as if it were there"),
    "adapters": (("part=qformer", "quant.bits=4", "recover=lora", "recover.n_samples=8", "recover.merge=false"), "right: recover.merge=true"),
}  # fmt: skip


def mistakes(words: Sequence[str], purpose: str | None = None) -> list[str]:
    """What the format cannot hold of a command's one recipe. The samples of calibration and training are not read."""
    (job,) = [j for j in jobs(*words) if j.config["part"] != "none"]
    layout = anatomy(job.config["model"])
    return compressed_tensors.mistakes(resolve_recipe(job.config, layout), job.config["model"], purpose)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.thorough) if n == "adapters" else n for n in REFUSED]
)
def test_what_it_cannot_hold_is_one_line_each(name: str) -> None:
    words, told = REFUSED[name]
    found = mistakes(words)
    assert any(told in line for line in found), found
    assert all("; right: " in line and "\n" not in line for line in found)


def test_all_mistakes_are_told_at_once() -> None:
    words = ("part=all", "quant=hqq", "quant.bits=4", "per_part.llm.method=minmax", "per_part.vit.method=rtn", "per_part.vit.strategy=group",
             "per_part.vit.group_size=48")  # fmt: skip
    assert [line.partition(" ")[0] for line in mistakes(words)] == ["group_size=48", "group_size=48", "hqq", "minmax"]
