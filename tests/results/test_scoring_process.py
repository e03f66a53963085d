"""Scoring beside the device: waited for at the end, told when it fails, mended by `rescore`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from blip2sweep.metrics import METRICS
from blip2sweep.metrics.tokenizer import TOKENIZERS
from blip2sweep.planning.packs import pack_data
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import read_predictions, read_statistics, stem, write_predictions
from blip2sweep.results.scoring import Scorer
from blip2sweep.results.scoring_process import ScoringProcess
from blip2sweep.results.scoring_service import Service
from blip2sweep.results.sweeps import Sweep
from blip2sweep.tasks import load_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.workers.worker import run_pack
from tests.command_line import blip2sweep
from tests.composing import plan


def jobs(*words: str) -> list[dict[str, Any]]:
    return [c.job() for c in plan(*words, "backend=dummy", "task.limit=12").cells.values()]


def run(these: list[dict[str, Any]], output_dir: Path, **settings: Any) -> int:
    """A pack through a worker whose captions are made up."""
    pack = pack_data(these, "s", "r", output_dir, settings)
    (output_dir / "sweeps/s/packs").mkdir(parents=True)
    (output_dir / "sweeps/s/packs/r-0.json").write_text(json.dumps(pack))
    keys = [j["key"] for j in these]
    Sweep("s", "", 0.0, keys, keys[:1]).write(output_dir)
    journal = Journal(output_dir)
    try:
        return run_pack({**pack, "cells": these}, journal)
    finally:
        journal.close()


def names(output_dir: Path) -> list[str]:
    return [stem(r["key"], r["predictions"]) for r in Ledger(output_dir).refresh().results()]


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["shapes_caption", "shapes_vqa"])
def test_a_worker_ends_when_everything_is_scored(tmp_path: Path, task: str) -> None:
    these = jobs(f"task={task}", "quant.bits=2,4,8")
    assert run(these, tmp_path) == 0
    assert len(names(tmp_path)) == 4
    scorer = Scorer(load_task(these[0]["task"]))
    for name in names(tmp_path):
        found, wanted = read_statistics(tmp_path, name), scorer.statistics(read_predictions(tmp_path, name))
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[k], wanted[k], equal_nan=True) for k in wanted)


@pytest.mark.thorough
def test_when_the_scorer_is_killed_rows_stay_and_rescore_mends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ScoringProcess._start

    def start_and_kill(process: ScoringProcess) -> None:
        real(process)
        assert process._process is not None
        os.kill(process._process.pid, signal.SIGKILL)

    monkeypatch.setattr(ScoringProcess, "_start", start_and_kill)
    assert run(jobs("task=shapes_vqa", "quant.bits=2,4"), tmp_path) == 3
    assert len(names(tmp_path)) == 3
    assert not (tmp_path / "scores").exists()
    lines = [json.loads(x) for path in (tmp_path / "journals").iterdir() for x in path.read_text().splitlines()]
    told = [x for x in lines if x["event"] == "unscored"]
    assert {x["key"] for x in told} == {j["key"] for j in jobs("task=shapes_vqa", "quant.bits=2,4")}
    assert all("right: blip2sweep rescore" in x["error"] for x in told)
    ran = blip2sweep("rescore", "--output-dir", str(tmp_path), cwd=tmp_path)
    assert ran.out.startswith("scored 3 of 3 cells"), ran
    assert all(METRICS["vqa_accuracy"].statistic in read_statistics(tmp_path, name) for name in names(tmp_path))


def test_one_cell_that_cannot_be_scored_is_told_and_the_others_are(tmp_path: Path) -> None:
    job = jobs("task=shapes_vqa", "quant.bits=2")[0]
    samples = load_task(job["task"]).samples
    good = [
        {"id": s.id, "image_id": s.image_id, "text": "a red circle", "tokens": 3, "nll_sum": 1.0, "nll_tokens": 3}
        for s in samples
    ]
    write_predictions(tmp_path, "good", Predictions.of(good))
    write_predictions(tmp_path, "strange", Predictions.of([{**good[0], "id": -5}]))
    process = ScoringProcess(tmp_path)
    for name in ("strange", "good"):
        process.submit(name, name, job["task"], job["baseline"])
    process.close()
    failures = dict(process.unscored())
    assert failures.keys() == {"strange"}
    assert failures["strange"]["kind"] == "crash"
    assert "vqa" in read_statistics(tmp_path, "good")
    assert list(process.unscored()) == []


def test_what_waits_is_tokenised_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = jobs("quant.bits=2")[0]["task"]
    for name in "abcd":
        records = [
            {
                "id": s.id,
                "image_id": s.image_id,
                "text": f"{name} red circle",
                "tokens": 3,
                "nll_sum": 1.0,
                "nll_tokens": 3,
            }
            for s in load_task(task).samples
        ]
        write_predictions(tmp_path, name, Predictions.of(records))
    starts: list[int] = []
    monkeypatch.setitem(TOKENIZERS, "ptb", lambda texts: starts.append(len(texts)) or list(texts))
    meteor = SimpleNamespace(statistics=lambda references, candidates: np.zeros((len(candidates), 21)))
    monkeypatch.setattr("blip2sweep.metrics.captions.shared_meteor", lambda: meteor)
    requests = [{"key": n, "name": n, "task": task, "baseline": "b"} for n in "abcd"]
    assert [a["failure"] for a in Service(tmp_path)(requests)] == [None] * 4
    assert [n for n in starts if n][1:] == [4]  # after the references, the captions of all four cells at once
