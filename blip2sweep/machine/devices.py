"""Which devices there are, their names, and how workers and their processes divide GPUs. No torch here."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from blip2sweep.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """The GPUs' names for CUDA_VISIBLE_DEVICES, found without importing torch."""
    if VISIBLE in os.environ:
        return [g for g in os.environ[VISIBLE].split(",") if g and g != "-1"]
    return [str(i) for i, line in enumerate(_nvidia_smi("-L")) if line.startswith("GPU ")]


class Devices(NamedTuple):
    """The names of a machine's devices, as torch has them too. gpus: of each kind once; empty where none is visible."""

    gpus: tuple[str, ...]
    cpu: str


def devices_here() -> Devices:
    """The devices of this machine."""
    listed = _nvidia_smi("--query-gpu=name", "--format=csv,noheader") if visible_gpus() else []
    return Devices(tuple(dict.fromkeys(line.strip() for line in listed)), cpu_name())


def _nvidia_smi(*asked: str) -> list[str]:
    """The lines of its answer; [] where there is none."""
    try:
        said = subprocess.run(["nvidia-smi", *asked], capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.SubprocessError):
        return []
    return said.stdout.splitlines()


@lru_cache
def cpu_name() -> str:
    """The processor's name where Linux says it, otherwise its architecture.

    Kernels are chosen by it and round differently.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine() or "cpu"


def divided(gpus: Sequence[str], count: int) -> list[str]:
    """`count` equal groups of neighbouring GPUs, each as CUDA_VISIBLE_DEVICES has it; [] where there are none.

    Raises UserError where they cannot be divided.
    """
    if len(gpus) % count:
        raise UserError(
            f"hydra.launcher.processes_per_cell={count}: {len(gpus)} GPUs are visible here ({','.join(gpus)}); right: a "
            f"number of processes that divides them"
        )
    size = len(gpus) // count
    return [",".join(gpus[i : i + size]) for i in range(0, len(gpus), size)] if size else []


def groups(gpus: Sequence[str], workers: int | None, processes: int, spread: bool) -> list[str]:
    """The GPUs of each worker on this machine, as CUDA_VISIBLE_DEVICES has them; [] where there are none.

    workers: None: as many as the GPUs allow. processes: of each cell. spread: a model takes all GPUs that its process
    sees (`model.device_map`). Raises UserError where several processes a cell, or such models, cannot have equal groups.
    """
    if not gpus or (processes == 1 and not spread):
        return list(gpus)
    count = workers or (1 if spread else max(1, len(gpus) // processes))
    needed, there = count * processes, len(gpus)
    if (there % needed if spread else there != needed) or there < needed:
        right = f"a multiple of {needed}" if spread else str(needed)
        setting = f"processes_per_cell={processes}" if processes > 1 else f"workers={count}"
        raise UserError(
            f"hydra.launcher.{setting}: {count} worker{'s' * (count > 1)} of {processes} process"
            f"{'es' * (processes > 1)}, and {there} GPU{'s' * (there > 1)}; right: {right} GPUs in {VISIBLE}, or as many "
            f"workers and processes as they allow"
        )
    return divided(gpus, count)
