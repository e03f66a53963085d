"""Scoring any predictions file: what ``blip2sweep score FILE --references REF`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from blip2sweep.metrics.captions import CaptionScorer
from blip2sweep.metrics.health import health_statistics
from blip2sweep.metrics.records import Captions, Predictions, Questions, ScoreError, read_predictions, read_references
from blip2sweep.metrics.statistics import METRICS, FloatArray
from blip2sweep.metrics.vqa import vqa_statistics


def score_file(path: str | Path, references_path: str | Path, subset: bool = False) -> dict[str, float | None]:
    """The metrics of a predictions file, under the table's column names, ready for JSON.

    Captions give bleu_1 … bleu_4, meteor, rouge_l, cider; answers give vqa_accuracy and it by answer type (None where
    no question has the type); both give empty_rate and mean_length. Fractions are 0-1, cider 0-10, lengths in words.

    Predictions and references must cover the same ids. subset: allow references without a prediction and leave them
    out, of CIDEr's document frequencies too (COCOEvalCap on the ids of a results file does the same).

    Raises ScoreError (one line: what, where, what would be right), JavaError, UserError if Java is missing.
    """
    predictions, references = read_predictions(path), read_references(references_path)
    ids = _common_ids(predictions, references, (path, references_path), subset)
    texts = [predictions.texts[key] for key in ids]
    try:
        statistics = _task_statistics(texts, references, ids)
    except ValueError as error:
        raise ScoreError(f"{references_path}: {error}") from error
    return values(statistics | health_statistics(texts))


def values(statistics: Mapping[str, FloatArray]) -> dict[str, float | None]:
    """All metrics that a set of statistic arrays (name -> (n, k)) gives: column -> value, None for NaN."""
    found = {
        name: metric.value(statistics[metric.statistic])
        for name, metric in METRICS.items()
        if metric.statistic in statistics
    }
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _task_statistics(
    texts: Sequence[str], references: Captions | Questions, ids: Sequence[str]
) -> dict[str, FloatArray]:
    if isinstance(references, Captions):
        return CaptionScorer([references.captions[key] for key in ids]).statistics(texts)
    answers = [references.answers[key] for key in ids]
    return vqa_statistics(texts, answers, [references.answer_types[key] for key in ids])


def _common_ids(
    predictions: Predictions, references: Captions | Questions, paths: tuple[str | Path, str | Path], subset: bool
) -> list[str]:
    """The ids to score, in the order of the references."""
    column = "image_id" if isinstance(references, Captions) else "question_id"
    if predictions.id_column != column:
        raise ScoreError(f"{paths[0]} has {predictions.id_column}, {paths[1]} has {column}; give files of one task")
    known = references.captions if isinstance(references, Captions) else references.answers
    strangers = [key for key in predictions.texts if key not in known]
    if strangers:
        raise ScoreError(f"{paths[0]}: {_some(column, strangers)} not in {paths[1]}; give the references of this data")
    missing = [key for key in known if key not in predictions.texts]
    if missing and not subset:
        advice = "predict all of them, or ask for the subset"
        raise ScoreError(f"{paths[0]}: no prediction for {_some(column, missing)} of {paths[1]}; {advice}")
    return [key for key in known if key in predictions.texts]


def _some(column: str, ids: Sequence[str]) -> str:
    rest = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"{column} {ids[0]}{rest}"
