"""What of the latency of a cell is torch's: its images, one timed batch of them, and where it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch

from blip2sweep.apply.packed import packed_layers
from blip2sweep.apply.patch import Made
from blip2sweep.backends.backend import NoImage
from blip2sweep.backends.torch.latency import first_images, timed
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.backends.torch.threads import evaluation_threads
from blip2sweep.backends.torch.turns import Side, Where, in_turns
from blip2sweep.compression.quantize.prepared import Prepared
from blip2sweep.compression.quantize.threads import fixed_threads
from blip2sweep.machine.devices import cpu_name
from blip2sweep.machine.energy import Meter, cpu_meter, gpu_meter
from blip2sweep.models.images import load_pixels
from blip2sweep.models.load import Loaded
from blip2sweep.recipe import Recipe
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.sample import TaskData
from blip2sweep.wire.latency import Latency
from blip2sweep.wire.pack import CellJob


def device_name(device: str) -> str:
    """The name by which latencies are kept: of the GPU, or of the CPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()


def is_on(loaded: Loaded, device: str) -> bool:
    """Whether the tensors of a model are on the device of that name. Graphs may run on a GPU between tensors on the CPU."""
    return device_name(str(loaded.device)) == device


@contextlib.contextmanager
def in_model(
    state: ModelState, recipe: Recipe, packed: Recipe, prepared: Mapping[str, Prepared], made: Made
) -> Iterator[None]:
    """Inside, a recipe is in the model, as while its cell runs. packed: its layers that are packed; the rest as
    `Patch.apply` takes it."""
    try:
        state.patch.apply(recipe, prepared, made)
        with packed_layers(state.loaded, packed):
            yield
    finally:
        state.patch.restore()


def latency(
    current: Callable[[], Loaded],
    job: CellJob,
    task: TaskData,
    sides: Mapping[str, Side],
    most: int | None,
    device: str,
) -> list[Latency]:
    """The latency of a cell on the first images of its task, without the likelihood of references.

    current: the model of the side that has its turn. most: images in a batch; None: `LARGEST`, or as many as there are.
    device: the name by which latencies are kept. Raises NoImage where no image can be read.
    """
    own, generation, loaded = first_images(task), Generation(**job["generation"]), current()
    pixels = load_pixels(loaded, own, on_bad_image=job["task"]["on_bad_image"])
    samples = [s for s in own.samples if s.image_id in pixels.ids]
    if not samples:
        raise NoImage(f"task {task.name}: none of its first {len(own.samples)} images can be read")
    threads = evaluation_threads(job, loaded.device.type) or torch.get_num_threads()

    def run(batch: int, i: int) -> tuple[float, int]:
        start = i % (len(samples) - batch + 1)
        with fixed_threads(threads):
            return timed(current(), own, generation, pixels, samples[start : start + batch], batch)

    counted = not job["model"].get("device_map") and is_on(loaded, device)  # of several GPUs one would be counted
    meter = _meter(loaded.device) if counted else None
    where = Where(device, threads, meter)
    return in_turns(sides, run, min(most or len(samples), len(samples)), where)


def _meter(device: torch.device) -> Meter | None:
    if device.type != "cuda":
        return cpu_meter()
    return gpu_meter(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
