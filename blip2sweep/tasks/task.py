"""The Task protocol: what is asked of samples, and how the answers are scored. No torch here.

A task is two names in its YAML file. `format` names how the files are read: a module with `KINDS` and `read`. `kind`
names what is asked and how it is scored: a module with the functions of `Task`. One module may be both; several formats
may hold one kind. Modules are imported when a task of theirs is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol, cast

from blip2sweep import outside
from blip2sweep.errors import UserError
from blip2sweep.metrics.statistics import FloatArray, Metric, add_metrics

if TYPE_CHECKING:
    from blip2sweep.tasks import (
        captions,
        choice,
        coco,
        exam,
        gqa,
        gqa_questions,
        incontext,
        jsonl,
        karpathy,
        letter,
        mmmu,
        pope,
        questions,
        retrieval,
        scienceqa,
        textvqa,
        vizwiz,
        vqav2,
        yes_no,
    )
    from blip2sweep.tasks.predictions import Predictions
    from blip2sweep.tasks.sample import Sample, TaskData

# generate: a text. likelihood: of a sample's targets, under teacher forcing. match: a score against each candidate.
# choose: one of a sample's choices, by the likelihood of each.
RequestType = Literal["generate", "likelihood", "match", "choose"]

FORMATS = {
    "coco": "blip2sweep.tasks.coco",
    "gqa": "blip2sweep.tasks.gqa",
    "jsonl": "blip2sweep.tasks.jsonl",
    "karpathy": "blip2sweep.tasks.karpathy",
    "mmmu": "blip2sweep.tasks.mmmu",
    "pope": "blip2sweep.tasks.pope",
    "scienceqa": "blip2sweep.tasks.scienceqa",
    "textvqa": "blip2sweep.tasks.textvqa",
    "vizwiz": "blip2sweep.tasks.vizwiz",
    "vqav2": "blip2sweep.tasks.vqav2",
}
KINDS = {
    "caption": "blip2sweep.tasks.captions",
    "choice": "blip2sweep.tasks.choice",
    "exam": "blip2sweep.tasks.exam",
    "gqa": "blip2sweep.tasks.gqa_questions",
    "incontext": "blip2sweep.tasks.incontext",
    "letter": "blip2sweep.tasks.letter",
    "retrieval": "blip2sweep.tasks.retrieval",
    "vqa": "blip2sweep.tasks.questions",
    "yes_no": "blip2sweep.tasks.yes_no",
}
BUILT_IN = frozenset(KINDS)
LEFT_OUT = -100.0  # the score of a candidate that is not among the best, as LAVIS has it (compute_sim_matrix)


class Format(Protocol):
    """A reader of the files of one data format.

    It may also have `OPTIONS`, its settings (settings.py); `ALL_SPLITS`, true where one file has all splits.
    """

    KINDS: tuple[str, ...]  # of tasks that such files hold

    @property
    def read(self) -> Callable[..., tuple[list[Sample], list[str]]]:
        """`read(root, split, limit, **options)`: the samples of a split in a data folder, in file order, the first
        `limit` of them, and notes. options: the settings of `OPTIONS` that are set (settings.py). Raises UserError with
        a line a mistake."""


class TaskScorer(Protocol):
    """Scores any cell of one task. What depends on the references alone is computed once."""

    def warm(self) -> None:
        """Prepare what takes seconds (references, tools) before there is anything to score."""

    def prepare(self, predictions: Sequence[Predictions]) -> None:
        """Do the work that costs as much for several cells as for one, such as starting the tokenizer."""

    def statistics(self, predictions: Predictions) -> dict[str, FloatArray]:
        """{statistic: (n, k) float64} of the metrics that `Task.scores` names, in the order of the predictions, which
        may lack samples whose image could not be read."""


class Task(Protocol):
    """A kind of task: the requests for its samples, and the scoring of the outputs.

    It may also have `SCORING`, `IDENTITY` and `check_settings(settings)`: its settings (settings.py);
    `resolved_settings(settings, samples)`: those of `IDENTITY` as the key has them; `candidates(data)`: what `match`
    compares with; `readable(data, predictions)`: outputs as people read them; `scorer_versions(data)`, {statistic:
    version}: of what is installed beside this package and changes a score; `check_installed(data)`: raises UserError
    where that is not here, before anything runs; `quick_scorer(data)`: a scorer of the metrics that cells stop on, where
    `scorer` takes long for others.
    """

    REQUESTS: tuple[RequestType, ...]  # what a back end is asked of each sample
    PRESET: str  # the kind of task whose generation presets fit where a preset names none for this kind; empty: none do
    ASKS: bool  # whether prompts differ between samples; calibration on texts alone has nothing to measure where not

    def check_prompt(self, prompt: str) -> None:
        """Raise UserError naming `generation.prompt` for a template that does not fit."""

    def prompt(self, sample: Sample, template: str) -> str:
        """The prompt of a sample."""

    def targets(self, sample: Sample, n: int) -> tuple[str, ...]:
        """Up to n reference texts as the model was trained on them.

        Likelihood reads all of them, calibration the first.
        """

    def scores(self, data: TaskData) -> tuple[str, ...]:
        """The metrics, by name, that every scored cell has: those of the chosen variants (`data.variants`).

        Rules of scoring are metrics of their own: none is in a cell's key.
        """

    def columns(self, data: TaskData) -> dict[str, str]:
        """The columns of a row about the task, besides those that every row has."""

    def scorer(self, data: TaskData) -> TaskScorer: ...

    def metrics(self) -> Sequence[Metric]:
        """Metrics that this task adds to METRICS."""


def format_of(name: str) -> Format:
    """The reader of a data format. Raises UserError naming `task.format` where there is none of that name."""
    return cast("Format", outside.module_of("tasks", name, FORMATS, Format, f"task.format={name}: unknown"))


def task_of(kind: str) -> Task:
    """The task of a kind; its metrics are in METRICS from then on.

    Raises UserError where there is none of that name.
    """
    return _with_metrics(outside.module_of("tasks", kind, KINDS, Task, f"task.kind={kind}: unknown"))


@cache
def _with_metrics(module: object) -> Task:
    found = cast("Task", module)
    add_metrics(found.metrics())
    return found


def candidates(data: TaskData) -> tuple[str, ...]:
    """The texts that a task with matches scores each sample against: its own `candidates`, or a target of each sample."""
    own = getattr(data.rules, "candidates", None)
    found = own(data) if own else (text for sample in data.samples for text in data.rules.targets(sample, 1))
    return tuple(found)


def ranked(data: TaskData) -> int:
    """How many of the best candidates of a picture, and of the best pictures of a candidate, are scored again, picture
    and text read together: the setting `k` of the kinds that have it. 0: every pair is scored by contrast alone."""
    return int(cast("int", data.settings.get("k", 0)))


def longest_text(task: Task) -> int | None:
    """The most tokens of a candidate, special ones included: the kind's MOST_TOKENS. None: as many as the model reads."""
    return cast("int | None", getattr(task, "MOST_TOKENS", None))


def check_installed(data: TaskData) -> None:
    """Raise UserError where the chosen ways of scoring want what is not installed here. Nothing large is imported."""
    check: Callable[[TaskData], None] | None = getattr(data.rules, "check_installed", None)
    if check is not None:
        check(data)


def asks_chat(task: Task) -> bool:
    """Whether a chat model gives the answers, from what the model says of the pictures: the task's CHAT."""
    return bool(getattr(task, "CHAT", False))


def load_outside(kinds: Iterable[str] = ()) -> None:
    """Add the metrics of kinds from outside to METRICS, because a table may have cells of any task.

    Code that is missing or broken costs only its own metrics.
    """
    for kind in {*kinds, *KINDS} - BUILT_IN:
        with suppress(UserError):
            task_of(kind)


if TYPE_CHECKING:  # mypy holds the modules to the protocols
    _formats: tuple[Format, ...] = (coco, gqa, jsonl, karpathy, mmmu, pope, scienceqa, textvqa, vizwiz, vqav2)
    _tasks: tuple[Task, ...] = (captions, choice, exam, gqa_questions, incontext, letter, questions, retrieval, yes_no)
