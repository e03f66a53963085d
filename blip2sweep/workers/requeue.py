"""Requeues a Slurm job whose pack is not finished: it then goes on after the last finished cell.

Several worker tasks may share a job. Each ends by itself. A task that leaves work requests a requeue by creating a
file. The batch script looks for the file when srun has returned, after all tasks have ended, and requeues the job once.
A task cannot requeue the job itself, because that would end the other tasks in the middle of their cells.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from blip2sweep.console.printing import say_text
from blip2sweep.wire.lines import WorkerLine

# The variable with the path of the file. It lies beside the logs, which containers of the tasks see too.
REQUEUE_FILE = "BLIP2SWEEP_AGAIN"
REST = "`blip2sweep retry` runs what is left"


def before_tasks(folder: Path) -> list[str]:
    """Lines of the batch script between the site's setup and srun. From there on a failing command does not end the
    script."""
    return [
        f'export {REQUEUE_FILE}={shlex.quote(str(folder.absolute()))}/"$SLURM_JOB_ID".again',
        f'rm -f "${REQUEUE_FILE}"',
        "set +e",
    ]


def after_tasks(teardown: Iterable[str]) -> list[str]:
    """Lines of the batch script after srun and around the site's teardown. The job ends with the exit code of its
    tasks.

    The element `3` of array `12` is named `12_3` for scontrol. Its own job id may be the array's, which would name all
    elements.
    """
    return [
        "blip2sweep_code=$?",
        *teardown,
        f'if [ -e "${REQUEUE_FILE}" ]; then',
        f'  rm -f "${REQUEUE_FILE}"',
        '  scontrol requeue "${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" 2>&1 ||',
        f"    echo {shlex.quote(f'not requeued; {REST}')}",
        "fi",
        'exit "$blip2sweep_code"',
    ]


def request_requeue(reason: str | None, timeouts: int, most: int | None) -> None:
    """Request that the job is requeued. A job that ran out of wall time more than `most` times is not; preemption
    (reason `notice`) does not count.

    timeouts: how many runs of this pack ran out of wall time before this one.
    """
    if reason != "notice" and timeouts >= (most or 0):
        _say(
            f"not requeued after running out of wall time {timeouts + 1} times (hydra.launcher.max_num_timeout); {REST}"
        )
        return
    _say("another turn is asked for: " + ("told of preemption" if reason == "notice" else "out of wall time"))
    try:
        Path(os.environ[REQUEUE_FILE]).touch()
    except (KeyError, OSError) as error:
        _say(f"not requeued ({error}); {REST}")


def count_timeouts(workers: Iterable[WorkerLine], run: str, pack: int) -> int:
    """How many runs of a pack's job ended for lack of wall time, from the ledger's `worker` lines. Slurm's own count
    also contains preemptions, and requeues by an administrator."""
    return len({w.get("turn") for w in workers if (w["run"], w["pack"], w.get("ended")) == (run, pack, "timeout")})


def requeue_count() -> int:
    """How often Slurm has requeued this job so far."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _say(text: str) -> None:
    say_text(text, err=True)
