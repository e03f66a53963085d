"""Cells that stop before they have seen all images: what workers are asked, what a result line says, and the messages
between a worker and the process that looks at its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from blip2sweep.wire.pack import TaskJob


class Stopped(TypedDict):
    """images: how many were evaluated, the first of the sample set's order (`tasks.order`). of: how many there are.
    reason: why it stopped, as `metrics.stopping.decide` words it. stop, margin: the rule that it stopped by."""

    images: int
    of: int
    reason: str
    stop: str
    margin: float


class StopRequest(TypedDict):
    """What a sweep asks of some of its cells: to stop by a rule. images: {key: images of its sample set} of the cells
    that may; all others see all images. margins: {key: margin} of those that are asked with another margin, in this launch
    of the sweep or an earlier one. launched: in a pack, the baselines of its cells that the same launch runs, in whichever pack."""

    stop: Literal["known", "verdict"]
    margin: float
    images: dict[str, int]
    margins: NotRequired[dict[str, float]]
    launched: NotRequired[list[str]]


class WarmLook(TypedDict):
    """Read a task's references before there is a cell to look at."""

    task: TaskJob


class LookRequest(WarmLook):
    """Compare what is known of a cell with its baseline on the same images. predictions: the columns of the cell's.
    baseline: the name of the predictions of its baseline, which has all images. stop, margin: the rule. looks: after how
    many images it is judged, each time by these alone, ascending. coming: the looks after what is known, the last of which
    is all images. number: is in the answer too."""

    predictions: dict[str, list[object]]
    baseline: str
    stop: Literal["known", "verdict"]
    margin: float
    looks: list[int]
    coming: list[int]
    number: NotRequired[int]


class LookAnswer(TypedDict):
    """reason: why the cell may stop; None where it has to go on. images: the first of the looks at which it may. ahead:
    where it has to go on, the one of the coming looks by which it will probably stop. error: why nothing is known, in one
    line."""

    reason: str | None
    images: int | None
    ahead: int | None
    error: str | None
    number: NotRequired[int]


def unknown(error: str) -> LookAnswer:
    """The answer where nothing is known."""
    return {"reason": None, "images": None, "ahead": None, "error": error}
