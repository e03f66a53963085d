"""One of the processes that train together: `python -m blip2sweep.apply.recovery.child FOLDER` (see several.py)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from blip2sweep.apply.calibration.finished import from_file
from blip2sweep.apply.patch import Patch
from blip2sweep.apply.recovery.course import Course, train
from blip2sweep.apply.recovery.group import Accelerated
from blip2sweep.apply.recovery.kept import to_file
from blip2sweep.apply.recovery.progress import Checkpoints
from blip2sweep.apply.recovery.several import FAILED, JOB, MADE, MEASURED, STOP
from blip2sweep.apply.recovery.teacher import teacher_of
from blip2sweep.compression.recover import DISTILL
from blip2sweep.compression.recover.spec import Recovery
from blip2sweep.compression.step import QUANTIZE
from blip2sweep.console import work_log
from blip2sweep.errors import UserError
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.machine.stopping import Stopped
from blip2sweep.models.load import load
from blip2sweep.recipe.compact import expand
from blip2sweep.tasks.training import planned_training

if TYPE_CHECKING:
    from accelerate import Accelerator

    from blip2sweep.apply.recovery.several import CourseJob
    from blip2sweep.apply.recovery.trainer import Outcome


def main(folder: Path) -> int:
    """0 when all is trained, or when it was asked to stop; 1 when it failed, and why is in a file."""
    job = cast("CourseJob", json.loads((folder / JOB).read_text()))
    if job["told"]:
        work_log.to_stderr()
    try:
        outcome = _trained(folder, job, _together(folder, job["device"]))
    except Stopped:
        return 0
    except Exception as error:
        kind = "memory" if is_out_of_memory(error) else "user" if isinstance(error, UserError) else "other"
        (folder / FAILED).write_text(json.dumps({"kind": kind, "error": str(error) or type(error).__name__}))
        raise
    if os.environ["RANK"] == "0":
        temporary = folder / f"{MADE}.tmp"
        to_file(temporary, outcome)
        temporary.replace(folder / MADE)
    return 0


def _together(folder: Path, device: str) -> Accelerator:
    """Bring the processes together by a file, before accelerate would by a port."""
    from accelerate import Accelerator

    on_cpu = device == "cpu"
    if not on_cpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(
        "gloo" if on_cpu else "nccl", init_method=f"file://{folder / 'group'}",
        rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]),
    )  # fmt: skip
    return Accelerator(cpu=on_cpu)


def _trained(folder: Path, job: CourseJob, accelerator: Accelerator) -> Outcome:
    loaded = load(job["model"], Path(job["folder"]), device=str(accelerator.device))
    spec = Recovery(**job["spec"])  # type: ignore[arg-type]
    teacher = teacher_of(loaded, job["model"]) if spec.loss == DISTILL else None
    measured = {p.name.partition(".")[0]: from_file(p, loaded.device) for p in folder.glob(f"*.{MEASURED}")}
    Patch(loaded).apply(expand(job["recipe"], loaded.anatomy), measured.pop(QUANTIZE), measured)
    course = Course(spec, tuple(job["paths"]), planned_training(job["recovery"]))
    checkpoints = Checkpoints(Path(job["checkpoint"]) if job["checkpoint"] else None, job["name"])

    def asked() -> bool:
        return (folder / STOP).exists() or os.getppid() != job["parent"]

    return train(loaded, course, teacher, Accelerated(accelerator), checkpoints, asked=asked)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
