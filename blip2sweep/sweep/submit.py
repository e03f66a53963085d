"""Submits a sweep's packs as Slurm arrays, through submitit's executor with hydra-submitit-launcher's setting names."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip2sweep.errors import UserError
from blip2sweep.sweep.finish import say
from blip2sweep.sweep.live import mark
from blip2sweep.sweep.sweeps import Submission, Sweep, submissions_of
from blip2sweep.sweep.turns import after_tasks, before_tasks

# What is ours in the launcher's settings; all others are sbatch's, under submitit's names.
OURS = ("pack_minutes", "max_packs", "wait", "max_num_timeout")
# Limits on how many jobs may be queued. Slurm's text for any accounting limit speaks of a "job submit limit" too, and
# stands alone where wall time or memory is too large: that one never passes by itself.
LIMITS = re.compile(
    r"(QOS|Assoc)(Max|Grp)Submit\w*|MaxSubmitJobs|MaxJobCount|temporarily unable to accept", re.IGNORECASE
)
# A site may have srun end all tasks of a job when one fails or some time after the first has ended; ours are independent.
EACH_BY_ITSELF = ("--kill-on-bad-exit=0", "--wait=0")
LIMIT_SECONDS, LONGEST_WAIT = 2.0, 60.0  # between two tries while a limit is met; doubled each time
NO_SLURM = (
    "no Slurm here: {} is not installed; right: run this on the cluster's login node, or leave hydra/launcher=slurm out"
)


def exec_pack(pack: str) -> None:
    """The submitted function: this process becomes our own, so that its signals and exit code are ours."""
    os.execv(sys.executable, [sys.executable, "-m", "blip2sweep.sweep.element", pack])


def submit(paths: Sequence[Path], submission: Submission, sweep: Sweep, output_dir: Path) -> None:
    """Queue every pack. Raises UserError with Slurm's words, and leaves nothing behind, when the first is refused."""
    folder, first = sweep.logs(output_dir, submission.run), 0
    size, pause = array_size(), LIMIT_SECONDS
    launcher = throttled(submission.launcher, len(paths), size)
    while first < len(paths):
        try:
            job = _submit_array(paths[first : first + size], launcher, folder, mark(submission.run, first))
        except LimitMet as limit:  # an array as long as the limit never fits: shorter ones do, sooner or later
            _remove_pickles(folder)
            size = min(size, len(paths) - first)
            if size > 1:
                size //= 2
                continue
            say(f"Slurm accepts no more jobs now ({limit}); trying again in {pause:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_WAIT)
            continue
        except UserError as error:
            if not submission.arrays:
                raise
            raise UserError(
                f"{error}; {first} of {len(paths)} packs are queued: `blip2sweep retry {sweep.name}` queues the rest"
            ) from error
        submission.arrays.append({"job": job, "first": first, "count": min(size, len(paths) - first)})
        note(sweep, output_dir)
        first, pause = first + size, LIMIT_SECONDS


def note(sweep: Sweep, output_dir: Path) -> None:
    """Write the sweep with what others, as a `retry`, have launched of it since it was read: submitting may take hours."""
    known = set(sweep.runs)
    others = [s for s in submissions_of(output_dir, sweep.name) if s.run not in known]
    sweep.submissions = sorted([*sweep.submissions, *others], key=lambda s: s.created)
    sweep.write(output_dir)


class LimitMet(Exception):
    """Slurm's words when so many jobs may not be queued now."""


def throttled(launcher: dict[str, Any], packs: int, size: int) -> dict[str, Any]:
    """The launcher's settings for arrays of at most `size` packs: Slurm bounds how many of one array run at a time, and
    several arrays run beside each other."""
    arrays, slots = math.ceil(packs / size), launcher.get("array_parallelism")
    return {**launcher, "array_parallelism": max(1, slots // arrays)} if slots and arrays else launcher


def _submit_array(paths: Sequence[Path], launcher: dict[str, Any], folder: Path, comment: str) -> str:
    """One array; the job's id. Raises LimitMet, or UserError with Slurm's words."""
    executor = make_executor(launcher, folder, comment)
    try:
        jobs = executor.map_array(exec_pack, [str(p.resolve()) for p in paths])
        return str(jobs[0].job_id).partition("_")[0]
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        if LIMITS.search(reason):
            raise LimitMet(reason) from error
        raise UserError(f"Slurm refused the jobs: {reason}; {hint(reason)}") from error


def make_executor(launcher: dict[str, Any], folder: Path, comment: str) -> Any:
    """submitit's SlurmExecutor with the launcher's settings."""
    from submitit.slurm.slurm import SlurmExecutor

    settings = {k: v for k, v in launcher.items() if k not in OURS and v is not None}
    renamed = {"name": "job_name", "timeout_min": "time", "tasks_per_node": "ntasks_per_node"}
    require("sbatch", "srun")
    executor = SlurmExecutor(folder, python=sys.executable)
    settings["setup"] = [*settings.get("setup", ()), *before_tasks(folder)]
    settings["teardown"] = after_tasks(settings.get("teardown", ()))
    settings["srun_args"] = [*EACH_BY_ITSELF, *settings.get("srun_args", ())]
    try:
        if "mem_gb" in settings:
            settings["mem"] = f"{int(settings.pop('mem_gb') * 1024)}MB"
        executor.update_parameters(**{"comment": comment} | {renamed.get(k, k): v for k, v in settings.items()})
    except (TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"hydra.launcher: {said}; right: names and types of conf/hydra/launcher/slurm.yaml") from error
    return executor


def sbatch_script(launcher: dict[str, Any], packs: int, logs: Path) -> str:
    """What sbatch would be given for an array of so many packs; logs: the output folder's."""
    from submitit.slurm.slurm import _make_sbatch_string

    executor = make_executor(launcher, logs / "SWEEP" / "RUN", mark("RUN", 0))
    size = {"map_count": packs} if packs > 1 else {}
    return str(
        _make_sbatch_string(
            command=executor._submitit_command_str, folder=executor.folder, **executor.parameters, **size
        )
    )


def refusal(error: BaseException) -> str | None:
    """Slurm's own words in an error of submitit's; None when it is about something else."""
    text = str(error)
    lines = [
        x.split("error:", 1)[1].strip()
        for x in text.splitlines()
        if "sbatch: error:" in x or "sbatch: fatal:" in x or ("slurm_load" in x and "error:" in x)
    ]
    if not lines:
        return None
    return "; ".join(dict.fromkeys(x.removeprefix("Batch job submission failed: ") for x in lines))


def hint(reason: str) -> str:
    """Which setting the refusal is about."""
    words = {"partition": "hydra.launcher.partition", "generic resource": "hydra.launcher.gpus_per_node (null where there is no gres)",
             "gres": "hydra.launcher.gres, gpus_per_node", "account": "hydra.launcher.account", "qos": "hydra.launcher.qos",
             "time limit": "hydra.launcher.timeout_min", "memory": "hydra.launcher.mem_gb", "node": "hydra.launcher.gpus_per_node, mem_gb, cpus_per_task"}  # fmt: skip
    found = next((key for word, key in words.items() if word in reason.lower()), "the settings of hydra.launcher")
    return f"right: {found}"


def array_size() -> int:
    """The most elements of one array: MaxArraySize bounds the highest index."""
    require("scontrol")
    try:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"Slurm does not answer: scontrol show config ({error})") from error
    if shown.returncode:
        raise UserError(
            f"Slurm does not answer: {' '.join(shown.stderr.split())}; right: a login node of a running cluster"
        )
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown.stdout)
    return max(1, int(found[1])) if found else 1001


def require(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            raise UserError(NO_SLURM.format(command))


def _remove_pickles(folder: Path) -> None:
    """submitit leaves these behind when sbatch refuses."""
    for path in [*folder.glob("*.pkl"), *folder.glob(".submission_file_*")]:
        if re.fullmatch(r"[0-9a-f]{32}\.pkl", path.name) or (
            path.name.startswith(".submission") and not path.is_symlink()
        ):
            path.unlink(missing_ok=True)
