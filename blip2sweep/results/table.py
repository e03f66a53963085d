"""Ledger -> table: one row a cell, with metrics, paired drops and intervals.

Columns: identity (what the cell is), metrics and, for each metric m, `baseline_m, drop_m, drop_m_low, drop_m_high` (95 %,
paired, over images: metrics/intervals.py; positive is worse) and, for a task's main metric, `changed_m`, the number of images on
which the cell differs; output health, size, cost, provenance. Failed cells are rows too.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from blip2sweep.metrics import METRICS
from blip2sweep.recipe.part_bits import RoleColumns, width_columns
from blip2sweep.recipe.semantics import SEMANTICS, semantics
from blip2sweep.results import drops as measured
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Attempts, Ledger
from blip2sweep.results.planned import planned_models
from blip2sweep.wire.lines import ResultLine

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, object]  # by column
TORCH = "torch"  # what lines of the ledger mean that name no back end


def build_table(ledger: Ledger) -> pd.DataFrame:
    """All cells of the ledger, in the order they were finished. Cells without a baseline have no drops; those that nobody
    measured have no metrics."""
    import pandas as pd  # planning and status ask for `older` alone

    _of_recipe.cache_clear()
    rows, with_roles = (
        (_row(key, attempts, ledger) for key, attempts in _ordered(ledger)),
        RoleColumns(lambda: planned_models(ledger.output_dir)),
    )
    table = pd.DataFrame([with_roles(r) for r in rows if r])
    if "finished" in table:
        table["finished"] = pd.to_datetime(table["finished"], unit="s", utc=True)
    return _without_empty_columns(table) if len(table) else table


def _without_empty_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Columns nobody filled are left out, but for the parts' widths: a part left alone everywhere is still a part."""
    widths = width_columns(table)
    table[widths] = table[widths].astype(float)
    return table.loc[:, table.notna().any() | table.columns.isin(widths)]


def _ordered(ledger: Ledger) -> Iterable[tuple[str, Attempts]]:
    return sorted(
        ledger.attempts.items(), key=lambda item: (item[1].result or item[1].last_start or {"time": 0})["time"]
    )


def _row(key: str, attempts: Attempts, ledger: Ledger) -> Row | None:
    if attempts.result is None:
        return _failed_row(key, attempts)
    result = attempts.result
    found = attempts.measured.get(source_of(result, ledger))
    return {
        "key": key,
        "status": "done",
        **_identity(result),
        "attempts": attempts.started,
        "stale": is_stale(result),
        **_published(result, ledger),
        **(measured.columns(found) if found else {}),
        **_run(result),
    }


def _identity(result: ResultLine) -> Row:
    """The columns of what the cell is. Lines say of the back end only where it is not torch; of imported rows it is not known."""
    columns = result["columns"]
    return {**columns} if "imported" in result else {**columns, "backend": columns.get("backend", TORCH)}


def is_stale(result: ResultLine) -> bool:
    """Whether a cell of this configuration would be computed otherwise today. What was imported never is."""
    columns = result["columns"]
    return "imported" not in result and bool(columns["semantics"] != _of_recipe(columns["recipe_json"]))


def older(results: Iterable[ResultLine]) -> str | None:
    """What there is to say of rows that an earlier version made; None where there are none."""
    known = Counter(r["columns"]["semantics"] for r in results if is_stale(r))
    return older_rows(known)


def older_rows(counts: Mapping[int, int]) -> str | None:
    """counts: {semantics: rows}. One sentence, or None."""
    if not counts:
        return None
    n, numbers = sum(counts.values()), ", ".join(map(str, sorted(counts)))
    rows = f"{n} rows were" if n > 1 else "1 row was"
    return (
        f"{rows} computed by an earlier version (semantics {numbers}, now {SEMANTICS}): not shown and not compared; the "
        f"same command computes them again, under new keys"
    )


@functools.cache
def _of_recipe(recipe_json: str) -> int:
    entries = json.loads(recipe_json)
    return semantics((e["method"] for e in entries if "step" not in e), (e["step"] for e in entries if "step" in e))


def source_of(result: ResultLine, ledger: Ledger) -> str:
    """What the metrics and drops of a result are to be measured from, as the ledger is now."""
    if not result["predictions"]:  # imported scores may come without outputs
        return ""
    name, seconds = predictions_name(result), measured.seconds_noted(result)
    return measured.source(name, seconds, baseline_of(result, ledger))


def baseline_of(result: ResultLine, ledger: Ledger) -> ResultLine | None:
    """The `result` line of a result's baseline."""
    attempts = ledger.attempts.get(result["columns"]["baseline"])
    return attempts.result if attempts else None


def _published(result: ResultLine, ledger: Ledger) -> Row:
    """Imported scores and their drops; no intervals, since nothing is known of single images."""
    if "published" not in result:
        return {}
    baseline = baseline_of(result, ledger)
    base = baseline.get("published", {}) if baseline else {}
    found: Row = {
        "imported": result["imported"],
        **{k: result.get(k) for k in ("configs", "noop_configs")},
        **result["published"],
    }
    for name, value in result["published"].items():
        if name in base and name in METRICS:
            found |= {f"baseline_{name}": base[name], f"drop_{name}": METRICS[name].drop(base[name], value)}
    return found


def _failed_row(key: str, attempts: Attempts) -> Row | None:
    failure = attempts.last_failure
    if failure is None or "columns" not in failure:
        return None
    told = {"failure": failure["kind"], "error": failure["error"], "host": failure["host"], "job": failure.get("job")}
    columns = {**failure["columns"], "backend": failure["columns"].get("backend", TORCH)}
    return {"key": key, "status": "failed", **columns, "attempts": attempts.started, "stale": False, **told}


def _run(result: ResultLine) -> Row:
    """Cost and provenance."""
    plain = {
        k: result.get(k)
        for k in ("layers_changed", "threads", "cpu", "cpu_capability", "versions", "attention", "image_processor")
    }
    return {
        **result.get("cost", {}),
        **plain,
        "code": result.get("code"),
        "predictions": result["predictions"],
        "host": result["host"],
        "job": result.get("job"),
        "finished": result["time"],
    }
