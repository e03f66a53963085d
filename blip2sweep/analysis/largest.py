"""The largest kind of cells that can be compared, for who asks for all cells of a ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from blip2sweep.analysis.cells import MOST_KINDS, SAME, choosing, compared_values, finished, kind_names

BASELINE = "baseline"  # cells of two baselines differ in task settings that no other column tells


def largest_kind(table: pd.DataFrame, columns: Sequence[str] = (*SAME, BASELINE)) -> tuple[pd.DataFrame, list[str]]:
    """(the rows of the kind with the most finished cells, a line on what was left out; none where there is one kind).

    columns: what has to agree. A kind with a baseline comes before others, since the others have no drops. Rows of cells
    that failed stay with their kind.
    """
    values = _values(table, columns)
    done = finished(table)
    kinds = dict(iter(done.groupby(values.loc[done.index]))) if len(done) else {}
    if len(kinds) < 2:
        return table, []
    chosen = max(kinds, key=lambda kind: _rank(kinds[kind]))
    return table[values == chosen], [_left_out(str(chosen), kinds, columns_of(table, columns))]


def columns_of(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    return [c for c in columns if c in table]


def _values(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """What each row has in these columns, as one text."""
    each = [compared_values(table, c).map(str) for c in columns_of(table, columns)]
    joined = ["\0".join(row) for row in zip(*each, strict=True)] if each else [""] * len(table)
    return pd.Series(joined, index=table.index, dtype=object)


def _rank(rows: pd.DataFrame) -> tuple[bool, int, float]:
    """With a baseline first, then by the number of cells, then the newest."""
    newest = rows["finished"].max().timestamp() if "finished" in rows and rows["finished"].notna().any() else 0.0
    return bool((rows["part"] == "none").any()), len(rows), float(newest)


def _left_out(chosen: str, kinds: Mapping[str, pd.DataFrame], columns: Sequence[str]) -> str:
    """`left out: 2 cells of dtype float16 (--only dtype=float16)`, by the first column that tells a kind from the chosen
    one."""
    by: dict[str, dict[str, list[pd.DataFrame]]] = {}
    own = chosen.split("\0")
    for kind, rows in kinds.items():
        if kind != chosen:
            column, value = next((c, v) for c, v, w in zip(columns, kind.split("\0"), own, strict=True) if v != w)
            by.setdefault(column, {}).setdefault(value, []).append(rows)
    told, place = list[str](), dict(zip(columns, own, strict=True))
    for column, groups in by.items():
        others = {value: pd.concat(rows) for value, rows in groups.items()}
        told += _told(column, others, {place[column]: kinds[chosen], **others})
    more = f"; and {len(told) - MOST_KINDS} more kinds" if len(told) > MOST_KINDS else ""
    return f"left out, for they are not compared with these: {'; '.join(told[:MOST_KINDS])}{more}"


def _told(column: str, others: Mapping[str, pd.DataFrame], every: dict[str, pd.DataFrame]) -> list[str]:
    """A text for each kind of one column. every: with the chosen kind."""
    names = dict(zip(every, kind_names(column, every), strict=True))
    return [
        f"{len(rows)} cell{'s' * (len(rows) > 1)} of {_of(column, names[value])} ({choosing(column, every, value)})"
        for value, rows in others.items()
    ]


def _of(column: str, name: str) -> str:
    return f"another baseline, {name}" if column == BASELINE else f"{column} {name}"
