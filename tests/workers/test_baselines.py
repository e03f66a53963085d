"""Cells that may stop are left for later while their baseline is on its way, and never longer than for so many seconds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.planning.packs import make_pack, read_pack, write_packs
from blip2sweep.results.ledger import Journal
from blip2sweep.workers import baselines, worker
from blip2sweep.workers.signals import Stop
from blip2sweep.workers.worker import Worker
from tests.composing import plan

WORDS = ("task=shapes_vqa", "task.limit=400", "part=vit,llm,qformer", "quant.bits=2", "backend=dummy")
IMAGES = 134


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    """The jobs of a baseline, of two cells that may stop, and of one that sees all images."""
    return [c.job() for c in plan(*WORDS).cells.values()]


class Bench:
    """A worker whose cells take no time. ran: their keys in order. waited: {how many times it slept: what happens then};
    nothing happens otherwise, and after ten times it is told to stop."""

    def __init__(self, folder: Path, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self.first, self.second, self.whole = made
        self.folder, self.ran, self.slept = folder, list[str](), 0
        self.waited: dict[int, Callable[[], None]] = {}
        self.journal, self.other, self.stop = Journal(folder), Journal(folder), Stop()
        monkeypatch.setattr(baselines.time, "sleep", self._sleep)

    def request(self, *launched: str) -> Any:
        images = {self.first["key"]: IMAGES, self.second["key"]: IMAGES}
        return {"stop": "known", "margin": 0.05, "images": images, **({"launched": [*launched]} if launched else {})}

    def __call__(self, *cells: dict[str, Any], launched: tuple[str, ...] = ()) -> list[str]:
        """The keys of the cells in the order in which they ran."""
        settings: Any = {"stop": self.request(*launched)}
        own = Worker(make_pack(cells, "s", "own", self.folder, settings), self.journal, self.stop)  # type: ignore[arg-type]
        own._run = lambda job, half: self.end(self.journal, job)  # type: ignore[method-assign,assignment]
        own._cells()
        return self.ran

    def end(self, journal: Journal, job: dict[str, Any], run: str = "own") -> None:
        self.ran.append(job["key"])
        columns = {**job["columns"], "baseline": job["baseline"]}
        journal.write("result", key=job["key"], run=run, predictions=None, columns=columns, attempt=job["key"])

    def _sleep(self, seconds: float) -> None:
        self.slept += 1
        if self.slept > 10:
            self.stop.reason = "told"
        self.waited.get(self.slept, lambda: None)()

    @property
    def stopping(self) -> list[str]:
        return [self.first["key"], self.second["key"]]


@pytest.fixture
def bench(tmp_path: Path, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, made, monkeypatch)


def test_a_cell_waits_for_a_baseline_of_another_pack_behind_cells_that_need_none(bench: Bench) -> None:
    bench.waited = {3: lambda: bench.end(bench.other, bench.base)}
    ran = bench(bench.first, bench.second, bench.whole, launched=(bench.base["key"],))
    assert ran == [bench.whole["key"], bench.base["key"], *ran[2:]]
    assert sorted(ran[2:]) == sorted(bench.stopping)
    assert bench.slept == 3


def test_so_it_does_for_one_that_another_sweep_computes(bench: Bench) -> None:
    bench.other.write(
        "started",
        key=bench.base["key"],
        run="other",
        attempt=bench.base["key"],
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    bench.waited = {2: lambda: bench.end(bench.other, bench.base, "other")}
    assert bench(bench.first)[0] == bench.base["key"]
    assert bench.slept == 2


def test_its_own_baseline_is_run_first_whatever_the_order(bench: Bench) -> None:
    assert bench(bench.first, bench.base, bench.second)[0] == bench.base["key"]
    assert bench.slept == 0


def test_nothing_is_waited_for_that_nobody_runs(bench: Bench) -> None:
    assert bench(bench.first, bench.second, bench.whole) == [*bench.stopping, bench.whole["key"]]
    assert bench.slept == 0


def test_nor_for_one_that_failed_for_good(bench: Bench) -> None:
    line = {"key": bench.base["key"], "run": "own", "kind": "error", "error": "out of luck"}
    bench.other.write("failed", **line, attempt="x")
    assert bench(bench.first, launched=(bench.base["key"],)) == [bench.first["key"]]
    assert bench.slept == 0


def test_patience_ends_and_the_cell_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE", 0.0)
    assert bench(bench.first, launched=(bench.base["key"],)) == [bench.first["key"]]


def test_a_pack_knows_which_of_its_baselines_others_run(tmp_path: Path, bench: Bench) -> None:
    settings: Any = {"stop": bench.request()}
    for packs, known in [([[bench.base], [bench.first]], [bench.base["key"]]), ([[bench.whole], [bench.first]], [])]:
        paths = write_packs(packs, tmp_path, "s", "r", tmp_path, settings)  # type: ignore[arg-type]
        of_packs = [read_pack(path)["settings"]["stop"] for path in paths]
        assert [own["launched"] for own in of_packs] == [[], known]
