"""A pack's turns: what a job could not do in its wall time it does in another one, after the last finished cell.

Several worker tasks may share a job. Each ends by itself and, where it leaves work, asks for another turn by a file; the
batch script looks for it when srun has returned, so that all have had their chance, and requeues the job once. Nothing
else lives as long: a task that requeued the job would end the others with their cells in hand.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from blip2sweep.console.printing import say_text
from blip2sweep.wire.lines import WorkerLine

AGAIN = "BLIP2SWEEP_AGAIN"  # the file that asks; on the file system of the logs, which the tasks' containers see too
REST = "`blip2sweep retry` runs what is left"


def before_tasks(folder: Path) -> list[str]:
    """Lines of the batch script between the site's own setup and srun. What fails from there on is not to end it."""
    return [
        f'export {AGAIN}={shlex.quote(str(folder.absolute()))}/"$SLURM_JOB_ID".again',
        f'rm -f "${AGAIN}"',
        "set +e",
    ]


def after_tasks(teardown: Iterable[str]) -> list[str]:
    """Lines after srun, around a site's own ones. The job ends with the tasks' exit code.

    An array's element is named `12_3`: one of them has the array's own id, under which Slurm means all of them.
    """
    return [
        "blip2sweep_code=$?",
        *teardown,
        f'if [ -e "${AGAIN}" ]; then',
        f'  rm -f "${AGAIN}"',
        '  scontrol requeue "${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" 2>&1 ||',
        f"    echo {shlex.quote(f'not requeued; {REST}')}",
        "fi",
        'exit "$blip2sweep_code"',
    ]


def ask(reason: str | None, timeouts: int, most: int | None) -> None:
    """Have the job requeued, unless it ran out of wall time (any reason but a `notice` of preemption) too often.

    timeouts: how many turns before this one did.
    """
    if reason != "notice" and timeouts >= (most or 0):
        _say(
            f"not requeued after running out of wall time {timeouts + 1} times (hydra.launcher.max_num_timeout); {REST}"
        )
        return
    _say("another turn is asked for: " + ("told of preemption" if reason == "notice" else "out of wall time"))
    try:
        Path(os.environ[AGAIN]).touch()
    except (KeyError, OSError) as error:
        _say(f"not requeued ({error}); {REST}")


def out_of_time(workers: Iterable[WorkerLine], run: str, pack: int) -> int:
    """How many turns of a pack ended for lack of wall time, from the ledger's `worker` lines. Slurm's own count has
    preemptions and requeues by an administrator too."""
    return len({w.get("turn") for w in workers if (w["run"], w["pack"], w.get("ended")) == (run, pack, "timeout")})


def this_turn() -> int:
    """How often Slurm has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def _say(text: str) -> None:
    say_text(text, err=True)
