"""How many CPU threads a cell is evaluated on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blip2sweep.wire.pack import CellJob

if TYPE_CHECKING:
    from torch import nn

# Parameters of a model whose operators are too small for threads to share. Of the two that were measured the one with half a
# million loses by a second thread while answers are scored, the one with 95 million gains (docs/benchmarks.md).
SMALL = 10_000_000


def evaluation_threads(job: CellJob, device: str) -> int | None:
    """The CPU threads that a cell must be evaluated on. None: those of the machine.

    It is one where inputs are rounded on a CPU. The last digit of a sum depends on the number of threads; rounding
    turns it into a whole code, and that into another word.
    """
    rounds = any(e.get("input") and not e.get("packed") for e in job["recipe"])
    return 1 if rounds and device == "cpu" else None


def threads_of_model(model: nn.Module, there: int) -> int:
    """The CPU threads that a model is evaluated on, where nobody chose. there: those of the machine, or of the worker's
    share of it.

    Answers are scored in a process of its own meanwhile, which a small model leaves a core.
    """
    small = sum(p.numel() for p in model.parameters()) < SMALL
    return max(1, there - 1) if small else there
