"""The process of a Slurm job: `python -m blip2sweep.slurm.batch_job PACK`. It supervises the worker and handles the
job's signals.

USR2 comes before the wall time ends (`--signal`). The worker then ends after its cell; when the time is up before that,
the cell is given up. The job is requeued (workers/requeue.py) and goes on after the last finished cell. TERM
(preemption, scancel, scontrol requeue) ends the worker at once. The job is not requeued then, because whoever sent TERM
decides about that.
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
from blip2sweep.machine.devices import VISIBLE
from blip2sweep.machine.memory import WORKERS, WORKERS_ON_GPU, workers_on_node
from blip2sweep.machine.processes import settle_user
from blip2sweep.running.slurm_commands import query
from blip2sweep.wire.pack import Settings
from blip2sweep.workers.requeue import request_requeue
from blip2sweep.workers.run_cell import slurm_job
from blip2sweep.workers.signals import END, WALL, WARNING, ending, seconds_left
from blip2sweep.workers.supervisor import Supervisor
from blip2sweep.workers.worker import STOPPED

# The current cell is given up so many seconds before the wall time ends. A worker that does not react is killed ten
# seconds later, and the batch script still has to requeue the job.
GRACE = 15.0


def main(argv: list[str]) -> int:
    """Run a pack. Returns the exit code of its worker."""
    settle_user()
    try:
        supervisor = Supervisor(Path(argv[0]), {}, part=task_part())
        settings = supervisor.pack["settings"]
        spread = any(job["model"].get("device_map") for job in supervisor.pack["cells"])
        supervisor.env = task_env(settings.get("processes", 1), spread)
        listen(supervisor)
        variables = job_end(settings)
        os.environ.update(variables)
        supervisor.env |= variables
        timer = give_up_in_time(supervisor)
        try:
            code = supervisor.run()
        finally:
            timer.cancel()
    except UserError as error:
        say(f"error: {error}", err=True)
        return 2
    if code == STOPPED and supervisor.reason != "preempted":
        request_requeue(supervisor.reason, supervisor.timeouts, settings.get("max_num_timeout"))
    return code


def listen(supervisor: Supervisor) -> None:
    """Handle the signals. This comes before Slurm is asked anything, which may take a while."""
    signal.signal(signal.SIGUSR2, lambda *_: supervisor.stop(*_usr2_means()))
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop(signal.SIGTERM, "preempted"))


def give_up_in_time(supervisor: Supervisor) -> threading.Timer:
    """A started timer that gives the current cell up shortly before Slurm would kill it."""
    timer = threading.Timer(max(1.0, min(seconds_left() - GRACE, 1e8)), supervisor.stop, (signal.SIGTERM, "timeout"))
    timer.daemon = True
    timer.start()
    return timer


def _usr2_means() -> tuple[int, str]:
    """(signal for the worker, reason). Near the end of the wall time the cell may still finish; after a notice of
    preemption it may not."""
    return (signal.SIGUSR2, "timeout") if ending() else (signal.SIGTERM, "notice")


def task_part() -> str:
    """The share of the pack that this task of the job runs: `rank/tasks`."""
    return f"{os.environ.get('SLURM_PROCID', '0')}/{os.environ.get('SLURM_NTASKS', '1')}"


def task_env(processes: int = 1, spread: bool = False) -> dict[str, str]:
    """The worker's environment. Tasks that see the same GPUs take one each, or equal shares where a cell has several
    processes or a model takes all GPUs that it sees (spread)."""
    env, gpus = dict(os.environ), [g for g in os.environ.get(VISIBLE, "").split(",") if g]
    local, tasks = int(os.environ.get("SLURM_LOCALID", 0)), int(os.environ.get("SLURM_NTASKS", 1))
    if processes > 1:
        env[WORKERS] = str(workers_on_node() * processes)
    if tasks > 1 and len(gpus) > 1 and not ((processes > 1 or spread) and gpus_on_node() > len(gpus)):
        size = max(1, len(gpus) // tasks) if processes > 1 or spread else 1
        first = local * size % len(gpus)
        env[VISIBLE] = ",".join(gpus[first : first + size])
    return {**env, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", WORKERS_ON_GPU: str(tasks_on_gpu(gpus))}


def tasks_on_gpu(gpus: list[str]) -> int:
    """How many of the job's tasks use this task's GPU. With `gpus_per_task` each task sees one GPU only; the job's
    number of GPUs on the node tells that from one GPU for all tasks."""
    return math.ceil(workers_on_node() / max(1, len(gpus), gpus_on_node()))


def gpus_on_node() -> int:
    """The GPUs of the job on this node, also those that this task does not see. 0 where Slurm does not say."""
    on_node = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return int(on_node) if on_node.isdigit() else 0


# ---- wall time


def job_end(settings: Settings) -> dict[str, str]:
    """Variables that say when this job ends (time.time() of this host) and how long it was. Without a limit they are
    not set.

    When Slurm does not answer, the requested wall time counts. Without any, USR2 at the end would be taken for a notice
    of preemption, and such requeues have no limit.
    """
    variables = {WARNING: str(settings.get("signal_delay_s") or 0)}
    reply = query("squeue", "-h", "-j", slurm_job() or "", "-o", "%L")
    answer = reply.out.strip() if reply else ""
    seconds = parse_left(answer) if answer else 60.0 * (settings.get("timeout_min") or 0) or None
    return variables if seconds is None else {**variables, END: str(time.time() + seconds), WALL: str(seconds)}


def parse_left(text: str) -> float | None:
    """Seconds from squeue's `[days-][hours:]minutes:seconds`; None for UNLIMITED and other words."""
    days, _, clock = text.strip().rpartition("-")
    try:
        parts = [int(x) for x in clock.split(":")]
        seconds = sum(x * 60**i for i, x in enumerate(reversed(parts)))
        return float(int(days or 0) * 86400 + seconds)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
