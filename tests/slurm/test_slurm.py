"""Sweeps on a real Slurm end right whatever happens to their processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from blip2sweep.slurm.submit import array_size
from tests.command_line import refused
from tests.slurm.cluster import SLURM, TASK, TEN, Bench, check, slurm, until

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.thorough]


def test_the_cards_sweep_on_two_nodes_with_a_gpu_each_worker(bench: Bench) -> None:
    """The embedded model itself; four packs on four fake GPUs."""
    bench.model = True
    ran = bench.sweep(*TEN, "hydra.launcher.pack_minutes=0.04", "hydra.launcher.max_packs=4")
    assert ran.code == 0, ran.err
    table = check(bench)
    assert table["layers_changed"].iloc[1:].min() > 0
    assert "4 packs in Slurm jobs" in ran.err
    assert "come back with: blip2sweep status s" in ran.err
    assert sorted(w["gpus"] for w in bench.events("worker")) == ["0", "0", "1", "1"]
    assert set(table["job"]) == {f"{bench.jobs()[0]}_{i}" for i in range(4)}


def test_a_worker_killed_in_a_cell_costs_that_attempt(bench: Bench) -> None:
    bench.behaviour = {"seconds": 1}
    sweep = bench.start(*TEN)
    os.kill(until(bench.in_hand)[0]["pid"], signal.SIGKILL)
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, err
    assert sorted(check(bench)["attempts"]) == [1] * 9 + [2]
    assert [f["kind"] for f in bench.events("failed")] == ["crash"]


def test_a_batch_process_killed_with_its_worker_is_retried(bench: Bench) -> None:
    """As when a node is lost, except that Slurm does not requeue it."""
    bench.behaviour = {"seconds": 1}
    sweep = bench.start(*TEN)
    until(bench.in_hand)
    for event in bench.events("worker"):
        os.kill(event["pid"], signal.SIGKILL)
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "lost" in err
    assert bench.run("retry", "s", "--wait").code == 0
    check(bench)


def test_scancel_then_retry(bench: Bench) -> None:
    bench.behaviour = {"seconds": 1}
    sweep = bench.start(*TEN)
    until(lambda: len(bench.ledger.results()) >= 3)
    assert "cancelled" in bench.run("cancel").err
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert " lost" in err
    done = len(bench.ledger.results())
    assert f"{done} done, {10 - done} lost" in bench.run("status").out
    again = bench.run("retry", "--wait")
    assert again.code == 0, again.err
    assert f"running {10 - done} cells again" in again.err
    check(bench)
    assert len(bench.events("result")) == 10
    assert "nothing to run again" in bench.run("retry").err


def test_the_submitting_process_killed_then_wait(bench: Bench) -> None:
    bench.behaviour = {"seconds": 1}
    sweep = bench.start(*TEN)
    until(bench.in_hand)
    sweep.kill()
    sweep.communicate()
    seen = bench.run("status").out
    assert "1 running" in seen
    assert " queued" in seen
    waited = bench.run("wait")
    assert waited.code == 0, waited.err
    assert "vqa_accuracy" in waited.out
    check(bench)


def test_ctrl_c_leaves_the_jobs_running(bench: Bench) -> None:
    bench.behaviour = {"seconds": 1}
    sweep = bench.start(*TEN)
    until(bench.in_hand)
    sweep.send_signal(signal.SIGINT)
    _, err = sweep.communicate(timeout=30)
    assert sweep.returncode == 130
    assert "come back with: blip2sweep wait s" in err
    assert bench.run("wait", "s").code == 0
    check(bench)


def test_a_cell_that_raises(bench: Bench) -> None:
    bench.behaviour = {"raise": ["llm:all:all=rtn2"], "oom": ["vit:all:all=rtn2"]}
    ran = bench.sweep(*TEN)
    assert ran.code == 1
    assert ran.err.strip().splitlines()[-1].startswith("error: 1 of 10 cells failed: 1 crash; first (")
    check(bench, failed=1)
    assert "ExitCode=3:0" in slurm("scontrol", "show", "job", bench.jobs()[0])
    key = bench.table().set_index("status").loc["failed", "key"]
    shown = bench.run("logs", key[:8]).out
    assert "told to raise at llm:all:all=rtn2" in shown
    assert "Traceback" in shown
    assert "1 failed" in bench.run("status").out
    assert "nothing to run again" in bench.run("retry", "--failed", "timeout").err
    bench.behaviour = {}
    assert bench.run("retry", "--failed", "crash", "--wait").code == 0
    check(bench)


def test_out_of_memory_is_tried_once_more_with_half_the_batch(bench: Bench) -> None:
    bench.behaviour = {"oom": ["vit:all:all=rtn2"]}
    assert bench.sweep(*TEN).code == 0
    row = check(bench).set_index("recipe").loc["vit:all:all=rtn2/channel"]
    assert (row["attempts"], row["batch_size"]) == (2, 32)
    assert [f["kind"] for f in bench.events("failed")] == ["oom"]


def test_a_cell_that_kills_its_process_twice_is_skipped(bench: Bench) -> None:
    bench.behaviour = {"exit": ["vit:all:all=rtn8"]}
    ran = bench.sweep(*TEN)
    assert ran.code == 1
    assert "1 of 10 cells failed: 1 crash" in ran.err
    row = check(bench, failed=1).set_index("status").loc["failed"]
    assert row["attempts"] == 2


def test_more_packs_than_one_array_may_have(bench: Bench) -> None:
    size = array_size({})
    if size > 9:
        assert os.environ.get("CI") != "true", "MAX_ARRAY_SIZE=9 scripts/slurm_dev.sh up"
        pytest.skip(f"MaxArraySize is {size}; MAX_ARRAY_SIZE=9 scripts/slurm_dev.sh up makes this quick")
    assert bench.sweep(*TEN, "hydra.launcher.pack_minutes=0").code == 0
    assert len(bench.jobs()) == 2
    check(bench)


def test_the_same_sweep_twice_at_once(bench: Bench) -> None:
    bench.behaviour = {"seconds": 0.5}
    sweeps = [bench.start(*TEN, name=name) for name in ("s", "t")]
    for sweep in sweeps:
        _, err = sweep.communicate(timeout=120)
        assert sweep.returncode == 0, err
    check(bench)
    check(bench, name="t")
    assert len(bench.events("result")) <= 12  # a cell is done twice only where both began it in the same moment


def test_wait_false_returns_at_once(bench: Bench) -> None:
    bench.behaviour = {"seconds": 0.5}
    ran = bench.sweep(*TEN, "hydra.launcher.wait=false")
    assert ran.code == 0, ran.err
    assert ran.out == ""  # there is a table only where it waits
    assert bench.run("wait").code == 0
    check(bench)


def test_hydras_own_slurm_launcher(bench: Bench) -> None:
    """One job a cell, the same ledger, baselines too, and exit code 1 when a cell raised."""
    bench.behaviour = {"raise": ["llm"]}
    words = [*TASK, "part=vit,llm", "quant.bits=2", "hydra/launcher=submitit_slurm", "sweep_name=s"]
    stock = [w.replace("hydra/launcher=slurm", "hydra.launcher.timeout_min=5") for w in SLURM]
    ran = bench.run("-m", *bench.backend, *words, *stock)
    assert ran.code == 1, ran.err
    assert "1 of 3 cells failed: 1 crash" in ran.err
    check(bench, failed=1, cells=3)
    bench.behaviour = {}
    again = bench.run("-m", *bench.backend, *words, *stock)
    assert again.code == 0, again.err
    assert "2 already done, 1 to run" in again.err


def test_a_limit_on_submitted_jobs_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sbatch that refuses as one does at a QOS limit, once, and then is Slurm's own."""
    fake = bench.folder / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(f"""#!/bin/sh
if [ ! -e {fake}.asked ]; then
  touch {fake}.asked
  echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
  echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
  exit 1
fi
exec {shutil.which("sbatch")} "$@"
""")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    ran = bench.sweep(*TEN)
    assert ran.code == 0, ran.err
    assert "Slurm accepts no more jobs now (QOSMaxSubmitJobPerUserLimit" in ran.err
    check(bench)
    assert not [p for p in bench.outputs.rglob("*.pkl") if "_submitted" not in p.name]


