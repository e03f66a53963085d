"""Lines about the same rows and files are made once."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.reporting import lines_before
from blip2sweep.reporting.lines_before import said_before
from blip2sweep.results.predictions import stem

HASH = "0123456789abcdef"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A member for each time that lines were made. The folder has scores of the first cell."""
    monkeypatch.setenv("BLIP2SWEEP_CACHE_DIR", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    scores().parent.mkdir(parents=True)
    scores().write_text("scores")
    return []


def scores() -> Path:
    return Path("outputs/scores", f"{stem('a', HASH)}.npz")


def said(made: list[str], value: float, command: str, folder: str = "outputs") -> list[str]:
    rows = pd.DataFrame(
        {"key": ["a", "b"], "predictions": [HASH, None], "cider": [1.0, value], "sweeps": [[command], [command]]}
    )
    return said_before(
        rows, Path(folder), command, lambda: [*(made.append(command) or ()), f"{command} costs {value}"]  # type: ignore[func-returns-value]
    )  # fmt: skip


def test_the_same_rows_and_words_are_asked_once(made: list[str]) -> None:
    assert said(made, 2.0, "x") == said(made, 2.0, "x") == ["x costs 2.0"]
    assert made == ["x"]


def test_other_rows_words_folders_or_code_are_asked_anew(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [said(made, 2.0, "x"), said(made, 3.0, "x"), said(made, 2.0, "y")] == [
        ["x costs 2.0"], ["x costs 3.0"], ["y costs 2.0"]]  # fmt: skip
    said(made, 2.0, "x", "others")
    monkeypatch.setattr(lines_before, "_code", lambda: "another version")
    assert said(made, 2.0, "x") == ["x costs 2.0"]
    assert made == ["x", "x", "y", "x", "x"]


def test_the_same_name_elsewhere_is_another_folder(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said(made, 2.0, "x", "others")
    (other := Path("elsewhere")).mkdir()
    monkeypatch.chdir(other)
    said(made, 2.0, "x", "others")
    assert made == ["x", "x"]


def test_a_file_that_moves_or_changes_is_read_anew(made: list[str]) -> None:
    """While scores are away there are no lines, and that is not kept for when they are back."""
    scores().rename("away")
    said(made, 2.0, "x")
    Path("away").rename(scores())
    said(made, 2.0, "x")
    os.utime(scores(), ns=(1, 1))
    said(made, 2.0, "x")
    said(made, 2.0, "x")
    assert made == ["x", "x", "x"]


def test_a_damaged_entry_is_made_anew(made: list[str], tmp_path: Path) -> None:
    said(made, 2.0, "x")
    (entry,) = (tmp_path / "store" / lines_before.STORE).iterdir()
    entry.write_bytes(entry.read_bytes()[:-1])
    assert said(made, 2.0, "x") == ["x costs 2.0"]
    assert made == ["x", "x"]
