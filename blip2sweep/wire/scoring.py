"""What a worker and its scoring process tell each other, one JSON line each."""

from __future__ import annotations

from typing import TypedDict

from blip2sweep.wire.lines import Failure
from blip2sweep.wire.pack import TaskJob


class WarmRequest(TypedDict):
    """Read a task's references, and start what scores, before a cell is done."""

    task: TaskJob


class ScoreRequest(WarmRequest):
    """Score the predictions `name` of the cell `key`, and measure them against the cell `baseline`."""

    key: str
    name: str
    baseline: str


class ScoreAnswer(TypedDict):
    """What came of a request. written: whether there was something to do."""

    key: str
    written: bool
    failure: Failure | None
