"""Runs one cell: start, evaluate, write predictions, commit. Every way in which that can end writes a line of the
ledger. Scoring happens in another process."""

from __future__ import annotations

import os
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

from blip2sweep import outside
from blip2sweep.backends.backend import Answered
from blip2sweep.chat.asking import Lacking
from blip2sweep.chat.client import ChatError
from blip2sweep.console.printing import say as printed
from blip2sweep.errors import UserError
from blip2sweep.files import is_disk_full, write_noted
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.machine.processes import born
from blip2sweep.results.ledger import Attempts, Journal, Ledger
from blip2sweep.results.predictions import second_run, stem, write_predictions
from blip2sweep.results.scoring_process import ScoringProcess
from blip2sweep.wire.lines import WAITING, AttemptId, Failure, Note, WorkerFailure
from blip2sweep.wire.pack import CellJob, Columns, PackName
from blip2sweep.workers.death import ProcessFailed
from blip2sweep.workers.signals import Stop, Stopped

MARKER = "[blip2sweep]"
# After these errors a CUDA context is unusable: whatever the process does next fails too.
BROKEN_DEVICE = ("device-side assert", "illegal memory access", "unspecified launch failure", "misaligned address",
                 "illegal instruction", "CUDA error: unknown error", "uncorrectable ECC")  # fmt: skip
Run = Callable[[CellJob], Answered]


OUT_OF_TIME: Failure = {"kind": "timeout", "error": "not finished within the job's wall time", "traceback": ""}


class DeviceBroken(Exception):
    """The process can compute nothing more. The failure of its cell is in the ledger."""


def run_cell(
    job: CellJob, run: Run, journal: Journal, pack: PackName, stop: Stop, ledger: Ledger | None = None
) -> str | None:
    """The name of the committed predictions; None when the cell failed or waits for a chat model. ledger: shows what
    others did with the cell meanwhile, which the result then says it replaces.

    Raises Stopped when the worker was asked to stop, and DeviceBroken when the process has to end.
    """
    output_dir, start = Path(pack["output_dir"]), time.monotonic()
    common: AttemptId = {
        "key": job["key"],
        "sweep": pack["sweep"],
        "run": pack["run"],
        "attempt": uuid.uuid4().hex[:8],
        "job": slurm_job(),
    }
    say(job["key"], "started")
    journal.write("started", **common, process=born())
    try:
        with stop.interruptible():
            answered = run(job)
        name = stem(job["key"], answered.predictions.hash)
        files = write_files(output_dir, name, answered)
    except Stopped as stopped:
        give_up(job, common, journal, stop, stopped.goes_on)
        raise
    except Lacking as lacking:
        journal.write("requeued", **common, reason=WAITING, requests=lacking.requests)
        say(job["key"], f"waits for {lacking.requests} replies of {job['chat']['recipe']['model']}")
        return None
    except Exception as error:  # a failed cell becomes a row; the other cells go on
        # Slurm signals every process of a job. An error after that, as of a data loader's child that ended first, is
        # not the cell's own.
        if stop.now:
            give_up(job, common, journal, stop)
            raise Stopped from error
        broken = any(text in str(error) for text in BROKEN_DEVICE)
        ended = {"fatal": True} if broken else {}  # maybe by another cell, that was computed in its turn
        journal.write("failed", **{**common, "columns": columns(job), **failure(error), **ended})
        say(job["key"], f"failed\n{traceback.format_exc()}")
        if broken:
            raise DeviceBroken from error
        return None
    commit(job, common, answered, files, journal, ledger)
    early = f"stopped at {s['images']} of {s['of']} images, {s['reason']}: " if (s := answered.stopped) else ""
    say(job["key"], f"{early}done in {time.monotonic() - start:.1f} s")
    return name


def unusable(job: CellJob) -> UserError | None:
    """Why the code from outside that a cell was planned with cannot be run here."""
    try:
        outside.take(job.get("outside", {}))
    except UserError as error:
        return error
    return None


def refuse(why: UserError, job: CellJob) -> Answered:
    """In the place of a back end."""
    raise why


def write_files(output_dir: Path, name: str, answered: Answered) -> dict[str, Note]:
    """Write everything that the result line depends on. Returns {kind of file: its note of size, time and checksum}."""
    files = {"predictions": write_predictions(output_dir, name, answered.predictions)}
    for folder, content in answered.artifacts.items():
        if content:
            files[folder] = write_noted(output_dir / folder / f"{name}.json", content)
    baseline_noise = {"": answered.noise} if answered.noise else {}
    for what, second in {**baseline_noise, **answered.calibration_noise}.items():
        files[second_run("", what)[1:]] = write_predictions(output_dir, second_run(name, what), second.predictions)
    return files


