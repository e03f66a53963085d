"""Slurm's commands as we run them: on which cluster, in what environment, and read whatever bytes they answer with."""

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
# Variables of a job: Slurm sets them in the job, and sbatch, and srun in the new job, would take them for settings.
OF_A_JOB = re.compile(r"(SLURM|SLURMD|SRUN|PMI|PMI2|PMIX|PRTE)_|SBATCH_(CPU|MEM)_BIND")
OF_SLURM = (
    "SLURM_CONF",
    "SLURM_JWT",
    "SLURM_TIME_FORMAT",
    "SLURM_DEBUG",
    "SLURM_DEBUG_FLAGS",
)  # how to reach it, what it prints
# The devices that a job was given; the new one gets its own.
DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")
# sbatch takes a variable before an option of the script. These would change what is ours alone: whether it waits, where logs are.
NEVER = ("SBATCH_WAIT", "SBATCH_ERROR", "SBATCH_OUTPUT", "SBATCH_ARRAY_INX", "SBATCH_OPEN_MODE", "SBATCH_CLUSTERS")
IRREGULAR = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "array": "ARRAY_INX"}  # SBATCH_… of an option
# Filters and formats that a user likes for himself: no query of ours is to go by them.
OF_QUERIES = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SACCT_")


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


def query(
    *command: str, cluster: str | None = None, env: Mapping[str, str] | None = None, seconds: float = ANSWER_SECONDS
) -> Said | None:
    """Run one of Slurm's commands, on a cluster that is not the one here where it is named. None: it is not installed, or
    gives no answer. What is no UTF-8 (names of users and jobs) is replaced."""
    name, *rest = command
    where = ["-M", cluster] if cluster else []
    try:
        done = subprocess.run(
            [name, *where, *rest], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds,
            env=query_env(os.environ) if env is None else dict(env),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return Said(done.returncode, _text(done.stdout), _text(done.stderr))


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def query_env(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what would turn a query elsewhere: the cluster is always named by us."""
    return {k: v for k, v in environ.items() if k != "SLURM_CLUSTERS" and not k.startswith(OF_QUERIES)}


def submission_env(environ: Mapping[str, str], options: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The environment for sbatch, which is that of the new jobs too, and the names of what was left out of it.

    options: those that the script has, which variables would override. Other SBATCH_ variables are the user's word.
    """
    said = {*NEVER, *(f"SBATCH_{IRREGULAR.get(o, o.replace('-', '_').upper())}" for o in options)}
    if any(o.startswith("mem") for o in options):  # two ways to ask for memory exclude each other
        said |= {"SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"}
    inside = surrounding_job(environ) is not None
    gone = [
        name
        for name in environ
        if (OF_A_JOB.match(name) and name not in OF_SLURM) or name in said or (inside and name in DEVICES)
    ]
    return {k: v for k, v in environ.items() if k not in gone}, sorted(gone)


def surrounding_job(environ: Mapping[str, str]) -> str | None:
    """The id of the job that this process runs in: an interactive session, or a terminal that was opened in one."""
    return environ.get("SLURM_JOB_ID") or environ.get("SLURM_JOBID")


@functools.cache
def local_cluster() -> str:
    """The name of the cluster that is asked where none is named; empty where it does not say."""
    said = query("scontrol", "show", "config")
    found = re.search(r"^ClusterName\s*=\s*(\S+)", said.out, re.MULTILINE) if said else None
    return found[1] if found and found[1] != "(null)" else ""


def elsewhere(cluster: str) -> str | None:
    """The name to ask for a cluster with, or None where it is the one here, or nobody knows which."""
    return cluster if cluster and (here := local_cluster()) and here != cluster else None


@contextlib.contextmanager
def for_submitit() -> Iterator[None]:
    """For a launcher that calls sbatch and sacct through submitit: the same environment, and answers in any bytes."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    read, before = SlurmInfoWatcher.read_info, dict(os.environ)
    for name in submission_env(os.environ, ())[1]:
        del os.environ[name]
    SlurmInfoWatcher.read_info = lambda self, said: read(self, _text(said) if isinstance(said, bytes) else said)
    try:
        yield
    finally:
        SlurmInfoWatcher.read_info = read
        os.environ.update(before)


def clusters(launcher: Launcher) -> list[str]:
    """The clusters that sbatch may choose from, by name; empty: the one here."""
    more = launcher.get("additional_parameters") or {}
    named = launcher.get("clusters") or more.get("clusters") or more.get("M") or ""
    return [c.strip() for c in str(named).split(",") if c.strip()]
