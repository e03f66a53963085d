"""What the machine does of plain products and copies, in the shapes and on the threads of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn.functional import linear

from scripts.benchmarks.arithmetic import Need, Shape

Clock = Callable[[], float]
LEAST, ROUNDS = 0.003, 8  # seconds of a round; the fastest counts, which neighbours left alone
MOST = 2e10  # FLOPs of one product; more rows do not make it faster
COPIED = 2**28  # bytes: more than caches hold


class Rates(NamedTuple):
    """products: {shape: FLOPs a second}. memory: bytes a second, read or written."""

    products: dict[Shape, float]
    memory: float

    def floor(self, need: Need) -> float:
        """The seconds that a need takes at least: its products at their rates, attention at the best of these; or its bytes."""
        computed = sum(n / self.products[shape] for shape, n in need.products.items())
        best = max((self.products[shape] for shape in need.products), default=float("inf"))
        return max(computed + need.attention / best, need.moved / self.memory)

    def bound_by(self, need: Need) -> str:
        return "memory" if need.moved and self.floor(need) == need.moved / self.memory else "products"


def rates(shapes: Collection[Shape], device: str, dtype: str, threads: int) -> Rates:
    """Measure on as many threads as the run had; on one thread of a CPU in processor seconds, which neighbours change less."""
    clock = time.process_time if (device, threads) == ("cpu", 1) else time.perf_counter
    with _threads(threads), torch.inference_mode():
        kind = getattr(torch, dtype)
        found = {shape: _product(shape, device, kind, clock) for shape in shapes}
        return Rates(found, _copying(device, clock))


def _product(shape: Shape, device: str, dtype: torch.dtype, clock: Clock) -> float:
    rows, n_in, n_out = shape
    rows = max(1, min(rows, int(MOST / (2 * n_in * n_out))))
    x, weight = (torch.randn(n, n_in, device=device, dtype=dtype) for n in (rows, n_out))
    return 2 * rows * n_in * n_out / _fastest(lambda: linear(x, weight), device, clock)


def _copying(device: str, clock: Clock) -> float:
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / _fastest(lambda: target.copy_(source), device, clock)


def _fastest(run: Callable[[], object], device: str, clock: Clock) -> float:
    """Seconds of one call, in the fastest round."""

    def seconds(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    seconds(1)
    calls = max(1, int(LEAST / max(1e-9, seconds(1))))
    return min(seconds(calls) for _ in range(ROUNDS)) / calls


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
