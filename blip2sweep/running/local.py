"""Runs a sweep on this machine: N workers, each under a supervisor, with GPUs of their own where there are GPUs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from blip2sweep.errors import UserError
from blip2sweep.machine.devices import VISIBLE, groups, visible_gpus
from blip2sweep.machine.memory import WORKERS, WORKERS_ON_GPU
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.packs import make_packs, write_packs
from blip2sweep.planning.processes import check_divisible
from blip2sweep.results.sweeps import Submission, Sweep, new_run
from blip2sweep.running.progress import follow
from blip2sweep.running.queue import QueueState
from blip2sweep.wire.launcher import Launcher
from blip2sweep.wire.model_section import ModelSection
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.supervisor import Supervisor


def run_local(jobs: Sequence[CellJob], sweep: Sweep, output_dir: Path, workers: int | None, processes: int = 1) -> bool:
    """Run the jobs and return when every worker has ended. Ctrl-C ends the workers; finished cells stay.

    workers: None: as many as the GPUs allow. processes: of each cell. Raises UserError when the ledger cannot be
    written, and where the GPUs cannot be divided.
    """
    gpus = worker_gpus((j["model"] for j in jobs), workers, processes)
    packs = make_packs(jobs, workers or max(1, len(gpus)))
    asked: Launcher = {"workers": workers}
    settings = sweep.settings
    if processes > 1:
        asked, settings = {**asked, "processes_per_cell": processes}, {**settings, "processes": processes}
    submission = Submission(new_run(), "local", asked, len(packs))
    paths = write_packs(packs, sweep.folder(output_dir), sweep.name, submission.run, output_dir, settings)
    # Each reads its pack here, so that an unreadable one is an error before the launch is recorded.
    supervisors = [
        _supervisor(i, path, sweep, submission.run, output_dir, gpus, len(paths)) for i, path in enumerate(paths)
    ]
    sweep.submissions.append(submission)
    sweep.write(output_dir)
    _supervise(supervisors, sweep, submission.run, output_dir)
    return True


def check_local(cells: Iterable[Cell], workers: int | None, processes: int) -> None:
    """Raise UserError where the cells or the GPUs cannot be divided among workers and processes."""
    these = list(cells)
    check_divisible(these, processes)
    worker_gpus((c.model.config for c in these), workers, processes)


def worker_gpus(models: Iterable[ModelSection], workers: int | None, processes: int) -> list[str]:
    """The GPUs of each worker, as CUDA_VISIBLE_DEVICES has them; [] without GPUs. models: of the cells. Raises UserError
    as `groups` does."""
    return groups(visible_gpus(), workers, processes, spread=any(m.get("device_map") for m in models))


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
    supervisor = Supervisor(path, {}, log.open("ab"))
    supervisor.env = worker_env(i, gpus, count, supervisor.pack["settings"].get("processes", 1))
    return supervisor


def worker_env(i: int, gpus: list[str], count: int, processes: int = 1) -> dict[str, str]:
    """The environment of worker i of `count`: its GPUs, and an equal share of this machine's cores for each of its
    processes."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // (count * processes)))
    env = {
        **os.environ,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TOKENIZERS_PARALLELISM": "false",
        WORKERS: str(count * processes),
    }
    if not gpus:
        return env
    shared = len(range(i % len(gpus), count, len(gpus)))  # workers take GPUs in turn
    return {**env, VISIBLE: gpus[i % len(gpus)], WORKERS_ON_GPU: str(shared)}
