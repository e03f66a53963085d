"""`blip2sweep import csv FILE`: anybody's results as ledger rows, one line a cell.

A line says what was done to the model in one of three ways: `recipe` (`vit:all:all=rtn4/channel;
llm:0-3:mlp=rtn8/group32`); `part` with `bits` and, if wanted, `blocks`, `layers`, `method`, `strategy`, `group_size`
and `symmetric`; or one column of widths a part (`bits_vit`, `vit_bits`). Metrics have the table's names (`cider`,
`vqa_accuracy`, …) or names that others use. One line is the baseline, the untouched model. `model`, `task`, `dtype` and
`samples` are columns with one value for the whole file; model and task are options too. The command prints how it read
the columns and which ones it did not use. It reports all mistakes of a file together, and then imports nothing.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from blip2sweep.canonical import digest
from blip2sweep.errors import UserError, nearest
from blip2sweep.importing.csv_columns import IDENTITY, Columns, compact, read_columns
from blip2sweep.importing.csv_file import Line, Table, read_table
from blip2sweep.importing.csv_numbers import PLAIN, Values, read_metrics
from blip2sweep.importing.csv_recipes import LineRecipes
from blip2sweep.importing.mistakes import Mistakes
from blip2sweep.importing.params import model_params
from blip2sweep.importing.rows import Result, Source, result, write_rows
from blip2sweep.importing.stopped import COLUMNS as EARLY
from blip2sweep.importing.stopped import stopped_of
from blip2sweep.metrics import METRICS
from blip2sweep.models.dtypes import BITS
from blip2sweep.models.shipped import model_anatomy
from blip2sweep.recipe import Recipe
from blip2sweep.recipe.old_sizes import half_of
from blip2sweep.results.sweeps import Sweep

DEFAULTS: dict[str, str | None] = {
    "model": "blip2-opt-2.7b",
    "task": "coco_caption",
    "dtype": "unknown",
    "stored": None,
    "samples": None,
    "data": None,
    "generation": "unknown",
}
# What is read of a table of ours besides recipe and metrics: texts, and whole numbers.
ORIGIN = ("weights", "revision", "calibration", "calibration_upstream")
COUNTS = ("calibration_samples", "calibration_seed")
DTYPES = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Options:
    """The command's options. columns: MEANING=COLUMN; constants: MEANING=VALUE; scales: METRIC=1 or METRIC=100."""

    model: str | None = None
    task: str | None = None
    params: int | None = None
    columns: Sequence[str] = ()
    constants: Sequence[str] = ()
    scales: Sequence[str] = ()
    decimal: str | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (None, "comma", "point"):
            raise UserError(f"--decimal {self.decimal}: right: comma, or point")


@dataclass
class Imported:
    """What an import found. notes: how the file was read, to be printed; unused: columns without a meaning."""

    name: str
    cells: int
    unused: list[str]
    notes: list[str] = field(default_factory=list)


def import_csv(path: Path, output_dir: Path, options: Options = Options()) -> Imported:
    """Import a CSV file. A second import replaces the first.

    Raises UserError: one text that names every mistake with its line.
    """
    mistakes = Mistakes(path)
    table = read_table(path, mistakes)
    model = options.model or _first(table, "model") or "blip2-opt-2.7b"
    anatomy = model_anatomy(model)
    columns = read_columns(table, anatomy, options.columns, options.constants, mistakes)
    table, failed = _finished(table, columns.own)
    _check_there(table, columns)
    source = _source(table, columns, options, model_params(model, options.params), mistakes)
    lines = LineRecipes(table, columns, anatomy)
    recipes = _recipes(table, lines, mistakes)
    base = next((n for n, r in recipes.items() if r.empty), None)
    values, notes = read_metrics(table, columns, base, options.scales, options.decimal, mistakes)
    read = [x for x in table.lines if x.number in recipes]
    rows = [_row(source, recipes[x.number], x, columns, values, mistakes) for x in read]
    _check_rows(rows, [x.number for x in read], values, base, mistakes)
    mistakes.check()
    name = "csv-" + re.sub(r"[^\w.-]+", "-", path.stem)
    notes = [*columns.notes, *lines.notes, *notes, *failed]
    if (output_dir / "sweeps" / name / "sweep.json").exists():
        notes.append(f"what was imported as {name} before is replaced")
    baseline = str(rows[0]["columns"]["baseline"])
    sweep = Sweep(name, shlex.join(["import", "csv", path.name]), time.time(), [r["key"] for r in rows], [baseline])
    write_rows(output_dir, sweep, rows)
    return Imported(name, len(rows), _unused(table, columns), notes)


def _unused(table: Table, columns: Columns) -> list[str]:
    """The columns that the import did not use."""
    used = re.compile(
        "|".join(("key", "status", *ORIGIN, *COUNTS, *EARLY, r"drop_.+_(low|high)")) if columns.own else r"(?!)"
    )
    return [c for c in columns.unused if not used.fullmatch(c)] + ["one without a heading"] * table.unnamed


def _first(table: Table, column: str) -> str | None:
    """The first value in a column, None without the column."""
    own = [c for c in table.columns if compact(c) == column]
    return next((v for c in own for _, v in table.values(c)), None)


def _finished(table: Table, own: bool) -> tuple[Table, list[str]]:
    """The table without failed cells, and a note of their number.

    Failed cells are in tables of ours and have no metrics.
    """
    kept = [x for x in table.lines if not (own and x.cells.get("status") == "failed")]
    left = len(table.lines) - len(kept)
    return replace(table, lines=kept), [f"{left} failed cells are left out"] if left else []


