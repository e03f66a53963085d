"""docs/python.md: its code runs, one piece after the other, and says what the comments say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.config.words import words_of
from tests.outside.page import blocks
from tests.outside.typed import workers_here

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


@pytest.mark.thorough
def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLIP2SWEEP_OUTPUT_DIR", raising=False)
    found: dict[str, Any] = {}
    with workers_here():
        for block in (b for b in blocks(PAGE) if b.kind == "python"):
            exec(compile(block.text, PAGE, "exec"), found)
    assert f"plan.summary  # {found['plan'].summary}\n" in PAGE.read_text()
    assert isinstance(found["every"], pd.DataFrame)
    assert (len(found["texts"]), found["page"].name, found["config"].quant.bits) == (50, "report.html", 3)
    said = capsys.readouterr().out.strip()
    assert said.partition("? ")[0] in PAGE.read_text()


def test_its_table_is_what_values_become() -> None:
    page = PAGE.read_text()
    for value, word in (([2, 4], "2,4"), ([["official", "lavis"]], "[official,lavis]"), (None, "null"), (True, "true")):
        assert words_of({"x": value}) == [f"x={word}"]
        assert f"`{word}`" in page
    assert words_of({"per_part.vision": {"bits": 8}}) == ["++per_part.vision.bits=8"]


def test_lines_are_short() -> None:
    assert max(len(line) for line in PAGE.read_text().splitlines() if not line.startswith("|")) <= 116
