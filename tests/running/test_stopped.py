"""What following a sweep says of cells that stopped."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.sweeps import Sweep
from blip2sweep.running.queue import QueueState
from blip2sweep.running.status import Status, sweep_status


def status(folder: Path, **settings: object) -> Status:
    sweep = Sweep("s", "", 1.0, ["a", "b"], [], settings=settings)  # type: ignore[arg-type]
    return sweep_status(folder, sweep, Ledger(folder, brief=True), QueueState())


def test_stopped_cells_are_done_for_who_asked_so_and_for_nobody_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    stopped = {"images": 96, "of": 400, "reason": "known to ±5 %", "stop": "known", "margin": 0.05}
    for key, told in (("a", {}), ("b", {"stopped": stopped})):
        journal.write("result", key=key, attempt=key, predictions=None, replaces=[], starts=[], **told, columns={})
    journal.close()
    asked = {"stop": "known", "margin": 0.05, "images": {"b": 400}}
    assert (
        status(tmp_path, stop=asked).summary(1)
        == "2 cells: 2 done (1 stopped, after 24 % of their images; 1 not scored)"
    )
    assert status(tmp_path).summary() == "2 cells: 1 done, 1 lost"
    assert status(tmp_path, stop={**asked, "margin": 0.01}).states == {"a": "done", "b": "lost"}