def _check_there(table: Table, columns: Columns) -> None:
    found = ", ".join(table.columns)
    if not any(m in columns for m in ("recipe", "recipe_json", "part", "bits")) and not any(
        m.startswith("bits_") for m in columns.of
    ):
        raise UserError(
            f"{table.path}: no column recipe or part (found: {found}); {nearest('part', table.columns)}; right: also "
            f"--columns bits_vit=COLUMN"
        )
    if not columns.metrics:
        raise UserError(
            f"{table.path}: no metric column (found: {found}); right: one of {', '.join(METRICS)}, or --columns cider=COLUMN"
        )


def _source(table: Table, columns: Columns, options: Options, params: int, mistakes: Mistakes) -> Source:
    given = {"model": options.model, "task": options.task}
    identity = {name: _agreed(table, columns, name, given.get(name), mistakes) for name in IDENTITY}
    model, samples = str(identity.pop("model")), identity.pop("samples")
    number: int | str | None = samples
    if samples is not None and not re.fullmatch(r"\d{1,3}([,.' ]\d{3})+|\d+(\.0*)?", samples):
        mistakes.add(f"column samples says {samples}; right: a number")
    elif samples is not None:
        number = int(re.sub(r"[,' ]|\.(?=\d{3})|\.0*$", "", samples))
    identity["dtype"] = DTYPES.get(str(identity["dtype"]).lower(), identity["dtype"])
    stored = _stored(identity.pop("stored"), str(identity["dtype"]), mistakes)
    identity["data"] = identity["data"] or digest([f"csv-{table.path.stem}", identity["task"]])[:12]
    return Source(table.path.name, model, model_anatomy(model), params, {**identity, "samples": number}, stored)


def _stored(given: str | None, dtype: str, mistakes: Mistakes) -> str:
    """The dtype in which sizes count what is not quantized. A file that does not say it, or has several of one model,
    counts 16 bits."""
    name = given and DTYPES.get(given.lower(), given)
    if name and name not in BITS and ":" not in name:
        mistakes.add(f"column stored says {given}; right: one of {', '.join(BITS)}")
    return name if name in BITS else half_of(dtype)


def _agreed(table: Table, columns: Columns, name: str, given: str | None, mistakes: Mistakes) -> str | None:
    """The one value of a column, else the option's, else the default. Two different values are a mistake."""
    cells = table.values(columns.of[name]) if name in columns.of else []
    values = list(dict.fromkeys(v for _, v in cells)) or [v for k, v in columns.constants.items() if k == name]
    if len(values) > 1:
        mistakes.add(
            f"column {name} has {len(values)} values ({', '.join(values[:4])}), which are not compared; right: a file for each"
        )
    if values and given and values[0] != given:
        mistakes.add(f"column {name} says {values[0]}, --{name} {given}; right: only one of them")
    return values[0] if values else given or DEFAULTS[name]


def _recipes(table: Table, lines: LineRecipes, mistakes: Mistakes) -> dict[int, Recipe]:
    """Line -> recipe, for the lines without a mistake."""
    found: dict[int, Recipe] = {}
    ragged = mistakes.lines
    for line in (x for x in table.lines if x.number not in ragged):
        try:
            found[line.number] = lines(line.cells)
        except UserError as error:
            mistakes.add(str(error), line.number)
    return found


def _row(
    source: Source, recipe: Recipe, line: Line, columns: Columns, values: Mapping[str, Values], mistakes: Mistakes
) -> Result:
    """The ledger's line for one line of the file.

    Intervals and the origin of the calibration are read in tables of ours.
    """
    metrics = {m: own[line.number] for m, own in values.items() if line.number in own}
    if not columns.own:
        return result(source, recipe, metrics, predictions=None)
    ends = (f"drop_{m}_{end}" for m in metrics for end in ("low", "high"))
    bounds = {c: v for c in ends if (v := _own_number(line, c, mistakes)) is not None}
    row = result(source, recipe, {**metrics, **bounds}, predictions=None)
    row["columns"] |= {c: line.cells[c] for c in ORIGIN if c in line.cells}
    row["columns"] |= {c: int(v) for c in COUNTS if (v := _own_number(line, c, mistakes)) is not None}
    row["columns"]["imported_key"] = line.cells.get("key")
    if stopped := stopped_of(line.cells, lambda column: _own_number(line, column, mistakes)):
        row["stopped"] = stopped
    return row


def _own_number(line: Line, column: str, mistakes: Mistakes) -> float | None:
    """A number in a table of ours. None for a blank cell; a cell that is no number is a mistake."""
    text = line.cells.get(column)
    if text is not None and not PLAIN.fullmatch(text):
        mistakes.add(f"{column} {text}: no number; right: the table's own value", line.number)
    return float(text) if text is not None and PLAIN.fullmatch(text) else None


def _check_rows(
    rows: Sequence[Result],
    lines: Sequence[int],
    values: Mapping[str, Values],
    base: int | None,
    mistakes: Mistakes,
) -> None:
    first: dict[str, int] = {}
    wrong = mistakes.lines
    for row, line in zip(rows, lines, strict=True):
        if first.setdefault(row["key"], line) != line:
            mistakes.add(
                f"the same recipe as line {first[row['key']]} ({row['columns']['recipe']}); right: one line a cell",
                line,
            )
        if line not in wrong and not any(line in own for own in values.values()):
            mistakes.add("no metric is a number; right: a value a cell", line)
    if base is None and not mistakes.found:
        mistakes.add("no baseline line; right: a line with part none and the metrics of the untouched model")
