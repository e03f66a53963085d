"""A worker that is told to end in the middle of a training: its cell is requeued, and goes on at the step it reached."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.apply.recovery.trainer import Trainer
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.wire.pack import Pack
from blip2sweep.workers.signals import END, WALL, Stop
from blip2sweep.workers.worker import STOPPED, run_pack
from tests.in_process import jobs

pytestmark = pytest.mark.thorough

WORDS = ("part=qformer", "quant.bits=3", "recover=lora", "recover.target=qformer:0:attention", "recover.steps=3",
         "recover.n_samples=96")  # fmt: skip


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    every = jobs(*WORDS, "recover.batch_size=2", "recover.n_samples=8", "recover.holdout=0", limit=3)
    cells = [j for j in every if "control" in j and j["key"] != j["control"]]
    settings = {"cache": "memory", "cache_dir": str(tmp_path / "cache"), "device": "cpu", "scoring_minutes": 1}
    return {
        "sweep": "s", "run": "r", "index": 0, "output_dir": str(tmp_path), "settings": settings, "cells": cells, "seconds": None,
    }  # type: ignore[typeddict-item]  # fmt: skip


def run(pack: Pack) -> int:
    stop = Stop()
    before = [signal.getsignal(s) for s in (signal.SIGUSR2, signal.SIGTERM)]
    stop.install()
    try:
        with closing(Journal(Path(pack["output_dir"]))) as journal:
            return run_pack(pack, journal, stop)
    finally:
        for number, handler in zip((signal.SIGUSR2, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("ending", [False, True])
def test_usr2_stops_between_two_steps_and_the_next_turn_goes_on(
    ending: bool, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Also a training that used up a job's whole wall time: unlike another cell, it has not failed."""
    if ending:
        monkeypatch.setenv(WALL, "10")
        monkeypatch.setenv(END, str(time.time() + 10))
    own, steps = Trainer._step, list[int]()

    def told(trainer: Trainer, step: int) -> None:
        steps.append(step)
        if steps == [0]:
            os.kill(os.getpid(), signal.SIGUSR2)
        own(trainer, step)

    monkeypatch.setattr(Trainer, "_step", told)
    assert run(pack) == STOPPED
    assert steps == [0]
    (cell,), output_dir = pack["cells"], Path(pack["output_dir"])
    lines = _lines(output_dir, cell["key"])
    assert not lines.result
    assert not lines.failed_in(["r"])
    assert len(list((output_dir / "cache" / "recovery").glob("*.safetensors"))) == 1
    for name in (WALL, END):
        monkeypatch.delenv(name, raising=False)
    assert run(pack) == 0
    assert steps == [0, 1, 2]
    result = _lines(output_dir, cell["key"]).result
    assert result is not None
    assert result["cost"]["recover_steps"] == 3


def _lines(output_dir: Path, key: str) -> Any:
    return Ledger(output_dir).refresh().attempts[key]
