"""Questions: a short answer, compared with people's answers by the rules of VQA.

Samples without references, as of a challenge's test split, are answered and not scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from blip2sweep.errors import UserError
from blip2sweep.metrics import lemmas
from blip2sweep.metrics.core import ANSWERS
from blip2sweep.metrics.lemmas import lemmatised, lemmatiser_version, tagger
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.metrics.variants import Declared
from blip2sweep.metrics.vqa import SETTINGS, UNANSWERABLE, rule_of, vqa_statistics
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True
SCORING: Declared = SETTINGS


def check_prompt(prompt: str) -> None:
    if prompt.count("{}") != 1:
        raise UserError(
            f"generation.prompt={prompt!r}: no place for the question; right: such as 'Question: {{}} Answer:'"
        )


def prompt(sample: Sample, template: str) -> str:
    return template.replace("{}", (sample.question or "") + _read_from_picture(sample))


def _read_from_picture(sample: Sample) -> str:
    """The OCR tokens behind a question, as LLaVA has them: between the question and the instruction."""
    tokens = sample.details.get("ocr_tokens")
    return f"\nReference OCR token: {', '.join(map(str, tokens))}" if isinstance(tokens, list) else ""


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    """The majority answer alone, since most other answers equal it."""
    return (sample.majority,) if n and sample.references else ()


def scores(data: TaskData) -> tuple[str, ...]:
    if not _annotated(data):
        return ()
    names = [m.name for m in ANSWERS]
    names += ["vqa_accuracy_unanswerable"] if _some_unanswerable(data) else []
    return tuple(name + variant.suffix for variant in data.variants for name in names)


def columns(data: TaskData) -> dict[str, str]:
    """The column `vqa_rule`: how questions are scored, by their number of answers."""
    return {"vqa_rule": rule_of([s.references for s in data.samples])} if _annotated(data) else {}


def check_installed(data: TaskData) -> None:
    """Raise UserError where a chosen way of scoring wants a lemmatiser that is not here."""
    if _annotated(data) and any(v.values["lemmatize"] != "none" for v in data.variants):
        lemmas.check_installed()


def scorer_versions(data: TaskData) -> dict[str, str]:
    """The version of the lemmatiser, of the statistics of answers that it changes."""
    suffixes = [v.suffix for v in data.variants if v.values["lemmatize"] != "none"]
    names = ("vqa", "vqa_unanswerable") if suffixes and _annotated(data) else ()
    return {name + suffix: lemmatiser_version() for suffix in suffixes for name in names}


def _annotated(data: TaskData) -> bool:
    return any(s.references for s in data.samples)


def _some_unanswerable(data: TaskData) -> bool:
    return any(s.answer_type == UNANSWERABLE for s in data.samples)


def metrics() -> Sequence[Metric]:
    return ()


class Scorer:
    """Scores answers. It keeps no data of the references."""

    def __init__(self, data: TaskData) -> None:
        self.data = data
        self._samples = {s.id: s for s in data.samples}

    def warm(self) -> None:
        """Load the lemmatiser, where one is asked for."""
        if scorer_versions(self.data):
            tagger()

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    @cached_property
    def _scored(self) -> bool:
        return _annotated(self.data)

    @cached_property
    def _unanswerable(self) -> bool:
        """Whether the task has such a question. All of them may lack in the predictions, as bad images that were skipped,
        and the statistic that `scores` promises is there all the same."""
        return _some_unanswerable(self.data)

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        samples = [self._samples[i] for i in predictions.id] if self._scored else []
        found = dict[str, FloatArray]()
        for variant in self.data.variants if samples else ():
            own = _of(variant.values, predictions.outputs, samples, self._unanswerable)
            found |= {name + variant.suffix: array for name, array in own.items()}
        return found


def _of(
    values: Mapping[str, str], outputs: Sequence[str], samples: Sequence[Sample], unanswerable: bool
) -> dict[str, FloatArray]:
    """The statistics of one variant. unanswerable: whether the task has questions of that type."""
    said = [lemmatised(text) for text in outputs] if values["lemmatize"] == "spacy" else outputs
    references, types = [s.references for s in samples], [s.answer_type for s in samples]
    return vqa_statistics(said, references, types, values["rule"], unanswerable)


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
