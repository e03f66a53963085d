"""A cell's job, a pack of them, and the settings of a worker, as planning writes them and a worker reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NotRequired, TypedDict, cast

from blip2sweep.errors import UserError

JsonObject = dict[str, object]  # an object whose fields its reader knows, such as a composed section of the config

# ---- a cell, as planning tells a worker


class OutsideCode(TypedDict, total=False):
    """Code that is no part of this package: a package and its version, or a file. sha256: of the file, or of the files of a
    package in development."""

    package: str
    version: str
    file: str
    sha256: str


class PlannedTask(TypedDict):
    """What the task's data were when the cell was planned, and the code from outside that reads and scores them."""

    samples: str  # fingerprint of ids and annotations
    images: str  # digest of the images' content
    outside: NotRequired[dict[str, OutsideCode]]


class TaskJob(TypedDict):
    """A composed task section, of which the other fields are for the task's own reader."""

    name: str
    kind: str
    on_bad_image: str
    nll_references: int
    planned: NotRequired[PlannedTask]


class GenerationJob(TypedDict):
    """The fields of `tasks.Generation`."""

    prompt: str | None
    num_beams: int
    max_new_tokens: int
    min_new_tokens: NotRequired[int | None]
    length_penalty: NotRequired[float | None]


class BackendChoice(TypedDict):
    """What runs a cell. The name is one of `backends.BACKENDS`; the other fields are that back end's own options."""

    name: str


class Columns(TypedDict):
    """The identity and size columns of a cell's row. There are more than these: `bits_<part>`, sizes, calibration."""

    model: str
    weights: str
    dtype: str
    task: str
    data: str
    samples: int
    generation: str
    semantics: int
    part: str
    recipe: str
    recipe_json: str
    baseline: NotRequired[str]  # in the ledger: the key of the cell's baseline
    backend: NotRequired[str]  # where it is not torch
    outside: NotRequired[str]  # code that is no part of this package
    params: NotRequired[int]
    model_bytes: NotRequired[float]


class CellJob(TypedDict):
    """What a worker needs to run one cell: `Cell.job()`."""

    key: str
    model: JsonObject
    folder: str
    task: TaskJob
    generation: GenerationJob
    recipe: list[JsonObject]  # targets in short form, `recipe.compact`
    recipe_hash: str
    baseline: str
    calibration: JsonObject | None
    columns: Columns
    backend: NotRequired[BackendChoice]  # where it is not torch
    outside: NotRequired[dict[str, OutsideCode]]  # {group.name: code} that is no part of this package


# ---- a pack


class Settings(TypedDict, total=False):
    """What workers are told besides the cells. None of it changes an output in float32."""

    batch_size: int | None
    data_workers: int
    rerun: dict[str, list[str]]  # {key: attempts whose results do not count}
    cache: str | None
    cache_dir: str
    cache_gb: float | None
    cache_memory_gb: float | None
    scoring_minutes: float | None
    propagation: bool
    noise_floor: bool
    backend: BackendChoice  # of all cells of the pack; torch where it is absent
    runner: str  # `module:Class`, of version 0.1
    outside: dict[str, OutsideCode]  # of all cells of the sweep, for whoever reads its file; workers go by the cells'
    device: str
    threads: int
    max_num_timeout: int | None
    signal_delay_s: int | None
    timeout_min: int | None


class PackName(TypedDict):
    """Which pack it is, and where its results go."""

    sweep: str
    run: str  # the id of a launch; with index it names the pack
    index: int
    output_dir: str


class Pack(PackName):
    """The cells one worker process runs, one after the other."""

    settings: Settings
    cells: list[CellJob]
    seconds: list[float] | None  # what each cell is expected to cost
    part: NotRequired[str]  # `rank/tasks`: a share of the pack's file


class PackFile(PackName):
    """A pack on disk: models and tasks stand there once, and cells have their numbers."""

    settings: Settings
    models: list[JsonObject]
    tasks: list[TaskJob]
    cells: list[JsonObject]
    seconds: list[float] | None


# ---- reading a pack

_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "sweep": str, "run": str, "output_dir": str, "settings": dict, "models": list, "tasks": list, "cells": list,
}  # fmt: skip
_OF_CELL: Mapping[str, type | tuple[type, ...]] = {
    "key": str, "model": int, "task": int, "folder": str, "generation": dict, "recipe": list, "recipe_hash": str,
    "baseline": str, "columns": dict,
}  # fmt: skip


def pack_of(data: object, where: str) -> Pack:
    """A pack from the JSON of its file, models and tasks put back into its cells. Raises UserError where it is none.

    Fields that earlier versions did not have get their defaults.
    """
    refuse = _refusal(where)
    if not isinstance(data, dict):
        raise refuse("no object")
    _check(data, _FIELDS, "", refuse)
    cells = [_cell(c, i, data["models"], data["tasks"], refuse) for i, c in enumerate(data["cells"])]
    rest = {k: v for k, v in data.items() if k not in ("models", "tasks")}
    return cast("Pack", {"index": 0, "seconds": None, **rest, "cells": cells})


def _refusal(where: str) -> Callable[[str], UserError]:
    return lambda what: UserError(f"{where}: not a pack ({what}); right: an unchanged copy")


def _check(
    data: JsonObject, fields: Mapping[str, type | tuple[type, ...]], at: str, refuse: Callable[[str], UserError]
) -> None:
    """Refuse an object that lacks a field or has one of another type."""
    wrong = [f"{at}{name}" for name, kind in fields.items() if not isinstance(data.get(name), kind)]
    if wrong:
        raise refuse(f"{', '.join(wrong)} missing or of another type")


def _cell(
    cell: object, i: int, models: list[object], tasks: list[object], refuse: Callable[[str], UserError]
) -> JsonObject:
    at = f"cells[{i}]."
    if not isinstance(cell, dict):
        raise refuse(f"{at[:-1]} no object")
    _check(cell, _OF_CELL, at, refuse)
    model, task = _numbered(models, cell["model"]), _numbered(tasks, cell["task"])
    if model is None or task is None:
        raise refuse(f"{at}{'model' if model is None else 'task'}: no such number")
    return {"calibration": None, **cell, "model": model, "task": task}


def _numbered(listed: list[object], number: int) -> JsonObject | None:
    found = listed[number] if 0 <= number < len(listed) else None
    return found if isinstance(found, dict) else None
