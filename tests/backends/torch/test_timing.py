"""torch's latency: a cell is timed with its recipe in the model, its baseline without, and nothing else is changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from blip2sweep.backends.backend import NoImage
from blip2sweep.backends.torch import timing, turns
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.machine.devices import cpu_name
from blip2sweep.models.images import Features
from tests.in_process import jobs

WORDS = ("part=vit", "quant.bits=none,2", "task=shapes_vqa")


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    return jobs(*WORDS, limit=9)


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend({"device": "cpu", "cache": "off"})


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BUDGET": -1.0, "SINGLES": 1, "BATCHES": 1}.items():
        monkeypatch.setattr(turns, name, value)


@pytest.fixture
def seen(backend: TorchBackend, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """(whether a layer is the quantized one, images) of each batch that was run."""
    found, run = list[tuple[bool, int]](), timing.timed
    backend._loaded(made[0]).patch.restore()
    plain = weight_of(backend).clone()

    def watched(loaded: Any, task: Any, generation: Any, pixels: Features, samples: Any, batch: int) -> Any:
        found.append((not torch.equal(weight_of(backend), plain), len(samples)))
        return run(loaded, task, generation, pixels, samples, batch)

    monkeypatch.setattr(timing, "timed", watched)
    return found


def weight_of(backend: TorchBackend) -> torch.Tensor:
    assert backend.state is not None
    part = next(iter(backend.state.loaded.anatomy.parts.values()))
    return backend.state.loaded.model.get_submodule(part.linears[0].path).weight.data


def test_the_recipe_is_in_the_model_for_the_cells_turns_alone(
    backend: TorchBackend, made: list[dict[str, Any]], seen: list[tuple[bool, int]]
) -> None:
    before = [backend(job).predictions.hash for job in made]
    found = backend.measure(made[1])
    assert [quantized for quantized, _ in seen] == [True] * 4 + [False] * 6 + [True] * 5 + [False] * 3
    images = len({s.image_id for s in backend.task(made[1]).samples})
    assert [x["batch"] for x in found] == [1, images]
    assert {(x["device"], x["threads"]) for x in found} == {(cpu_name(), torch.get_num_threads())}
    assert all(x[name] > 0 for x in found for name in ("ms_median", "baseline_ms_p90"))
    assert {n for _, n in seen} == {1, images}
    assert [backend(job).predictions.hash for job in made] == before


@pytest.mark.parametrize(
    ("device", "counted"), [(cpu_name(), True), ("a GPU that runs graphs", False)], ids=["own", "other"]
)
def test_the_energy_is_that_of_the_device_that_is_named(
    backend: TorchBackend, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, device: str, counted: bool
) -> None:
    monkeypatch.setattr(timing, "_meter", lambda _: "the CPU's")
    monkeypatch.setattr(timing, "in_turns", lambda sides, run, largest, where: where)
    loaded = backend.plain(made[0])
    where: Any = timing.latency(lambda: loaded, made[0], backend.task(made[0]), {}, 1, device)
    assert (where.device, where.meter) == (device, "the CPU's" if counted else None)


def test_what_is_made_for_the_recipe_is_made_once(
    backend: TorchBackend, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated weights and adapters may be remembered nowhere (`cache=off`), and the model changes several times."""
    calls, ready = list[str](), backend._ready
    monkeypatch.setattr(
        backend, "_ready", lambda state, job, recipe: calls.append(job["key"]) or ready(state, job, recipe)
    )
    backend.measure(made[1])
    assert calls == [made[1]["key"]]


def test_each_side_runs_the_same_batches(
    backend: TorchBackend, made: list[dict[str, Any]], seen: list[tuple[bool, int]]
) -> None:
    backend.measure(made[1])
    own, other = ([n for quantized, n in seen if quantized is side] for side in (True, False))
    assert sum(n == max(own) for n in own) == sum(n == max(other) for n in other) == 1 + turns.FEWEST


def test_a_baseline_is_timed_alone(
    backend: TorchBackend, made: list[dict[str, Any]], seen: list[tuple[bool, int]]
) -> None:
    (one, _) = backend.measure(made[0])
    assert one["ms_median"] == one["baseline_ms_median"]
    assert {quantized for quantized, _ in seen} == {False}


def test_the_batch_size_that_is_asked_for_is_the_largest(made: list[dict[str, Any]]) -> None:
    backend = TorchBackend({"device": "cpu", "cache": "off", "batch_size": 2})
    assert [x["batch"] for x in backend.measure(made[0])] == [1, 2]


def test_lack_of_memory_frees_the_model_and_is_told(
    backend: TorchBackend, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(timing, "timed", lacking)
    with pytest.raises(MemoryError):
        backend.measure(made[1])
    assert backend.state is None


def test_images_that_cannot_be_read_are_told(
    backend: TorchBackend, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "load_pixels", lambda loaded, task, **_: Features((), None, bad=tuple(task.images)))
    with pytest.raises(NoImage, match=r"none of its first \d+ images can be read"):
        backend.measure(made[0])
