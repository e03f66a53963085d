"""Lines about the same rows are made once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.reporting import lines_before
from blip2sweep.reporting.lines_before import said_before


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A member for each time that lines were made."""
    monkeypatch.setenv("BLIP2SWEEP_CACHE_DIR", str(tmp_path))
    return []


def said(made: list[str], value: float, command: str) -> list[str]:
    rows = pd.DataFrame({"key": ["a", "b"], "cider": [1.0, value], "sweeps": [[command], [command]]})
    return said_before(rows, [command], lambda: [*(made.append(command) or ()), f"{command} costs {value}"])  # type: ignore[func-returns-value]


def test_the_same_rows_and_words_are_asked_once(made: list[str]) -> None:
    assert said(made, 2.0, "x") == said(made, 2.0, "x") == ["x costs 2.0"]
    assert made == ["x"]


def test_other_rows_words_or_code_are_asked_anew(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [said(made, 2.0, "x"), said(made, 3.0, "x"), said(made, 2.0, "y")] == [
        ["x costs 2.0"], ["x costs 3.0"], ["y costs 2.0"]]  # fmt: skip
    monkeypatch.setattr(lines_before, "_code", lambda: "another version")
    assert said(made, 2.0, "x") == ["x costs 2.0"]
    assert made == ["x", "x", "y", "x"]


def test_a_damaged_entry_is_made_anew(made: list[str], tmp_path: Path) -> None:
    said(made, 2.0, "x")
    (entry,) = (tmp_path / lines_before.STORE).iterdir()
    entry.write_bytes(entry.read_bytes()[:-1])
    assert said(made, 2.0, "x") == ["x costs 2.0"]
    assert made == ["x", "x"]
