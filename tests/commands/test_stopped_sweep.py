"""A sweep whose cells stop when enough is known, typed; and the same without a rule, which goes on to all images."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.results.ledger import Ledger
from tests.command_line import blip2sweep

pytestmark = pytest.mark.thorough

WORDS = ("task=shapes_vqa", "task.limit=600", "part=vit,llm", "quant.bits=2", "backend=dummy", "sweep_name=s")
KEPT = {"BLIP2SWEEP_DUMMY": json.dumps({"kept": {"vit:all": 1.0}})}


def test_cells_stop_are_counted_and_go_on(tmp_path: Path) -> None:
    first = blip2sweep("-m", *WORDS, "evaluation.stop=known", cwd=tmp_path, env=KEPT)
    assert first.code == 0, first.err
    assert "evaluation.stop=known: 2 cells may stop, once known to ±5 % of the baseline" in first.err
    status = blip2sweep("status", cwd=tmp_path)
    assert "3 cells: 3 done (1 stopped, after 64 % of their images)" in status.out
    table = pd.read_parquet(tmp_path / "outputs" / "table.parquet").set_index("part")
    assert list(table.loc["vit", ["images", "images_of", "stopped"]]) == [128, 200, "known to ±5 %"]
    assert table.loc["vit", "vqa_accuracy"] == pytest.approx(table.loc["none", "vqa_accuracy"])
    assert table.loc["llm", "stopped"] == ""
    assert len(pd.read_parquet(tmp_path / "outputs" / "samples.parquet")) == 600 + 3 * 128 + 600
    planned = blip2sweep("plan", "-m", *WORDS, cwd=tmp_path)
    assert "2 already done, 1 to run" in planned.out
    assert "1 cell stopped earlier than is asked for now, to go on from there" in planned.out
    again = blip2sweep("-m", *WORDS, cwd=tmp_path, env=KEPT)
    assert again.code == 0, again.err
    results = Ledger(tmp_path / "outputs").refresh().results()
    assert not any("stopped" in r for r in results)
    assert len(pd.read_parquet(tmp_path / "outputs" / "samples.parquet")) == 3 * 600
    assert not [*(tmp_path / "outputs" / "cache" / "prefixes").glob("*")]
