"""A screening on a real Slurm: a launch a round, with a queue that waits, a job that is lost, and Ctrl-C in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.slurm.cluster import SLURM, Bench, check, slurm, until

pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.thorough]
WORDS = [*SLURM, "backend=dummy", "sweep_name=s", "task=shapes_vqa", "task.limit=240", "part=vit,llm", "quant.bits=2,8"]
KEPT = {"kept": {"rtn2": 0.4, "rtn8": 0.97}}


def begin(bench: Bench) -> subprocess.Popen[str]:
    env = {**os.environ, **bench.env, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "blip2sweep", "screen", *WORDS]
    return subprocess.Popen(
        command, cwd=bench.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_screening_goes_on_after_ctrl_c_and_a_lost_job(bench: Bench) -> None:
    """The baseline waits in a queue that is closed for a while; of the second launch the job is cancelled while nobody
    follows it. The same words then run what is missing, and nothing twice."""
    bench.behaviour = KEPT
    slurm("scontrol", "update", "PartitionName=gpu", "State=DOWN")
    try:
        first = begin(bench)
        until(lambda: bench.jobs())
        assert "1 queued" in bench.run("status").out  # the baseline, and no cell that is not launched yet
    finally:
        slurm("scontrol", "update", "PartitionName=gpu", "State=UP")
    second = until(lambda: bench.jobs()[1:])[0]
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (130, "")
    assert (
        err.strip().splitlines()[-1]
        == f"what was seen is kept, and the same command goes on: blip2sweep screen {' '.join(WORDS)}"
    )
    slurm("scancel", second)
    last = bench.run("screen", *WORDS)
    assert last.code == 0, last.err
    assert "4 of 4 cells looked at" in last.out
    assert "already done" not in last.err
    table = check(bench, cells=5)
    assert set(table["status"]) == {"done"}
    assert len(bench.events("result")) <= 5 + 4  # the baseline, and each cell once to ±20 % and once whole at most
    launched, again = bench.jobs(), bench.run("screen", *WORDS)
    assert again.out == last.out
    assert "4 of 4 cells were looked at before" in again.err
    assert bench.jobs() == launched
