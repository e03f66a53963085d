"""Submits a sweep's packs as Slurm arrays. submitit writes the batch script, from hydra-submitit-launcher's
settings."""

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
from blip2sweep.running.queue import array_comment
from blip2sweep.running.slurm_commands import ANSWER_SECONDS, clusters, query, submission_env
from blip2sweep.wire.launcher import Launcher
from blip2sweep.workers.requeue import after_tasks, before_tasks

# Settings for this package; all others are for sbatch, under submitit's names.
OURS = ("pack_minutes", "max_packs", "wait", "max_num_timeout", "processes_per_cell")
# Slurm's texts for a limit on queued jobs, which passes by itself. A too large wall time or memory never does; its text
# also has the words "job submit limit", but none of these.
LIMITS = re.compile(
    r"(QOS|Assoc)(Max|Grp)Submit\w*|MaxSubmitJobs|MaxJobCount|temporarily unable to accept", re.IGNORECASE
)
# A site's srun may end all tasks of a job when one fails, or some time after the first ended. The tasks here are
# independent.
EACH_BY_ITSELF = ("--kill-on-bad-exit=0", "--wait=0")
SUBMITTED = re.compile(r"Submitted batch job (\d+)(?: on cluster (\S+))?")
SUBMIT_SECONDS = 600.0
ARRAY_SIZE = 1001  # MaxArraySize where slurm.conf does not set it
LIMIT_SECONDS, LONGEST_WAIT = 2.0, 60.0  # seconds between two attempts while a limit is met; doubled each time
# {words in Slurm's message: the setting to change}.
HINTS = {
    "partition": "hydra.launcher.partition",
    "generic resource": "hydra.launcher.gpus_per_node (null where there is no gres)",
    "gres": "hydra.launcher.gres, gpus_per_node",
    "account": "hydra.launcher.account",
    "qos": "hydra.launcher.qos",
    "time limit": "hydra.launcher.timeout_min",
    "memory": "hydra.launcher.mem_gb",
    "node": "hydra.launcher.gpus_per_node, mem_gb, cpus_per_task",
}
NO_SLURM = (
    "no Slurm here: {} is not installed; right: run this on the cluster's login node, or leave hydra/launcher=slurm out"
)


def submit(paths: Sequence[Path], submission: Submission, sweep: Sweep, output_dir: Path) -> None:
    """Queue every pack. Raises UserError with Slurm's message when one is refused; when it is the first, nothing is
    left behind."""
    folder, first = sweep.logs(output_dir, submission.run), 0
    size, pause = array_size(submission.launcher), LIMIT_SECONDS
    launcher = throttled(submission.launcher, len(paths), size)
    while first < len(paths):
        try:
            job, cluster = _submit_array(
                paths[first : first + size], launcher, folder, array_comment(submission.run, first)
            )
        except LimitMet as limit:  # an array longer than the limit never fits; shorter ones will
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
        write_merged(sweep, output_dir)
        first, pause = first + size, LIMIT_SECONDS


def write_merged(sweep: Sweep, output_dir: Path) -> None:
    """Write the sweep's file, merged with what other processes, such as `retry`, launched since it was read: submitting
    may take hours."""
    own_launches, on_disk = {s.run: s for s in sweep.submissions}, submissions_of(output_dir, sweep.name)
    for own, theirs in ((own_launches[s.run], s) for s in on_disk if s.run in own_launches):
        own.cancelled = own.cancelled or theirs.cancelled
    others = [s for s in on_disk if s.run not in own_launches]
    sweep.submissions = sorted([*sweep.submissions, *others], key=lambda s: s.created)
    sweep.write(output_dir)


class LimitMet(Exception):
    """No more jobs may be queued now. The message is Slurm's."""


