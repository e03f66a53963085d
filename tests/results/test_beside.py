"""What torch has stands beside a cell of another back end, where the ledger has it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blip2sweep.commands.rescore import score_results
from blip2sweep.reporting.short_table import short_table
from blip2sweep.results import table
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from tests.ledgers import jobs, launched, ran

WORDS = ("task=shapes_vqa", "task.limit=8", "part=llm", "quant.bits=4")


@pytest.mark.thorough
def test_metrics_of_torch_stand_beside_those_of_another_back_end(tmp_path: Path) -> None:
    there, here = jobs("backend=dummy", *WORDS), jobs(*WORDS)
    launched(tmp_path, there)
    ran(tmp_path, there)
    score_results(tmp_path, Ledger(tmp_path).refresh().results())
    assert not [c for c in collect(tmp_path) if str(c).startswith("torch_")]
    launched(tmp_path, here, "second")
    ran(tmp_path, here, "second")
    score_results(tmp_path, Ledger(tmp_path).refresh().results())
    rows = collect(tmp_path).set_index("key")
    for job, own in zip(there, here, strict=True):
        row = rows.loc[job["key"]]
        assert row["beside"] == own["key"]
        assert row["torch_vqa_accuracy"] == rows.loc[own["key"], "vqa_accuracy"]
        assert row["baseline_vqa_accuracy"] == rows.loc[there[0]["key"], "vqa_accuracy"]
    assert rows.loc[[j["key"] for j in here], "torch_vqa_accuracy"].isna().all()
    assert "in torch" in short_table(rows.reset_index())


def test_a_stopped_cell_of_torch_stands_beside_with_what_it_keeps_alone() -> None:
    """Until its baseline is measured there is only the mean of the images that it saw."""
    line, beside = (
        {"key": "b", "columns": {"beside": "t"}},
        SimpleNamespace(measured={"f": {"metrics": {"cider": [0.5]}}}),
    )
    ledger: Any = SimpleNamespace(attempts={"t": beside}, output_dir=Path())
    for stopped, more, shown in [
        ({}, {}, True), ({"stopped": {"images": 64}}, {}, False), ({"stopped": {"images": 64}}, {"of": 200}, True)
    ]:  # fmt: skip
        beside.result = {"key": "t", **stopped}
        beside.measured["f"].update(more)
        found = table._beside(line, ledger, lambda result: "f")  # type: ignore[arg-type]
        assert found == (beside.measured["f"] if shown else None)
