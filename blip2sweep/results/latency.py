"""The newest latency of a cell as columns of its row, and which cells were timed and which not.

A row has the numbers of one device and one number of threads: those that were measured last. It has them for single
images, and for the largest batch that was measured there. The baseline in it is that of the same turns, which is not
the row of the baseline: that was timed at another time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from blip2sweep.results.attempts import Attempts, latency_order
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.lines import LatencyLine, UntimedLine

LOST, PREEMPTED = "lost", "preempted"  # kinds of `untimed` lines
Row = dict[str, object]


def columns(attempts: Attempts) -> Row:
    """The columns of latency; empty for a cell that was never timed."""
    newest = max(attempts.latency.values(), key=latency_order, default=None)
    if newest is None:
        return {}
    there = (newest["device"], newest["threads"])
    alike = sorted((x for place, x in attempts.latency.items() if place[:2] == there), key=lambda x: x["batch"])
    alone = [x for x in alike if x["batch"] == 1]
    largest = [x for x in alike[-1:] if x["batch"] > 1]
    found: Row = {k: v for x in alone for k, v in _numbers(x).items()}
    found |= {f"{k}_batch": v for x in largest for k, v in _numbers(x).items()}
    found |= {"latency_batch": largest[0]["batch"]} if largest else {}
    return {**found, "latency_device": there[0], "latency_threads": there[1]}


def _numbers(line: LatencyLine) -> Row:
    found: Row = {
        "latency_ms_median": line["ms_median"],
        "latency_ms_p90": line["ms_p90"],
        "latency_ms_baseline": line["baseline_ms_median"],
        "latency_ratio": _ratio(line["ms_median"], line["baseline_ms_median"]),
    }
    if "torch_ms_median" in line:
        found |= {"latency_ms_torch": line["torch_ms_median"]}
        found |= {"latency_ratio_torch": _ratio(line["ms_median"], line["torch_ms_median"])}
    if "joules" in line and "baseline_joules" in line:
        found |= {"energy_joules": line["joules"], "energy_ratio": _ratio(line["joules"], line["baseline_joules"])}
    return found


def _ratio(own: float, baseline: float) -> float | None:
    return own / baseline if baseline > 0 else None


def next_generation(attempts: Attempts) -> int:
    """The generation of a further measurement of the cell."""
    return 1 + max((x["generation"] for x in attempts.latency.values()), default=-1)


def is_timed(attempts: Attempts, devices: Collection[str] | None) -> bool:
    """Whether the cell was timed on one of these devices. None: on any."""
    return any(devices is None or device in devices for device, *_ in attempts.latency)


def is_timed_in(attempts: Attempts, run: str) -> bool:
    """Whether the cell was timed in this launch of a sweep."""
    return any(line["run"] == run for line in attempts.latency.values())


def was_tried(attempts: Attempts, run: str) -> bool:
    """Whether this launch tried to time the cell, and was not stopped by another's wish. It tries once: what ends a
    process would end the next one too."""
    kinds = [line["kind"] for line in attempts.untimed if line["run"] == run]
    return len(kinds) > 2 * kinds.count(PREEMPTED)


def left_to_time(ledger: Ledger, sweep: Sweep) -> list[str]:
    """The keys of cells that the newest launch of a sweep has not timed yet, of those that it was to time."""
    attempts, run = ledger.attempts, sweep.runs[-1] if sweep.runs else ""
    return [k for k in sweep.settings.get("latency", ()) if k not in attempts or not is_timed_in(attempts[k], run)]


def untimed(ledger: Ledger, sweep: Sweep) -> dict[str, UntimedLine | None]:
    """{key: why not, where a launch of the sweep knows it} of cells that are done, were to be timed, and are not."""
    there = ((k, ledger.attempts[k]) for k in sweep.settings.get("latency", ()) if sweep.done(ledger, k))
    return {key: _why(attempts, sweep.runs) for key, attempts in there if not attempts.latency}


def not_timed(sweep: Sweep, missing: Mapping[str, UntimedLine | None]) -> str:
    """`2 cells are done and not timed, the first is KEY (reason); right: …`. missing: what `untimed` returned, not
    empty."""
    (key, why), *_ = missing.items()
    told = f" ({why['error']})" if why else ""
    many = f"{len(missing)} cell{'s are' if len(missing) > 1 else ' is'} done and not timed"
    return f"{many}, the first is {key}{told}; right: `blip2sweep retry {sweep.name}` times them"


def _why(attempts: Attempts, runs: Collection[str]) -> UntimedLine | None:
    """The newest reason. One that a process told stands over that of its death."""
    told = [line for line in attempts.untimed if line["run"] in runs]
    return max(told, key=lambda x: (x["kind"] != LOST, x["time"]), default=None)
