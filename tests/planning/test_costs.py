"""What cells are expected to take, from what others took."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.planning.costs import expected_seconds
from blip2sweep.results.ledger import Journal, Ledger
from tests.composing import plan


@pytest.mark.parametrize(
    ("cost", "whole"),
    [
        ({"seconds": 30.0, "seconds_load": 8.0, "seconds_apply": 12.0, "seconds_decode": 10.0}, 60.0),  # 20 + 4 · 10
        ({"seconds": 30.0}, 120.0),  # of a back end that does not say
        ({"seconds": 30.0, "seconds_load": 40.0, "seconds_apply": None}, 30.0),
    ],
)
def test_of_a_stopped_cell_only_what_its_images_took_grows(
    tmp_path: Path, cost: dict[str, object], whole: float
) -> None:
    base, job = (c.job() for c in plan("part=llm", "quant.bits=4").todo)
    stopped = {"images": 50, "of": 200, "reason": "below 50 %", "stop": "known", "margin": 0.05}
    journal = Journal(tmp_path)
    columns = {**job["columns"], "baseline": base["key"]}
    journal.write("result", key=job["key"], predictions=None, columns=columns, cost=cost, stopped=stopped)
    journal.close()
    assert expected_seconds([job], Ledger(tmp_path).refresh())[job["key"]] == pytest.approx(whole)
