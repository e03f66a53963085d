"""The lines of the ledger's journals, by event. `results/journal.py` writes them, and `results/ledger.py` reads
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict, cast

from blip2sweep.wire.latency import LATENCY, Latency
from blip2sweep.wire.pack import Columns, JsonObject
from blip2sweep.wire.stopping import Stopped

Scalar = str | int | float | bool | None
Note = list[int]  # [bytes, mtime in ns, crc32] of a file when it was written (`files.write_noted`)


class Head(TypedDict):
    """The fields that every line begins with."""

    time: float  # seconds since 1970
    host: str
    pid: int
    n: NotRequired[int]  # running number in the file; lines of the first versions have none


class AttemptId(TypedDict):
    """The attempt that a line is about."""

    key: str
    sweep: NotRequired[str | None]
    run: NotRequired[str | None]
    attempt: NotRequired[str | None]
    job: NotRequired[str | None]  # Slurm's id of the job


class StartLine(Head, AttemptId):
    """A worker has started a cell."""

    event: Literal["started"]
    process: NotRequired[str | None]  # identifies the process that had the pid


class Flips(TypedDict):
    """How much a second run of the same cell differs."""

    flips: int  # outputs that differ
    flip_rate: float  # their share


class Noise(Flips):
    """The noise floor of half precision: the baseline at a second batch size."""

    batch_sizes: list[int]


Cost = dict[str, Scalar]  # seconds and cache hits by stage, batch size, peak memory, device


class Provenance(TypedDict, total=False):
    """The machine, libraries and code that computed a cell."""

    threads: int
    cpu_capability: str
    cpu: str | None
    versions: str
    attention: str
    image_processor: str
    code: str | None


class Run(Provenance, total=False):
    """What a result line says about the run."""

    layers_changed: int
    cost: Cost
    noise: Noise
    calibration_noise: dict[str, JsonObject]


class Imported(TypedDict, total=False):
    """The fields that only imported results have."""

    imported: str
    published: dict[str, float]
    configs: object
    noop_configs: object


class ResultLine(Head, AttemptId, Run, Imported):
    """A cell is done. The line commits its predictions."""

    event: Literal["result"]
    predictions: str | None  # their hash; None for imported scores without predictions
    files: NotRequired[dict[str, Note] | None]
    replaces: NotRequired[list[str]]  # attempts whose results existed when this one was written
    starts: NotRequired[list[str]]  # the other attempts that existed then
    stopped: NotRequired[Stopped]  # of a cell that did not see all images
    columns: Columns
    semantics: NotRequired[int | None]  # in a brief record, the only column that is kept whole
    half: NotRequired[bool]  # in a brief record: some part is computed or stored in half precision


class Failure(TypedDict):
    """An error: its kind, its message and its traceback."""

    kind: str
    error: str
    traceback: str


class WorkerFailure(Failure, total=False):
    """An error of a cell, or the death of a worker while it ran the cell."""

    fatal: bool
    signal: int | None


class FailureLine(Head, AttemptId, WorkerFailure):
    """A cell has failed."""

    event: Literal["failed"]
    columns: NotRequired[Columns]


WAITING = "waiting_for_chat"  # the reason of a cell that was given up until a chat model's replies are there


class RequeuedLine(Head, AttemptId):
    """A cell was given up and will be run again. requests: how many replies it waits for, as far as is known."""

    event: Literal["requeued"]
    reason: NotRequired[str | None]
    requests: NotRequired[int]


class Measured(TypedDict):
    """What `results.drops.measure` returns. metrics: {metric: [value, baseline, drop, low, high, changed images]} or
    {metric: [value]}."""

    scored: str  # digest of the scorers' versions
    samples: int
    noise: dict[str, float | None]
    metrics: dict[str, list[float | None]]
    images: NotRequired[int]
    of: NotRequired[int]  # images of the whole run, where the cell stopped and has fewer
    same: NotRequired[float]  # share of outputs equal to the baseline's
    controlled: NotRequired[dict[str, list[float | None]]]  # {metric: [control, drop, low, high]}, against the control
    # {metric: [low, high]} of what is retained of the baseline, as a share; lines of earlier versions have none
    retained: NotRequired[dict[str, list[float | None]]]
    # {statistic: version} of what was installed beside this package, where it changes a score, of cell, baseline and control.
    installed: NotRequired[dict[str, str]]
    baseline_installed: NotRequired[dict[str, str]]
    control_installed: NotRequired[dict[str, str]]


class MeasuredLine(Head, Measured):
    """A cell's metrics and drops. source: what they were measured from (`results.drops.source`)."""

    event: Literal["measured"]
    key: str
    source: str
    generation: NotRequired[int]


