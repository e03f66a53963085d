"""Whether the cells of a plan can each be divided among several processes."""

from __future__ import annotations

from collections.abc import Iterable

from blip2sweep.errors import UserError
from blip2sweep.planning.cell import Cell

NAME = "hydra.launcher.processes_per_cell"


def checked_processes(value: object) -> int:
    """The setting as a number; null is 1. Raises UserError for anything but a positive integer."""
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{NAME}={value}: right: 1 or more, the processes that share a cell's images")
    return value


def check_divisible(cells: Iterable[Cell], processes: int) -> None:
    """Raise UserError for a cell with fewer images than processes, or whose samples need those of other processes."""
    if processes == 1:
        return
    for task in {id(cell.task): cell.task for cell in cells}.values():
        if "match" in task.rules.REQUESTS:
            raise UserError(f"{NAME}={processes}: task {task.name} compares every picture with every text; right: 1")
        if len(task.images) < processes:
            raise UserError(
                f"{NAME}={processes}: task {task.name} has {len(task.images)} images, and a process needs one; right: "
                f"{len(task.images)} or fewer"
            )
