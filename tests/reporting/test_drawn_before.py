"""A picture of the same rows is copied, not drawn again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from blip2sweep.reporting import drawn_before
from blip2sweep.reporting.dropoff import draw_dropoff
from tests.synthetic import build, entry


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("rows")
    build(folder, [[entry("vit:all:all", 4)]], n=40)
    return pd.read_parquet(folder / "table.parquet")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A member for each picture that is drawn."""
    made, save = list[object](), Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda own, *to, **how: (made.append(own), save(own, *to, **how)))
    return made


def picture(folder: Path, sweep: str, table: pd.DataFrame) -> bytes:
    (folder / sweep).mkdir(exist_ok=True)
    path = draw_dropoff(table, folder / sweep / "dropoff.png")
    assert path is not None
    return path.read_bytes()


def test_a_second_sweep_of_the_same_rows_has_a_copy(tmp_path: Path, table: pd.DataFrame, drawn: list[object]) -> None:
    first = picture(tmp_path, "a", table)
    again = table.assign(sweeps=[["a", "b"]] * len(table))
    assert picture(tmp_path, "b", again) == first
    assert len(drawn) == 1


def test_other_rows_are_drawn(tmp_path: Path, table: pd.DataFrame, drawn: list[object]) -> None:
    first = picture(tmp_path, "a", table)
    other = table.assign(drop_cider=table["drop_cider"] + 0.1)
    assert picture(tmp_path, "b", other) != first
    assert len(drawn) == 2


def test_a_cut_picture_is_drawn_again(tmp_path: Path, table: pd.DataFrame, drawn: list[object]) -> None:
    first = picture(tmp_path, "a", table)
    (tmp_path / "a" / "dropoff.png").write_bytes(first[:-1])
    assert picture(tmp_path, "a", table) == first
    assert len(drawn) == 2


def test_of_many_rows_nothing_is_compared(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_before, "MOST_ROWS", 1)
    assert drawn_before.rows_digest(table) == ""
    assert drawn_before.drawn_before(Path("there", "dropoff.png"), "") is None
