"""Memory and speed of packed layers, compared with bf16 on the same device; and how one batch is timed.

Other cells compute with dequantized weights, so they say nothing of memory or speed. A cell with `quant.packed` runs
the real kernels and is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from blip2sweep.apply.packed import model_bytes
from blip2sweep.backends.torch.evaluate import evaluate
from blip2sweep.models.images import Features, load_pixels
from blip2sweep.models.load import Loaded, load
from blip2sweep.tasks.generation import Generation
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import CellJob

SINGLE, LARGEST = 8, 64  # images timed one by one, and together
REPEATS = 3


def measured(loaded: Loaded, task: TaskData, generation: Generation, pixels: Features) -> dict[str, float]:
    """Bytes, peak bytes (CUDA), and seconds an image. The seconds are measured one image at a time (median), and in a
    batch of `batch_largest` (best of three).

    task: its images are distinct. The peak is the model and what a run adds to it. Other tensors on the device, such as
    the originals of packed layers, do not count.
    """
    alone = [timed(loaded, task, generation, pixels, [s], 1)[0] for s in task.samples[: SINGLE + 1]]
    before = _reset_peak(loaded.device)
    runs = [timed(loaded, task, generation, pixels, task.samples, LARGEST) for _ in range(REPEATS)]
    together, size = min(seconds for seconds, _ in runs) / len(task.samples), model_bytes(loaded.model)
    added = None if before is None else torch.cuda.max_memory_allocated(loaded.device) - before
    return {
        "model_bytes_measured": size,
        **({} if added is None else {"peak_bytes": size + added}),
        "seconds_batch_1": statistics.median(alone[1:]) if alone[1:] else together,  # the first warms up
        "seconds_batch_largest": together,
        "batch_largest": min(batch for _, batch in runs),
    }


def _reset_peak(device: torch.device) -> int | None:
    """The bytes that are allocated now, from which the peak is counted. None where the device does not say."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def first_images(task: TaskData) -> TaskData:
    """The task with one sample of each of its first images, LARGEST at most."""
    first = {s.image_id: s for s in reversed(task.samples)}
    return replace(task, samples=tuple(first[i] for i in list(task.images)[:LARGEST]), planned=None)


def timed(
    loaded: Loaded, task: TaskData, generation: Generation, pixels: Features, samples: Sequence[Sample], batch: int
) -> tuple[float, int]:
    """(seconds, batch size). The size is at most the number of samples, and it is halved where memory ran out."""
    own = replace(task, samples=tuple(samples))
    if loaded.device.type == "cuda":
        torch.cuda.synchronize(loaded.device)
    rows = [pixels.ids.index(i) for i in own.images]
    assert pixels.rows is not None
    images = Features(tuple(own.images), pixels.rows.take(rows))
    start = time.perf_counter()
    found = evaluate(loaded, own, generation, batch_size=batch, nll_references=0, features=images)
    seconds = time.perf_counter() - start  # the texts are on the host, so the device has finished
    return seconds, min(found.cost["batch_size"], len(samples))


def compared(loaded: Loaded, job: CellJob, task: TaskData) -> dict[str, float]:
    """`measured` of a packed model and, in the same run, of the unquantized model in bf16 (`bf16_…`)."""
    own, generation = first_images(task), Generation(**job["generation"])
    found = measured(loaded, own, generation, load_pixels(loaded, own))
    config: ModelSection = {**job["model"], "dtype": "bfloat16", "dtype_per_part": {}}
    plain = load(config, Path(job["folder"]), device=loaded.device.type)
    other = measured(plain, own, generation, load_pixels(plain, own))
    return found | {f"bf16_{k}": v for k, v in other.items()}
