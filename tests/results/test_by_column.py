"""Rows collected by column, from pieces, make the same table as a list of rows."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pytest

from blip2sweep.results import record as module
from blip2sweep.results.by_column import by_column
from blip2sweep.results.record import Tables
from blip2sweep.results.table_files import as_arrow

VALUES: dict[str, list[object]] = {
    "text": ["rtn", "gptq", None],
    "one_text": ["rtn"],
    "integer": [1, 2, 3],
    "one_integer": [7],
    "integer_or_none": [1, 2, None],
    "large": [2**70, 1, None],
    "float": [0.5, 1.5, float("nan")],
    "number": [0.5, float("nan"), None],
    "integer_and_number": [1, 0.5],
    "truth": [True, False],
    "truth_or_none": [True, None],
    "mixed": [8, "mixed", None],
    "texts": [["a"], ["a", "b"], []],
    "integers": [[1, 2], None],
    "nothing": [None],
    "mapping": [{"x": 1}, None],
}


def rows(seed: int, lacking: float) -> list[list[dict[str, object]]]:
    """Rows of pieces with every kind of value. lacking: the share of columns that a piece does not have."""
    draw = random.Random(seed)
    kinds = [[c for c in VALUES if draw.random() >= lacking] for _ in range(5)]
    return [
        [{c: draw.choice(VALUES[c]) for c in draw.choice(kinds)} for _ in range(draw.randint(1, 3))] for _ in range(50)
    ]


def whole(row: list[dict[str, object]]) -> dict[str, object]:
    """A row as one mapping."""
    return {c: v for piece in row for c, v in piece.items()}


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("lacking", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_the_table_is_that_of_a_list_of_rows(
    seed: int, lacking: float, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 7)
    given, tables = rows(seed, lacking), Tables()
    pieces: list[Any] = [[tables.add(piece) for piece in row] for row in given]
    if packs:
        tables.pack()
    columns, expected = by_column(pieces), pd.DataFrame([whole(row) for row in given])
    found = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
    pd.testing.assert_frame_equal(found, expected)
    kept = [c for c in expected if c not in ("large", "mixed")]  # which as_arrow makes texts of, None and all
    assert as_arrow(found[kept]).equals(as_arrow(expected[kept]), check_metadata=True)
    assert [[type(v) for v in found[c]] for c in found] == [[type(v) for v in expected[c]] for c in expected]


def test_no_row_makes_no_column() -> None:
    assert by_column([]) == {}
    assert pd.DataFrame(by_column([])).empty


def test_columns_stand_in_the_order_in_which_rows_bring_them() -> None:
    tables = Tables()
    pieces = [[tables.add(row)] for row in ({"b": 1}, {"a": 2, "b": 3}, {"c": 4})]
    assert list(by_column(pieces)) == ["b", "a", "c"]


def test_what_later_pieces_replace_in_every_row_does_not_count() -> None:
    tables = Tables()
    none, half = [tables.add({"n": None, "x": 0.5}) for _ in range(2)], tables.add({"n": 0.5})
    whole = [tables.add({"n": n, "y": 0}) for n in (1, 2, 3)]
    tables.pack()
    rows = [[none[0], whole[0]], [none[1], whole[1]], [half, whole[2]]]
    assert pd.Series(by_column(rows)["n"]).dtype == int
    assert pd.Series(by_column([*rows, [half]])["n"]).tolist() == [1, 2, 3, 0.5]


@pytest.mark.parametrize("seed", range(4))
def test_rows_may_be_made_in_another_order_than_the_tables(seed: int) -> None:
    given, tables = rows(seed, 0.3), Tables()
    pieces: list[Any] = [[tables.add(piece) for piece in row] for row in given]
    order = random.Random(seed).sample(range(len(pieces)), len(pieces))
    found, expected = by_column(pieces, order), by_column([pieces[i] for i in order])
    assert [*found] == [*expected]
    assert [repr([*v]) for v in found.values()] == [repr([*v]) for v in expected.values()]
