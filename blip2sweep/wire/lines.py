"""The lines of the ledger's journals, by event. `results/journal.py` writes them, `results/ledger.py` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict, cast

from blip2sweep.wire.pack import Columns, JsonObject

Scalar = str | int | float | bool | None
Note = list[int]  # what a file was when it was written: bytes, mtime in ns, crc32 (`files.write_noted`)


class Head(TypedDict):
    """How every line begins."""

    time: float
    host: str
    pid: int
    n: NotRequired[int]  # its running number; lines of the first versions have none


class AttemptId(TypedDict):
    """Which attempt at which cell a line is about."""

    key: str
    sweep: NotRequired[str | None]
    run: NotRequired[str | None]
    attempt: NotRequired[str | None]
    job: NotRequired[str | None]  # Slurm's id


class StartLine(Head, AttemptId):
    event: Literal["started"]
    process: NotRequired[str | None]  # which process had the pid


class Flips(TypedDict):
    """How a second run of the same cell differs."""

    flips: int
    flip_rate: float


class Noise(Flips):
    """The noise floor of half precision: the baseline at a second batch size."""

    batch_sizes: list[int]


Cost = dict[str, Scalar]  # seconds and cache hits by stage, batch size, peak memory, device


class Provenance(TypedDict, total=False):
    """What ran."""

    threads: int
    cpu_capability: str
    cpu: str | None
    versions: str
    attention: str
    image_processor: str
    code: str | None


class Run(Provenance, total=False):
    """What a result line says of the run itself."""

    layers_changed: int
    cost: Cost
    noise: Noise
    calibration_noise: dict[str, JsonObject]


class Imported(TypedDict, total=False):
    """What a line has besides where a result was imported."""

    imported: str
    published: dict[str, float]
    configs: object
    noop_configs: object


class ResultLine(Head, AttemptId, Run, Imported):
    event: Literal["result"]
    predictions: str | None  # their hash; imported scores may come without
    files: NotRequired[dict[str, Note] | None]
    replaces: NotRequired[list[str]]  # attempts whose results it knew
    starts: NotRequired[list[str]]  # the other attempts it knew
    columns: Columns
    semantics: NotRequired[int | None]  # of a brief record: the only column that is kept


class Failure(TypedDict):
    """How something ended that went wrong."""

    kind: str
    error: str
    traceback: str


class WorkerFailure(Failure, total=False):
    """How a worker process ended with a cell in hand."""

    fatal: bool
    signal: int | None


class FailureLine(Head, AttemptId, WorkerFailure):
    event: Literal["failed"]
    columns: NotRequired[Columns]


class RequeuedLine(Head, AttemptId):
    event: Literal["requeued"]
    reason: NotRequired[str | None]


class Measured(TypedDict):
    """What `results.drops.measure` gives: {metric: [value, baseline, drop, low, high, changed images]} or {metric: [value]}."""

    scored: str
    samples: int
    noise: dict[str, float | None]
    metrics: dict[str, list[float | None]]
    images: NotRequired[int]
    same: NotRequired[float]


class MeasuredLine(Head, Measured):
    event: Literal["measured"]
    key: str
    source: str
    generation: NotRequired[int]


class UnscoredLine(Head, Failure):
    event: Literal["unscored"]
    key: str


class WorkerName(TypedDict):
    """Which worker a `worker` line is about."""

    sweep: str | None
    run: str
    part: str | None
    pack: int
    job: str | None


class WorkerLine(Head, WorkerName):
    event: Literal["worker"]
    turn: NotRequired[int]
    gpus: NotRequired[str | None]
    ended: NotRequired[str]
    warning: NotRequired[str]


CellLine = StartLine | ResultLine | FailureLine | RequeuedLine | MeasuredLine | UnscoredLine
Line = CellLine | WorkerLine

# Fields that the ledger itself takes for granted, by event.
REQUIRED: Mapping[str, frozenset[str]] = {
    "started": frozenset({"key", "time"}),
    "result": frozenset({"key", "time"}),
    "failed": frozenset({"key", "time", "kind"}),
    "requeued": frozenset({"key", "time"}),
    "measured": frozenset({"key", "time", "source", "scored", "samples", "noise", "metrics"}),
    "unscored": frozenset({"key", "time"}),
    "worker": frozenset({"run", "pack"}),
}
NOTHING: frozenset[str] = frozenset()


def line_of(record: object) -> Line | None:
    """A record whose seal holds, as a line; None where a field is missing that readers take for granted. What the writer put
    in is not looked at again: the seal says that it stands as it was written. A line of an event that is none of REQUIRED, which a
    later version may write, is one too: no reader looks into it."""
    if not isinstance(record, dict):
        return None
    event = record.get("event")
    complete = isinstance(event, str) and record.keys() >= REQUIRED.get(event, NOTHING)
    return cast("Line", record) if complete else None
