"""Runs a sweep on Slurm: makes packs, submits them as arrays, and follows the jobs."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from blip2sweep.console.printing import tell
from blip2sweep.console.remarks import many
from blip2sweep.planning.costs import expected_seconds
from blip2sweep.planning.packs import pack_path, slurm_packs, write_packs
from blip2sweep.planning.timing_costs import with_timing
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.sweeps import Submission, Sweep, new_run
from blip2sweep.running.progress import follow
from blip2sweep.running.queue import clusters_of, squeue
from blip2sweep.running.slurm_commands import local_cluster, query, submission_env, surrounding_job
from blip2sweep.slurm.settings import check_gpus, checked_launcher, with_time_to_work
from blip2sweep.slurm.submit import array_size, require, submit
from blip2sweep.wire.launcher import Launcher
from blip2sweep.wire.pack import CellJob, Settings


def run_slurm(jobs: Sequence[CellJob], sweep: Sweep, output_dir: Path, launcher: Launcher) -> bool:
    """Submit the jobs and follow them. False when they were left running (`wait=false`). Raises UserError when Slurm
    refuses them."""
    submission = queue_sweep(jobs, sweep, output_dir, launcher)
    announce(sweep, submission, output_dir)
    if not launcher.get("wait", True):
        return False
    follow_slurm(sweep, output_dir)
    return True


def queue_sweep(jobs: Sequence[CellJob], sweep: Sweep, output_dir: Path, launcher: Launcher) -> Submission:
    """Write the packs and submit them. When Slurm refuses, everything that was written is removed, and UserError is
    raised."""
    require("sbatch", "scontrol")
    launcher = with_time_to_work(checked_launcher(launcher))
    check_gpus(launcher, jobs)
    array_size(launcher)  # raises UserError when Slurm does not answer
    ledger, timed = Ledger(output_dir).refresh(), sweep.settings.get("latency", ())
    processes, cache = launcher.get("processes_per_cell") or 1, sweep.settings.get("cache")
    seconds = expected_seconds(jobs, ledger, processes, cache)
    seconds = with_timing(seconds, jobs, ledger, timed, [k for k in timed if sweep.done(ledger, k)])
    packs = slurm_packs(jobs, launcher, seconds)
    submission = Submission(new_run(), "slurm", launcher, len(packs), cluster=local_cluster())
    before, path = list(sweep.submissions), sweep.folder(output_dir) / "sweep.json"
    old_file = path.read_bytes() if path.exists() else None
    sweep.submissions.append(submission)
    try:
        settings = _with_processes(_with_wall_time(sweep.settings, launcher), launcher)
        paths = write_packs(packs, sweep.folder(output_dir), sweep.name, submission.run, output_dir, settings, seconds)
        sweep.write(output_dir)
        submit(paths, submission, sweep, output_dir)
    except BaseException:
        if not submission.arrays:
            withdraw(submission)
            sweep.submissions = before
            discard(sweep, submission, output_dir, old_file)
        raise
    return submission


def _with_wall_time(settings: Settings, launcher: Launcher) -> Settings:
    """The settings with what a job has to know about its own wall time."""
    return {
        **settings,
        "max_num_timeout": launcher.get("max_num_timeout"),
        "signal_delay_s": launcher.get("signal_delay_s"),
        "timeout_min": launcher.get("timeout_min"),
    }


def _with_processes(settings: Settings, launcher: Launcher) -> Settings:
    processes = launcher.get("processes_per_cell") or 1
    return {**settings, "processes": processes} if processes > 1 else settings


def withdraw(submission: Submission) -> None:
    """Cancel jobs that Slurm accepted although their ids were never received."""
    for cluster in clusters_of(submission):
        lines, _ = squeue(submission.user, cluster)
        for job_cluster in {x[0] for x in lines}:
            jobs = {x[2] for x in lines if x[0] == job_cluster and x[6].startswith(f"blip2sweep {submission.run}:")}
            if jobs:
                query("scancel", *sorted(jobs), cluster=job_cluster or None)


def discard(sweep: Sweep, submission: Submission, output_dir: Path, old_file: bytes | None) -> None:
    """Remove what a refused launch has written. old_file: the content of sweep.json before; None when there was
    none."""
    folder = sweep.folder(output_dir)
    for i in range(submission.packs):
        pack_path(folder, submission.run, i).unlink(missing_ok=True)
    shutil.rmtree(sweep.logs(output_dir, submission.run), ignore_errors=True)
    if old_file is None:
        (folder / "sweep.json").unlink(missing_ok=True)
    else:
        (folder / "sweep.json").write_bytes(old_file)
    emptied = (
        folder / "packs",
        folder,
        folder.parent,
        output_dir / "logs" / sweep.name,
        output_dir / "logs",
        output_dir,
    )
    for path in emptied:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def announce(sweep: Sweep, submission: Submission, output_dir: Path) -> None:
    """Print the job ids, and how to come back to the sweep."""
    ids = ", ".join(a["job"] + (f" on cluster {a['cluster']}" if a["cluster"] else "") for a in submission.arrays)
    tell(
        f"sweep {sweep.name}: {many(submission.packs, 'pack')} in Slurm jobs {ids}; logs in "
        f"{sweep.logs(output_dir, submission.run)}"
    )
    tell(
        f"come back with: blip2sweep status {sweep_arguments(sweep, output_dir)}   (also wait, retry, cancel, logs KEY)"
    )
    if remark := removed_variables(os.environ, submission.launcher):
        tell(remark)


def removed_variables(environ: Mapping[str, str], launcher: Launcher) -> str | None:
    """A remark about variables of this shell that the jobs do not get: those of a surrounding job, and those that
    override settings."""
    options = [
        {"timeout_min": "time", "mem_gb": "mem", "name": "job-name"}.get(k, k)
        for k, v in launcher.items()
        if v is not None
    ]
    removed = submission_env(environ, [g.replace("_", "-") for g in options])[1]
    if job := surrounding_job(environ):
        return (
            f"submitted from inside Slurm job {job}: its {len(removed)} variables (SLURM_… and the like) do "
            "not reach the jobs"
        )
    return f"not passed on to the jobs, settings of hydra.launcher count: {', '.join(removed)}" if removed else None


def sweep_arguments(sweep: Sweep, output_dir: Path) -> str:
    """The arguments that name this sweep in other commands."""
    return sweep.name if str(output_dir) == "outputs" else f"{sweep.name} --output-dir {shlex.quote(str(output_dir))}"


def follow_slurm(sweep: Sweep, output_dir: Path) -> None:
    """Follow the sweep until it is done or nothing is left in the queue. Ctrl-C leaves the jobs running."""
    try:
        follow(output_dir, sweep)
    except KeyboardInterrupt:
        tell(f"\nthe jobs go on; come back with: blip2sweep wait {sweep_arguments(sweep, output_dir)}")
        raise SystemExit(130) from None
