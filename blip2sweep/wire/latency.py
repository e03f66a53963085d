"""How fast a cell is, as a back end measures it and as the ledger keeps it."""

from __future__ import annotations

from typing import NotRequired, TypedDict

# The fields of a latency that tables use without a check.
LATENCY = ("device", "threads", "batch", "ms_median", "ms_p90", "baseline_ms_median")


class Latency(TypedDict):
    """A cell and its baseline at one batch size, in turns and in one process.

    batch: images that are answered together. Milliseconds and joules are of one image. The joules are those that the
    device tells of itself; a device that tells none has none.
    """

    device: str
    threads: int  # of the CPU
    batch: int
    runs: int  # how often a batch of the cell was timed
    ms_median: float
    ms_p90: float
    baseline_ms_median: float
    baseline_ms_p90: float
    torch_ms_median: NotRequired[float]  # of the uncompressed model in torch, where another back end is timed
    torch_ms_p90: NotRequired[float]
    joules: NotRequired[float]
    baseline_joules: NotRequired[float]
    seconds: float  # of the whole measurement, at all batch sizes
