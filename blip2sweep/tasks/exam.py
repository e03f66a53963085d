"""MMMU's questions: the letter of an option or a short answer, read from a generated text.

`{}` of a prompt is a question as MMMU's own script words it: with its options, and with what the answer should be. A
prompt with a place for options words the questions that have some; the others stay as MMMU's script words them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blip2sweep.metrics import groups, letters, mmmu
from blip2sweep.metrics.metric import FloatArray, Metric
from blip2sweep.tasks import options
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample, TaskData
from blip2sweep.tasks.task import RequestType

REQUESTS: tuple[RequestType, ...] = ("generate", "likelihood")
PRESET = "vqa"
ASKS = True
SCORING: Mapping[str, tuple[str, ...]] = mmmu.SCORING
LETTER = "{}\n{(A) lines}\nAnswer with the option's letter from the given choices directly."
SHORT = "{}\nAnswer the question using a single word or phrase."


def check_prompt(prompt: str) -> None:
    options.check_question_place(prompt)


def prompt(sample: Sample, template: str) -> str:
    if sample.choices and options.names_options(template):
        return options.worded(sample, template)
    own = options.worded(sample, LETTER) if sample.choices else SHORT.replace("{}", sample.question or "")
    return own if options.names_options(template) else options.filled(template, {options.QUESTION: own})


def targets(sample: Sample, n: int) -> tuple[str, ...]:
    """The letter of the right option, or the first of the right short answers."""
    if not n:
        return ()
    return (letters.LETTERS[options.right_option(sample)],) if sample.choices else sample.references[:1]


def scores(data: TaskData) -> tuple[str, ...]:
    own = [*groups.scored("mmmu_accuracy", tuple(mmmu.GROUPS), _masks(data.samples)), "guess_rate"]
    return tuple(name + v.suffix for v in data.variants for name in own)


def columns(data: TaskData) -> dict[str, str]:
    return {}


def metrics() -> Sequence[Metric]:
    return ()


def _masks(samples: Sequence[Sample]) -> FloatArray:
    return mmmu.group_masks([str(s.details.get("subject")) for s in samples], [bool(s.choices) for s in samples])


class Scorer:
    """Scores answers. The groups of all samples are found once."""

    def __init__(self, data: TaskData) -> None:
        self._variants, self._masks = data.variants, _masks(data.samples)
        self._place = {s.id: i for i, s in enumerate(data.samples)}
        self._samples = data.samples

    def warm(self) -> None:
        pass

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        pass

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        places = [self._place[i] for i in predictions.id]
        pairs = [(self._samples[i], text) for i, text in zip(places, predictions.outputs, strict=True)]
        found = dict[str, FloatArray]()
        for v in self._variants:
            scored = [_scored(sample, text, v.values["guess"]) for sample, text in pairs]
            right, guessed = [a for a, _ in scored], [b for _, b in scored]
            own = mmmu.mmmu_statistics(right, guessed, self._masks[places])
            found |= {name + v.suffix: array for name, array in own.items()}
        return found


def _scored(sample: Sample, text: str, rule: str) -> tuple[float, bool]:
    """The score of an answer, and whether it was guessed."""
    if not sample.choices:
        return float(mmmu.short_answer_right(text, sample.references)), False
    said, right = mmmu.read_option(text, sample.choices), options.right_option(sample)
    if said is not None:
        return float(said == right), False
    if rule == "expected":
        return 1 / len(sample.choices), True
    return float(mmmu.guess(sample.id, len(sample.choices)) == right), True


def scorer(data: TaskData) -> Scorer:
    return Scorer(data)
