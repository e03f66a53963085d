"""A worker whose cells go side by side: what one cell does in the turn of another costs the other nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.wire.stopping import LookAnswer, LookRequest
from blip2sweep.workers import by_rounds, worker
from blip2sweep.workers.attempts import died_in
from blip2sweep.workers.run_cell import OUT_OF_TIME
from blip2sweep.workers.signals import Stop
from blip2sweep.workers.supervisor import LOST
from blip2sweep.workers.worker import BROKEN, CELL_FAILED, Worker
from tests.workers.rounds.work import OF, Judge


class Unscored:
    """In the place of scoring."""

    def __init__(self, *_: object) -> None:
        self.submitted = list[str]()

    def expect(self, job: Any) -> None:
        pass

    def __call__(self, name: str, job: Any) -> None:
        self.submitted.append(name)

    def close(self, wait: bool) -> bool:
        return True


class Beside(Dummy):
    """Cells go side by side on it, and one of them, `breaks`, leaves a device on which nothing runs any more."""

    ROUNDS = True
    breaks = ""

    def __init__(self, settings: Any) -> None:
        super().__init__({})
        self.alone, self.broken = settings["alone"], False

    def __call__(self, job: Any, batch_size: int | None = None) -> Answered:
        self.broken |= job["key"] == self.breaks
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().__call__(job, batch_size)

    def alike(self, job: Any) -> str | None:
        return None if self.alone else "k"

    def fills(self, job: Any) -> bool:
        return False

    def comes(self, jobs: Sequence[Any]) -> None:
        pass


@pytest.fixture
def pack(tmp_path: Path, cells: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(worker, "Scoring", Unscored)
    monkeypatch.setattr(worker, "load_backend", Beside)
    images = {cells[name]["key"]: OF for name in ("same", "other")}
    stop = {"stop": "known", "margin": 0.01, "images": images}
    return {"sweep": "s", "run": "r", "index": 0, "output_dir": str(tmp_path), "settings": {"stop": stop},
            "cells": [*cells.values()]}  # fmt: skip


def look_by_look(request: LookRequest) -> LookAnswer:
    """No cell stops, and each has many rounds."""
    return {"reason": None, "images": None, "ahead": next(iter(request["coming"]), None), "error": None}


def run(pack: Any) -> int:
    with closing(Journal(Path(pack["output_dir"]))) as journal:
        return Worker(pack, journal, Stop()).run()


def test_a_cell_that_breaks_a_device_in_the_turn_of_another_fails_alone(
    pack: Any, cells: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Beside, "breaks", cells["other"]["key"])
    monkeypatch.setattr(by_rounds, "LookProcess", lambda _: Judge(look_by_look))
    codes = [run(pack)]
    while codes[-1] == BROKEN and len(codes) < 9:
        codes.append(run(pack))
    assert codes == [BROKEN, BROKEN, BROKEN, CELL_FAILED]  # of one cell, and twice of the other, which is then given up
    attempts = Ledger(Path(pack["output_dir"])).refresh().attempts
    assert [attempts[cells[name]["key"]].done for name in ("base", "same", "other")] == [True, True, False]
    assert [len(attempts[cells[name]["key"]].failures) for name in ("same", "other")] == [1, 2]


@pytest.mark.parametrize(
    ("failure", "died"),
    [({"kind": "crash", "fatal": True}, True), ({"kind": "crash"}, False), (LOST, False), (OUT_OF_TIME, False)],
    ids=["dead", "failed", "job ended", "no time"],
)
def test_after_a_death_cells_are_alone(pack: Any, cells: dict[str, Any], failure: Any, died: bool) -> None:
    with closing(Journal(Path(pack["output_dir"]))) as journal:
        for event, more in (("started", {}), ("failed", failure)):
            journal.write(event, **{"key": cells["same"]["key"], "run": "r", "attempt": "a", "error": "", **more})
    attempts = Ledger(Path(pack["output_dir"])).refresh().attempts
    assert died_in("r", [None, *attempts.values()]) is died
    assert not died_in("another launch", attempts.values())


def test_what_a_turn_lent_is_not_taken_off_the_next_cell(pack: Any, cells: dict[str, Any]) -> None:
    with closing(Journal(Path(pack["output_dir"]))) as journal:
        one = Worker(pack, journal, Stop())
        one._rounds.companions.lent = 1000.0
        one._run(cells["base"], half=False)
    assert min(one._longest.values()) > 0


def test_a_cell_that_another_worker_has_done_meanwhile_leaves_nothing(pack: Any, cells: dict[str, Any]) -> None:
    with closing(Journal(Path(pack["output_dir"]))) as journal:
        one = Worker(pack, journal, Stop())
        for job in (cells["base"], cells["same"]):
            one._todo.remove(job)
            one._step(job, one._todo)
        other = cells["other"]
        kept = Path(pack["output_dir"]) / "cache" / "prefixes" / f"{other['key']}.json"
        assert kept.exists()
        Worker({**pack, "run": "their", "cells": [other]}, journal, Stop()).run()
        kept.write_text("{}")  # a round of the first worker that ended later
        one._step(other, one._todo)
    assert not kept.exists()
    assert len(Ledger(Path(pack["output_dir"])).refresh().attempts[other["key"]].starts) == 1
