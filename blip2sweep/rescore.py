"""`blip2sweep rescore`: metrics of committed predictions, without inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blip2sweep.canonical import canonical_json
from blip2sweep.collect import collect, write_sweep
from blip2sweep.errors import UserError
from blip2sweep.ledger import Ledger
from blip2sweep.records import predictions_or_none, stem
from blip2sweep.scoring import Scorer, score_result
from blip2sweep.sweep.packs import whole_packs
from blip2sweep.sweep.sweeps import list_sweeps
from blip2sweep.tasks import planned_task


def rescore(output_dir: Path) -> str:
    """Score every result whose statistics are missing or of another scorer version, then collect every sweep's table too.

    Says what it did.
    """
    ledger = Ledger(output_dir, measured=True)
    results = ledger.refresh().results()
    if not results:
        raise UserError(f"{output_dir}: no results here; right: --output-dir of a sweep, or wait for its first cell")
    scored = score_results(output_dir, results)
    table = collect(output_dir, anew=scored, ledger=ledger)
    for sweep in list_sweeps(output_dir):
        write_sweep(output_dir, table, sweep, ledger)
    return f"scored {len(scored)} of {len(results)} cells; the others were up to date"


def score_results(output_dir: Path, results: Sequence[dict[str, Any]]) -> set[str]:
    """Score those of these results that need it; their keys. Raises UserError where that cannot be done."""
    tasks, scored = _tasks(output_dir), set()
    scorers: dict[str, Scorer] = {}
    for result in results:
        task = tasks.get(result["key"])
        if task is not None:
            name = canonical_json(task)
            scorers[name] = scorers.get(name) or Scorer(planned_task(task))
            if _score(output_dir, result, scorers[name]):
                scored.add(result["key"])
    return scored


def _score(output_dir: Path, result: dict[str, Any], scorer: Scorer) -> bool:
    """Whether it was scored just now; what has no outputs to score, and what is damaged, is not."""
    name = stem(result["key"], result["predictions"]) if result["predictions"] else None
    if name is None or predictions_or_none(output_dir, name) is None:
        return False
    return score_result(output_dir, name, scorer)


def _tasks(output_dir: Path) -> dict[str, dict[str, Any]]:
    """{key: task config}, from the packs of every sweep."""
    paths = [p for s in list_sweeps(output_dir) for p in sorted((s.folder(output_dir) / "packs").glob("*.json"))]
    return {job["key"]: job["task"] for pack in whole_packs(paths) for job in pack["cells"]}
