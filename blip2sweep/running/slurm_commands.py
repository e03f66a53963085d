"""Runs Slurm's commands: on the right cluster, in a clean environment, and with answers in any encoding."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from blip2sweep.wire.launcher import Launcher

ANSWER_SECONDS = 60.0
# Variables that Slurm sets in a job. sbatch, and srun in the new job, would take them for settings.
OF_A_JOB = re.compile(r"(SLURM|SLURMD|SRUN|PMI|PMI2|PMIX|PRTE)_|SBATCH_(CPU|MEM)_BIND")
# Of these, the variables that say how to reach Slurm and what it prints. They are kept.
OF_SLURM = ("SLURM_CONF", "SLURM_JWT", "SLURM_TIME_FORMAT", "SLURM_DEBUG", "SLURM_DEBUG_FLAGS")
# The devices of the surrounding job. A new job gets devices of its own.
DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
# sbatch prefers a variable to an option of the script. These would change what the package relies on: waiting, arrays,
# logs.
NEVER = ("SBATCH_WAIT", "SBATCH_ERROR", "SBATCH_OUTPUT", "SBATCH_ARRAY_INX", "SBATCH_OPEN_MODE", "SBATCH_CLUSTERS")
# {option: its variable SBATCH_…} where the names differ.
IRREGULAR = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "array": "ARRAY_INX"}
# A user's own filters and formats. They must not change the package's queries.
OF_QUERIES = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SACCT_")


class Reply(NamedTuple):
    """The answer of a command: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def query(
    *command: str, cluster: str | None = None, env: Mapping[str, str] | None = None, seconds: float = ANSWER_SECONDS
) -> Reply | None:
    """Run one of Slurm's commands. None when it is not installed, or does not answer within `seconds`. Bytes that are
    not UTF-8 (names of users and jobs) are replaced. cluster: None for the host's own."""
    name, *rest = command
    option = ["-M", cluster] if cluster else []
    try:
        done = subprocess.run(
            [name, *option, *rest], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds,
            env=query_env(os.environ) if env is None else dict(env),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return Reply(done.returncode, _text(done.stdout), _text(done.stderr))


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def query_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without variables that redirect a query. The cluster is always named by an option."""
    return {k: v for k, v in environ.items() if k != "SLURM_CLUSTERS" and not k.startswith(OF_QUERIES)}


def submission_env(environ: Mapping[str, str], options: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """(the environment for sbatch, which the new jobs inherit; the names of variables that were removed).

    options: those of the script, which variables would override. Other SBATCH_ variables are the user's own and stay.
    """
    overriding = {*NEVER, *(f"SBATCH_{IRREGULAR.get(o, o.replace('-', '_').upper())}" for o in options)}
    if any(o.startswith("mem") for o in options):  # Slurm allows only one of the three
        overriding |= {"SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"}
    inside = surrounding_job(environ) is not None
    removed = [
        name
        for name in environ
        if (OF_A_JOB.match(name) and name not in OF_SLURM) or name in overriding or (inside and name in DEVICES)
    ]
    return {k: v for k, v in environ.items() if k not in removed}, sorted(removed)


def surrounding_job(environ: Mapping[str, str]) -> str | None:
    """The id of the job that this process runs in, such as an interactive session; None outside of Slurm."""
    return environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID")


@functools.cache
def local_cluster() -> str:
    """The name of the host's own cluster; empty when Slurm does not say it."""
    reply = query("scontrol", "show", "config")
    found = re.search(r"^ClusterName\s*=\s*(\S+)", reply.out, re.MULTILINE) if reply else None
    return found[1] if found and found[1] != "(null)" else ""


def other_cluster(cluster: str) -> str | None:
    """The cluster's name when it has to be named in a query. None for the host's own cluster, and when that is
    unknown."""
    return cluster if cluster and (here := local_cluster()) and here != cluster else None


@contextlib.contextmanager
def for_submitit() -> Iterator[None]:
    """For a launcher that calls sbatch and sacct through submitit: the environment of `submission_env`, and answers in
    any encoding."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    read, before = SlurmInfoWatcher.read_info, dict(os.environ)
    for name in submission_env(os.environ, ())[1]:
        del os.environ[name]
    SlurmInfoWatcher.read_info = lambda self, answer: read(self, _text(answer) if isinstance(answer, bytes) else answer)
    try:
        yield
    finally:
        SlurmInfoWatcher.read_info = read
        os.environ.update(before)


def clusters(launcher: Launcher) -> list[str]:
    """The names of the clusters that sbatch may choose from; empty for the host's own."""
    more = launcher.get("additional_parameters") or {}
    named = launcher.get("clusters") or more.get("clusters") or more.get("M") or ""
    return [c.strip() for c in str(named).split(",") if c.strip()]
