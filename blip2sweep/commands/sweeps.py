"""`blip2sweep wait, retry, cancel, logs`. They need only the files of a sweep, and may run in any process at any time."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from blip2sweep.cache.disk import FOLDER
from blip2sweep.commands.finish import check_all_done, finish, log_lines
from blip2sweep.commands.other_users import its_commands, owner
from blip2sweep.commands.other_versions import of_other_versions
from blip2sweep.console.printing import one_line, tell
from blip2sweep.errors import SweepFailed, UserError, nearest
from blip2sweep.planning.packs import sweep_jobs
from blip2sweep.results.latency import untimed
from blip2sweep.results.ledger import FAILURES, Ledger, no_garbage
from blip2sweep.results.sweeps import Sweep, find_sweep, list_sweeps
from blip2sweep.results.unscored import not_scored, outdated, scored, unscored
from blip2sweep.running.progress import follow
from blip2sweep.running.queue import SlurmJob, queue_state, queued_jobs, submitter_lives
from blip2sweep.running.slurm_commands import query
from blip2sweep.running.status import UNKNOWN, Status, sweep_status
from blip2sweep.slurm.submit import write_merged
from blip2sweep.wire.lines import WAITING, FailureLine, ResultLine, StartLine
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.run_cell import MARKER
from blip2sweep.workers.signals import term_as_ctrl_c


def wait(output_dir: Path, name: str | None) -> None:
    """Follow a sweep to its end, then collect and print as its launcher would. Raises SweepFailed when cells failed."""
    sweep = find_sweep(output_dir, name)
    if scored(output_dir, sweep):  # nothing to follow: the ledger is read once, as tables need it
        with no_garbage():
            _wait(output_dir, sweep, whole := Ledger(output_dir, measured=True), whole)
    else:
        _wait(output_dir, sweep, Ledger(output_dir, only=sweep.keys, brief=True), None)


def _wait(output_dir: Path, sweep: Sweep, ledger: Ledger, whole: Ledger | None) -> None:
    try:
        status = follow(output_dir, sweep, ledger=ledger, is_scored=whole is not None)
    except KeyboardInterrupt:
        tell(f"\nno longer following; `blip2sweep wait {sweep.name}` comes back")
        raise SystemExit(130) from None
    finish(output_dir, sweep, whole, is_scored=status.at_once)
    check_all_done(output_dir, sweep, ledger, is_scored=status.at_once)


# ---- retry


def retry(output_dir: Path, name: str | None, failed: str | None, then_wait: bool) -> None:
    """Run again the cells without a result and without a live job, or only those that failed in the given ways; without
    such ways also time what is done and was to be timed. Then score the cells that are done and not scored."""
    sweep = find_sweep(output_dir, name)
    ledger = Ledger(output_dir, only=sweep.keys, brief=True)
    status = sweep_status(output_dir, sweep, ledger)
    kinds = failure_kinds(failed)
    if not status.queue.known:
        tell(f"warning: {UNKNOWN}, and is not run again")
    keys = [k for k in status.keys("lost", "failed", WAITING) if kinds is None or _kind(status, k) in kinds]
    late = [] if failed or status.queue else list(untimed(ledger, sweep))
    if not keys and not late:
        return _score_again(output_dir, sweep, status)
    if keys:
        tell(f"sweep {sweep.name}: running {len(keys)} cells again")
    if late:
        tell(f"sweep {sweep.name}: timing {len(late)} cells that are done and not timed")
    keys += late
    jobs = sweep_jobs(sweep.folder(output_dir))
    absent = [k for k in keys if k not in jobs]
    if absent:
        raise UserError(
            f"sweep {sweep.name}: no pack holds {absent[0]}; right: the command the sweep came from: {sweep.command}"
        )
    again = [jobs[k] for k in keys]
    if folder_of := owner(output_dir, sweep):
        said = ", ".join(its_commands(sweep, again))
        tell(f"sweep {sweep.name} is {folder_of}'s: this runs what that folder says, as you: {said}")
    with term_as_ctrl_c():
        if relaunch(again, sweep, output_dir, then_wait):
            finish(output_dir, sweep)
            check_all_done(output_dir, sweep)


def _score_again(output_dir: Path, sweep: Sweep, status: Status) -> None:
    """Score what is done and not scored, for a sweep without a cell to run."""
    missing = unscored(output_dir, sweep, status.keys("done"))
    tell(f"sweep {sweep.name}: nothing to run again ({status.summary(len(missing))})")
    if status.queue.packs:  # who has them in hand scores them
        return
    there = {r["key"] for r in missing}
    older = [r for r in outdated(output_dir, sweep) if r["key"] not in there]
    older += of_other_versions(output_dir, sweep, {*sweep.keys} - there - {r["key"] for r in older})
    if not missing and not older:
        return
    tell(f"scoring {len(missing) + len(older)} cells that are done and not scored")
    failed = _score_older(output_dir, sweep, older) if older else set()
    finish(output_dir, sweep)
    left = unscored(output_dir, sweep)
    failed -= {r["key"] for r in left}
    if left := [*left, *(r for r in older if r["key"] in failed)]:
        raise SweepFailed(not_scored(output_dir, sweep, left))


def _score_older(output_dir: Path, sweep: Sweep, results: Sequence[ResultLine]) -> set[str]:
    """Score results that have score files of earlier scorers; `finish` would count them as scored. Returns the keys of
    those that could not be scored."""
    from blip2sweep.commands.rescore import score_results

    scored_now = score_results(output_dir, results, sweep.asked(), sweep.settings.get("scoring_minutes"))
    if scored_now.failed:
        tell(scored_now.why_not)
    return {*scored_now.failed}


def _kind(status: Status, key: str) -> str:
    if status.states[key] == WAITING:
        return WAITING
    return status.failures[key]["kind"] if key in status.failures else "lost"


def failure_kinds(failed: str | None) -> set[str] | None:
    """`oom,timeout` -> {oom, timeout}."""
    kinds = None if failed is None else {k.strip() for k in failed.split(",") if k.strip()}
    for kind in kinds or ():
        if kind not in FAILURES:
            raise UserError(f"--failed {kind}: no such kind of failure; {nearest(kind, FAILURES)}")
    return kinds


def relaunch(jobs: Sequence[CellJob], sweep: Sweep, output_dir: Path, then_wait: bool) -> bool:
    """Run the jobs as the sweep was last launched. False when they were queued and left running."""
    from blip2sweep.running.local import run_local
    from blip2sweep.slurm.launch import run_slurm

    last = sweep.submissions[-1]
    if "cache_dir" in sweep.settings:  # the folder may have been moved, or the sweep merged from another one
        sweep.settings["cache_dir"] = str((output_dir / FOLDER).resolve())
    if last.kind == "slurm":
        return run_slurm(jobs, sweep, output_dir, {**last.launcher, "wait": then_wait})
    processes = last.launcher.get("processes_per_cell") or 1
    return run_local(jobs, sweep, output_dir, last.launcher.get("workers"), processes)


# ---- cancel


def cancel(output_dir: Path, name: str | None) -> None:
    """End a sweep's processes; what is done is kept."""
    sweep = find_sweep(output_dir, name)
    now = queue_state(sweep, output_dir)
    here = socket.gethostname()
    local = [s.pid for s in sweep.submissions if s.kind == "local" and s.host == here and submitter_lives(s)]
    for pid in {*local, *now.submitters}:
        _end(pid)
    ids = now.jobs if now.known else queued_jobs(sweep)
    _scancel(ids)
    write_merged(mark_cancelled(find_sweep(output_dir, sweep.name)), output_dir)
    elsewhere = {s.host for s in sweep.submissions if s.kind == "local" and s.host != here}
    if not ids and not local and not now.submitters:
        where = f" here; it was started on {', '.join(sorted(elsewhere))}" if elsewhere and not now.known else ""
        tell(f"sweep {sweep.name}: nothing is running{where}")
        return
    tell(f"sweep {sweep.name}: cancelled; `blip2sweep retry {sweep.name}` goes on")


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended by itself
    except PermissionError as error:
        raise UserError(f"process {pid} is another user's; right: who started the sweep cancels it") from error


