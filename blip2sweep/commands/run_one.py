"""Runs one cell in this process, for launchers of other packages. The ledger and the rows are the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from blip2sweep.commands.run import settings
from blip2sweep.commands.run_checks import times
from blip2sweep.machine.devices import devices_here
from blip2sweep.metrics import METRICS
from blip2sweep.planning.cell import Cell
from blip2sweep.planning.packs import make_pack
from blip2sweep.planning.plan import PlannedJob, make_plan
from blip2sweep.planning.timed import timed_cells
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.drops import Baseline, measure
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.predictions import read_statistics
from blip2sweep.results.scored import Scored
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.results.sweeps import new_run
from blip2sweep.wire.pack import CellJob, Settings
from blip2sweep.workers.attempts import may_live
from blip2sweep.workers.worker import run_pack


def run_single(config: dict[str, Any]) -> float:
    """Run the cell unless the ledger has it. Returns its main metric. Raises the cell's failure."""
    output_dir = Path(config["output_dir"])
    ledger = Ledger(output_dir).refresh()
    plan = make_plan([PlannedJob((), config)], ledger, config.get("rerun") or [])
    plan.timed = timed_cells(plan, ledger, devices_here()) if times(config) else None
    key = plan.keys[0]
    assert key is not None
    rerun = {key: sorted(ledger.attempts[key].results)} if key in plan.again and ledger.done(key) else {}
    told = settings(config, rerun, plan.timed, plan.stopping.request)
    own = partial(_run, [c.job() for c in plan.to_launch if c.key == key], told, output_dir)

    def others() -> None:
        rest = [c.job() for c in plan.todo if c.key != key and not in_hand(ledger.refresh(), c.key)]
        _run(rest, {**told, "rerun": {}}, output_dir)

    # After the cell: by now the baseline of a sweep of our own has its own job. A cell that may stop is compared with it.
    for step in (others, own) if plan.stopping.request else (own, others):
        step()
    _score_variants(plan.cells.values(), output_dir, ledger.refresh())
    return _main_value(output_dir, key, ledger, plan.cells[key].task.main_metric)


def _score_variants(cells: Iterable[Cell], output_dir: Path, ledger: Ledger) -> None:
    """Score what another command has computed, and scored by other rules."""
    for cell in cells:
        result = ledger.attempts[cell.key].result if cell.key in ledger.attempts else None
        if result and result["predictions"] and cell.task.scoring:
            score_result(output_dir, predictions_name(result), Scorer(cell.task))


def _run(jobs: list[CellJob], told: Settings, output_dir: Path) -> None:
    if jobs:
        journal = Journal(output_dir)
        run_pack(make_pack(jobs, "single", new_run(), output_dir, told), journal)
        journal.close()


def in_hand(ledger: Ledger, key: str) -> bool:
    """Whether the cell is done, or another process may still finish it."""
    attempts = ledger.attempts.get(key)
    return attempts is not None and (attempts.done or any(may_live(s) for s in attempts.open))


def _main_value(output_dir: Path, key: str, ledger: Ledger, metric: str) -> float:
    attempts = ledger.attempts[key]
    if attempts.result is None:
        waits = "waits for a chat model; right: chat.online=true, or a sweep of our own launcher"
        why = waits if attempts.waits else "no result"
        raise RuntimeError(attempts.last_failure["error"] if attempts.last_failure else why)
    name, base = predictions_name(attempts.result), ledger.attempts.get(attempts.result["columns"].get("baseline", ""))
    if "stopped" in attempts.result and base is not None and base.result is not None:
        measured = measure(Scored(output_dir, name), Baseline(output_dir, base.result))
        value = measured["metrics"][metric][0]
        return float("nan") if value is None else float(value)
    statistics = read_statistics(output_dir, name)
    return METRICS[metric].value(statistics[METRICS[metric].statistic])
