"""Cells of one plan that read the same samples are scored by the same rules: all that any of them asks for.

Rules are in no key, nor are the name of a task and its main metric. So cells that differ in these alone are one cell, and
its baseline has the rules that its drops need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from blip2sweep.canonical import canonical_json
from blip2sweep.planning.cell import Cell
from blip2sweep.tasks import with_scoring
from blip2sweep.tasks.settings import without_scoring


def scored_alike(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, each with the scoring of all that read the same samples, the first values first."""
    same: dict[str, list[Cell]] = {}
    for cell in {id(cell.task): cell for cell in cells}.values():
        same.setdefault(_read(cell), []).append(cell)
    scored = {id(of.task): alike for own in same.values() for of, alike in zip(own, _merged(own), strict=True)}
    return [_with(cell, scored[id(cell.task)]) for cell in cells]


def _with(cell: Cell, scored: Cell) -> Cell:
    """A cell with the task of another; itself where that is its own."""
    if scored.task is cell.task:
        return cell
    return replace(cell, task=scored.task, task_config=scored.task_config)


def _read(cell: Cell) -> str:
    """What a key has of a task. Sections with other names, or another spelling of a folder, may read the same."""
    task, config = cell.task, cell.task_config
    told = [task.kind, task.fingerprint, task.content, dict(task.settings)]
    return canonical_json([*told, config["on_bad_image"], config["nll_references"]])


def _merged(cells: Sequence[Cell]) -> list[Cell]:
    """Each cell scored by the rules of all. Those whose sections differ in scoring alone share one task."""
    if len({canonical_json(cell.task.scoring) for cell in cells}) == 1:
        return list(cells)
    names = dict.fromkeys(name for cell in cells for name in cell.task.scoring)
    union = {name: _each_once(v for c in cells for v in c.task.scoring[name]) for name in names}
    found, scored = list[Cell](), dict[str, Cell]()
    for cell in cells:
        section = without_scoring(cell.task_config)
        config = {**section, **union}
        text = canonical_json(section)
        if text not in scored:
            scored[text] = replace(cell, task=with_scoring(cell.task, config), task_config=config)
        found.append(scored[text])
    return found


def _each_once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