def mark_cancelled(sweep: Sweep) -> Sweep:
    """Mark every launch that is not yet marked as cancelled. The mark counts also when Slurm cannot be asked any more."""
    for submission in (s for s in sweep.submissions if s.cancelled is None):
        submission.cancelled = time.time()
    return sweep


def _scancel(jobs: Collection[SlurmJob]) -> None:
    """End jobs, each on its own cluster. A job that has already ended is no error."""
    for cluster in {c for c, _ in jobs}:
        ids = sorted(job for c, job in jobs if c == cluster)
        for i in range(0, len(ids), 500):
            said = query("scancel", *ids[i : i + 500], cluster=cluster)
            errors = [x for x in said.err.splitlines() if "Invalid job id" not in x] if said else ["it gives no answer"]
            if errors and (said is None or said.code):
                raise UserError(f"scancel: {' '.join(' '.join(errors).split())}; right: again when Slurm answers")


# ---- logs


def logs(output_dir: Path, key: str) -> str:
    """All that is known of a cell's attempts: how each ended, tracebacks, and what its process wrote meanwhile."""
    sweeps = {s.name: s for s in list_sweeps(output_dir, forgotten=True)}
    ledger = Ledger(output_dir).refresh()
    keys = [k for k in ledger.attempts if k.startswith(key)]
    if len(keys) != 1:
        raise UserError(
            f"{key}: {len(keys) or 'no'} cells that ran have such a key; right: the beginning of one key of `blip2sweep table`"
        )
    attempts = ledger.attempts[keys[0]]
    endings: list[FailureLine | ResultLine] = [*attempts.failures, *([attempts.result] if attempts.result else [])]
    ends = {attempt: e for e in endings if (attempt := e.get("attempt"))}
    starts = sorted(attempts.starts.values(), key=lambda s: s["time"])
    return "\n\n".join("\n".join(_attempt(s, ends.get(s.get("attempt") or ""), sweeps, output_dir)) for s in starts)


