"""One attempt at one cell: start, evaluate, write predictions, commit, score. Every way it can end is a line of the ledger."""

from __future__ import annotations

import os
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

from blip2sweep.backends.backend import Answered
from blip2sweep.console.printing import say as printed
from blip2sweep.errors import UserError
from blip2sweep.files import is_disk_full, write_noted
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.machine.processes import born
from blip2sweep.results.ledger import Attempts, Journal, Ledger
from blip2sweep.results.predictions import second_run, stem, write_predictions
from blip2sweep.results.scoring_process import ScoringProcess
from blip2sweep.wire.lines import AttemptId, Failure, Note
from blip2sweep.wire.pack import CellJob, Columns, PackName
from blip2sweep.workers.signals import Stop, Stopped

MARKER = "[blip2sweep]"
# After these a CUDA context is beyond use: whatever the process does next fails too.
BROKEN_DEVICE = ("device-side assert", "illegal memory access", "unspecified launch failure", "misaligned address",
                 "illegal instruction", "CUDA error: unknown error", "uncorrectable ECC")  # fmt: skip
Run = Callable[[CellJob], Answered]


OUT_OF_TIME: Failure = {"kind": "timeout", "error": "not finished within the job's wall time", "traceback": ""}


class DeviceBroken(Exception):
    """The failure is recorded; this process can compute nothing more."""


def run_cell(
    job: CellJob, run: Run, journal: Journal, pack: PackName, stop: Stop, ledger: Ledger | None = None
) -> str | None:
    """The name of the committed predictions, or None when the cell failed. Raises Stopped when it was given up, and
    DeviceBroken when the process has to end. ledger: of what others have done with the cell meanwhile, which the result says
    that it replaces."""
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
    except Stopped:
        give_up(job, common, journal, stop)
        raise
    except Exception as error:  # every failure of a cell is a row; the others go on
        if (
            stop.now
        ):  # Slurm ends every process of a job: what fails then, a loader's child gone first, is no fault of the cell
            give_up(job, common, journal, stop)
            raise Stopped from error
        journal.write("failed", **common, columns=columns(job), **failure(error))
        say(job["key"], f"failed\n{traceback.format_exc()}")
        if any(words in str(error) for words in BROKEN_DEVICE):
            raise DeviceBroken from error
        return None
    commit(job, common, answered, files, journal, ledger)
    say(job["key"], f"done in {time.monotonic() - start:.1f} s")
    return name


def write_files(output_dir: Path, name: str, answered: Answered) -> dict[str, Note]:
    """Everything that the result line rests on; what each file was when it was written, by what it is."""
    files = {"predictions": write_predictions(output_dir, name, answered.predictions)}
    for folder, content in answered.artifacts.items():
        if content:
            files[folder] = write_noted(output_dir / folder / f"{name}.json", content)
    seconds = {"": answered.noise} if answered.noise else {}
    for what, second in {**seconds, **answered.calibration_noise}.items():
        files[second_run("", what)[1:]] = write_predictions(output_dir, second_run(name, what), second.predictions)
    return files


def commit(
    job: CellJob, common: AttemptId, answered: Answered, files: dict[str, Note], journal: Journal, ledger: Ledger | None
) -> None:
    """Write the result line: from then on the cell is done."""
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
        columns=columns(job),
        **({"noise": answered.noise.summary} if answered.noise else {}),
        layers_changed=answered.layers_changed,
        cost=answered.cost,
        **({"calibration_noise": floors} if floors else {}),
        **answered.provenance,
    )


def give_up(job: CellJob, common: AttemptId, journal: Journal, stop: Stop) -> None:
    """The cell is to be run again by whoever goes on with the pack, unless it had a whole job's time already."""
    if stop.reason == "timeout" and stop.whole_turn:
        journal.write("failed", **common, columns=columns(job), **OUT_OF_TIME)
    else:
        journal.write("requeued", **common, reason=stop.reason)
    say(job["key"], f"given up: {stop.reason}")


def columns(job: CellJob) -> Columns:
    """What the ledger says of the cell itself."""
    return {**job["columns"], "baseline": job["baseline"]}


def say(key: str, what: str) -> None:
    """A line of the log that `blip2sweep logs KEY` finds."""
    printed(f"{MARKER} {time.strftime('%F %T')} cell {key} {what}", err=True)


class Scoring:
    """Has committed predictions scored beside the device. What cannot be scored stays, for `blip2sweep rescore`."""

    def __init__(self, journal: Journal, output_dir: Path, minutes: float | None, warn: Callable[[str], None]) -> None:
        """minutes: as ScoringProcess takes them; warn: tells who follows the sweep."""
        self.journal, self.process, self.warn = journal, ScoringProcess(output_dir, minutes), warn
        self._all = True

    def expect(self, job: CellJob) -> None:
        """Read references and start METEOR while the first cell runs."""
        self.process.warm(job["task"])

    def __call__(self, name: str, job: CellJob) -> None:
        self.process.submit(job["key"], name, job["task"], job["baseline"])
        self._tell()

    def close(self, wait: bool) -> bool:
        """With `wait` everything is scored when it returns. False when something could not be."""
        if wait:
            self.process.close()
        self._tell()
        return self._all

    def _tell(self) -> None:
        for key, told in self.process.unscored():
            self._all = False
            self.journal.write("unscored", key=key, **told)
            say(key, f"done, not scored: {told['error']}")
            if told["kind"] == "timeout":
                self.warn(f"done, not scored: {told['error']}")


def failure(error: BaseException) -> Failure:
    """How the ledger tells a failure: kind, one line, traceback."""
    return {
        "kind": failure_kind(error),
        "error": (str(error).strip().split("\n") or [""])[0][:500] or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error))[-4000:],
    }


def failure_kind(error: BaseException) -> str:
    """`oom`, `disk_full`, `bad_config` or `crash`."""
    if is_out_of_memory(error):
        return "oom"
    if is_disk_full(error):
        return "disk_full"
    return "bad_config" if isinstance(error, UserError) else "crash"


def slurm_job() -> str | None:
    """`123_4` inside a Slurm array, `123` in a job, else None."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
