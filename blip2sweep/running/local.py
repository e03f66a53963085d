"""Runs a sweep on this machine: N workers, each under a supervisor, one GPU each where there are GPUs."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.machine.memory import WORKERS, WORKERS_ON_GPU
from blip2sweep.planning.packs import make_packs, write_packs
from blip2sweep.results.sweeps import Submission, Sweep, new_run
from blip2sweep.running.progress import follow
from blip2sweep.running.queue import Live
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.signals import term_as_ctrl_c
from blip2sweep.workers.supervisor import Supervisor


def run_local(jobs: Sequence[CellJob], sweep: Sweep, output_dir: Path, workers: int | None) -> bool:
    """Run the jobs. Returns when every worker has ended; Ctrl-C ends them and keeps what is done."""
    term_as_ctrl_c()
    gpus = visible_gpus()
    packs = make_packs(jobs, workers or max(1, len(gpus)))
    submission = Submission(new_run(), "local", {"workers": workers}, len(packs))
    paths = write_packs(packs, sweep.folder(output_dir), sweep.name, submission.run, output_dir, sweep.settings)
    # Each reads its pack: what cannot be read is told before the launch is noted.
    supervisors = [
        _supervisor(i, path, sweep, submission.run, output_dir, gpus, len(paths)) for i, path in enumerate(paths)
    ]
    sweep.submissions.append(submission)
    sweep.write(output_dir)
    _supervise(supervisors, sweep, submission.run, output_dir)
    return True


def _supervise(supervisors: list[Supervisor], sweep: Sweep, run: str, output_dir: Path) -> None:
    refused: list[UserError] = []
    threads = [threading.Thread(target=_guarded, args=(s, refused), daemon=True) for s in supervisors]
    for thread in threads:
        thread.start()

    def alive() -> Live:
        return Live(packs={(run, i): "running" for i, t in enumerate(threads) if t.is_alive()})

    try:
        follow(output_dir, sweep, alive)
    except BaseException:
        for supervisor in supervisors:
            supervisor.stop()
        raise
    finally:
        for thread in threads:
            thread.join(timeout=30)
    if refused:
        raise refused[0]


def _guarded(supervisor: Supervisor, refused: list[UserError]) -> None:
    """A ledger that cannot be written is the sweep's error, not its thread's."""
    try:
        supervisor.run()
    except UserError as error:
        refused.append(error)


def _supervisor(
    i: int, path: Path, sweep: Sweep, run: str, output_dir: Path, gpus: list[str], count: int
) -> Supervisor:
    log = sweep.logs(output_dir, run) / f"{i}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    return Supervisor(path, worker_env(i, gpus, count), log.open("ab"))


def worker_env(i: int, gpus: list[str], count: int) -> dict[str, str]:
    """One GPU each, and this machine's cores shared out."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // count))
    env = {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TOKENIZERS_PARALLELISM": "false",
        WORKERS: str(count),
    }
    if not gpus:
        return env
    shared = len(range(i % len(gpus), count, len(gpus)))  # they are dealt in turn
    return {**env, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)], WORKERS_ON_GPU: str(shared)}


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, found without importing torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [g for g in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if g and g != "-1"]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace", timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
