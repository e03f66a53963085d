"""Which statistics belong to which predictions, and what of the references is made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blip2sweep.results import predictions as records
from blip2sweep.results import scoring
from blip2sweep.results.predictions import read_statistics, stem, write_predictions, write_statistics
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.tasks import load_task
from blip2sweep.tasks.predictions import Predictions
from tests.checkpoints import conf


def predictions(samples: Sequence[Any], nll: float = 1.0) -> Predictions:
    rows = [
        {"id": s.id, "image_id": s.image_id, "text": "yes", "tokens": 1, "nll_sum": nll, "nll_tokens": 2}
        for s in samples
    ]
    return Predictions.of(rows)


def test_a_rerun_with_the_same_texts_and_other_likelihoods_is_scored_anew(tmp_path: Path) -> None:
    task = load_task({**conf("task/shapes_vqa"), "limit": 6})
    scorer, found = Scorer(task), []
    for nll in (1.0, 3.0):
        said = predictions(task.samples, nll)
        name = stem("0" * 12, said.hash)
        write_predictions(tmp_path, name, said)
        assert score_result(tmp_path, name, scorer)
        found.append(read_statistics(tmp_path, name)["nll"].sum(0).tolist())
        assert not score_result(tmp_path, name, scorer)
    assert found == [[6.0, 12.0], [18.0, 12.0]]


def test_references_of_the_same_skipped_samples_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Captions:
        def __init__(self, references: Sequence[Sequence[str]], **settings: Any) -> None:
            made.append(len(references))

        def statistics(self, texts: Sequence[str], places: Sequence[int] | None) -> dict[str, Any]:
            return {"cider": np.ones((len(texts), 2))}

    monkeypatch.setattr("blip2sweep.tasks.captions.CaptionScorer", Captions)
    task = load_task({**conf("task/shapes_caption"), "limit": 6, "on_bad_image": "skip"})
    scorer = Scorer(task)
    for kept in (task.samples[1:], task.samples[1:], task.samples[:-1], task.samples):
        assert len(scorer.statistics(predictions(kept))["cider"]) == len(kept)
    assert made == [5, 5, 6]  # without the first (twice asked), without the last, all


def test_a_second_run_is_scored_with_the_first_and_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline that is scored has its noise floor, also when somebody else scores what a killed process left."""
    task, order = load_task({**conf("task/shapes_vqa"), "limit": 6}), []
    for name in ("a", "a-noise"):
        write_predictions(tmp_path, name, predictions(task.samples))
    write = scoring.write_statistics
    monkeypatch.setattr(scoring, "write_statistics", lambda *given: (order.append(given[1]), write(*given)))
    assert score_result(tmp_path, "a", Scorer(task))
    assert order == ["a-noise", "a"]


def test_scores_of_which_any_is_of_an_earlier_version_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task({**conf("task/shapes_vqa"), "limit": 6})
    write_predictions(tmp_path, "a", predictions(task.samples))
    with monkeypatch.context() as before:
        before.setattr(records, "scorer_version", lambda name: "0" if name == "nll" else "1")
        write_statistics(tmp_path, "a", Scorer(task).statistics(predictions(task.samples)))
    with monkeypatch.context() as after:
        after.setattr(records, "scorer_version", lambda name: "1")
        assert score_result(tmp_path, "a", Scorer(task))
        assert not score_result(tmp_path, "a", Scorer(task))
