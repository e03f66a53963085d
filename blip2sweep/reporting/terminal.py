"""The table on the terminal: the columns to read first, as many as fit."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pandas as pd
from rich.cells import cell_len
from rich.table import Table

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import rounded
from blip2sweep.analysis.main_metric import by_other_rules, metric_of, metrics_of
from blip2sweep.analysis.steps import with_kept
from blip2sweep.console.printing import cell, console, shown
from blip2sweep.metrics.statistics import main_metrics
from blip2sweep.recipe.part_bits import part_columns
from blip2sweep.reporting.back_ends import back_end_names, origins
from blip2sweep.reporting.part_roles import by_role, names_differ, part_texts
from blip2sweep.reporting.table_notes import notes
from blip2sweep.reporting.table_text import csv_text, latex, markdown
from blip2sweep.results.sweeps import Sweep

MOST_ROWS = 200  # at the end of a sweep; `blip2sweep table` prints all rows
FORMATS = ("rich", "csv", "md", "latex")
# Left out in this order where a terminal is too narrow for all. The cell's name and its drop stay.
LEAST = (
    "ms",
    "baseline ms",
    "× baseline",
    "× torch",
    "merged",
    "in torch",
    "bits/weight",
    "its interval",
    "key",
)  # then metrics
RIGHT = (
    "bits",
    "drop",
    "in torch",
    "drop to control",
    "bits/weight",
    "ms",
    "baseline ms",
    "× baseline",
    "× torch",
)  # besides metrics
# Columns of further steps, where a row has one.
FURTHER = {"blocks_dropped": "dropped", "sparsity": "sparsity", "recover": "recover", "merged": "merged"}
KEY_LETTERS = 6  # of a key where the whole has no room; a beginning names a cell if no other cell has it


def short_table(table: pd.DataFrame) -> pd.DataFrame:
    """The columns to read first: what was done, metric, drop with its interval, bits per weight.

    All values are texts.
    """
    differ = names_differ(table)
    table = with_kept(by_role(table) if differ else table)
    out = pd.DataFrame(index=table.index)
    for column in ("model", "dtype", *(["stored"] if rounded(table) else []), "task", "samples"):
        if column in table and table[column].nunique() > 1:
            out[column] = [_text(v) for v in table[column]]
    for column, words in (("backend", back_end_names(table)), ("from", origins(table))):
        if len(set(words)) > 1:
            out[column] = words
    out["part"] = part_texts(table) if differ else table["part"]
    out["bits"] = [_bits(row) for row in table.to_dict("records")]
    for column in ("blocks", "layers", "method", "strategy", "group_size"):
        if column in table and table.loc[table["part"] != "none", column].nunique() > 1:
            out[column] = [_text(v) for v in table[column]]
    for column, name in FURTHER.items():
        if column in table and table[column].notna().any():
            out[name] = [_text(v) for v in table[column]]
    metrics = metrics_of(table)
    for metric in dict.fromkeys(one for m in metrics for one in (m, *by_other_rules(table, m))):
        out[metric] = [_number(v, 3) for v in table[metric]]
    if metrics:
        out["drop"], out["95 % interval"] = zip(*[_drop(row, metrics) for row in table.to_dict("records")], strict=True)
        beside = [number(row, f"torch_{metric_of(row, metrics)}") for row in table.to_dict("records")]
        if not all(map(math.isnan, beside)):
            out["in torch"] = [_number(v, 3) for v in beside]
        against = [_to_control(row, metrics) for row in table.to_dict("records")]
        if any(against):
            out["drop to control"], out["its interval"] = zip(*(told or ("", "") for told in against), strict=True)
        floor = [_floor(row, metrics) for row in table.to_dict("records")]
        if any(floor):
            out["noise"] = floor
    out["bits/weight"] = [_number(v, 2) for v in table["bits_per_weight"]]
    if "latency_ms_median" in table:
        times = [_latency(row) for row in table.to_dict("records")]
        out["ms"], out["baseline ms"], out["× baseline"] = zip(*times, strict=True)
        if "latency_ratio_torch" in table and table["latency_ratio_torch"].notna().any():
            out["× torch"] = [_number(v, 2) for v in table["latency_ratio_torch"]]
    if "status" in table and (table["status"] != "done").any():
        out["status"] = [_text(r.get("failure")) or "done" for r in table.to_dict("records")]
    out["key"] = table["key"]
    return out


def print_sweep(table: pd.DataFrame, sweep: Sweep, output_dir: Path, picture: Path | None) -> None:
    """Print the table of a sweep, its notes, and where its files are."""
    screen = console()
    if table.empty:
        screen.print("no rows yet")
        return
    print_table(by_role(table).head(MOST_ROWS), f"sweep {sweep.name}")
    if len(table) > MOST_ROWS:
        screen.print(f"and {len(table) - MOST_ROWS} more rows: blip2sweep table {sweep.name}")
    for line in [*notes(table), *_prices(table, sweep, output_dir)]:
        screen.print(line, soft_wrap=True)
    tables = (sweep.folder(output_dir) / "table.parquet", output_dir / "table.parquet", output_dir / "samples.parquet")
    for path in (*tables, picture):
        if path is None:
            continue
        screen.print(f"wrote {path}", soft_wrap=True)


def _prices(table: pd.DataFrame, sweep: Sweep, output_dir: Path) -> list[str]:
    """What the next bits cost; nothing for large sweeps, where it takes long and the report has it."""
    from blip2sweep.reporting.prices import terminal_prices

    return terminal_prices(output_dir, table, sweep.command) if len(table) <= MOST_ROWS else []


def print_table(table: pd.DataFrame, title: str) -> None:
    """As many columns as fit, whole, and which do not.

    Where nobody looks at a terminal, such as in a pipe, all of them.
    """
    short, screen = short_table(table).rename(columns=shown).map(shown), console()
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = max(screen.width, _width(short))
    fitting, others = fitted(short, screen.width)
    screen.print(rich_table(fitting, title))
    if others:
        hint = f"no room for {', '.join(others)}: a wider terminal, or --format csv, has them"
        screen.print(hint, soft_wrap=True)


def fitted(short: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """The columns that a width has room for, keys by their beginnings if need be, and the names of those that it has
    not.
    """
    dropped: list[str] = []
    if _width(short) > width and "key" in short:
        short = short.assign(key=_beginnings(short["key"]))
    for column in (c for c in (*LEAST, *main_metrics()) if c in short):
        if _width(short.drop(columns=dropped)) <= width:
            break
        dropped.append(column)
    return short.drop(columns=dropped), dropped


def _beginnings(keys: pd.Series) -> pd.Series:
    """The shortest beginnings that tell the keys apart."""
    letters = next((n for n in range(KEY_LETTERS, 12) if keys.str[:n].nunique() == keys.nunique()), 12)
    return keys.str[:letters]


def _width(short: pd.DataFrame) -> int:
    """Of the table as it is drawn: two blanks and a line a column."""
    return 1 + sum(3 + max(cell_len(str(v)) for v in [c, *short[c]]) for c in short)


def rich_table(short: pd.DataFrame, title: str | None = None) -> Table:
    """A rich table with numbers to the right."""
    named = None if title is None else cell(title)
    drawn = Table(title=named, header_style="bold", row_styles=["", "dim"] if len(short) > 30 else None)
    for column in short:
        right = column in (*RIGHT, *main_metrics())
        whole = column in ("key", "drop", "95 % interval", "drop to control", "its interval")
        drawn.add_column(str(column), justify="right" if right else "left", no_wrap=whole, overflow="fold")
    for row in short.itertuples(index=False):
        drawn.add_row(*map(cell, row))
    return drawn


def render(table: pd.DataFrame, fmt: str) -> str:
    """The table as text. fmt: `csv` (every column), `md` or `latex` (the columns of `short_table`)."""
    if fmt == "csv":
        return csv_text(table)
    short = short_table(table)
    return markdown(short) if fmt == "md" else latex(short)


def _bits(row: Row) -> str:
    values = {c.removeprefix("bits_"): number(row, c) for c in part_columns(map(str, row), [row.get("recipe")])}
    touched = {k: v for k, v in values.items() if not math.isnan(v)}
    if len(set(touched.values())) <= 1:
        return next((f"{v:.3g}" for v in touched.values()), "–")  # the mean of several widths is no whole number
    return " ".join(f"{k} {v:.3g}" for k, v in touched.items())


def _drop(row: Row, metrics: list[str]) -> tuple[str, str]:
    """The drop and its interval, in the main metric of the row's task."""
    metric = metric_of(row, metrics)
    low, high = number(row, f"drop_{metric}_low"), number(row, f"drop_{metric}_high")
    if row["part"] == "none" or math.isnan(low):
        return "–" if row["part"] == "none" else "", ""
    return _number(number(row, f"drop_{metric}"), 3), f"{_number(low, 3)}…{_number(high, 3)}"


