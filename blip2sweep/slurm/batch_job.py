"""The batch process of a Slurm job: `python -m blip2sweep.slurm.batch_job PACK`. Supervises the worker, hears the signals.

USR2 comes before the wall time ends (`--signal`): the worker ends after its cell, or, when time is up, with it given up;
then the job is requeued (see turns.py) and goes on after the last finished cell. TERM (preemption, scancel, scontrol requeue) ends the
worker at once; the job is not requeued by us, because whoever sent it has decided about that.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path

from blip2sweep.console.printing import say
from blip2sweep.errors import UserError
from blip2sweep.machine.memory import WORKERS_ON_GPU, workers_on_node
from blip2sweep.machine.processes import settle_user
from blip2sweep.running.slurm_commands import query
from blip2sweep.wire.pack import Settings
from blip2sweep.workers.requeue import ask
from blip2sweep.workers.run_cell import slurm_job
from blip2sweep.workers.signals import END, WALL, WARNING, ending, seconds_left
from blip2sweep.workers.supervisor import Supervisor
from blip2sweep.workers.worker import STOPPED

# Seconds before the end of wall time at which the cell in hand is given up: a worker that hears nothing is killed ten
# seconds later, and the batch script still has to requeue the job.
GRACE = 15.0


def main(argv: list[str]) -> int:
    settle_user()
    try:
        supervisor = Supervisor(Path(argv[0]), task_env(), part=task_part())
        settings = supervisor.pack["settings"]
        listen(supervisor)
        told = job_end(settings)
        os.environ.update(told)
        supervisor.env |= told
        timer = give_up_in_time(supervisor)
        try:
            code = supervisor.run()
        finally:
            timer.cancel()
    except UserError as error:
        say(f"error: {error}", err=True)
        return 2
    if code == STOPPED and supervisor.reason != "preempted":
        ask(supervisor.reason, supervisor.timeouts, settings.get("max_num_timeout"))
    return code


def listen(supervisor: Supervisor) -> None:
    """Forward the signals: before Slurm is asked anything, which may take a while."""
    signal.signal(signal.SIGUSR2, lambda *_: supervisor.stop(*_warned()))
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop(signal.SIGTERM, "preempted"))


def give_up_in_time(supervisor: Supervisor) -> threading.Timer:
    """A timer that gives the cell in hand up just before Slurm would kill it."""
    timer = threading.Timer(max(1.0, min(seconds_left() - GRACE, 1e8)), supervisor.stop, (signal.SIGTERM, "timeout"))
    timer.daemon = True
    timer.start()
    return timer


def _warned() -> tuple[int, str]:
    """Near the end the cell in hand may still finish; a notice of preemption leaves it no time."""
    return (signal.SIGUSR2, "timeout") if ending() else (signal.SIGTERM, "notice")


def task_part() -> str:
    """Which share of the pack this task of the job has: `rank/tasks`."""
    return f"{os.environ.get('SLURM_PROCID', '0')}/{os.environ.get('SLURM_NTASKS', '1')}"


def task_env() -> dict[str, str]:
    """Several tasks that see the same GPUs take one each."""
    env, gpus = dict(os.environ), [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
    local, tasks = int(os.environ.get("SLURM_LOCALID", 0)), int(os.environ.get("SLURM_NTASKS", 1))
    if tasks > 1 and len(gpus) > 1:
        env["CUDA_VISIBLE_DEVICES"] = gpus[local % len(gpus)]
    return {**env, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", WORKERS_ON_GPU: str(tasks_on_gpu(gpus))}


def tasks_on_gpu(gpus: list[str]) -> int:
    """How many of the job's tasks compute on this one's GPU. With `gpus_per_task` each sees its own alone; how many the
    job has on the node tells that from one GPU for all."""
    on_node = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return math.ceil(workers_on_node() / max(1, len(gpus), int(on_node) if on_node.isdigit() else 0))


# ---- wall time


def job_end(settings: Settings) -> dict[str, str]:
    """Variables that tell when this job ends, in this host's clock. Nothing where there is no limit.

    Where Slurm does not answer, the wall time that was asked for counts: without any, USR2 at its end would be taken for
    a notice of preemption, and such turns are not counted.
    """
    told = {WARNING: str(settings.get("signal_delay_s") or 0)}
    said = query("squeue", "-h", "-j", slurm_job() or "", "-o", "%L")
    answer = said.out.strip() if said else ""
    seconds = parse_left(answer) if answer else 60.0 * (settings.get("timeout_min") or 0) or None
    return told if seconds is None else {**told, END: str(time.time() + seconds), WALL: str(seconds)}


def parse_left(text: str) -> float | None:
    """Seconds from squeue's `[days-][hours:]minutes:seconds`; None for UNLIMITED and the like."""
    days, _, clock = text.strip().rpartition("-")
    try:
        parts = [int(x) for x in clock.split(":")]
        seconds = sum(x * 60**i for i, x in enumerate(reversed(parts)))
        return float(int(days or 0) * 86400 + seconds)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
