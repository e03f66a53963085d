"""The messages between a worker and its scoring process, one JSON line each; and what a sweep asks of scoring."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from blip2sweep.wire.lines import Failure
from blip2sweep.wire.pack import TaskJob


class WarmRequest(TypedDict):
    """Read a task's references and start the scorers before a cell is done."""

    task: TaskJob


class ScoreRequest(WarmRequest):
    """Score the predictions `name` of the cell `key`, and measure them against the cells with the keys `baseline` and
    `control`."""

    key: str
    name: str
    baseline: str
    control: NotRequired[str]


class ScoreAnswer(TypedDict):
    """The answer to a ScoreRequest. written: whether statistics were written; False when current ones existed."""

    key: str
    written: bool
    failure: Failure | None


class Asked(TypedDict):
    """How a sweep wants some of its cells scored, where that is not by the default of every scoring setting.

    settings: {setting: values} of the task. variants: their suffixes, empty for the default. main_metric: that of the
    first variant.
    """

    settings: dict[str, list[str]]
    variants: list[str]
    main_metric: str
    keys: list[str]
