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


# CIDEr, BLEU-4 and ROUGE-L of the baseline's captions, by tokenizer: pycocoevalcap with its PTB tokenizer, and its
# scorers alone on texts in lower case (measured once by hand with pycocoevalcap 1.2).
BASELINE = {"ptb": (1.2853, 0.3678, 0.5802), "none": (1.0707, 0.3452, 0.5498)}


@pytest.mark.parametrize("tokenizer", BASELINE)
def test_the_baseline_by_tokenizer(tokenizer: str, study: Path, study_references: list[list[str]]) -> None:
    predictions = pd.read_parquet(study / "predictions.parquet")
    captions = list(predictions.loc[predictions["config"] == 0, "caption"])
    names = ("cider", "bleu_4", "rouge_l")
    found = CaptionScorer(study_references, names, tokenizer=tokenizer).statistics(captions)
    values = (METRICS[name].value(found[METRICS[name].statistic]) for name in names)
    assert tuple(round(value, 4) for value in values) == BASELINE[tokenizer]
