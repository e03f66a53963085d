"""A training in several processes: this one starts them, waits, and takes over what the first of them made.

Each loads the model and compresses it as this process has, from files in a folder. They find each other by a file in
it, so no port can be taken.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import torch

from blip2sweep.apply.calibration.finished import to_file
from blip2sweep.apply.recovery.kept import from_file
from blip2sweep.errors import UserError
from blip2sweep.machine.stopping import Stopped

if TYPE_CHECKING:
    from blip2sweep.apply.recovery.trainer import Outcome
    from blip2sweep.compression.quantize.prepared import Prepared
    from blip2sweep.wire.model_section import ModelSection
    from blip2sweep.wire.pack import JsonObject
    from blip2sweep.wire.recovery import RecoveryJob

JOB, MEASURED, MADE, STOP, FAILED = "job.json", "measured.safetensors", "made", "stop", "failed.json"
POLL_SECONDS = 0.05
BLOCKED = (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)  # which all processes of a job or terminal get together


class CourseJob(TypedDict):
    """What a process needs to train. folder: of the weights. recipe: the entries before recovery. spec: fields of a
    `Recovery`. checkpoint: a path, or null. name: of the checkpoint. parent: the process that waits. told: whether there
    is a log to tell of it."""

    model: ModelSection
    folder: str
    device: str
    recipe: list[JsonObject]
    recovery: RecoveryJob
    spec: JsonObject
    paths: list[str]
    checkpoint: str | None
    name: str
    parent: int
    told: bool


class _Failure(TypedDict):
    kind: str  # `memory`, `user` or `other`
    error: str


def train_together(
    job: CourseJob, measured: Mapping[str, Mapping[str, Prepared]], count: int, asked: Callable[[], bool]
) -> Outcome:  # fmt: skip
    """What `count` processes have trained together. measured: {kind of step: what calibration made of its layers}.

    Raises what a process raised, and Stopped after `asked`.
    """
    check_devices(job["device"], count)
    with tempfile.TemporaryDirectory(prefix="blip2sweep-recovery-") as name:
        folder = Path(name)
        (folder / JOB).write_text(json.dumps(job))
        for kind, layers in measured.items():
            to_file(folder / f"{kind}.{MEASURED}", layers)
        with _running(folder, count) as processes:
            _wait(folder, processes, asked)
        _check(folder, processes)
        if not (folder / MADE).exists():
            raise Stopped(goes_on=job["checkpoint"] is not None)
        return from_file(folder / MADE, torch.device(job["device"]))


def check_devices(device: str, count: int) -> None:
    """Raise UserError where processes on GPUs have not one each."""
    there = torch.cuda.device_count() if device.startswith("cuda") else count
    if there < count:
        raise UserError(f"recover.processes={count}: this worker has {there} GPUs; right: at most as many")


@contextmanager
def _running(folder: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes. None of them is left when it ends."""
    processes: list[subprocess.Popen[bytes]] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        processes += [_started(folder, rank, count) for rank in range(count)]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _started(folder: Path, rank: int, count: int) -> subprocess.Popen[bytes]:
    own = {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",  # asked for, and not used
    }  # fmt: skip
    command = [sys.executable, "-m", "blip2sweep.apply.recovery.child", str(folder)]
    return subprocess.Popen(command, env={**os.environ, **own})


def _wait(folder: Path, processes: list[subprocess.Popen[bytes]], asked: Callable[[], bool]) -> None:
    """Until all have ended, or one has failed: the others would wait for it."""
    while any(p.poll() is None for p in processes) and not any(p.poll() for p in processes):
        if asked():
            (folder / STOP).touch()
        time.sleep(POLL_SECONDS)


def _check(folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    if (folder / FAILED).exists():
        found = cast("_Failure", json.loads((folder / FAILED).read_text()))
        kinds: dict[str, type[Exception]] = {"memory": MemoryError, "user": UserError}
        raise kinds.get(found["kind"], RuntimeError)(found["error"])
    codes = [p.returncode for p in processes]
    if any(codes):
        raise RuntimeError(f"recover.processes={len(codes)}: a process of the training died (exit codes {codes})")
