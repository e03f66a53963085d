"""`blip2sweep ask`: the replies that cells of a sweep wait for, asked where there is a network. No model is loaded.

Each cell's pipeline is run as a worker would run it, with what the vision-language model has said so far. Where nothing is
missing any more, the cell is committed here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from blip2sweep.backends.backend import Answered
from blip2sweep.chat.asking import Asking, Lacking
from blip2sweep.chat.client import ChatError, Client
from blip2sweep.chat.replies import Replies
from blip2sweep.commands.finish import finish
from blip2sweep.commands.other_users import owner
from blip2sweep.console.printing import console, tell
from blip2sweep.errors import SweepFailed, UserError
from blip2sweep.planning.packs import sweep_jobs
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.sweeps import Sweep, find_sweep
from blip2sweep.running.status import sweep_status
from blip2sweep.wire.chat import Endpoint
from blip2sweep.wire.pack import CellJob, PackName
from blip2sweep.workers.in_context import in_context
from blip2sweep.workers.run_cell import run_cell, unusable
from blip2sweep.workers.signals import Stop


@dataclass
class Asked:
    """What came of the cells of a sweep. asked: replies that were asked for here."""

    asked: int = 0
    finished: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)  # these need the vision-language model first


def ask(output_dir: Path, name: str | None, base_url: str | None) -> None:
    """Ask for all that is missing, finish what can be finished, and print what is left to do.

    Raises UserError for a sweep that asks no chat model and for an endpoint that cannot be asked, SweepFailed where it
    gives no reply.
    """
    sweep = find_sweep(output_dir, name)
    jobs = open_jobs(output_dir, sweep)
    endpoint = _endpoint(output_dir, sweep, base_url)
    if not jobs:
        return tell(f"sweep {sweep.name}: nothing to ask, every cell with a chat model is done or running")
    Client(endpoint)  # its errors come before the data is read
    found = Asked()
    try:
        with closing(Journal(output_dir)) as journal:
            _all(jobs, sweep, output_dir, endpoint, journal, found)
    except KeyboardInterrupt:
        tell(f"\n{found.asked} replies are kept; the same command goes on")
        raise SystemExit(130) from None
    except ChatError as error:
        raise SweepFailed(f"{error}; {found.asked} replies are kept, and the same command goes on") from error
    tell(_summary(sweep, found))
    if found.finished:
        finish(output_dir, sweep)


def open_jobs(output_dir: Path, sweep: Sweep) -> list[CellJob]:
    """The jobs of a sweep that ask a chat model, without a result and without a process. Raises UserError where the sweep
    has none at all."""
    jobs = [j for k, j in sweep_jobs(sweep.folder(output_dir)).items() if "chat" in j and k in sweep.keys]
    if not jobs:
        raise UserError(
            f"sweep {sweep.name}: none of its cells asks a chat model; right: a sweep of task=okvqa_incontext"
        )
    status = sweep_status(output_dir, sweep, Ledger(output_dir, only=sweep.keys, brief=True))
    return [j for j in jobs if status.states[j["key"]] not in ("done", "running")]


def _endpoint(output_dir: Path, sweep: Sweep, base_url: str | None) -> Endpoint:
    """The sweep's endpoint. That of another user's folder is not taken: a key would go where that folder says."""
    endpoint = sweep.settings.get("chat") or Endpoint()
    if base_url is not None:
        return {**endpoint, "base_url": base_url}
    if whose := owner(output_dir, sweep):
        raise UserError(
            f"sweep {sweep.name} is {whose}'s, and names {endpoint.get('base_url')}, where your key would go; "
            f"right: --base-url with an endpoint that you trust"
        )
    return endpoint


def _all(
    jobs: list[CellJob], sweep: Sweep, output_dir: Path, endpoint: Endpoint, journal: Journal, found: Asked
) -> None:
    """Go through the cells, with a progress bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(err=True), disable=not sys.stderr.isatty()) as bar:
        for number, job in enumerate(jobs, 1):
            if why := unusable(job):
                raise why
            shown = bar.add_task(f"cell {job['key']} ({number} of {len(jobs)})", total=None)
            client = Client(endpoint)
            told = _progress(bar, shown, found)
            asking = Asking(Replies(output_dir), job["key"], client, endpoint.get("concurrency") or 1, told)
            try:
                answered = in_context(job, None, output_dir, asking, endpoint)
            except Lacking:
                found.unfinished.append(job["key"])
            else:
                commit(job, answered, sweep, output_dir, journal)
                found.finished.append(job["key"])
            bar.remove_task(shown)


def _progress(bar: Progress, shown: TaskID, found: Asked) -> Callable[[int, int], None]:
    def progress(done: int, of: int) -> None:
        found.asked += 1
        bar.update(shown, completed=done, total=of)

    return progress


def commit(job: CellJob, answered: Answered, sweep: Sweep, output_dir: Path, journal: Journal) -> None:
    """Write a cell's result, as a worker of the sweep's last launch would."""
    run = sweep.runs[-1] if sweep.runs else "ask"
    pack = PackName(sweep=sweep.name, run=run, index=0, output_dir=str(output_dir.resolve()))
    ledger = Ledger(output_dir, only={job["key"]})
    if run_cell(job, lambda _: answered, journal, pack, Stop(), ledger) is None:
        raise SweepFailed(f"cell {job['key']}: cannot be written; right: `blip2sweep logs {job['key']}` says why")


def _summary(sweep: Sweep, found: Asked) -> str:
    told = [f"sweep {sweep.name}: {found.asked} replies asked for, {len(found.finished)} cells finished"]
    if found.unfinished:
        n = len(found.unfinished)
        told.append(f"{n} need the vision-language model: `blip2sweep retry {sweep.name}` runs them")
    return "; ".join(told)
