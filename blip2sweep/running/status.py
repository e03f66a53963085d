"""The state of every cell of a sweep, from the ledger and the queue."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2sweep.compression.quantize import METHODS
from blip2sweep.console.printing import say
from blip2sweep.console.remarks import many, remark
from blip2sweep.errors import UserError
from blip2sweep.files import read_json
from blip2sweep.planning.packs import pack_path
from blip2sweep.recipe.semantics import semantics
from blip2sweep.results.journal_files import PARTIAL
from blip2sweep.results.latency import not_timed, untimed
from blip2sweep.results.ledger import Attempts, Ledger
from blip2sweep.results.stopped import told
from blip2sweep.results.sweeps import Sweep, find_sweep
from blip2sweep.results.table import older
from blip2sweep.results.unscored import not_scored, unscored
from blip2sweep.running.queue import QueueState, queue_state
from blip2sweep.wire.lines import WAITING, FailureLine, ResultLine
from blip2sweep.workers.attempts import retry_mode

UNKNOWN = "neither Slurm nor the host of the sweep could be asked: what is called running or queued may be lost"
STATES = ("done", "running", "queued", WAITING, "lost", "failed")


@dataclass
class Status:
    """states: {key: one of STATES}. failures: {key: its last failure}, for failed cells and for cells that may be tried
    again. stopped: how many of the done cells did not see all images, in words."""

    states: dict[str, str]
    failures: dict[str, FailureLine]
    queue: QueueState
    stopped: str = ""
    at_once: bool = False  # of a sweep that was followed: whether all was done and scored before it began

    def keys(self, *states: str) -> list[str]:
        """The keys of cells in one of these states."""
        return [k for k, s in self.states.items() if s in states]

    @property
    def counts(self) -> Counter[str]:
        """{state: number of cells}."""
        return Counter(self.states.values())

    @property
    def settled(self) -> bool:
        """Whether nothing will change any more."""
        return not self.keys("running", "queued") or not self.queue

    def summary(self, unscored: int = 0) -> str:
        """`12 cells: 3 done (2 stopped, after 18 % of their images; 1 not scored), 1 running, …`."""
        counts = {s: f"{self.counts[s]} {s}" for s in STATES if self.counts[s]}
        more = [self.stopped] if self.stopped else []
        more += [f"{unscored} not scored{' yet' if self.queue.packs else ''}"] if unscored else []
        if more and "done" in counts:
            counts["done"] += f" ({'; '.join(more)})"
        return f"{many(len(self.states), 'cell')}: " + ", ".join(counts.values())


def sweep_status(
    output_dir: Path, sweep: Sweep, ledger: Ledger, queue: QueueState | None = None, packs: PackKeys | None = None
) -> Status:
    """The state of every cell of a sweep.

    The queue is read before the ledger: a process that has ended by then has written all its lines. queue: None reads
    it here. packs: for a caller that asks repeatedly.
    """
    queue = queue_state(sweep, output_dir) if queue is None else queue  # an empty state is false, and still an answer
    ledger.refresh()
    in_packs = (packs or PackKeys()).live_cells(sweep.folder(output_dir), queue)
    states, failures = {}, {}
    for key in sweep.keys:
        attempts = ledger.attempts.get(key) or Attempts()
        failed = sweep.failures(attempts) if attempts.failures else []
        states[key] = "done" if sweep.done(ledger, key) else _state(attempts, failed, sweep, queue, in_packs.get(key))
        if failed and states[key] != "done":
            failures[key] = failed[-1]
    results = (ledger.attempts[k].result for k, state in states.items() if state == "done")
    return Status(states, failures, queue, told(r for r in results if r is not None))


def _state(
    attempts: Attempts, failed: list[FailureLine], sweep: Sweep, queue: QueueState, pack: tuple[str, int] | None
) -> str:
    """The state of a cell without a result. pack: the newest pack with a process that holds the cell.

    An open start may be that of a process that died. So a start of another launch, or of a job that waits for its
    requeue, does not make the cell running.
    """
    runs, waits = {s.get("run") for s in attempts.open}, attempts.waits
    if (pack and queue.packs[pack] == "running" and pack[0] in runs) or (
        not queue.known and runs.intersection(sweep.runs)
    ):
        return "running"
    if pack and not (waits and waits.get("run") == pack[0]) and retry_mode(attempts.failed_in(pack[:1])) != "skip":
        return "queued"
    if waits:
        return WAITING
    if failed:
        return "failed"
    return "lost" if queue.known else "queued"


class PackKeys:
    """The keys of the cells in packs. A pack never changes after it is written, so each is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, list[str]] = {}

    def live_cells(self, folder: Path, queue: QueueState) -> dict[str, tuple[str, int]]:
        """{key: (run, index)} of cells whose pack has a process. folder: the sweep's."""
        found: dict[str, tuple[str, int]] = {}
        for run, index in queue.packs:
            path = pack_path(folder, run, index)
            if path in self._known or path.exists():
                found |= dict.fromkeys(self._keys(path), (run, index))
        return found

    def _keys(self, path: Path) -> list[str]:
        if path not in self._known:
            try:
                self._known[path] = [c["key"] for c in read_json(path)["cells"]]
            except (UserError, KeyError, TypeError) as error:
                remark(f"{path}: not a pack ({error!r}); its cells are left out")
                self._known[path] = []
        return self._known[path]


# ---- printing


