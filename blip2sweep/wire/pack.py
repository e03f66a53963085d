"""The job of a cell, a pack of jobs, and the settings of a worker, as planning writes them and a worker reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NotRequired, TypedDict, cast

from blip2sweep.errors import UserError
from blip2sweep.wire.chat import ChatJob, Endpoint
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.recovery import RecoveryJob
from blip2sweep.wire.stopping import StopRequest

JsonObject = dict[str, object]  # an object whose reader knows its fields, such as a composed section of the config

# ---- a cell's job


class OutsideCode(TypedDict, total=False):
    """Code that is no part of this package: a package and its version, or a file. sha256: of the file, or of the files of a
    package in development."""

    package: str
    version: str
    file: str
    sha256: str


class PlannedTask(TypedDict):
    """The state of the task's data when the cell was planned, and the code from outside that reads and scores them."""

    samples: str  # fingerprint of ids and annotations
    images: str  # digest of the images' content
    outside: NotRequired[dict[str, OutsideCode]]


class RoundJob(TypedDict):
    """What the model is asked in one round of a cell that asks several times. texts: of each sample in task order, what
    replaces its question; without them each sample is asked as it is, or each picture once."""

    name: str
    texts: NotRequired[list[list[str]]]


class TaskJob(TypedDict):
    """A composed section `task`. Its other fields are for the task's own reader."""

    name: str
    kind: str
    on_bad_image: str
    nll_references: int
    planned: NotRequired[PlannedTask]
    share: NotRequired[str]  # `rank/count`: of the images, of a process that shares the cell with others
    places: NotRequired[str]  # never on disk: `64-96,96-128`, segments in the set's random order (tasks/order.py)
    variant: NotRequired[str]  # of the in-context pipeline, which says how replies are read
    round: NotRequired[RoundJob]  # never on disk: what a worker's back end is asked


class GenerationJob(TypedDict):
    """The fields of `tasks.generation.Generation`."""

    prompt: str | None
    num_beams: int
    max_new_tokens: int
    min_new_tokens: NotRequired[int | None]
    length_penalty: NotRequired[float | None]
    question: NotRequired[str]
    repetition_penalty: NotRequired[float | None]
    early_stopping: NotRequired[bool | None]


class BackendChoice(TypedDict):
    """The back end of a cell: a name in `backends.BACKENDS`, and that back end's own options."""

    name: str
    options: NotRequired[JsonObject]


class Columns(TypedDict):
    """The identity and size columns of a cell's row. Rows have more: `bits_<part>`, sizes, calibration."""

    model: str
    weights: str
    dtype: str
    stored: NotRequired[str]  # rows of versions that counted everything at 16 bits have none
    task: str
    data: str
    samples: int
    generation: str
    semantics: int
    part: str
    recipe: str
    recipe_json: str
    baseline: NotRequired[str]  # in the ledger, the key of the cell's baseline
    control: NotRequired[str]  # in the ledger, the key of the cell's control, where it is recovered
    linear_share: NotRequired[float]  # of the weights in blocks, what linear layers have; where it is less than half
    backend: NotRequired[str]  # where it is not torch
    beside: NotRequired[str | None]  # where it is not torch, the key of torch's cell (blip2sweep/planning/cell.py)
    outside: NotRequired[str]  # code that is no part of this package
    chat: NotRequired[str]  # what stands around the user's text, where the model config says it
    chat_model: NotRequired[str]  # of the in-context pipeline
    chat_variant: NotRequired[str]
    params: NotRequired[int]
    model_bytes: NotRequired[float]


class Share(TypedDict):
    """The part of a cell that one of its processes runs. folder: where the first process leaves what it calibrated; it is
    removed when the cell is over."""

    rank: int
    count: int
    folder: str


class CellJob(TypedDict):
    """What a worker needs to run one cell, as `Cell.job()` returns it."""

    key: str
    model: ModelSection
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
    chat: NotRequired[ChatJob]  # of the in-context pipeline
    control: NotRequired[str]  # the key of the uncompressed model with the same recovery
    recovery: NotRequired[RecoveryJob]  # what it is trained on
    share: NotRequired[Share]  # never on disk: a worker gives it to the processes of a cell


# ---- a pack


class Settings(TypedDict, total=False):
    """What workers get besides the cells. None of it changes an output in float32."""

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
    latency: list[str]  # keys of the cells to time
    stop: StopRequest  # cells that may stop before they have seen all images
    backend: BackendChoice  # of all cells in the pack; torch when absent
    processes: int  # that share each cell; 1 when absent
    alone: bool  # no cell is computed in the turn of another; workers set it, no pack has it
    chat: Endpoint  # where cells with a chat model send their requests
    runner: str  # `module:Class`, in packs of version 0.1
    outside: dict[str, OutsideCode]  # of all cells of the sweep, for whoever reads its file; workers go by the cells'
    device: str
    threads: int
    max_num_timeout: int | None
    signal_delay_s: int | None
    timeout_min: int | None


class PackName(TypedDict):
    """Which pack it is, and the folder of its results."""

    sweep: str
    run: str  # the id of a launch; run and index name the pack
    index: int
    output_dir: str


class Pack(PackName):
    """The cells that one worker process runs, in order."""

    settings: Settings
    cells: list[CellJob]
    seconds: list[float] | None  # expected cost of each cell
    part: NotRequired[str]  # `rank/tasks`: a share of the pack's file


class PackFile(PackName):
    """A pack on disk. Each model and task is written once, and cells have their index."""

    settings: Settings
    models: list[ModelSection]
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
    """A pack from the JSON of its file, with models and tasks put back into its cells. where: names the file in errors.

    Raises UserError when it is not a pack; it lists all wrong fields of the object. Fields that earlier versions did
    not write get defaults.
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
    """Refuse an object with missing fields or fields of another type. at: the object's path in the file."""
    wrong = [f"{at}{name}" for name, kind in fields.items() if not isinstance(data.get(name), kind)]
    if wrong:
        raise refuse(f"{', '.join(wrong)} missing or of another type")


def _cell(
    cell: object, i: int, models: list[object], tasks: list[object], refuse: Callable[[str], UserError]
) -> JsonObject:
    """A cell of the file with its model and task put in."""
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