def throttled(launcher: Launcher, packs: int, size: int) -> Launcher:
    """The launcher's settings for arrays of at most `size` packs. Slurm limits the running jobs of each array; several
    arrays share the limit."""
    arrays, slots = math.ceil(packs / size), launcher.get("array_parallelism")
    return {**launcher, "array_parallelism": max(1, slots // arrays)} if slots and arrays else launcher


def _submit_array(paths: Sequence[Path], launcher: Launcher, folder: Path, comment: str) -> tuple[str, str | None]:
    """(job id; the cluster that took it, None when sbatch names none) of one array. Raises LimitMet, or UserError, with
    Slurm's message."""
    require("sbatch", "srun")
    text = batch_script(launcher, folder, comment, run_pack(paths[0]), len(paths))
    script = folder / f"{comment.rpartition(':')[2]}.sh"
    write_atomic(script, os.fsencode(text))
    reply = query("sbatch", str(script), env=submission_env(os.environ, options(text))[0], seconds=SUBMIT_SECONDS)
    submitted = SUBMITTED.search(reply.out) if reply and not reply.code else None
    if submitted:
        return submitted[1], submitted[2]
    if reply is None:
        raise UserError("sbatch gives no answer; right: try again when Slurm answers")
    reason = refusal(reply.err) or " ".join(f"{reply.out} {reply.err}".split())[-300:] or f"exit code {reply.code}"
    if LIMITS.search(reason):
        raise LimitMet(reason)
    raise UserError(f"Slurm refused the jobs: {reason}; {hint(reason)}")


def run_pack(first: Path) -> str:
    """The command of a batch script. It starts the package's own process, so that signals and the exit code are the
    pack's. first: the pack of an array's first element."""
    start, _, index = first.resolve().stem.rpartition("-")
    folder = shlex.quote(f"{first.resolve().parent}/{start}-")
    return (
        f"{shlex.quote(sys.executable)} -u -m blip2sweep.slurm.batch_job "
        f'{folder}"$(({index} + ${{SLURM_ARRAY_TASK_ID:-0}}))".json'
    )


def options(script: str) -> list[str]:
    """The sbatch options in a script."""
    return re.findall(r"^#SBATCH --([\w-]+)", script, re.MULTILINE)


def make_executor(launcher: Launcher, folder: Path, comment: str) -> Any:
    """submitit's SlurmExecutor with the launcher's settings. Raises UserError for a setting that it does not take."""
    from submitit.slurm.slurm import SlurmExecutor

    class WritesScripts(SlurmExecutor):
        """It submits nothing, so Slurm need not be installed where it is made."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    settings: dict[str, object] = {k: v for k, v in launcher.items() if k not in OURS and v is not None}
    renamed = {"name": "job_name", "timeout_min": "time", "tasks_per_node": "ntasks_per_node"}
    executor = WritesScripts(folder, python=sys.executable)
    settings["setup"] = [*(launcher.get("setup") or ()), *before_tasks(folder)]
    settings["teardown"] = after_tasks(launcher.get("teardown") or ())
    settings["srun_args"] = [*EACH_BY_ITSELF, *(launcher.get("srun_args") or ())]
    if named := settings.pop("clusters", None):
        settings["additional_parameters"] = {**(launcher.get("additional_parameters") or {}), "clusters": named}
    try:
        if settings.pop("mem_gb", None) is not None:
            settings["mem"] = f"{int(launcher['mem_gb'] * 1024)}MB"
        executor.update_parameters(**{"comment": comment} | {renamed.get(k, k): v for k, v in settings.items()})
    except (TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"hydra.launcher: {text}; right: names and types of conf/hydra/launcher/slurm.yaml") from error
    return executor


def batch_script(launcher: Launcher, folder: Path, comment: str, command: str, packs: int) -> str:
    """The batch script for an array of `packs` packs."""
    from submitit.slurm.slurm import _make_sbatch_string

    executor = make_executor(launcher, folder, comment)
    size = {"map_count": packs} if packs > 1 else {}
    return str(_make_sbatch_string(command=command, folder=executor.folder, **executor.parameters, **size))


def sbatch_script(launcher: Launcher, packs: int, logs: Path) -> str:
    """`batch_script` before a sweep exists. logs: the log folder of the output folder."""
    first = logs.parent / "sweeps" / "SWEEP" / "packs" / "RUN-0.json"
    return batch_script(launcher, logs / "SWEEP" / "RUN", array_comment("RUN", 0), run_pack(first), packs)


def refusal(text: str) -> str | None:
    """Slurm's own message in sbatch's output; None when there is none."""
    lines = [
        x.split("error:", 1)[1].strip()
        for x in text.splitlines()
        if "sbatch: error:" in x or "sbatch: fatal:" in x or ("slurm_load" in x and "error:" in x)
    ]
    if not lines:
        return None
    return "; ".join(dict.fromkeys(x.removeprefix("Batch job submission failed: ") for x in lines))


def hint(reason: str) -> str:
    """Which setting to change, from Slurm's message."""
    found = next(
        (setting for text, setting in HINTS.items() if text in reason.lower()), "the settings of hydra.launcher"
    )
    return f"right: {found}"


def array_size(launcher: Launcher, seconds: float = ANSWER_SECONDS) -> int:
    """The largest number of elements in an array, from MaxArraySize. Of several clusters the smallest. Raises UserError
    when Slurm does not answer within `seconds`."""
    require("scontrol")
    named = [c for c in clusters(launcher) if c != "all"]
    return min(_array_size(c, seconds) for c in named) if named else _array_size(None, seconds)


def _array_size(cluster: str | None, seconds: float) -> int:
    shown = query("scontrol", "show", "config", cluster=cluster, seconds=seconds)
    if shown is None or shown.code:
        reason = " ".join(shown.err.split()) if shown else "scontrol show config"
        right = f"right: hydra.launcher.clusters={cluster} named as `sacctmgr show clusters` does" if cluster else ""
        raise UserError(f"Slurm does not answer: {reason}; {right or 'right: a login node of a running cluster'}")
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown.out)
    return max(1, int(found[1])) if found else ARRAY_SIZE


def require(*commands: str) -> None:
    """Raise UserError when a command is not installed."""
    for command in commands:
        if shutil.which(command) is None:
            raise UserError(NO_SLURM.format(command))
