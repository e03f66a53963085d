"""How many CPU threads a cell is evaluated on."""

from __future__ import annotations

from blip2sweep.wire.pack import CellJob


def evaluation_threads(job: CellJob, device: str) -> int | None:
    """CPU threads that a cell has to be evaluated on. One where inputs are rounded: there the last digit of a sum, which
    follows the number of threads, becomes a whole code and then another word. None: the machine's."""
    rounds = any(e.get("input") and not e.get("packed") for e in job["recipe"])
    return 1 if rounds and device == "cpu" else None
