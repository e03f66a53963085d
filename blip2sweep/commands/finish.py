"""The end of a sweep: collect, print, track. It is the same after `run`, `wait` and `retry`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from blip2sweep.console.printing import tell
from blip2sweep.console.remarks import remark
from blip2sweep.errors import SweepFailed
from blip2sweep.results.ledger import Ledger, no_garbage
from blip2sweep.results.sweeps import Sweep
from blip2sweep.results.unscored import not_scored, unscored
from blip2sweep.running.status import failure_summary, sweep_status
from blip2sweep.wire.lines import WAITING
from blip2sweep.workers.run_cell import MARKER

if TYPE_CHECKING:
    import pandas as pd

# A line about an error that ended a process: ours, Slurm's, or the last of a traceback.
ERROR = re.compile(r"error: |slurmstepd: error: |[A-Za-z_.]*(Error|Exception)(: |$)")


def finish(
    output_dir: Path, sweep: Sweep, ledger: Ledger | None = None, printed: bool = True, is_scored: bool = False
) -> pd.DataFrame:
    """Write the tables, print that of the sweep, and send it where it is tracked. Returns the sweep's table.

    ledger: as `collect` takes it. printed: whether the table is printed. is_scored: whether every cell was found to be.
    """
    from blip2sweep.reporting.dropoff import draw_dropoff
    from blip2sweep.reporting.terminal import print_sweep
    from blip2sweep.reporting.tracking import track
    from blip2sweep.reporting.wandb_places import mode_of, offline_runs
    from blip2sweep.results.collect import collect
    from blip2sweep.results.table import older_rows

    with no_garbage():
        score_missing(output_dir, sweep, is_scored)
        table = collect(output_dir, sweep, ledger=ledger)
        current = table[~table["stale"]] if len(table) and table["stale"].any() else table
        picture = draw_dropoff(current, sweep.folder(output_dir) / "dropoff.png") if len(current) else None
        if earlier := older_rows(Counter(table.loc[table["stale"], "semantics"].astype(int))) if len(table) else None:
            tell(earlier)
        if printed and (len(current) or not len(table)):
            print_sweep(current, sweep, output_dir, picture)
    if sweep.tracking.get("name"):
        settings = {**sweep.tracking, "mode": mode_of(sweep.tracking)}
        track(output_dir, sweep, current, settings)
        for line in offline_runs(output_dir, settings):
            tell(line)
    return table


def check_all_done(output_dir: Path, sweep: Sweep, ledger: Ledger | None = None, is_scored: bool = False) -> None:
    """Raise SweepFailed, with a summary by kind of failure, where a cell has no result. ledger: as `follow` left it.
    is_scored: as `finish` takes it."""
    status = sweep_status(output_dir, sweep, ledger or Ledger(output_dir, only=sweep.keys, brief=True))
    gone = [k for k, state in status.states.items() if state not in ("done", WAITING)]
    if waiting := status.keys(WAITING):
        tell(f"{len(waiting)} of {len(sweep.keys)} cells wait for a chat model; right: {ask_for(sweep)}")
    if gone:
        more = why_lost(output_dir, sweep) or f"right: `blip2sweep retry {sweep.name}` runs them again"
        raise SweepFailed(failure_summary(gone, len(sweep.keys), status.failures, more))
    if missing := [] if is_scored else unscored(output_dir, sweep):
        raise SweepFailed(not_scored(output_dir, sweep, missing))


def ask_for(sweep: Sweep) -> str:
    """What gives the cells of a sweep the replies that they wait for."""
    return f"`blip2sweep ask {sweep.name}`, where there is a network"


def score_missing(output_dir: Path, sweep: Sweep, is_scored: bool = False) -> int:
    """Score the results of workers that ended before they could score them, and those that are scored by a rule with
    another version of what is installed. Returns the number of results."""
    from blip2sweep.commands.other_versions import of_other_versions

    lacking = [] if is_scored else unscored(output_dir, sweep)
    there = {r["key"] for r in lacking}
    missing = [*lacking, *of_other_versions(output_dir, sweep, sweep.asked().keys() - there)]
    if missing:
        from blip2sweep.commands.rescore import score_results

        try:
            scored = score_results(output_dir, missing, sweep.asked(), sweep.settings.get("scoring_minutes"))
        except Exception as error:  # the table is written all the same, and the sweep then fails for want of scores
            tell(f"not scored: {' '.join(str(error).split())[:300]}")
        else:
            if scored.failed:
                tell(scored.why_not)
    return len(missing)


def why_lost(output_dir: Path, sweep: Sweep) -> str | None:
    """Why workers failed: the last error in the logs of the newest launch that belongs to no cell.

    Where no worker ever wrote a line, a note says so. Returns None where nothing explains the failure.
    """
    run = sweep.runs[-1] if sweep.runs else ""
    if not run:
        return None
    folder = sweep.logs(output_dir, run)
    said = [line for path in sorted(folder.glob("*")) if path.is_file() for line in _errors(path)]
    if any(w["run"] == run for w in Ledger(output_dir, only=()).refresh().workers):
        return f"the workers' logs say: {said[-1]}" if said else None
    if said:
        return f"no worker could begin: {said[-1]}"
    return f"no worker wrote to {output_dir} or to {folder}: is output_dir on a file system that the nodes share?"


def _errors(path: Path) -> list[str]:
    """The last line of a log about an error that no cell wrote."""
    if path.suffix not in (".out", ".err", ".log"):
        return []
    found, of_cell = [], False
    for line in log_lines(path):
        if line.startswith(MARKER):
            of_cell = line.endswith(" failed")
        elif line.startswith("error: ") or (ERROR.match(line) and not of_cell):
            found.append(line.strip())
    return found[-1:]


def log_lines(path: Path) -> list[str]:
    """The text of a log. A log of another user that cannot be read is named instead."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError as error:
        remark(f"{path}: cannot be read ({error.strerror})")
        return []
