"""A cell's answers in the form that the server of a challenge reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics.vqa_words import evalai_answer
from blip2sweep.rows import Id, Mistakes, list_of, question_rows, read_json
from blip2sweep.rows.fields import shown
from blip2sweep.tasks import planned_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import Sample
from blip2sweep.wire.pack import TaskJob

T = TypeVar("T")
Row = dict[str, Id]
PROCESSORS: Mapping[str, Callable[[str], str]] = {"none": str, "evalai": evalai_answer}
KIND = "vqa"  # whose outputs are the answers, word for word
QUESTIONS = "the official question file"


class Submission(NamedTuple):
    """rows: in the order of the questions. missing: how many questions of the task have no answer; added: how many of
    another file got an empty one."""

    rows: list[Row]
    missing: int
    added: int


def submission(
    task: TaskJob, predictions: Predictions, form: str, processor: str = "none", fill: Path | None = None
) -> Submission:
    """The answers to all questions of a job's task, empty where there is none, as of a picture that could not be read.

    form: `vqav2`, {"question_id", "answer"} each, or `vizwiz`, {"image", "answer"}. processor: `evalai` rewrites each
    answer first, as LLaVA's scripts do. fill: a question file; those of its questions that the task lacks get an empty
    answer. Raises UserError for another form or processor, for a task whose outputs are other texts or none, as a
    chat model's replies, and for ids that the form cannot hold.
    """
    rewrite, row = _known(PROCESSORS, processor, "--processor"), _known(FORMS, form, "--form")
    if task["kind"] != KIND or predictions.text is None:
        raise UserError(
            f"task {task['name']}: its outputs, of kind {task['kind']}, are no answers that such a server reads; right: a "
            f"cell of kind {KIND}"
        )
    data = planned_task(cast("Mapping[str, Any]", task))
    said = dict(zip(predictions.id, predictions.text, strict=True))
    rows = [row(s, rewrite(said.get(s.id, ""))) for s in data.samples]
    added = _added(fill, {s.id for s in data.samples}, form) if fill else []
    return Submission([*rows, *added], len(data.samples) - len(said), len(added))


def _vqav2(sample: Sample, answer: str) -> Row:
    if isinstance(sample.id, str):
        raise UserError(
            f"--form vqav2: question id {shown(sample.id)} is a text; right: whole numbers, or --form vizwiz"
        )
    return {"question_id": sample.id, "answer": answer}


def _vizwiz(sample: Sample, answer: str) -> Row:
    return {"image": sample.image.name, "answer": answer}


FORMS: Mapping[str, Callable[[Sample, str], Row]] = {"vqav2": _vqav2, "vizwiz": _vizwiz}


def _known(known: Mapping[str, T], name: str, option: str) -> T:
    if name not in known:
        raise UserError(f"{option} {name}: unknown; {nearest(name, known)}")
    return known[name]


def _added(path: Path, asked: set[Id], form: str) -> list[Row]:
    """An empty answer to each question of a file that is not asked."""
    if form != "vqav2":
        raise UserError(f"--fill {path}: only --form vqav2 has questions of other splits; right: without --fill")
    mistakes = Mistakes()
    questions = question_rows(path, list_of(read_json(path, QUESTIONS), "questions", path, QUESTIONS), mistakes)
    mistakes.tell()
    if not asked & {q.id for q in questions}:
        raise UserError(f"--fill {path}: has none of the task's questions; right: the question file of the whole split")
    return [{"question_id": q.id, "answer": ""} for q in questions if q.id not in asked]
