"""Times a cell and its baseline in turns, in one process: what disturbs one of them disturbs the other too.

The order of the turns is cell, baseline, baseline, cell and so on, with torch behind the baseline. In a turn the largest batch is timed, and then single
images one by one. Whenever the model changes, an image that is not timed comes first, and the first time also a batch.
Pictures are read and preprocessed before.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from blip2sweep.machine.energy import Meter
from blip2sweep.wire.latency import Latency

CELL, BASELINE, TORCH = "cell", "baseline", "torch"
FEWEST, MOST = 3, 6  # rounds, a turn of each; of three turns one that is disturbed moves no median
BUDGET = 60.0  # seconds after which no further round begins
SINGLES, BATCHES = 8, 2  # timed in each turn
COUNTED = 0.5  # seconds of a block below which a device's counter of energy is too coarse

Run = Callable[[int, int], tuple[float, int]]  # answers the i-th batch of a size: (seconds, images that were together)
Side = Callable[[], AbstractContextManager[None]]  # inside, the model is that of the cell, or of the baseline


class Where(NamedTuple):
    """What is said of the place: the device's name, the threads of the CPU, and its meter of energy."""

    device: str
    threads: int
    meter: Meter | None


@dataclass
class Block:
    """What was timed of one side at one batch size. seconds: of each batch. joules: of the turns that were long enough to
    be counted, with their images."""

    seconds: list[float] = field(default_factory=list)
    joules: list[tuple[float, int]] = field(default_factory=list)


Blocks = dict[tuple[str, int], Block]  # {(side, batch)}


def in_turns(sides: Mapping[str, Side], run: Run, largest: int, where: Where) -> list[Latency]:
    """The latency at batch 1 and at the largest batch, which is smaller than `largest` where memory ran out.

    sides: `cell` and `baseline`; a baseline itself has no `baseline`. `torch`: the uncompressed model in torch, where
    another back end is timed.
    """
    began = time.perf_counter()
    blocks, fits = Blocks(), largest
    for name, turns in itertools.groupby(_order(sides, began)):
        with sides[name]():
            run(1, 0)
            if (name, 1) not in blocks and (fits := run(largest, 0)[1]) < largest:
                break
            for _ in turns:
                _turn(blocks, name, run, largest, where.meter)
    if fits < largest:
        return in_turns(sides, run, fits, where)
    total = time.perf_counter() - began
    return [_latency(blocks, batch, where, total) for batch in dict.fromkeys((1, largest))]


def _order(sides: Mapping[str, Side], began: float) -> Iterator[str]:
    names = [name for name in (CELL, BASELINE, TORCH) if name in sides]
    for i in range(MOST):
        if i >= FEWEST and time.perf_counter() - began > BUDGET:
            return
        yield from reversed(names) if i % 2 else names


def _turn(blocks: Blocks, name: str, run: Run, largest: int, meter: Meter | None) -> None:
    for batch, count in {largest: BATCHES, 1: SINGLES}.items():
        block = blocks.setdefault((name, batch), Block())
        before, done = meter() if meter else None, len(block.seconds)
        new = [run(batch, i)[0] for i in range(done, done + count)]
        after = meter() if meter else None
        block.seconds += new
        if before is not None and after is not None and sum(new) >= COUNTED:
            block.joules.append((after - before, batch * count))


def _latency(blocks: Blocks, batch: int, where: Where, seconds: float) -> Latency:
    cell = blocks[CELL, batch]
    baseline = blocks.get((BASELINE, batch), cell)
    own, other = ([1000 * s / batch for s in x.seconds] for x in (cell, baseline))
    found: Latency = {
        "device": where.device, "threads": where.threads, "batch": batch, "runs": len(own),
        "ms_median": statistics.median(own), "ms_p90": p90(own),
        "baseline_ms_median": statistics.median(other), "baseline_ms_p90": p90(other), "seconds": seconds,
    }  # fmt: skip
    if plain := blocks.get((TORCH, batch)):
        own = [1000 * s / batch for s in plain.seconds]
        found["torch_ms_median"], found["torch_ms_p90"] = statistics.median(own), p90(own)
    if cell.joules and baseline.joules:
        found["joules"], found["baseline_joules"] = _an_image(cell), _an_image(baseline)
    return found


def _an_image(block: Block) -> float:
    joules, images = (sum(column) for column in zip(*block.joules, strict=True))
    return joules / images


def p90(values: Sequence[float]) -> float:
    """The 90th percentile, between the two values next to it, as numpy's default does."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=10, method="inclusive")[-1]
