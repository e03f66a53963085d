"""Imports are not read through for garbage; what is made behind them is, as ever."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.machine.garbage import OBJECTS, USUAL, as_usual
from blip2sweep.results.ledger import Journal
from blip2sweep.workers.helper import Runner
from blip2sweep.workers.signals import Stop
from blip2sweep.workers.worker import Worker

SETTINGS: Any = {"backend": {"name": "dummy", "options": {}}}


@pytest.fixture
def _seldom() -> Iterator[None]:
    """As in a process whose main has said so, but for its end."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.set_threshold(OBJECTS)
    yield
    gc.set_threshold(*before)
    if not frozen:
        gc.unfreeze()


@pytest.mark.parametrize(
    ("module", "words", "code"),
    [
        ("blip2sweep", ["status", "nobody"], 2),
        ("blip2sweep.workers.worker", ["no pack"], 2),
        ("blip2sweep.workers.helper", ["-1"], 1),
    ],
)
def test_a_process_looks_seldom_and_at_its_end_at_nothing(
    module: str, words: list[str], code: int, tmp_path: Path
) -> None:
    told = "lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 10_000)"  # runs last: it is registered first
    run = f"import atexit, gc, runpy; atexit.register({told}); runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    plain = {
        k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"
    }  # which a command run in this process leaves
    done = subprocess.run(
        [sys.executable, "-c", run, *words], capture_output=True, text=True, check=False, cwd=tmp_path, env=plain
    )
    assert (done.returncode, done.stdout) == (code, f"{OBJECTS} True\n"), done.stderr


def worker(folder: Path) -> None:
    pack: Any = {"cells": [], "settings": SETTINGS, "output_dir": str(folder), "run": "r"}
    with closing(Journal(folder)) as journal:
        Worker(pack, journal, Stop())._load_backend()


@pytest.mark.parametrize("load", [worker, lambda folder: Runner(SETTINGS)])
@pytest.mark.usefixtures("_seldom")
def test_what_comes_behind_the_imports_of_a_back_end_is_looked_at_as_ever(load: Any, tmp_path: Path) -> None:
    load(tmp_path)
    assert gc.get_threshold() == USUAL
    assert gc.get_freeze_count() > 0


def test_a_process_of_others_keeps_its_rule() -> None:
    frozen = gc.get_freeze_count()
    as_usual()
    assert gc.get_freeze_count() == frozen