def commit(
    job: CellJob, common: AttemptId, answered: Answered, files: dict[str, Note], journal: Journal, ledger: Ledger | None
) -> None:
    """Write the result line, which makes the cell done."""
    attempts = ledger.refresh().attempts.get(job["key"], Attempts()) if ledger else Attempts()
    known = attempts.known_attempts()
    known["starts"] = [a for a in known["starts"] if a != common.get("attempt")]
    floors = {what: second.summary for what, second in answered.calibration_noise.items()}
    journal.write(
        "result",
        **common,
        predictions=answered.predictions.hash,
        files=files,
        **known,
        **({"stopped": answered.stopped} if answered.stopped else {}),
        columns=columns(job),
        **({"noise": answered.noise.summary} if answered.noise else {}),
        layers_changed=answered.layers_changed,
        cost=answered.cost,
        **({"calibration_noise": floors} if floors else {}),
        **answered.provenance,
    )


def give_up(job: CellJob, common: AttemptId, journal: Journal, stop: Stop, goes_on: bool = False) -> None:
    """Record that the cell was stopped. It is requeued, except when it ran out of wall time although it had nearly all
    of a job's: then it failed. goes_on: the next attempt begins where this one ended, so it may need several jobs."""
    if stop.reason == "timeout" and stop.had_whole_wall_time and not goes_on:
        journal.write("failed", **common, columns=columns(job), **OUT_OF_TIME)
    else:
        journal.write("requeued", **common, reason=stop.reason)
    say(job["key"], f"given up: {stop.reason}")


def columns(job: CellJob) -> Columns:
    """The columns of the cell's row that are known before it runs, with the keys of its baseline and its control."""
    known: Columns = {**job["columns"], "baseline": job["baseline"]}
    return {**known, "control": job["control"]} if "control" in job else known


def say(key: str, what: str) -> None:
    """Print a line of the log that `blip2sweep logs KEY` finds."""
    printed(f"{MARKER} {time.strftime('%F %T')} cell {key} {what}", err=True)


class Scoring:
    """Sends committed predictions to the scoring process. What cannot be scored is left to `blip2sweep rescore`."""

    def __init__(self, journal: Journal, output_dir: Path, minutes: float | None, warn: Callable[[str], None]) -> None:
        """minutes: as in ScoringProcess. warn: sends a warning to whoever follows the sweep."""
        self.journal, self.process, self.warn = journal, ScoringProcess(output_dir, minutes), warn
        self._all_scored = True

    def expect(self, job: CellJob) -> None:
        """Read references and start METEOR while the first cell runs."""
        self.process.warm(job["task"])

    def __call__(self, name: str, job: CellJob) -> None:
        """Submit a cell's predictions."""
        self.process.submit(job["key"], name, job["task"], job["baseline"], job.get("control"))
        self._record_unscored()

    def close(self, wait: bool) -> bool:
        """False when something could not be scored. wait: return only when everything is scored or given up."""
        if wait:
            self.process.close()
        self._record_unscored()
        return self._all_scored

    def _record_unscored(self) -> None:
        for key, reason in self.process.unscored():
            self._all_scored = False
            self.journal.write("unscored", key=key, **reason)
            say(key, f"done, not scored: {reason['error']}")
            if reason["kind"] == "timeout":
                self.warn(f"done, not scored: {reason['error']}")


def failure(error: BaseException) -> Failure | WorkerFailure:
    """The fields of a `failed` line: kind, the message's first line, and the traceback."""
    if isinstance(error, ProcessFailed):
        return error.failure
    return {
        "kind": failure_kind(error),
        "error": (str(error).strip().split("\n") or [""])[0][:500] or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error))[-4000:],
    }


def failure_kind(error: BaseException) -> str:
    """`oom`, `disk_full`, `bad_config`, `chat` or `crash`."""
    if isinstance(error, ChatError):
        return "chat"
    if is_out_of_memory(error):
        return "oom"
    if is_disk_full(error):
        return "disk_full"
    return "bad_config" if isinstance(error, UserError) else "crash"


def slurm_job() -> str | None:
    """The id of the surrounding Slurm job: `123_4` in an array, `123` otherwise; None outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
