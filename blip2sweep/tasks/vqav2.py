"""VQAv2: official question and annotation files, images named as COCO names them.

Own data in this form may have texts as ids. A text image id names its file: with its suffix where it has one, else as
JPEG.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Answers, Id, Mistakes, Question, answer_rows, list_of, question_rows, read_json
from blip2sweep.rows.fields import shown
from blip2sweep.tasks.sample import (
    ORIGIN,
    Sample,
    annotation_files,
    check_images,
    image_path,
    inside,
    limited,
    official,
)

QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"
KINDS: tuple[str, ...] = ("vqa", "incontext")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def read(
    root: Path, split: str, limit: int | None, annotations: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    """Questions in file order, the first `limit` of them, with people's answers as references; no notes.

    annotations: the question file and the annotation file in place of the official ones. images: the folder of the
    images in `root`.
    """
    folder = split if images is None else inside(root, images, "task.images")
    if annotations is not None:
        asked, answered = annotation_files(root, annotations, split, 2)
    else:
        asked, answered = (root / "annotations" / name.format(split) for name in (QUESTIONS, ANNOTATIONS))
    if not asked.is_file():
        there = sorted(p.name.split("_")[3] for p in asked.parent.glob(QUESTIONS.format("*")))
        raise UserError(
            f"task.split={split}: no question file {asked}; {nearest(split, there)}; official files: {ORIGIN['vqav2']}"
        )
    questions, answers = _read(asked, answered)
    questions = limited(questions, limit)
    ids = dict.fromkeys(q.image_id for q in questions)
    paths = {i: image_path(root, folder, image_name(split, i), asked) for i in ids}
    samples = [_sample(q, answers[q.id], paths[q.image_id]) for q in questions]
    check_images(samples, root, asked, "coco")
    return samples, []


def _read(asked: Path, answered: Path) -> tuple[list[Question], dict[Id, Answers]]:
    """The questions and annotations of both files, checked together."""
    right, mistakes = official("vqav2"), Mistakes()
    questions = question_rows(asked, list_of(read_json(asked, right), "questions", asked, right), mistakes)
    given = list_of(read_json(answered, right), "annotations", answered, right)
    answers = answer_rows(answered, given, mistakes, {q.id: q for q in questions})
    if not mistakes.count:
        _answered(asked, answered, questions, answers, mistakes)
    mistakes.tell()
    return questions, answers


def _answered(
    asked: Path, answered: Path, questions: list[Question], answers: Mapping[Id, Answers], mistakes: Mistakes
) -> None:
    for i, q in enumerate(questions):
        if q.id not in answers:
            what = f"no annotation for it in {answered.name}; right: the matching pair"
            mistakes.add(asked, f"questions[{i}] (question_id {shown(q.id)})", what)


def _sample(question: Question, answers: Answers, image: Path) -> Sample:
    return Sample(
        id=question.id,
        image_id=question.image_id,
        image=image,
        question=question.question,
        references=answers.answers,
        answer_type=answers.answer_type,
    )


def image_name(split: str, image_id: Id) -> str:
    """COCO's file names: with the split's name until 2015, the bare number from 2017 on. A text is a name itself."""
    if isinstance(image_id, str):
        return image_id if image_id.lower().endswith(SUFFIXES) else f"{image_id}.jpg"
    return f"{image_id:012d}.jpg" if split.endswith("2017") else f"COCO_{split}_{image_id:012d}.jpg"
