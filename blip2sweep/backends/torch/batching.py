"""Batches that shrink when memory runs out, and a clock for the stages."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch

from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.models.load import Loaded
from blip2sweep.tasks.generation import Generation

T = TypeVar("T")

IMAGES_CPU, IMAGES_GPU = 64, 256
SEQUENCES_CPU, SEQUENCES_GPU = 512, 1024
SHARE_OF_DEVICE, BYTES_CPU = 0.2, 2**30  # for keys and values of the sequences that run


def image_batches(loaded: Loaded, size: int | None) -> Batches:
    """Batches of images. size: None means 64 on a CPU, 256 on a GPU."""
    return Batches(size or (IMAGES_CPU if loaded.device.type == "cpu" else IMAGES_GPU))


def sequence_batches(loaded: Loaded, generation: Generation) -> Batches:
    """Batches of as many sequences as their keys and values leave room for, at most 512 on a CPU and 1024 on a GPU.
    Each beam counts as one sequence.

    The size depends only on the model, the generation settings and the size of the device, so that a machine always
    chooses the same size.
    """
    on_cpu = loaded.device.type == "cpu"
    room = BYTES_CPU if on_cpu else int(SHARE_OF_DEVICE * torch.cuda.get_device_properties(loaded.device).total_memory)
    rows_that_fit = room // loaded.language.row_bytes(generation)
    most = SEQUENCES_CPU if on_cpu else SEQUENCES_GPU
    return Batches(max(8, min(most // generation.num_beams, 2 ** int(math.log2(max(1, rows_that_fit))))))


class Batches:
    """Runs a step over ranges of at most `size`. When memory runs out, `size` is halved for good.

    halvings: how often that happened.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.halvings = 0

    def run(self, n: int, step: Callable[[slice], T], shares: Sequence[float] | None = None) -> list[T]:
        """[step(slice)] over 0 … n in order. Raises the error where memory runs out at one sample.

        shares: what each takes of the memory that `size` was chosen for, at least 1. A piece of long ones is smaller.
        """
        results: list[T] = []
        start = 0
        while start < n:
            piece, before = slice(start, min(start + self._fitting(start, shares), n)), self.size
            done = self._try(step, piece)
            if done is None:  # outside the except block, where the failed step's tensors are gone
                self._halve(min(before, piece.stop - start))  # a step in this one may have gone down to 1 in vain
            else:
                results.append(done[0])
                start = piece.stop
        return results

    def _fitting(self, start: int, shares: Sequence[float] | None) -> int:
        """How many from `start` on fit together, each as long as the longest of them; at least one."""
        if shares is None:
            return self.size
        longest, stop = 1.0, start + self.size - start % self.size  # so that pieces are the same in every pass
        for count, share in enumerate(shares[start:stop], 1):
            longest = max(longest, share)
            if count > 1 and count * longest > self.size:
                return count - 1
        return stop - start

    def _try(self, step: Callable[[slice], T], piece: slice) -> tuple[T] | None:
        try:
            return (step(piece),)
        except (RuntimeError, MemoryError) as error:
            if piece.stop - piece.start == 1 or not is_out_of_memory(error):
                raise
            return None

    def _halve(self, tried: int) -> None:
        self.size = max(1, tried // 2)
        self.halvings += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Sizes:
    """The batches of one evaluation, of images and of sequences; one for both where their size was chosen.

    known: the sizes that earlier cells had to go down to.
    """

    def __init__(
        self, loaded: Loaded, generation: Generation, batch_size: int | None, known: Mapping[str, int]
    ) -> None:
        self.images = image_batches(loaded, batch_size)
        self.sequences = self.images if batch_size else sequence_batches(loaded, generation)
        names = f"images {self.images.size}", f"sequences {self.sequences.size} {generation}"
        self._named = dict(zip(names, (self.images, self.sequences), strict=True))
        for name, batches in self._named.items():
            batches.size = min(batches.size, known.get(name, batches.size))

    def remember(self, known: dict[str, int]) -> None:
        """Add the sizes that these had to go down to."""
        known |= {name: batches.size for name, batches in self._named.items() if batches.halvings}


class Clock:
    """Seconds for each stage, and the peak memory since the clock was made.

    The device is synchronised at both ends of a stage.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count seconds of stages that were measured elsewhere."""
        for name, more in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + more

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def peak_memory(self) -> int:
        """Bytes: the peak allocated on the GPU, or the largest resident size of the process since it began."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Run(NamedTuple):
    """What the stages of one evaluation share."""

    loaded: Loaded
    batches: Batches  # of images
    sequences: Batches  # of questions or captions
    clock: Clock
