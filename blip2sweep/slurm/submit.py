"""Submits a sweep's packs as Slurm arrays: submitit writes the batch script, from hydra-submitit-launcher's settings."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip2sweep.console.printing import tell
from blip2sweep.errors import UserError
from blip2sweep.files import write_atomic
from blip2sweep.results.sweeps import Submission, Sweep, submissions_of
from blip2sweep.running.queue import mark
from blip2sweep.running.slurm_commands import clusters, query, submission_env
from blip2sweep.wire.launcher import Launcher
from blip2sweep.workers.requeue import after_tasks, before_tasks

# What is ours in the launcher's settings; all others are sbatch's, under submitit's names.
OURS = ("pack_minutes", "max_packs", "wait", "max_num_timeout")
# Limits on how many jobs may be queued. Slurm's text for any accounting limit speaks of a "job submit limit" too, and
# stands alone where wall time or memory is too large: that one never passes by itself.
LIMITS = re.compile(
    r"(QOS|Assoc)(Max|Grp)Submit\w*|MaxSubmitJobs|MaxJobCount|temporarily unable to accept", re.IGNORECASE
)
# A site may have srun end all tasks of a job when one fails or some time after the first has ended; ours are independent.
EACH_BY_ITSELF = ("--kill-on-bad-exit=0", "--wait=0")
SUBMITTED = re.compile(r"Submitted batch job (\d+)(?: on cluster (\S+))?")
SUBMIT_SECONDS = 600.0
LIMIT_SECONDS, LONGEST_WAIT = 2.0, 60.0  # between two tries while a limit is met; doubled each time
NO_SLURM = (
    "no Slurm here: {} is not installed; right: run this on the cluster's login node, or leave hydra/launcher=slurm out"
)


def submit(paths: Sequence[Path], submission: Submission, sweep: Sweep, output_dir: Path) -> None:
    """Queue every pack. Raises UserError with Slurm's words, and leaves nothing behind, when the first is refused."""
    folder, first = sweep.logs(output_dir, submission.run), 0
    size, pause = array_size(submission.launcher), LIMIT_SECONDS
    launcher = throttled(submission.launcher, len(paths), size)
    while first < len(paths):
        try:
            job, cluster = _submit_array(paths[first : first + size], launcher, folder, mark(submission.run, first))
        except LimitMet as limit:  # an array as long as the limit never fits: shorter ones do, sooner or later
            size = min(size, len(paths) - first)
            if size > 1:
                size //= 2
                continue
            tell(f"Slurm accepts no more jobs now ({limit}); trying again in {pause:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_WAIT)
            continue
        except UserError as error:
            if not submission.arrays:
                raise
            raise UserError(
                f"{error}; {first} of {len(paths)} packs are queued: `blip2sweep retry {sweep.name}` queues the rest"
            ) from error
        count = min(size, len(paths) - first)
        submission.arrays.append({"job": job, "first": first, "count": count, "cluster": cluster})
        note(sweep, output_dir)
        first, pause = first + size, LIMIT_SECONDS


def note(sweep: Sweep, output_dir: Path) -> None:
    """Write the sweep with what others, as a `retry`, have launched of it since it was read: submitting may take hours."""
    known, there = {s.run: s for s in sweep.submissions}, submissions_of(output_dir, sweep.name)
    for own, theirs in ((known[s.run], s) for s in there if s.run in known):
        own.cancelled = own.cancelled or theirs.cancelled
    others = [s for s in there if s.run not in known]
    sweep.submissions = sorted([*sweep.submissions, *others], key=lambda s: s.created)
    sweep.write(output_dir)


class LimitMet(Exception):
    """Slurm's words when so many jobs may not be queued now."""


def throttled(launcher: Launcher, packs: int, size: int) -> Launcher:
    """The launcher's settings for arrays of at most `size` packs: Slurm bounds how many of one array run at a time, and
    several arrays run beside each other."""
    arrays, slots = math.ceil(packs / size), launcher.get("array_parallelism")
    return {**launcher, "array_parallelism": max(1, slots // arrays)} if slots and arrays else launcher


def _submit_array(paths: Sequence[Path], launcher: Launcher, folder: Path, comment: str) -> tuple[str, str | None]:
    """One array: the job's id, and the cluster that took it where sbatch names it. Raises LimitMet, or UserError with
    Slurm's words."""
    text = batch_script(launcher, folder, comment, run_pack(paths[0]), len(paths))
    script = folder / f"{comment.rpartition(':')[2]}.sh"
    write_atomic(script, os.fsencode(text))
    said = query("sbatch", str(script), env=submission_env(os.environ, options(text))[0], seconds=SUBMIT_SECONDS)
    taken = SUBMITTED.search(said.out) if said and not said.code else None
    if taken:
        return taken[1], taken[2]
    if said is None:
        raise UserError("sbatch gives no answer; right: try again when Slurm answers")
    reason = refusal(said.err) or " ".join(f"{said.out} {said.err}".split())[-300:] or f"exit code {said.code}"
    if LIMITS.search(reason):
        raise LimitMet(reason)
    raise UserError(f"Slurm refused the jobs: {reason}; {hint(reason)}")


def run_pack(first: Path) -> str:
    """The command of a batch script: the process of a pack is our own, so that its signals and exit code are ours. first:
    that of an array's first element; the others follow."""
    start, _, index = first.resolve().stem.rpartition("-")
    folder = shlex.quote(f"{first.resolve().parent}/{start}-")
    return (
        f"{shlex.quote(sys.executable)} -u -m blip2sweep.slurm.batch_job "
        f'{folder}"$(({index} + ${{SLURM_ARRAY_TASK_ID:-0}}))".json'
    )


def options(script: str) -> list[str]:
    """The options of sbatch that a script has."""
    return re.findall(r"^#SBATCH --([\w-]+)", script, re.MULTILINE)


def make_executor(launcher: Launcher, folder: Path, comment: str) -> Any:
    """submitit's SlurmExecutor with the launcher's settings."""
    from submitit.slurm.slurm import SlurmExecutor

    settings: dict[str, object] = {k: v for k, v in launcher.items() if k not in OURS and v is not None}
    renamed = {"name": "job_name", "timeout_min": "time", "tasks_per_node": "ntasks_per_node"}
    require("sbatch", "srun")
    executor = SlurmExecutor(folder, python=sys.executable)
    settings["setup"] = [*(launcher.get("setup") or ()), *before_tasks(folder)]
    settings["teardown"] = after_tasks(launcher.get("teardown") or ())
    settings["srun_args"] = [*EACH_BY_ITSELF, *(launcher.get("srun_args") or ())]
    if named := settings.pop("clusters", None):
        settings["additional_parameters"] = {**launcher.get("additional_parameters", {}), "clusters": named}
    try:
        if settings.pop("mem_gb", None) is not None:
            settings["mem"] = f"{int(launcher['mem_gb'] * 1024)}MB"
        executor.update_parameters(**{"comment": comment} | {renamed.get(k, k): v for k, v in settings.items()})
    except (TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(f"hydra.launcher: {said}; right: names and types of conf/hydra/launcher/slurm.yaml") from error
    return executor


def batch_script(launcher: Launcher, folder: Path, comment: str, command: str, packs: int) -> str:
    """What sbatch is given for an array of so many packs."""
    from submitit.slurm.slurm import _make_sbatch_string

    executor = make_executor(launcher, folder, comment)
    size = {"map_count": packs} if packs > 1 else {}
    return str(_make_sbatch_string(command=command, folder=executor.folder, **executor.parameters, **size))


def sbatch_script(launcher: Launcher, packs: int, logs: Path) -> str:
    """`batch_script` before there is a sweep; logs: the output folder's."""
    first = logs.parent / "sweeps" / "SWEEP" / "packs" / "RUN-0.json"
    return batch_script(launcher, logs / "SWEEP" / "RUN", mark("RUN", 0), run_pack(first), packs)


def refusal(text: str) -> str | None:
    """Slurm's own words in what sbatch said; None when it said nothing of the kind."""
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


def array_size(launcher: Launcher) -> int:
    """The most elements of one array: MaxArraySize bounds the highest index. Of several clusters the least."""
    require("scontrol")
    named = [c for c in clusters(launcher) if c != "all"]
    return min(map(_array_size, named)) if named else _array_size(None)


def _array_size(cluster: str | None) -> int:
    shown = query("scontrol", "show", "config", cluster=cluster)
    if shown is None or shown.code:
        reason = " ".join(shown.err.split()) if shown else "scontrol show config"
        right = f"right: hydra.launcher.clusters={cluster} named as `sacctmgr show clusters` does" if cluster else ""
        raise UserError(f"Slurm does not answer: {reason}; {right or 'right: a login node of a running cluster'}")
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown.out)
    return max(1, int(found[1])) if found else 1001


def require(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            raise UserError(NO_SLURM.format(command))
