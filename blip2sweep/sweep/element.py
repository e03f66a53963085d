"""The batch process of a Slurm job: `python -m blip2sweep.sweep.element PACK`. Supervises the worker, hears the signals.

USR2 comes before the wall time ends (`--signal`): the worker ends after its cell, or, when time is up, with it given up;
then the job is requeued and goes on after the last finished cell. TERM (preemption, scancel, scontrol requeue) ends the
worker at once; the job is not requeued by us, because whoever sent it has decided about that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from blip2sweep.errors import UserError
from blip2sweep.sweep.attempt import slurm_job
from blip2sweep.sweep.signals import END, WALL, WARNING, ending, seconds_left
from blip2sweep.sweep.supervise import Supervisor
from blip2sweep.sweep.worker import STOPPED

GRACE = 10.0  # seconds before the end of wall time at which the cell in hand is given up


def main(argv: list[str]) -> int:
    set_end()
    try:
        supervisor = Supervisor(Path(argv[0]), task_env(), part=task_part())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    delay = supervisor.pack["settings"].get("signal_delay_s")
    supervisor.env[WARNING] = os.environ[WARNING] = str(delay or 0)
    timer = listen(supervisor)
    try:
        code = supervisor.run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        timer.cancel()
    if code == STOPPED and supervisor.reason != "preempted":
        requeue(supervisor.pack["settings"])
    return code


def listen(supervisor: Supervisor) -> threading.Timer:
    """Forward the signals; the timer gives the cell in hand up just before Slurm would kill it."""
    timer = threading.Timer(max(1.0, min(seconds_left() - GRACE, 1e8)), supervisor.stop, (signal.SIGTERM, "timeout"))
    timer.daemon = True
    timer.start()
    signal.signal(signal.SIGUSR2, lambda *_: supervisor.stop(*_warned()))
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop(signal.SIGTERM, "preempted"))
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
    return {**env, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


# ---- wall time and requeueing


def set_end() -> None:
    """When this job ends, told to the worker in this host's clock.

    An array's element is named `12_3`: one of them has the array's own id, under which Slurm means all of them.
    """
    seconds = parse_left(_slurm("squeue", "-h", "-j", slurm_job() or "", "-o", "%L"))
    if seconds is not None:
        os.environ[END], os.environ[WALL] = str(time.time() + seconds), str(seconds)


def parse_left(text: str) -> float | None:
    """Seconds from squeue's `[days-][hours:]minutes:seconds`; None for UNLIMITED and the like."""
    days, _, clock = text.strip().rpartition("-")
    try:
        parts = [int(x) for x in clock.split(":")]
        seconds = sum(x * 60**i for i, x in enumerate(reversed(parts)))
        return float(int(days or 0) * 86400 + seconds)
    except ValueError:
        return None


def requeue(settings: dict[str, Any]) -> None:
    """Ask Slurm for another turn, where that is allowed and the number of turns is not used up."""
    turns = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if turns >= (settings.get("max_num_timeout") or 0):
        print(
            f"not requeued after {turns} turns (hydra.launcher.max_num_timeout); `blip2sweep retry` runs what is left",
            file=sys.stderr,
        )
        return
    try:
        done = subprocess.run(["scontrol", "requeue", str(slurm_job())], capture_output=True, text=True)
        said = " ".join(done.stderr.split()) or "requeued"
    except OSError as error:
        said = f"not requeued ({error}); `blip2sweep retry` runs what is left"
    print(f"out of wall time: {said}", file=sys.stderr, flush=True)


def _slurm(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
