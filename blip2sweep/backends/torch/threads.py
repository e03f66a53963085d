"""How many CPU threads a cell is evaluated on."""

from __future__ import annotations

from blip2sweep.wire.pack import CellJob


def evaluation_threads(job: CellJob, device: str) -> int | None:
    """The CPU threads that a cell must be evaluated on. None: those of the machine.

    It is one where inputs are rounded on a CPU. The last digit of a sum depends on the number of threads; rounding
    turns it into a whole code, and that into another word.
    """
    rounds = any(e.get("input") and not e.get("packed") for e in job["recipe"])
    return 1 if rounds and device == "cpu" else None
