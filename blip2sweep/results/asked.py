"""How cells that are done are scored: as their sweeps ask, whatever the packs say that computed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import cast

from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks.settings import (
    chosen_variants,
    declared,
    main_metric,
    named_main_metric,
    task_settings,
    without_scoring,
)
from blip2sweep.tasks.task import task_of
from blip2sweep.wire.lines import ResultLine
from blip2sweep.wire.pack import CellJob, TaskJob
from blip2sweep.wire.scoring import Asked

ALL = "all"  # in the place of a sweep's name
Tasks = Mapping[str, TaskJob]  # {key: task of its job}


def as_asked(task: TaskJob, asked: Asked | None) -> TaskJob:
    """The task of a job with the scoring settings that a sweep asks for; None: the default ones. A task whose kind is not
    known here stays as it is; whoever scores it says so."""
    with suppress(UserError):
        settings = asked["settings"] if asked else {}
        return cast("TaskJob", {**without_scoring(task), **settings})
    return task


def rounds(sweeps: Sequence[Sweep], results: Iterable[ResultLine]) -> list[dict[str, Asked | None]]:
    """{key: one way in which some sweep wants it scored}, as often as some cell has another way. A cell of no sweep has
    the default one."""
    ways: dict[str, dict[str, Asked | None]] = {r["key"]: {} for r in results}
    for sweep in sweeps:
        asked = sweep.asked()
        for key in (key for key in sweep.keys if key in ways):
            one = asked.get(key)
            ways[key].setdefault(canonical_json(one["settings"] if one else None), one)
    columns = zip_longest(*([(key, way) for way in own.values()] or [(key, None)] for key, own in ways.items()))
    return [dict(pair for pair in column if pair) for column in columns]


def ask_for(output_dir: Path, sweeps: Sequence[Sweep], jobs: Mapping[str, CellJob], given: Sequence[str]) -> None:
    """Have sweeps ask for other scoring settings, such as `task.rule=lavis`, and write that into their files.

    A sweep's cells whose kind has no such setting stay as they are. Raises UserError for what is no setting of any cell
    and for a value that it does not have, before anything is written.
    """
    settings, tasks = dict(map(_setting, given)), {key: job["task"] for key, job in jobs.items()}
    if not settings:
        return
    new = [_asked(sweep, tasks, settings) for sweep in sweeps]
    taken = {name for own in new for asked in own for name in asked["settings"]}
    if unknown := [text for text, name in zip(given, settings, strict=False) if name not in taken]:
        known = f"right: task.{', task.'.join(sorted(taken))}" if taken else "their tasks have one rule alone"
        raise UserError(f"--set {unknown[0]}: no cell has that scoring setting; {known}")
    for sweep, own in zip(sweeps, new, strict=True):
        sweep.scoring = [asked for asked in own if asked["variants"] != [""]]
        sweep.write(output_dir)


def _setting(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    if not key.startswith("task.") or not equals:
        raise UserError(f"--set {text}: no scoring setting; right: such as task.rule=lavis")
    return key.removeprefix("task."), [v.strip() for v in values.strip("[]").split(",")]


def _asked(sweep: Sweep, tasks: Tasks, given: Mapping[str, list[str]]) -> list[Asked]:
    """How a sweep's cells are scored with some settings changed, one entry for each way, of cells that have settings."""
    asked, found, ways = sweep.asked(), dict[str, Asked](), dict[tuple[int, int], Asked | None]()
    for key in (key for key in sweep.keys if key in tasks):
        same = id(tasks[key]), id(asked.get(key))  # the cells of a pack share their tasks
        if same not in ways:
            ways[same] = _way(as_asked(tasks[key], asked.get(key)), given)
        if way := ways[same]:
            found.setdefault(canonical_json([way["settings"], way["main_metric"]]), {**way, "keys": []})["keys"].append(
                key
            )
    return list(found.values())


def _way(task: TaskJob, given: Mapping[str, list[str]]) -> Asked | None:
    """How the cells of a task are scored with some settings changed; None where its kind has no settings."""
    names = declared(task_of(task["kind"]))
    if not names:
        return None
    config = {**task, **{name: values for name, values in given.items() if name in names}}
    chosen = {name: list(values) for name, values in task_settings(config).scoring.items()}
    variants = [v.suffix for v in chosen_variants(config)]
    return {
        "settings": chosen,
        "variants": variants,
        "main_metric": main_metric(named_main_metric(config), variants[0]),
        "keys": [],
    }