def _to_control(row: Row, metrics: list[str]) -> tuple[str, str] | None:
    """The drop against the uncompressed model with the same recovery, and its interval. None of a cell without one."""
    metric = f"drop_control_{metric_of(row, metrics)}"
    low, high = number(row, f"{metric}_low"), number(row, f"{metric}_high")
    if math.isnan(low) or row.get("control") == row["key"]:
        return None if math.isnan(low) else ("–", "")
    return _number(number(row, metric), 3), f"{_number(low, 3)}…{_number(high, 3)}"


def _floor(row: Row, metrics: list[str]) -> str:
    """The noise floor of a calibrated cell: how much another seed, and other arithmetic, change the metric."""
    metric = metric_of(row, metrics)
    changes = [number(row, f"noise_{what}_{metric}") for what in ("seed", "arithmetic")]
    return "" if all(map(math.isnan, changes)) else " / ".join(_number(c, 3) or "?" for c in changes)


def _latency(row: Row) -> tuple[str, str, str]:
    """Milliseconds of one image alone, those of the baseline in the same turns, and their ratio."""
    own, base = (f"{number(row, f'latency_ms_{what}'):.4g}".replace("nan", "") for what in ("median", "baseline"))
    return own, base, _number(number(row, "latency_ratio"), 2)


def _number(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no negative zero


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
