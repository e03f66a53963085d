"""What a row was run by, and where it came from, in words."""

from __future__ import annotations

import json

import pandas as pd

UNKNOWN = "unknown"  # of imported scores
IMPORTED = "imported"


def back_end_names(table: pd.DataFrame) -> list[str]:
    """The back end of each row: `torch`, `openvino`; with its options, `openvino hints=default`, where one of this name
    has others."""
    known = [_split(value) for value in table["backend"]] if "backend" in table else [(UNKNOWN, "")] * len(table)
    several = {name for name, _ in known if len({more for other, more in known if other == name}) > 1}
    return [f"{name} {more}".strip() if name in several else name for name, more in known]


def _split(value: object) -> tuple[str, str]:
    """(name, options): the column has both, as `openvino {"hints":"exact"}`."""
    if value is None or value != value:
        return UNKNOWN, ""
    name, _, options = str(value).partition(" ")
    try:
        return name, " ".join(f"{k}={v}" for k, v in json.loads(options or "{}").items())
    except (ValueError, AttributeError):
        return name, options


def origins(table: pd.DataFrame) -> list[str]:
    """`imported` of rows that were not run here, `checkpoint` of those of weights that others quantized; else ''."""
    columns = {
        c: table[c].notna() if c in table else pd.Series(False, index=table.index) for c in (IMPORTED, "checkpoint")
    }
    both = zip(columns[IMPORTED], columns["checkpoint"], strict=True)
    return [IMPORTED if imported else "checkpoint" if foreign else "" for imported, foreign in both]


def run_alike(table: pd.DataFrame, cells: pd.DataFrame, base: str) -> pd.DataFrame:
    """The rows of a table that are of the cells' one back end; where no cell is imported, those that were run here.

    base: the key of the baseline, which stays: texts of another server are compared with that of another back end.
    """
    if IMPORTED in table and (IMPORTED not in cells or cells[IMPORTED].isna().all()):
        table = table[table[IMPORTED].isna()]
    value = cells["backend"].iloc[0] if "backend" in cells else None
    if "backend" not in table or pd.isna(value):
        return table
    alike = table.assign(backend=table["backend"].mask(table["key"] == base, value))
    return alike[alike["backend"] == value]