def _attempt(
    start: StartLine, end: FailureLine | ResultLine | None, sweeps: dict[str, Sweep], output_dir: Path
) -> Iterator[str]:
    when = time.strftime("%F %T", time.localtime(start["time"]))
    where = f"{start['host']}, process {start['pid']}" + (f", Slurm job {start['job']}" if start.get("job") else "")
    yield one_line(f"== {start['key']} started {when} on {where}, sweep {start.get('sweep')}")
    if end:
        yield one_line(f"   {end['event']}" + (f", {end['kind']}: {end['error']}" if end["event"] == "failed" else ""))
    if end and end["event"] == "failed" and end.get("traceback"):
        yield end["traceback"].rstrip()
    run = start.get("run")
    of_run = (s for s in sweeps.values() if run in s.runs)  # whose name may have changed when it was merged
    sweep = next(of_run, sweeps.get(start.get("sweep") or ""))
    if sweep and run:
        yield from _lines(sweep.logs(output_dir, run), start["key"])


def _lines(folder: Path, key: str) -> Iterator[str]:
    """The lines of the logs from the marker of this cell to that of the next cell."""
    for path in sorted(p for p in folder.glob("*") if p.suffix in (".log", ".out", ".err")):
        inside = False
        for line in log_lines(path):
            if line.startswith(MARKER):
                if not inside and f" cell {key} " in line:
                    yield f"-- {path}"
                inside = f" cell {key} " in line
            if inside:
                yield line
