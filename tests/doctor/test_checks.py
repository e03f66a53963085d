"""The doctor: what it finds here, and what it says when something is missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.doctor.anchors import ANCHORS, compare
from blip2sweep.doctor.checks import FAIL, OK, WARN, examine
from tests.command_line import blip2sweep, refused
from tests.composing import jobs


def test_everything_the_embedded_default_needs_is_here(tmp_path: Path) -> None:
    ran = blip2sweep("doctor", "--model", "tiny", "--task", "shapes_vqa", cwd=tmp_path)
    assert ran.code == 0, ran.out
    for word in ("versions", "torch", "java", "output_dir", "1.0 M parameters", "1500 samples on 500 images", "key "):
        assert word in ran.out, word
    assert not (tmp_path / "outputs").exists()


def test_missing_weights_and_data_fail_with_what_to_do(tmp_path: Path) -> None:
    words = ["doctor", "--model", "blip2-opt-2.7b", "--task", "coco_caption"]
    ran = blip2sweep(*words, cwd=tmp_path, env={"HF_HOME": str(tmp_path / "hub"), "BLIP2SWEEP_DATA": str(tmp_path)})
    assert ran.code == 1
    assert "hf download Salesforce/blip2-opt-2.7b" in ran.out
    assert "cocodataset.org" in ran.out


def test_an_unwritable_output_dir_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.fsync", refuse)
    states = {c.name: c.state for c in examine(tmp_path)}
    assert states["output_dir"] == FAIL
    assert list(tmp_path.iterdir()) == []
    assert states["versions"] == OK


def test_a_machine_without_gpu_and_slurm_is_warned_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    states = {c.name: c.state for c in examine(tmp_path)}
    assert (states["gpu"], states["slurm"]) == (WARN, WARN)


@pytest.mark.parametrize("answering", [(), ("sinfo",)])
def test_an_unused_sbatch_is_warned_of_not_failed(
    answering: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution's package without a controller, as on a laptop: nothing that runs here needs it."""
    for name in ("sbatch", "sinfo", "scontrol"):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {int(name not in answering)}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = (c for c in examine(tmp_path) if c.name == "slurm")
    assert check.state == WARN
    assert f"sbatch is here, and {'scontrol' if answering else 'sinfo'} gets no answer" in check.message
    assert "hydra/launcher=local works" in check.message


def test_bad_names(tmp_path: Path) -> None:
    refused(blip2sweep("doctor", "--model", "tinny", cwd=tmp_path), "did you mean 'tiny'")
    refused(blip2sweep("doctor", "--anchor", "sed", cwd=tmp_path), "did you mean 'seed'")


@pytest.mark.thorough
def test_anchors_are_valid_commands() -> None:
    for anchor in ANCHORS.values():
        assert len(jobs(*anchor.overrides, "part=none")) == 1


def test_an_anchor_is_compared_metric_by_metric(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame([{"cider": 1.2853, "meteor": 0.2785, "rouge_l": 0.5802, "bleu_4": 0.3678}]).to_parquet(path)
    lines, reached = compare("seed", path)
    assert reached
    assert len(lines) == 5
    pd.DataFrame([{"cider": 1.2, "meteor": 0.2785, "rouge_l": 0.5802, "bleu_4": 0.3678}]).to_parquet(path)
    lines, reached = compare("seed", path)
    assert not reached
    assert lines[0].startswith("OFF  cider: 1.20000, expected 1.28528")