def test_slurm_that_does_not_answer_leaves_the_ledger_to_tell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """squeue fails, sacct is not asked: status and wait go by the ledger and say what they do not know."""
    bench.behaviour = {"seconds": 1}
    assert bench.sweep(*TEN, "hydra.launcher.wait=false").code == 0
    fake = bench.folder / "bin" / "squeue"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    until(bench.in_hand)
    seen = bench.run("status").out
    assert "1 running" in seen
    assert "could be asked" in seen
    assert bench.run("wait").code == 0
    monkeypatch.undo()
    check(bench)


# ---- bad input


@pytest.mark.parametrize(
    ("setting", "said"),
    [("partition=nope", "partition"), ("gres=tpu:1", "gres"), ("gpus_per_node=99", "not available")],
)
def test_what_slurm_refuses(bench: Bench, setting: str, said: str) -> None:
    ran = bench.sweep(*TEN, f"hydra.launcher.{setting}")
    assert ran.code == 2
    assert ran.err.strip().splitlines()[-1].startswith("error: Slurm refused the jobs: ")
    assert said in ran.err
    assert not list(bench.folder.iterdir())


def test_a_ledger_that_workers_cannot_write(bench: Bench) -> None:
    bench.outputs.mkdir()
    (bench.outputs / "journals").write_text("a file where the folder should be")
    ran = bench.sweep(*TEN)
    assert ran.code == 1
    assert "no worker could begin: " in ran.err
    assert "cannot be written" in ran.err


def test_wait_on_an_unknown_sweep(bench: Bench) -> None:
    assert bench.sweep(*TASK, "part=vit").code == 0
    refused(bench.run("wait", "t"), "sweep 't' is not in outputs", "known: s")
    refused(bench.run("retry", "--failed", "omm"), "did you mean 'oom'")


