"""What `blip2sweep plan` prints of small and of large sweeps."""

from __future__ import annotations

import pytest

from blip2sweep.commands import plan as plans
from blip2sweep.commands.plan import describe, skipped
from tests.composing import plan

WORDS = ("part=vit,llm", "quant.bits=2,3,4", "task.limit=8")


def test_a_large_plan_has_its_first_and_last_cells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "FIRST", 2)
    monkeypatch.setattr(plans, "LAST", 1)
    made = plan(*WORDS)
    describe(made)
    told, keys = capsys.readouterr().out, list(made.cells)
    assert [k for k in keys if k in told] == [*keys[:2], keys[-1]]
    assert "… 4 more cells; `blip2sweep plan --all-cells …` lists them …" in told
    describe(made, every=True)
    told = capsys.readouterr().out
    assert all(k in told for k in keys)
    assert "more cells" not in told


def test_what_every_cell_has_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    describe(plan(*WORDS))
    told = capsys.readouterr().out
    assert told.startswith("every cell that is asked for: task.limit=8\n")
    assert told.count("task.limit=8") == 1
    describe(plan("part=vit", "task.limit=8"))
    assert "every cell" not in capsys.readouterr().out


def test_reasons_are_counted() -> None:
    made = plan(*WORDS)
    made.reasons = {0: "block 4 is dropped", 2: "block 5 is dropped", 3: "another reason"}
    assert skipped(made) == [
        f"skipped 2, the first is: {' '.join(made.jobs[0].overrides)}: block 4 is dropped",
        f"skipped: {' '.join(made.jobs[3].overrides)}: another reason",
    ]
