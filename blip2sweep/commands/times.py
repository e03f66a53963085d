"""What is said of a recommended cell's time, and of cells without one."""

from __future__ import annotations

from collections.abc import Iterator

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.choice import Choice
from blip2sweep.analysis.time_limit import RATIO, devices, is_timed, left_untimed
from blip2sweep.console.remarks import many
from blip2sweep.reporting.source import Source


def time_lines(choice: Choice, max_latency: float | None, source: Source) -> Iterator[str]:
    """What one image takes, as a share of the baseline in the same turns, and which cells could not be asked."""
    cells = source.measured[0]
    own = cells[cells["key"] == choice.key].to_dict("records")
    if own and choice.entries and is_timed(own[0]):
        yield f"time: {_time(own[0])}"
    if max_latency is None:
        return
    yield "timed cells alone compete: a recipe that was not run has no time"
    yield from filter(None, [left_untimed(cells, source.anatomy)])
    if len(places := devices(cells)) > 1:
        yield f"cells were timed on {', '.join(places)}: each ratio is to the baseline of its own place"


def _time(row: Row) -> str:
    ms, base = number(row, "latency_ms_median"), number(row, "latency_ms_baseline")
    return (
        f"{number(row, RATIO):.2f} of its baseline's in the same run, {ms:.4g} ms an image against {base:.4g} ms on "
        f"{row.get('latency_device')}, {_threads(row)}"
    )


def _threads(row: Row) -> str:
    told = number(row, "latency_threads")
    return many(int(told), "thread") if told == told else "an unknown number of threads"