def test_a_refusal_that_never_passes_is_told_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's text for too long a wall time speaks of a job submit limit as well."""
    fake = bench.folder / "bin" / "sbatch"
    fake.parent.mkdir()
    words = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    fake.write_text(f'#!/bin/sh\necho "sbatch: error: Batch job submission failed: {words}" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    ran = bench.sweep(*TEN)
    assert ran.code == 2
    assert "error: Slurm refused the jobs: Job violates accounting/QOS policy" in ran.err.splitlines()[-1]
    assert not bench.outputs.exists()


def test_an_array_longer_than_the_limit_is_split(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sbatch that takes arrays of two elements at most."""
    fake = bench.folder / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(f"""#!/bin/sh
last=$(grep -ho 'array=0-[0-9]*' "$@" | head -1 | sed 's/.*-//')
if [ "${{last:-0}}" -gt 1 ]; then
  echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
  exit 1
fi
exec {shutil.which("sbatch")} "$@"
""")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    ran = bench.sweep(*TEN, "hydra.launcher.pack_minutes=0", "hydra.launcher.max_packs=4")
    assert ran.code == 0, ran.err
    assert len(bench.jobs()) == 2
    check(bench)


def test_a_job_of_another_with_odd_words_and_one_that_is_held(bench: Bench) -> None:
    slurm("sbatch", "-H", "--comment=a|b|c", "-J", "other", "--wrap", "true")
    try:
        bench.behaviour = {"seconds": 0.1}
        held = [*TEN, "+hydra.launcher.additional_parameters.hold=true", "hydra.launcher.wait=false"]
        assert bench.sweep(*held).code == 0
        assert "Slurm lets 1 job wait: JobHeldUser" in bench.run("status").out
        assert "10 queued" in bench.run("status").out
        slurm("scontrol", "release", bench.jobs()[0])
        assert bench.run("wait").code == 0
        check(bench)
    finally:
        slurm("scancel", "-n", "other")


def test_what_is_planned_is_printed_and_nothing_else_happens(bench: Bench) -> None:
    ran = bench.run("plan", *SLURM, *bench.backend, *TEN, "hydra.launcher.pack_minutes=0")
    assert ran.code == 0, ran.err
    assert f"#SBATCH --array=0-{min(10, array_size({})) - 1}%" in ran.out
    assert "2 arrays of at most 9, the first" in ran.out or array_size({}) > 9
    assert "GPU hours" in ran.out
    assert not bench.outputs.exists()


# ---- clusters, and a job around the submitting process


def test_a_cluster_by_its_name(bench: Bench) -> None:
    """sbatch -M, as with several clusters: `ACCOUNTING=1 scripts/slurm_dev.sh up`."""
    (name,) = re.findall(r"ClusterName\s*=\s*(\S+)", slurm("scontrol", "show", "config"))
    if subprocess.run(["scontrol", "-M", name, "ping"], capture_output=True).returncode:
        pytest.skip(f"no slurmdbd knows cluster {name}; ACCOUNTING=1 scripts/slurm_dev.sh up starts one")
    bench.behaviour = {"seconds": 6}
    ran = bench.sweep(*TEN, f"hydra.launcher.clusters={name}", "hydra.launcher.wait=false")
    assert f" on cluster {name}; logs in" in ran.err
    until(bench.in_hand)
    assert "1 running" in bench.run("status").out
    assert "nothing to run again" in bench.run("retry").err
    assert "cancelled" in bench.run("cancel").err
    until(lambda: not slurm("squeue", "-h"))
    assert " lost" in bench.run("status").out
    bench.behaviour = {}
    ran = bench.run("retry", "--wait")
    assert ran.code == 0, ran.err
    check(bench)


def test_submitted_from_inside_an_allocation(bench: Bench) -> None:
    """Its limits and bindings are not the jobs'."""
    site = f'hydra.launcher.setup=["env > {bench.folder}/seen"]'
    inner = [
        sys.executable,
        "-m",
        "blip2sweep",
        "-m",
        *SLURM,
        *bench.backend,
        *TEN,
        "sweep_name=s",
        site,
        "hydra.launcher.wait=false",
    ]
    outer = [
        "srun",
        "-n1",
        "--mem-per-cpu=150",
        "--cpu-bind=none",
        "--job-name=around",
        "--chdir",
        str(bench.folder),
        *inner,
    ]
    ran = subprocess.run(outer, env={**os.environ, **bench.env}, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert "submitted from inside Slurm job " in ran.stderr
    assert bench.run("wait").code == 0
    check(bench)
    seen = dict(
        x.split("=", 1) for x in (bench.folder / "seen").read_text().splitlines() if x.startswith(("SLURM", "PMI"))
    )
    assert seen["SLURM_JOB_ID"] in {str(int(bench.jobs()[0]) + i) for i in range(4)}
    assert (
        not {"SLURM_MEM_PER_CPU", "SLURM_CPU_BIND", "SLURM_STEP_ID", "SLURM_SRUN_COMM_PORT", "PMI_RANK"} & seen.keys()
    )