class UnscoredLine(Head, Failure):
    """A cell that is done could not be scored."""

    event: Literal["unscored"]
    key: str


class Timed(TypedDict):
    """The cell that a line of timing is about, and who timed it. A cell may be timed long after it was computed."""

    key: str
    sweep: str | None
    run: str


class LatencyLine(Head, Timed, Latency):
    """How fast a cell is at one batch size. generation: as in a `measured` line."""

    event: Literal["latency"]
    generation: int


class UntimedLine(Head, Timed, Failure):
    """A cell that is done is not timed. kind: `lost` is written before every try, and stands where the process died in
    it; `preempted` takes that back."""

    event: Literal["untimed"]


class ForgottenLine(Head):
    """Attempts at a cell do not count, or a sweep is not listed; nothing is removed. forget: the act that wrote the line,
    8 hex digits. A line without a key is about the sweep of that name that was made at `created`."""

    event: Literal["forgotten"]
    forget: str
    key: NotRequired[str]
    attempts: NotRequired[list[str]]  # those that the writer knew about
    sweep: NotRequired[str]
    created: NotRequired[float]


class UnforgottenLine(Head):
    """An act of forgetting is taken back, for one cell or for its sweep."""

    event: Literal["unforgotten"]
    forget: str
    key: NotRequired[str]
    sweep: NotRequired[str]
    created: NotRequired[float]


class WorkerName(TypedDict):
    """The worker that a `worker` line is about."""

    sweep: str | None
    run: str
    part: str | None
    pack: int
    job: str | None


class WorkerLine(Head, WorkerName):
    """A worker has started, warned, or stopped before the end of its pack."""

    event: Literal["worker"]
    turn: NotRequired[int]  # how often its job had been requeued
    gpus: NotRequired[str | None]
    ended: NotRequired[str]
    warning: NotRequired[str]


OfCell = StartLine | ResultLine | FailureLine | RequeuedLine | MeasuredLine | UnscoredLine
CellLine = OfCell | LatencyLine | UntimedLine | ForgottenLine | UnforgottenLine
Line = CellLine | WorkerLine

# {event: fields that the ledger uses without a check}.
REQUIRED: Mapping[str, frozenset[str]] = {
    "started": frozenset({"key", "time"}),
    "result": frozenset({"key", "time"}),
    "failed": frozenset({"key", "time", "kind"}),
    "requeued": frozenset({"key", "time"}),
    "measured": frozenset({"key", "time", "source", "scored", "samples", "noise", "metrics"}),
    "unscored": frozenset({"key", "time"}),
    "latency": frozenset({"key", "time", "run", "generation", "seconds", *LATENCY}),
    "untimed": frozenset({"key", "time", "run", "kind", "error"}),
    "forgotten": frozenset({"time", "forget"}),
    "unforgotten": frozenset({"time", "forget"}),
    "worker": frozenset({"run", "pack"}),
}
NOTHING: frozenset[str] = frozenset()


def line_of(record: object) -> Line | None:
    """A record whose seal holds, as a line. None when a required field is missing.

    The types of its fields are not checked: the seal shows that the line is as it was written. A line of an event that
    is not in REQUIRED, which a later version may write, is valid too; no reader uses it.
    """
    if not isinstance(record, dict):
        return None
    event = record.get("event")
    complete = isinstance(event, str) and record.keys() >= REQUIRED.get(event, NOTHING)
    return cast("Line", record) if complete else None
