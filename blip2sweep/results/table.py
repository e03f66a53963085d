"""Makes the table from the ledger: one row for each cell, with metrics, paired drops and intervals.

columns.py says what each column is. Drops and what is retained have 95 % intervals, paired, over images
(metrics/intervals.py); a positive drop is worse. Failed cells are rows too.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import orjson

from blip2sweep.metrics import METRICS
from blip2sweep.recipe.old_sizes import OldSizes
from blip2sweep.recipe.part_bits import Anatomies, RoleColumns, width_columns
from blip2sweep.recipe.semantics import ROUNDED, SEMANTICS, semantics_of
from blip2sweep.recipe.setting import alike
from blip2sweep.results import latency
from blip2sweep.results.by_column import Row, by_column
from blip2sweep.results.ledger import Attempts, Ledger
from blip2sweep.results.packed import unpacked
from blip2sweep.results.planned import planned_models
from blip2sweep.results.record import OfTable, Record, Table
from blip2sweep.results.row_pieces import WHOLE, Pieces, Usual
from blip2sweep.results.score_folders import listed_variants
from blip2sweep.results.sources import Sources, baseline_of
from blip2sweep.results.sweeps import Sweep, list_sweeps
from blip2sweep.wire.lines import MeasuredLine, ResultLine

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, object]  # {column: value}
STALE = {"semantics": None, "recipe_json": None, "stored": None, "dtype": None}.keys()  # what `is_stale` looks at


def build_table(
    ledger: Ledger, sources: Sources | None = None, sweeps: Sequence[Sweep] | None = None
) -> pd.DataFrame:  # fmt: skip
    """All cells of the ledger, in the order they ended, with the columns that some row has. A cell without a baseline
    has no drops. A cell that was never measured has no metrics.

    sources: of measurements, by the scores that there were when cells were measured; by default by those of now. sweeps:
    oldest first; by default those of the output folder.
    """
    import pandas as pd  # imported late: planning and status only use `older`

    from blip2sweep.results.derived import with_derived
    from blip2sweep.results.schema import known

    _recipe_semantics.cache_clear()
    columns = by_column(*_rows(ledger, sources or Sources(ledger, listed_variants(ledger.output_dir))))
    # Column by column, so that the values of one are gone before the next is made.
    table = pd.DataFrame({name: pd.Series(columns.pop(name)) for name in [*columns]})
    if table.empty:
        return table
    if "finished" in table:
        table["finished"] = pd.to_datetime(table["finished"], unit="s", utc=True)
    widths = width_columns(table)
    table[widths] = table[widths].astype(float)
    return known(with_derived(table, list_sweeps(ledger.output_dir) if sweeps is None else sweeps))


def _rows(ledger: Ledger, sources: Sources) -> tuple[list[Row], list[int]]:
    """The rows, as pieces, and their places in the table: in the order of the results' times, or of the last starts.

    They are made in the order in which their lines were read, which lie beside each other in memory then.
    """
    anatomy_of = Anatomies(lambda: planned_models(ledger.output_dir))
    pieces, sized = Pieces(RoleColumns(anatomy_of)), OldSizes(anatomy_of)
    stale = OfTable(_stale)
    made = ((_row(key, own, ledger, sources, pieces, stale), own) for key, own in ledger.attempts.items())
    rows, times = [], []
    for row, attempts in made:
        if row is not None:
            rows.append(row)
            times.append(_time(attempts))
            if not row[1].get("stored") and not any(piece.get("stored") for piece in row):
                row.append(pieces.of(sized.changes({k: v for piece in row for k, v in piece.items()})))
    pieces.pack()
    return rows, sorted(range(len(rows)), key=times.__getitem__)


def _time(attempts: Attempts) -> float:
    """When a cell ended, or was last started."""
    line = attempts.last_start if attempts.result is None else attempts.result
    return 0 if line is None else line["time"]


def _row(
    key: str, attempts: Attempts, ledger: Ledger, sources: Sources, pieces: Pieces, stale: OfTable[bool]
) -> list[Record] | None:
    """The row of a cell; None for a cell that neither is done nor failed."""
    result = attempts.result
    if result is None:
        return _failed_row(key, attempts, pieces)
    if usual := pieces.usual(result):
        return _usual_row(key, attempts, ledger, sources, pieces, stale, usual)
    told = pieces.told(attempts.started, stale(result) if isinstance(result, Record) else is_stale(result))
    row = [pieces.head(key, "done"), *pieces.identity(result), told]
    if "published" in result:
        row.append(pieces.of(_published(result, ledger)))
    if measured := _measured(attempts, result, sources):
        row.append(pieces.measured(measured))
    row.append(pieces.of(_stopped(result)) if result.get("stopped") else WHOLE)
    if beside := _beside(result, ledger, sources):
        row.append(pieces.beside(beside))
    row.append(pieces.run(result))
    return [*row, pieces.of(latency.columns(attempts))] if attempts.latency else row


def _usual_row(
    key: str, attempts: Attempts, ledger: Ledger, sources: Sources, pieces: Pieces, stale: OfTable[bool], usual: Usual
) -> list[Record]:
    """The row of a cell with all images that was not imported, from what is known of its table."""
    result = cast("Record", attempts.result)
    place = result.place
    started = max(len(attempts.starts), 1 + usual.others[place])
    row = [pieces.head(key, "done"), usual.identity[place], pieces.told(started, stale(result))]
    if measured := attempts.measured.get(sources(cast("ResultLine", result))):
        row.append(pieces.measured(measured))
    row.append(WHOLE)
    twin = ledger.attempts.get(str(usual.beside[place] or ""))
    if twin and twin.result and (beside := _measured(twin, twin.result, sources)):
        row.append(pieces.beside(beside))
    row.append(Record(usual.run, place))
    return [*row, pieces.of(latency.columns(attempts))] if attempts.latency else row


def _measured(attempts: Attempts, result: ResultLine, sources: Sources) -> MeasuredLine | None:
    """What was measured of a result and may be shown."""
    measured = attempts.measured.get(sources(result))
    return measured if measured is not None and _is_comparable(result, measured) else None


def _stopped(result: ResultLine) -> Columns:
    """How many images a cell that stopped has seen, and why it stopped."""
    told = result["stopped"]
    return {"images": told["images"], "images_of": told["of"], "stopped": told["reason"]}


def _beside(result: ResultLine, ledger: Ledger, sources: Sources) -> MeasuredLine | None:
    """What was measured of the cell of torch beside one of another back end: of the same recipe, or of the baseline where
    torch cannot have the recipe. None where it is not done, or never measured."""
    attempts = ledger.attempts.get(str(result["columns"].get("beside") or ""))
    return _measured(attempts, attempts.result, sources) if attempts and attempts.result else None


def _is_comparable(result: ResultLine, measured: MeasuredLine) -> bool:
    """Whether what was measured may be shown: of a cell that stopped only what it keeps, times the whole baseline's, and
    never the mean of the images that it saw."""
    return not result.get("stopped") or "of" in measured


def is_stale(result: ResultLine) -> bool:
    """Whether this version would compute the cell's configuration differently. Imported results never count as
    stale."""
    columns = result["columns"]
    stored = str(columns.get("stored") or columns.get("dtype", ""))
    return "imported" not in result and bool(
        columns["semantics"] != _recipe_semantics(alike(columns["recipe_json"]), stored)
    )


def _stale(table: Table) -> list[bool]:
    """`is_stale` of all results of a table."""
    own = table.columns["columns"]
    if "imported" in table.columns or not isinstance(own, Table) or not own.columns.keys() >= STALE:
        return [is_stale(cast("ResultLine", table[i])) for i in range(len(table))]
    semantics, recipes, *dtypes = (unpacked(own.columns[name]) for name in STALE)
    stored = (str(a or b) for a, b in zip(*dtypes, strict=True))
    return [s != _recipe_semantics(alike(r), d) for s, r, d in zip(semantics, recipes, stored, strict=True)]


def older(results: Iterable[ResultLine]) -> str | None:
    """A remark about results that an earlier version computed; None when there are none."""
    counts = Counter(r["columns"]["semantics"] for r in results if is_stale(r))
    return older_rows(counts)


def older_rows(counts: Mapping[int, int]) -> str | None:
    """The same remark from {semantics: number of rows}. One sentence, or None."""
    if not counts:
        return None
    n, numbers = sum(counts.values()), ", ".join(map(str, sorted(counts)))
    rows = f"{n} rows were" if n > 1 else "1 row was"
    now = SEMANTICS if max(counts) < SEMANTICS else f"{SEMANTICS}, in half precision {ROUNDED}"
    return (
        f"{rows} computed by an earlier version (semantics {numbers}, now {now}): not shown and not compared; the "
        f"same command computes them again, under new keys"
    )


@functools.cache
def _recipe_semantics(recipe_json: str, stored: str) -> int:
    """Today's semantics number of a recipe's methods and steps. stored: the column."""
    return semantics_of(orjson.loads(recipe_json), stored)  # of a recipe as `alike` gives it


def _published(result: ResultLine, ledger: Ledger) -> Columns:
    """Imported scores and their drops. They have no intervals, because scores of single images are unknown."""
    baseline = baseline_of(result, ledger)
    base = baseline.get("published", {}) if baseline else {}
    found: Columns = {
        "imported": result["imported"],
        **{k: result.get(k) for k in ("configs", "noop_configs")},
        **result["published"],
    }
    for name, value in result["published"].items():
        if name in base and name in METRICS:
            found |= {f"baseline_{name}": base[name], f"drop_{name}": METRICS[name].drop(base[name], value)}
    return found


def _failed_row(key: str, attempts: Attempts, pieces: Pieces) -> list[Record] | None:
    """The row of a cell without a result; None when no failure line has its columns."""
    failure = attempts.last_failure
    if failure is None or "columns" not in failure:
        return None
    reason = {"failure": failure["kind"], "error": failure["error"], "host": failure["host"], "job": failure.get("job")}
    told = pieces.of({"attempts": attempts.started, "stale": False, **reason})
    return [pieces.head(key, "failed"), *pieces.identity(failure), told]
