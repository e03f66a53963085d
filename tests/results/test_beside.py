"""What torch has stands beside a cell of another back end, where the ledger has it."""

from __future__ import annotations

from pathlib import Path

from blip2sweep.commands.rescore import score_results
from blip2sweep.reporting.terminal import short_table
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from tests.ledgers import jobs, ran

WORDS = ("task=shapes_caption", "task.limit=4", "part=llm", "quant.bits=4")


def test_metrics_of_torch_stand_beside_those_of_another_back_end(tmp_path: Path) -> None:
    there, here = jobs("backend=dummy", *WORDS), jobs(*WORDS)
    ran(tmp_path, there)
    score_results(tmp_path, Ledger(tmp_path).refresh().results())
    assert not [c for c in collect(tmp_path) if c.startswith("torch_")]
    ran(tmp_path, here)
    score_results(tmp_path, Ledger(tmp_path).refresh().results())
    table = collect(tmp_path).set_index("key")
    for job, own in zip(there, here, strict=True):
        row = table.loc[job["key"]]
        assert row["beside"] == own["key"]
        assert row["torch_cider"] == table.loc[own["key"], "cider"]
        assert row["baseline_cider"] == table.loc[there[0]["key"], "cider"]
    assert table.loc[[j["key"] for j in here], "torch_cider"].isna().all()
    assert "in torch" in short_table(table.reset_index())
