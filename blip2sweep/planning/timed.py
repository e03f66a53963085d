"""Which cells of a plan are timed (`analysis.latency`), and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blip2sweep.backends.backend import backend_class
from blip2sweep.errors import UserError
from blip2sweep.machine.devices import Devices
from blip2sweep.planning.cell import Cell
from blip2sweep.recipe.simulated import why_simulated
from blip2sweep.results.attempts import Attempts
from blip2sweep.results.latency import is_timed
from blip2sweep.results.ledger import Ledger

if TYPE_CHECKING:
    from blip2sweep.planning.plan import Plan


@dataclass(frozen=True)
class Timed:
    """keys: of the cells that a launch times. known: how many were timed before. reasons: {why a cell is not: cells}."""

    keys: tuple[str, ...] = ()
    known: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """`latency: 3 cells to time, 1 timed already; not timed: 4 (quantization is simulated …)`."""
        counts = f"{_cells(len(self.keys))} to time" + (f", {self.known} timed already" if self.known else "")
        others = [f"{n} ({why})" for why, n in self.reasons.items()]
        return f"latency: {counts}" + (f"; not timed: {', '.join(others)}" if others else "")


def _cells(n: int) -> str:
    return f"{n} cell{'s' * (n != 1)}"


def timed_cells(plan: Plan, ledger: Ledger, devices: Devices | None) -> Timed:
    """Which cells of a plan a launch has to time: those to compute, and those that are done and were never timed where
    the launch runs.

    devices: of this machine, where the launch is local; None: a cell that was timed anywhere is timed.
    """
    why_not = _why_not(plan)
    able = [cell for key, cell in plan.cells.items() if key not in why_not]
    keys = [c.key for c in able if c.key not in plan.done or not _known(c, ledger, devices)]
    return Timed(tuple(keys), len(able) - len(keys), Counter(why_not.values()))


def check_some_timed(plan: Plan) -> None:
    """Raise UserError where no cell that was asked for can be timed."""
    why_not = _why_not(plan)
    if plan.cells and not {key for key in plan.keys if key} - why_not.keys():
        raise UserError(
            f"analysis.latency=true: no cell that is asked for would be timed ({next(iter(why_not.values()))}); right: "
            f"leave it out, or cells whose kernels run, such as quant.packed=true, drop_blocks=… or part=none"
        )


def _why_not(plan: Plan) -> dict[str, str]:
    return {key: why for key, cell in plan.cells.items() if (why := why_untimed(cell))}


def why_untimed(cell: Cell) -> str | None:
    """Why no latency of a cell is measured. None where it is."""
    if cell.chat:
        return "cells that ask a chat model are not timed"
    made = backend_class(cell.backend["name"]) if cell.backend else None
    if made is not None and not callable(getattr(made, "measure", None)):
        return f"backend={cell.backend['name'] if cell.backend else ''} measures no latency"
    return None if getattr(made, "RUNS_ALL", False) else why_simulated(cell.recipe)


def _known(cell: Cell, ledger: Ledger, devices: Devices | None) -> bool:
    """Whether the cell was timed where torch, or another back end, would run it."""
    there: Collection[str] | None = None
    if devices is not None:
        there = devices.gpus if devices.gpus and cell.backend is None else (*devices.gpus, devices.cpu)
    return is_timed(ledger.attempts.get(cell.key, Attempts()), there)
