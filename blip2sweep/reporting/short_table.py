"""The table that `blip2sweep table` shows by itself: the columns to read first, all of texts."""

from __future__ import annotations

import math

import pandas as pd

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.analysis.cells import rounded
from blip2sweep.analysis.main_metric import by_other_rules, metric_of, metrics_of
from blip2sweep.analysis.steps import with_kept
from blip2sweep.analysis.stopped import STOPPED_TEXT, stopped
from blip2sweep.recipe.part_bits import part_columns
from blip2sweep.reporting.back_ends import back_end_names, origins
from blip2sweep.reporting.part_roles import by_role, names_differ, part_texts
from blip2sweep.reporting.table_cells import DIGITS, number_text
from blip2sweep.results.schema import known

# Columns of further steps, where a row has one.
FURTHER = {"blocks_dropped": "dropped", "sparsity": "sparsity", "recover": "recover", "merged": "merged"}


def short_table(table: pd.DataFrame, digits: int = DIGITS) -> pd.DataFrame:
    """The columns to read first: what was done, metric, drop with its interval, bits per weight.

    All values are texts. digits: of metrics and drops.
    """
    table = known(table)
    differ = names_differ(table)
    table = with_kept(by_role(table) if differ else table)
    out, rows = pd.DataFrame(index=table.index), table.to_dict("records")
    for column in ("model", "dtype", *(["stored"] if rounded(table) else []), "task", "samples"):
        if column in table and table[column].nunique() > 1:
            out[column] = [_text(v) for v in table[column]]
    for column, words in (("backend", back_end_names(table)), ("from", origins(table))):
        if len(set(words)) > 1:
            out[column] = words
    out["part"] = part_texts(table) if differ else table["part"]
    out["bits"] = [_bits(row) for row in rows]
    for column in ("blocks", "layers", "method", "strategy", "group_size"):
        if column in table and table.loc[table["part"] != "none", column].nunique() > 1:
            out[column] = [_text(v) for v in table[column]]
    for column, name in FURTHER.items():
        if column in table and table[column].notna().any():
            out[name] = [_text(v) for v in table[column]]
    metrics = metrics_of(table)
    for metric in dict.fromkeys(one for m in metrics for one in (m, *by_other_rules(table, m))):
        out[metric] = [number_text(v, digits) for v in table[metric]]
    if metrics:
        of = [metric_of(row, metrics) for row in rows]
        if len(set(of)) > 1:
            out["drop of"] = of
        out["drop"], out["95 % interval"] = zip(*[_drop(row, metrics, digits) for row in rows], strict=True)
    if (early := stopped(table)).any():
        out["images"] = [_images(row) for row in rows]
        out["stopped"] = table["stopped"].where(early, "")
        if metrics:
            of_interval = out["95 % interval"]
            out["95 % interval"] = of_interval.where(~early | (of_interval == ""), of_interval + f" ({STOPPED_TEXT})")
    if metrics:
        beside = [number(row, f"torch_{metric_of(row, metrics)}") for row in rows]
        if not all(map(math.isnan, beside)):
            out["in torch"] = [number_text(v, digits) for v in beside]
        against = [_to_control(row, metrics, digits) for row in rows]
        if any(against):
            out["drop to control"], out["its interval"] = zip(*(told or ("", "") for told in against), strict=True)
        floor = [_floor(row, metrics, digits) for row in rows]
        if any(floor):
            out["noise"] = floor
    out["bits/weight"] = [number_text(v, 2) for v in table["bits_per_weight"]]
    if "latency_ms_median" in table:
        times = [_latency(row) for row in rows]
        out["ms"], out["baseline ms"], out["× baseline"] = zip(*times, strict=True)
        if "latency_ratio_torch" in table and table["latency_ratio_torch"].notna().any():
            out["× torch"] = [number_text(v, 2) for v in table["latency_ratio_torch"]]
    if "status" in table and (table["status"] != "done").any():
        out["status"] = [_text(r.get("failure")) or "done" for r in rows]
    out["key"] = table["key"]
    return out


def _bits(row: Row) -> str:
    values = {c.removeprefix("bits_"): number(row, c) for c in part_columns(map(str, row), [row.get("recipe")])}
    touched = {k: v for k, v in values.items() if not math.isnan(v)}
    if len(set(touched.values())) <= 1:
        return next((f"{v:.3g}" for v in touched.values()), "–")  # the mean of several widths is no whole number
    return " ".join(f"{k} {v:.3g}" for k, v in touched.items())


def _drop(row: Row, metrics: list[str], digits: int) -> tuple[str, str]:
    """The drop and its interval, in the main metric of the row's task."""
    metric = metric_of(row, metrics)
    low, high = number(row, f"drop_{metric}_low"), number(row, f"drop_{metric}_high")
    if row["part"] == "none" or math.isnan(low):
        return "–" if row["part"] == "none" else "", ""
    return number_text(number(row, f"drop_{metric}"), digits), f"{number_text(low, digits)}…{number_text(high, digits)}"


def _images(row: Row) -> str:
    """`192 of 1000` of a cell that stopped."""
    seen, of = number(row, "images"), number(row, "images_of")
    return "" if math.isnan(seen) else f"{seen:.0f}" if not seen < of else f"{seen:.0f} of {of:.0f}"


def _to_control(row: Row, metrics: list[str], digits: int) -> tuple[str, str] | None:
    """The drop against the uncompressed model with the same recovery, and its interval. None of a cell without one."""
    metric = f"drop_control_{metric_of(row, metrics)}"
    low, high = number(row, f"{metric}_low"), number(row, f"{metric}_high")
    if math.isnan(low) or row.get("control") == row["key"]:
        return None if math.isnan(low) else ("–", "")
    return number_text(number(row, metric), digits), f"{number_text(low, digits)}…{number_text(high, digits)}"


def _floor(row: Row, metrics: list[str], digits: int) -> str:
    """The noise floor of a calibrated cell: how much another seed, and other arithmetic, change the metric."""
    metric = metric_of(row, metrics)
    changes = [number(row, f"noise_{what}_{metric}") for what in ("seed", "arithmetic")]
    return "" if all(map(math.isnan, changes)) else " / ".join(number_text(c, digits) or "?" for c in changes)


def _latency(row: Row) -> tuple[str, str, str]:
    """Milliseconds of one image alone, those of the baseline in the same turns, and their ratio."""
    own, base = (f"{number(row, f'latency_ms_{what}'):.4g}".replace("nan", "") for what in ("median", "baseline"))
    return own, base, number_text(number(row, "latency_ratio"), 2)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
