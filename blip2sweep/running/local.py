"""Runs a sweep on this machine: N workers, each under a supervisor, with one GPU each where there are GPUs."""

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
from blip2sweep.running.queue import QueueState
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.signals import term_as_ctrl_c
from blip2sweep.workers.supervisor import Supervisor


def run_local(jobs: Sequence[CellJob], sweep: Sweep, output_dir: Path, workers: int | None) -> bool:
    """Run the jobs and return when every worker has ended. Ctrl-C ends the workers; finished cells stay. Raises
    UserError when the ledger cannot be written."""
    term_as_ctrl_c()
    gpus = visible_gpus()
    packs = make_packs(jobs, workers or max(1, len(gpus)))
    submission = Submission(new_run(), "local", {"workers": workers}, len(packs))
    paths = write_packs(packs, sweep.folder(output_dir), sweep.name, submission.run, output_dir, sweep.settings)
    # Each reads its pack here, so that an unreadable one is an error before the launch is recorded.
    supervisors = [
        _supervisor(i, path, sweep, submission.run, output_dir, gpus, len(paths)) for i, path in enumerate(paths)
    ]
    sweep.submissions.append(submission)
    sweep.write(output_dir)
    _supervise(supervisors, sweep, submission.run, output_dir)
    return True


def _supervise(supervisors: list[Supervisor], sweep: Sweep, run: str, output_dir: Path) -> None:
    """Run the supervisors in threads and follow the sweep until they end."""
    refused: list[UserError] = []
    threads = [threading.Thread(target=_guarded, args=(s, refused), daemon=True) for s in supervisors]
    for thread in threads:
        thread.start()

    def running_packs() -> QueueState:
        return QueueState(packs={(run, i): "running" for i, t in enumerate(threads) if t.is_alive()})

    try:
        follow(output_dir, sweep, running_packs)
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
    """Run a supervisor. Its UserError, as for a ledger that cannot be written, goes to `refused` and is raised by the
    launch."""
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
    """The environment of worker i of `count`: one GPU, and an equal share of this machine's cores."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // count))
    env = {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TOKENIZERS_PARALLELISM": "false",
        WORKERS: str(count),
    }
    if not gpus:
        return env
    shared = len(range(i % len(gpus), count, len(gpus)))  # workers take GPUs in turn
    return {**env, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)], WORKERS_ON_GPU: str(shared)}


def visible_gpus() -> list[str]:
    """The GPUs' names for CUDA_VISIBLE_DEVICES, found without importing torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [g for g in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if g and g != "-1"]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace", timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
