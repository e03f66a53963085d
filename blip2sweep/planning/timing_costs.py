"""What timing adds to the expected cost of cells: as measured of the same model, else a guess."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from blip2sweep.results.ledger import Ledger
from blip2sweep.wire.pack import CellJob

# Images that are answered while a cell is timed, in the fewest rounds and in the most, and the seconds after which no
# further round begins (blip2sweep/backends/torch/turns.py).
FEWEST, MOST, BUDGET = 950, 1800, 60.0


def with_timing(
    seconds: Mapping[str, float], jobs: Sequence[CellJob], ledger: Ledger, timed: Collection[str], done: Collection[str]
) -> dict[str, float]:
    """{key: seconds} with those of timing.

    seconds: of each cell without it. timed: keys of the cells that are timed. done: of those that are timed and nothing
    else.
    """
    only, wanted, found = set(done), set(timed), dict(seconds)
    known = _measured(ledger) if wanted else {}
    for job in (j for j in jobs if j["key"] in wanted):
        key, model = job["key"], job["columns"]["model"]
        image = seconds[key] / max(1, job["columns"]["samples"])
        timing = known.get(model, max(FEWEST * image, min(BUDGET, MOST * image)))
        found[key] = timing + (0.0 if key in only else seconds[key])
    return found


def _measured(ledger: Ledger) -> dict[str, float]:
    """{model: mean seconds of timing one of its cells}."""
    found: dict[str, list[float]] = {}
    for attempts in ledger.attempts.values():
        model = attempts.result["columns"]["model"] if attempts.result else ""
        found.setdefault(model, []).extend(line["seconds"] for line in attempts.latency.values())
    return {model: fmean(times) for model, times in found.items() if times}
