"""The published table of the study, reproduced from its prediction files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.metrics import METRICS, CaptionScorer

pytestmark = [pytest.mark.xdist_group("java"), pytest.mark.thorough]


def test_meteor_and_cider_of_all_shipped_cells(study: Path, study_references: list[list[str]]) -> None:
    predictions = pd.read_parquet(study / "predictions.parquet")
    published = pd.read_csv(study / "scores.csv").set_index("config")
    scorer = CaptionScorer(study_references, metrics=["meteor", "cider"])
    scorer.prepare(list(predictions["caption"]))
    worst = {"METEOR": 0.0, "CIDEr": 0.0}
    cells = list(predictions.groupby("config"))
    for config, cell in cells:
        statistics = scorer.statistics(list(cell["caption"]))
        for column in worst:
            value = METRICS[column.lower()].value(statistics[column.lower()])
            worst[column] = max(worst[column], abs(value - published.loc[config, column]))
    assert len(cells) == 300
    assert worst == {column: pytest.approx(0, abs=1e-9) for column in worst}
