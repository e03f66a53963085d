"""Of all cells of a ledger the largest kind that can be compared is taken, and the rest is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.analysis.cells import comparable
from blip2sweep.analysis.largest import largest_kind
from blip2sweep.results.schema import known
from tests.synthetic import build, whole


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("largest")
    build(path, [whole(["vit"], b) for b in (8, 4, 3)], n=40)
    return known(pd.read_parquet(path / "table.parquet"))


def stray(table: pd.DataFrame, rows: int = 2, **columns: object) -> pd.DataFrame:
    """The table with some of its rows again, differing in these columns."""
    other = table.iloc[:rows].assign(**columns, key=table["key"].iloc[:rows] + "x", baseline=table["baseline"] + "x")
    return pd.concat([table, other], ignore_index=True)


def test_of_one_kind_nothing_is_left_out(table: pd.DataFrame) -> None:
    found, said = largest_kind(table)
    assert found is table
    assert said == []


@pytest.mark.parametrize(("column", "told"), [
    ({"dtype": "float16"}, "2 cells of dtype float16 (--only dtype=float16)"),
    ({"task": "vqa"}, "2 cells of task vqa (--task vqa)"),
    ({"data": "d2", "samples": 8}, "2 cells of data tiny on shapes_caption with 8 samples (--only samples=8)"),
    ({}, "2 cells of another baseline, "),
])  # fmt: skip
def test_one_stray_try_takes_nothing_from_the_others(
    table: pd.DataFrame, column: dict[str, object], told: str
) -> None:  # fmt: skip
    found, (said,) = largest_kind(stray(table, **column))
    assert found["key"].tolist() == table["key"].tolist()
    assert said.startswith("left out, for they are not compared with these: ")
    assert told in said
    assert len(comparable(found)) == 4


def test_a_kind_without_a_baseline_is_not_taken(table: pd.DataFrame) -> None:
    many = pd.concat([stray(table[table["part"] != "none"], 3, dtype="float16"), table.iloc[:1]], ignore_index=True)
    more = pd.concat([many, many[many["dtype"] == "float16"].assign(key=lambda t: t["key"] + "y")], ignore_index=True)
    found, _ = largest_kind(more)
    assert set(found["dtype"]) == {"float32"}


def test_failed_cells_stay_with_their_kind(table: pd.DataFrame) -> None:
    rows = stray(table, dtype="float16")
    rows.loc[[3, 5], "status"] = "failed"
    found, (said,) = largest_kind(rows)
    assert found["status"].tolist() == ["done"] * 3 + ["failed"]
    assert "1 cell of dtype" in said


def test_many_kinds_are_counted(table: pd.DataFrame) -> None:
    rows = pd.concat([table, *(stray(table, 1, task=f"t{i}").iloc[4:] for i in range(7))], ignore_index=True)
    _, (said,) = largest_kind(rows)
    assert said.endswith("; and 3 more kinds")


def test_nothing_finished_is_one_kind(table: pd.DataFrame, tmp_path: Path) -> None:
    waiting = table.assign(status="failed")
    assert largest_kind(waiting)[0] is waiting
