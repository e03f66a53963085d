"""Turns of a pack on a real Slurm: wall time, preemption, requeueing, and several tasks in one job."""

from __future__ import annotations

import re
import time

import pytest

from tests.slurm.cluster import TEN, Bench, check, go_on_now, pending, slurm, until

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.thorough]
ONE = "hydra.launcher.max_packs=1"
TWO_TASKS = [ONE, "hydra.launcher.gpus_per_node=2", "hydra.launcher.tasks_per_node=2"]
NEARLY_OVER = ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=15"]  # USR2 now is one for wall time


def restarts(job: str) -> int:
    return int(re.search(r"Restarts=(\d+)", slurm("scontrol", "show", "job", job))[1])  # type: ignore[index]


def test_requeue_in_the_middle_of_a_pack(bench: Bench) -> None:
    bench.behaviour = {"seconds": 1}
    sweep = bench.start(*TEN)
    until(lambda: len(bench.ledger.results()) >= 3)
    job = bench.jobs()[0]
    slurm("scontrol", "requeue", job)
    until(lambda: pending(job))
    assert " queued" in bench.run("status").out
    go_on_now(job)
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, err
    check(bench)
    assert [e["reason"] for e in bench.events("requeued")] == ["preempted"]
    assert not bench.events("failed")


def test_out_of_wall_time(bench: Bench) -> None:
    """A minute of wall time for 80 s of work: the job asks for another turn and goes on after the last finished cell."""
    bench.behaviour = {"seconds": 8}
    sweep = bench.start(
        *TEN, "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=15", "hydra.launcher.max_packs=1"
    )
    job = until(bench.jobs)[0]
    deadline = time.monotonic() + 240
    while sweep.poll() is None and time.monotonic() < deadline:
        if pending(job) and bench.ledger.results():
            assert not bench.in_hand()
            go_on_now(job)
        time.sleep(1)
    _, err = sweep.communicate(timeout=30)
    assert sweep.returncode == 0, err
    assert len(bench.events("worker")) >= 2
    assert len(bench.events("result")) == 10
    assert not bench.events("failed")
    check(bench)


def test_whole_nodes_run_one_worker_a_gpu(bench: Bench) -> None:
    settings = ["hydra.launcher.gpus_per_node=2", "hydra.launcher.tasks_per_node=2", "hydra.launcher.max_packs=1"]
    assert bench.sweep(*TEN, *settings).code == 0
    assert sorted(w["gpus"] for w in bench.events("worker")) == ["0", "1"]
    assert len(bench.events("result")) == 10
    check(bench)


def test_a_sites_own_launcher_file_where_requeueing_is_forbidden(bench: Bench) -> None:
    """USR2 long before the end is a notice of preemption: the cell is given up, and without requeueing the rest is lost."""
    site = bench.folder / "site" / "hydra" / "launcher" / "mine.yaml"
    site.parent.mkdir(parents=True)
    site.write_text("defaults: [slurm]\ncpus_per_task: 1\nmem_gb: 1\nadditional_parameters: {no-requeue: true}\n")
    bench.behaviour = {"seconds": 1}
    words = [*TEN, "hydra/launcher=mine", "sweep_name=s", "hydra.launcher.wait=false"]
    assert bench.run("-m", "--config-dir", "site", *bench.backend, *words).code == 0
    until(lambda: len(bench.ledger.results()) >= 2)
    slurm("scancel", "--signal=USR2", bench.jobs()[0])
    ran = bench.run("wait")
    assert ran.code == 1
    assert " lost" in ran.err
    assert [e["reason"] for e in bench.events("requeued")] == ["preempted"]
    assert bench.run("retry", "--wait").code == 0
    check(bench)


def test_only_running_out_of_wall_time_counts_against_its_limit(bench: Bench) -> None:
    """Two requeues by an administrator, then one stop for lack of time of the one that is allowed."""
    bench.behaviour = {"seconds": 2}
    sweep = bench.start(*TEN, ONE, *NEARLY_OVER, "hydra.launcher.max_num_timeout=1")
    job = until(bench.jobs)[0]
    for turn in range(3):
        until(bench.in_hand)
        slurm("scontrol", "requeue", job) if turn < 2 else slurm("scancel", "--signal=USR2", job)
        until(lambda: pending(job))
        go_on_now(job)
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, err
    check(bench)
    assert restarts(job) == 3
    assert [w["ended"] for w in bench.events("worker") if "ended" in w].count("timeout") == 1


def test_each_task_of_a_job_ends_its_cell_before_the_job_is_requeued_once(bench: Bench) -> None:
    slow = "qformer:all:all=rtn4"
    bench.behaviour = {"seconds": 0.8, "slow": [slow]}
    sweep = bench.start(*TEN, *TWO_TASKS, *NEARLY_OVER)
    until(lambda: len(bench.in_hand()) == 2)
    job = bench.jobs()[0]
    slurm("scancel", "--signal=USR2", job)
    until(lambda: pending(job))
    assert slow in {r["columns"]["recipe"].partition("/")[0] for r in bench.ledger.results()}
    assert not bench.in_hand()
    assert not bench.events("requeued")
    assert [w["ended"] for w in bench.events("worker") if "ended" in w] == ["timeout"] * 2
    go_on_now(job)
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, err
    assert restarts(job) == 1
    assert len(bench.events("started")) == 10
    assert not list((bench.outputs / "logs").rglob("*.again"))
    check(bench)


def test_a_failed_cell_of_one_task_does_not_end_the_others(bench: Bench) -> None:
    """Where a site has srun end a whole job when one of its tasks fails."""
    site = 'hydra.launcher.setup=["export SLURM_KILL_BAD_EXIT=1 SLURM_WAIT=1"]'
    bench.behaviour = {"seconds": 0.5, "raise": ["llm"], "slow": ["vit"]}
    ran = bench.sweep(*TEN, *TWO_TASKS, site)
    assert ran.code == 1
    assert "3 of 10 cells failed: 3 crash" in ran.err
    check(bench, failed=3)
    assert "ExitCode=3:0" in slurm("scontrol", "show", "job", bench.jobs()[0])
    parts = {w["part"]: w for w in bench.events("worker")}
    ran_by = {s["pid"]: [] for s in bench.events("started")}
    for start in sorted(bench.events("started"), key=lambda s: s["time"]):
        ran_by[start["pid"]].append(start["key"])
    assert sorted(parts) == ["0/2", "1/2"]
    assert sorted(map(len, ran_by.values())) == [5, 5]
