"""Cells of one plan that read the same samples are scored by the same rules: all that any of them asks for.

Rules are in no key. So cells that differ in rules alone are one cell, its baseline has the rules that its drops need, and
the cells of a pack share one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from blip2sweep.canonical import canonical_json
from blip2sweep.planning.cell import Cell
from blip2sweep.tasks import TaskData, with_scoring
from blip2sweep.tasks.settings import without_scoring


def scored_alike(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, each with the scoring of all that read the same samples, the first values first."""
    by_task = {id(cell.task): cell for cell in cells}
    same: dict[str, list[Cell]] = {}
    for cell in by_task.values():
        same.setdefault(canonical_json(without_scoring(cell.task_config)), []).append(cell)
    merged = {id(c.task): together for own in same.values() if len(own) > 1 for together in [_merged(own)] for c in own}
    return [_with(cell, *merged[id(cell.task)]) if id(cell.task) in merged else cell for cell in cells]


def _with(cell: Cell, task: TaskData, config: dict[str, Any]) -> Cell:
    return replace(cell, task=task, task_config=config)


def _merged(cells: Sequence[Cell]) -> tuple[TaskData, dict[str, Any]]:
    """The fields `task` and `task_config` of cells that differ in scoring alone."""
    names = dict.fromkeys(name for cell in cells for name in cell.task.scoring)
    union = {name: _each_once(v for c in cells for v in c.task.scoring[name]) for name in names}
    config = {**without_scoring(cells[0].task_config), **union}
    return with_scoring(cells[0].task, config), config


def _each_once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