def print_status(output_dir: Path, name: str | None) -> None:
    """Print one line of counts, the rate, the failures by kind with their first message, and what to do next."""
    sweep = find_sweep(output_dir, name)
    ledger = Ledger(output_dir, only=sweep.keys, brief=True)
    status = sweep_status(output_dir, sweep, ledger)
    missing = unscored(output_dir, sweep, status.keys("done"))
    say(f"sweep {sweep.name}: {status.summary(len(missing))}")
    late = untimed(ledger, sweep)
    untimed_line = [not_timed(sweep, late)] if late and not status.queue.packs else []
    unscored_line = [not_scored(output_dir, sweep, missing)] if missing and not status.queue.packs else []
    lines = [*pace(sweep, ledger, status), *by_kind(status), *warnings(ledger, sweep), *unscored_line, *untimed_line]
    for line in [*lines, *advice(sweep, status), *forgotten(ledger, status), *earlier(ledger)]:
        say(f"  {line}")


def forgotten(ledger: Ledger, status: Status) -> list[str]:
    """A remark about cells without a result whose result was forgotten."""
    keys = [k for k in status.keys("lost", "failed") if k in ledger.attempts and ledger.attempts[k].hidden]
    return [f"{len(keys)} of them forgotten: `blip2sweep forget --undo {keys[0]}` brings one back"] if keys else []


def earlier(ledger: Ledger) -> list[str]:
    """A remark about results that an earlier version computed. The brief ledger knows only the semantics number of a
    result; results with another number are read whole, and those in half precision, of which some methods have
    another."""
    current = semantics(METHODS)
    other = {r["key"] for r in ledger.results() if r.get("half") or _semantics(r) != current}
    remark_text = older(Ledger(ledger.output_dir, only=other).refresh().results()) if other else None
    return [remark_text] if remark_text else []


def _semantics(result: ResultLine) -> int | None:
    return result["semantics"] if "semantics" in result else result["columns"]["semantics"]


def by_kind(status: Status) -> list[str]:
    """`failed, oom: 3; first: …`, one line for each kind of failure."""
    failed = [status.failures[k] for k in status.keys("failed")]
    kinds = Counter(f["kind"] for f in failed)
    return [
        f"failed, {kind}: {n}; first: {next(f for f in failed if f['kind'] == kind)['error']}"
        for kind, n in kinds.items()
    ]


def warnings(ledger: Ledger, sweep: Sweep) -> list[str]:
    """`on 2 of 16 workers: cache could not be written: …`, for the newest launch. Otherwise only a worker's own log has
    them."""
    workers, workers_by_text = set(), defaultdict(set)
    gone = many(len(ledger.unreadable), "file")
    unread = [f"{gone} of the ledger cannot be read: {PARTIAL}"] if ledger.unreadable else []
    for line in ledger.workers:
        if line["run"] in sweep.runs[-1:]:
            workers.add(worker := (line["pack"], line.get("part")))
            if "warning" in line:
                workers_by_text[line["warning"]].add(worker)
    return [
        *unread,
        *(f"on {len(own)} of {many(len(workers), 'worker')}: {text}" for text, own in workers_by_text.items()),
    ]


def pace(sweep: Sweep, ledger: Ledger, status: Status) -> list[str]:
    """Cells a minute of the newest launch, and the time that the rest will take."""
    left = len(status.keys("running", "queued"))
    times = [r["time"] for r in ledger.results() if r.get("run") in sweep.runs[-1:]]
    if not left or len(times) < 2:
        return []
    rate = len(times) / max(1.0, time.time() - sweep.submissions[-1].created)
    return [f"{rate * 60:.1f} cells a minute, about {duration(left / rate)} left"]


def duration(seconds: float) -> str:
    """`0.2 s`, `45 s`, `12 min`, `3.5 h`."""
    if 0 < seconds < 0.95:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def advice(sweep: Sweep, status: Status) -> list[str]:
    """What is unknown, and which command comes next."""
    lines = [] if status.queue.known else [UNKNOWN]
    lines += [f"Slurm lets {many(n, 'job')} wait: {reason}" for reason, n in status.queue.pending.most_common(3)]
    if status.settled and (when := sweep.submissions[-1].cancelled if sweep.submissions else None):
        lines.append(f"cancelled {time.strftime('%F %T', time.localtime(when))}")
    if waiting := status.keys(WAITING):
        lines.append(
            f"{many(len(waiting), 'cell')} wait{'s' * (len(waiting) == 1)} for a chat model: `blip2sweep ask {sweep.name}` asks it, where there is a network; "
            f"`blip2sweep retry {sweep.name}` then goes on with those that need the model again"
        )
    if status.keys("lost", "failed"):
        lines.append(f"cells without a result and without a job: `blip2sweep retry {sweep.name}` runs them again")
    return lines


def failure_summary(keys: Sequence[str], of: int, failures: Mapping[str, FailureLine], more: str | None = None) -> str:
    """The text `2 of 10 cells failed: 1 oom, 1 lost; first (KEY): …`.

    keys: the cells without a result, at least one. of: the number of cells. more: a text to append.
    """
    kinds = Counter(failures[k]["kind"] if k in failures else "lost" for k in keys)
    counted = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    error = failures[keys[0]]["error"] if keys[0] in failures else "no result"
    told = f"{len(keys)} of {many(of, 'cell')} failed: {counted}; first ({keys[0]}): {error}"
    return f"{told}; {more}" if more else told
