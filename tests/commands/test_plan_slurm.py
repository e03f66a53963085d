"""The batch script that a plan prints, on machines where Slurm is missing or does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.commands.plan import describe_local, describe_slurm
from blip2sweep.slurm.settings import checked_launcher
from tests.command_line import blip2sweep
from tests.composing import plan

WORDS = ["backend=dummy", "task=shapes_vqa", "task.limit=4", "part=vit", "quant.bits=2,4"]
LAUNCHER = {"name": "b", "timeout_min": 5, "gpus_per_node": 1, "nodes": 1}


def stub(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_machine_without_slurm(tmp_path: Path) -> None:
    ran = blip2sweep("plan", *WORDS, "hydra/launcher=slurm", cwd=tmp_path, env={"PATH": str(tmp_path)})
    assert ran.code == 0, ran.err
    assert "no Slurm here: scontrol is not installed. The script is what a sweep would submit" in ran.out
    assert "arrays are taken to hold 1001 packs, Slurm's default\n\nsbatch script (" in ran.out
    assert "\n#SBATCH --gpus-per-node=1\n" in ran.out
    assert "-m blip2sweep.slurm.batch_job" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_a_controller_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(tmp_path, "scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    describe_slurm(plan(*WORDS), tmp_path / "out", checked_launcher(LAUNCHER))
    told = capsys.readouterr().out
    assert "Slurm does not answer: slurm_load_ctl_conf error: Unable to contact slurm controller. The script" in told
    assert "\n#SBATCH --job-name=b\n" in told
    assert not (tmp_path / "out").exists()


def test_a_controller_that_answers_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub(tmp_path, "scontrol", "echo MaxArraySize = 2")
    monkeypatch.setenv("PATH", str(tmp_path))
    describe_slurm(plan(*WORDS), tmp_path / "out", checked_launcher({**LAUNCHER, "pack_minutes": 0}))
    told = capsys.readouterr().out
    assert "2 arrays of at most 2, the first" in told
    assert "does not answer" not in told


def test_nothing_to_run_has_no_script_and_one_pack_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(*WORDS)
    describe_local(made, tmp_path / "out", 1, 1)
    assert f"1 worker of {len(made.cells)} cells, the longest" in capsys.readouterr().out
    made.done = set(made.cells)
    describe_slurm(made, tmp_path / "out", checked_launcher(LAUNCHER))
    assert capsys.readouterr().out == "no sbatch script: nothing is to run\n"
