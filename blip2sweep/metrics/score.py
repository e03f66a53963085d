"""Scoring any predictions file: what ``blip2sweep score FILE --references REF`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.metrics import vqa
from blip2sweep.metrics.captions import TOKENIZER, CaptionScorer
from blip2sweep.metrics.health import health_statistics
from blip2sweep.metrics.java import JavaError
from blip2sweep.metrics.lemmas import lemmatised
from blip2sweep.metrics.records import Captions, Predictions, Questions, read_predictions, read_references, spelt_like
from blip2sweep.metrics.statistics import METRICS, FloatArray
from blip2sweep.metrics.variants import Declared, Variant, variants
from blip2sweep.metrics.vqa import rule_of, vqa_statistics
from blip2sweep.rows import Id, without_gc
from blip2sweep.rows.fields import shown

NONE: Mapping[str, Sequence[str]] = MappingProxyType({})


# The scoring settings of each form of references, as the kind of task with such references declares them.
SETTINGS: Mapping[type[Captions] | type[Questions], Declared] = {Captions: TOKENIZER, Questions: vqa.SETTINGS}


def score_file(
    path: str | Path,
    references_path: str | Path,
    subset: bool = False,
    scoring: Mapping[str, Sequence[str]] = NONE,
) -> dict[str, float | str | None]:
    """The metrics of a predictions file, under the table's column names, ready for JSON.

    Captions give bleu_1 … bleu_4, meteor, rouge_l, cider; answers give vqa_rule, vqa_accuracy and it by answer type
    (None where no question has the type); both give empty_rate and mean_length. Fractions are 0-1, cider 0-10, lengths
    in words.

    Predictions and references must cover the same ids. subset: allow references without a prediction and leave them
    out, of CIDEr's document frequencies too (COCOEvalCap on the ids of a results file does the same). scoring: values of
    scoring settings, such as {"rule": ["lavis"]}; each rule has metrics of its own, such as vqa_accuracy_lavis.

    Raises UserError (a line a mistake: what, where, what would be right), also where Java is missing or gives up.
    """
    with without_gc():
        predictions, references = read_predictions(path), read_references(references_path)
    own = _variants(references, scoring)
    texts = _texts(predictions, references, (path, references_path), subset)
    told: dict[str, float | str | None] = {}
    if isinstance(references, Questions):
        told["vqa_rule"] = rule_of([references.answers[i] for i in texts])
    try:
        statistics = _by_variants(list(texts.values()), references, list(texts), own)
    except JavaError as error:
        raise UserError(f"{path}: {error}; right: captions that METEOR and its tokenizer can take") from error
    return told | values(statistics | health_statistics(list(texts.values())))


def values(statistics: Mapping[str, FloatArray]) -> dict[str, float | None]:
    """All metrics that a set of statistic arrays (name -> (n, k)) gives: column -> value, None for NaN."""
    found = {
        name: metric.value(statistics[metric.statistic])
        for name, metric in METRICS.items()
        if metric.statistic in statistics
    }
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _variants(references: Captions | Questions, scoring: Mapping[str, Sequence[str]]) -> list[Variant]:
    """The chosen variants. Raises UserError, a line a mistake, for a setting or a value that there is not."""
    declared, given = SETTINGS[type(references)], {name: values for name, values in scoring.items() if values}
    named = "captions" if isinstance(references, Captions) else "questions"
    wrong = [f"--{n}: {named} have no such setting; right: without it" for n in given if n not in declared]
    for name, values in declared.items():
        unknown = (word for word in given.get(name, ()) if word not in values)
        wrong += [f"--{name} {word}: {named} are not scored so; right: {', '.join(values)}" for word in unknown]
    if wrong:
        raise UserErrors(wrong) if len(wrong) > 1 else UserError(wrong[0])
    return variants(declared, given)


def _by_variants(
    texts: Sequence[str], references: Captions | Questions, ids: Sequence[Id], own: Sequence[Variant]
) -> dict[str, FloatArray]:
    """The statistics of each variant, under its own names."""
    of_each = {v.suffix: _task_statistics(texts, references, ids, v.values) for v in own}
    return {name + suffix: array for suffix, found in of_each.items() for name, array in found.items()}


def _task_statistics(
    texts: Sequence[str], references: Captions | Questions, ids: Sequence[Id], scoring: Mapping[str, str]
) -> dict[str, FloatArray]:
    """The statistics by one value of each setting, under their plain names."""
    if isinstance(references, Captions):
        own = [references.captions[key] for key in ids]
        domains = [references.domains[key] for key in ids if key in references.domains]
        return CaptionScorer(own, tokenizer=scoring["tokenizer"], domains=domains).statistics(texts)
    answers, types = [references.answers[key] for key in ids], [references.answer_types[key] for key in ids]
    said = [lemmatised(text) for text in texts] if scoring["lemmatize"] == "spacy" else texts
    return vqa_statistics(said, answers, types, scoring["rule"])


def _texts(
    predictions: Predictions, references: Captions | Questions, paths: tuple[str | Path, str | Path], subset: bool
) -> dict[Id, str]:
    """What to score: id -> text, in the order of the references."""
    column = "image_id" if isinstance(references, Captions) else "question_id"
    known: Mapping[Id, object] = references.captions if isinstance(references, Captions) else references.answers
    if column not in predictions.by:
        other = next(iter(predictions.by))
        raise UserError(f"{paths[0]}: has {other}, {paths[1]} has {column}; right: files of one task")
    try:
        texts = spelt_like(predictions.by[column], known.keys())
    except ValueError as error:
        raise UserError(f"{paths[0]}: {column}: {error}; right: each once") from error
    strangers = [i for i in texts if i not in known]
    if strangers:
        raise UserError(f"{paths[0]}: {_some(column, strangers)} not in {paths[1]}; right: the references of this data")
    missing = [i for i in known if i not in texts]
    if missing and not subset:
        advice = "a prediction for each, or --subset to score those that there are"
        raise UserError(f"{paths[0]}: no prediction for {_some(column, missing)} of {paths[1]}; right: {advice}")
    return {i: texts[i] for i in known if i in texts}


def _some(column: str, ids: Sequence[Id]) -> str:
    rest = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"{column} {shown(ids[0])}{rest}"
