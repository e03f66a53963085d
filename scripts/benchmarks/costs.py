"""What cells cost by stage, and how much of the device's best rate that was. From their costs alone, without a ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.benchmarks import floor


def summed(costs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds by stage and hits, over all cells. Peak memory: of a worker, on its device."""
    names = sorted({k for c in costs for k in c if k.startswith(("seconds_", "hits_", "layers_"))})
    return {
        "in_cells": sum(c["seconds"] for c in costs),
        "peak_memory_bytes": max(c["peak_memory_bytes"] for c in costs),
        **{k: costs[-1][k] for k in ("batch_size", "sequence_batch_size", "device")},
        **{k: round(sum(c.get(k, 0) for c in costs), 3) for k in names},
    }


def shares(
    sizes: Mapping[str, Any], new_tokens: int, mine: Mapping[str, Any], images: int, peak: float
) -> dict[str, float]:
    """Of the arithmetic that was left to do, how much of the best rate each stage reached. sizes: the model's config;
    images: of all cells; peak: of the device, operations a second. Workers share the device, their seconds are summed."""
    best, need = peak / mine["workers"], floor.flops(sizes, new_tokens)
    blocks = floor.blocks_read(sizes)
    per_cell = images / max(1, mine["cells"])
    run = images - mine["hits_vision_blocks"] * per_cell / blocks
    connector = "bridge" if "hits_bridge" in mine else "connector"
    work = {
        "vision": need.vision * run,
        connector: need.bridge * (images - mine[f"hits_{connector}"]),
        "language": need.language * (images - mine.get("hits_language", 0)),
    }
    found = {k: v / best / mine[f"seconds_{k}"] for k, v in work.items() if mine.get(f"seconds_{k}")}
    return {"peak_tflops": peak / 1e12, **{f"share_{k}": v for k, v in found.items()}}
