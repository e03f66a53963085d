"""What a result line says of a cell that stopped before it had seen all images."""

from __future__ import annotations

from typing import TypedDict


class Stopped(TypedDict):
    """images: how many were evaluated, the first of the sample set's order (`tasks.order`). of: how many there are.
    reason: why it stopped, as `metrics.stopping.decide` words it. stop, margin: the rule that it stopped by."""

    images: int
    of: int
    reason: str
    stop: str
    margin: float
