"""Cells that stopped before they had seen all images: which they are, and what must not be made of them.

A cell that stopped because its value is known, or because it collapsed, has a value with an interval, and feeds every
analysis. One that stopped with a verdict has none: it stopped where the answer was clear, so its value is known as closely
as the answer needed, and cells near the limit better than others. Values of the one kind only screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from blip2sweep.analysis.cell_row import Row, number
from blip2sweep.console.remarks import many, remark
from blip2sweep.metrics.stopping import is_verdict
from blip2sweep.results.predictions import predictions_or_none
from blip2sweep.rows import Id

STOPPED = "stopped"  # the column
FINISH = "evaluation.stop=none"
LEVEL_TEXT, STOPPED_TEXT = "95 %", "99.5 %"
OF_STOPPED = f"{STOPPED_TEXT} of cells that stopped early"


def stopped(table: pd.DataFrame) -> pd.Series:
    """Which rows are of cells that stopped."""
    return _reasons(table) != ""


def is_stopped(table: pd.DataFrame, key: str | None) -> bool:
    """Whether the cell of a key stopped."""
    return key is not None and bool(stopped(table[table["key"] == key]).any())


def of_verdicts(table: pd.DataFrame) -> pd.Series:
    """Which rows are of cells that stopped with a verdict, so that their values feed no analysis."""
    return _reasons(table).map(is_verdict).astype(bool)


def stopped_at(row: Row) -> str:
    """`stopped at 192 of 1000 images (known to ±5 %)`; empty for a whole cell."""
    reason, seen, of = row.get(STOPPED), number(row, "images"), number(row, "images_of")
    if not isinstance(reason, str) or not reason or seen != seen or of != of:
        return ""
    return f"stopped at {seen:.0f} of {many(int(of), 'image')} ({reason})"


def level_text(table: pd.DataFrame) -> str:
    """The level of these cells' intervals in words: `95 %`, and where some stopped that theirs is another."""
    own = stopped(table)
    if own.any() and own.all():
        return STOPPED_TEXT
    return f"{LEVEL_TEXT}, {OF_STOPPED}" if own.any() else LEVEL_TEXT


def level_mark(row: Row) -> str:
    """What stands behind an interval of a cell in a text: ` (99.5 %)` where the row says that it stopped."""
    told = row.get(STOPPED)
    return f" ({STOPPED_TEXT})" if isinstance(told, str) and told else ""


def level_marks(table: pd.DataFrame) -> dict[str, str]:
    """{key: its `level_mark`}."""
    return {str(row["key"]): level_mark(row) for row in table.to_dict("records")}


def verdicts_line(table: pd.DataFrame, what: str) -> str | None:
    """One line on the cells that are left out of an analysis for their verdicts; None where there is none."""
    if not (count := int(of_verdicts(table).sum())):
        return None
    one = count == 1
    cells = f"{many(count, 'cell')} that stopped with a verdict {'is' if one else 'are'}"
    values = "its value is" if one else "their values are"
    return f"{cells} not used for {what}, since {values} known only as far as the verdict needed; right: the same command with {FINISH}"


def _reasons(table: pd.DataFrame) -> pd.Series:
    if STOPPED not in table:
        return pd.Series("", index=table.index, dtype=object)
    return table[STOPPED].where(table[STOPPED].notna(), "").astype(object)


class Samples:
    """Finds which samples of the baseline a cell with fewer has. ids: of the baseline's samples."""

    def __init__(self, output_dir: Path, ids: Sequence[Id]) -> None:
        self.output_dir, self.place = output_dir, {sample: i for i, sample in enumerate(ids)}

    def __call__(
        self, name: str, array: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:  # fmt: skip
        """(its statistics in the baseline's order, its samples as a mask (n,)). None, after a remark, where they are not
        some of the baseline's."""
        said = predictions_or_none(self.output_dir, name)
        if said is None:
            return None
        rows = np.array([self.place.get(sample, -1) for sample in said.id], dtype=np.intp)
        if len(rows) != len(array) or (rows < 0).any() or len(np.unique(rows)) < len(rows):
            remark(f"{name}: its {many(len(array), 'sample')} are not the baseline's, so it is compared with no cell")
            return None
        mask = np.zeros(len(self.place), dtype=bool)
        mask[rows] = True
        return array[np.argsort(rows)], mask
