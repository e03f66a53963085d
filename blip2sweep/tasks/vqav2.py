"""VQAv2: official question and annotation files, images named as COCO names them.

The test splits have questions and no annotations: their samples have no references. OK-VQA has the same files under the
names of VQA 1.0, which `task.annotations` gives.

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
TEST = "test2015"
UNSCORED = "no annotations: answered and not scored; `blip2sweep answers` writes them for the challenge's server"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def read(
    root: Path, split: str, limit: int | None, annotations: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    """Questions in file order, the first `limit` of them, with people's answers as references, where they have some.

    annotations: the question file and the annotation file in place of the official ones, or the question file alone for
    questions without answers. images: the folder of the images in `root`.
    """
    pictures = TEST if split.startswith("test-") else split  # test-dev2015 is a part of test2015
    folder = pictures if images is None else inside(root, images, "task.images")
    if annotations is None:
        asked, answered = _official(root, split)
    else:
        asked, answered = _given(root, annotations, split)
    if not asked.is_file():
        there = sorted(p.name.split("_")[3] for p in asked.parent.glob(QUESTIONS.format("*")))
        raise UserError(
            f"task.split={split}: no question file {asked}; {nearest(split, there)}; official files: {ORIGIN['vqav2']}"
        )
    questions, answers = _read(asked, answered)
    questions = limited(questions, limit)
    ids = dict.fromkeys(q.image_id for q in questions)
    paths = {i: image_path(root, folder, image_name(pictures, i), asked) for i in ids}
    samples = [_sample(q, answers.get(q.id), paths[q.image_id]) for q in questions]
    check_images(samples, root, asked, "coco")
    return samples, [] if answered else [UNSCORED]


def _official(root: Path, split: str) -> tuple[Path, Path | None]:
    asked, answered = (root / "annotations" / name.format(split) for name in (QUESTIONS, ANNOTATIONS))
    return asked, None if split.startswith("test") and not answered.exists() else answered


def _given(root: Path, annotations: object, split: str) -> tuple[Path, Path | None]:
    several = annotations if isinstance(annotations, list | tuple) else [annotations]
    asked, *answered = annotation_files(root, several, split, 1 if len(several) == 1 else 2)
    return asked, answered[0] if answered else None


def _read(asked: Path, answered: Path | None) -> tuple[list[Question], dict[Id, Answers]]:
    """The questions and annotations of both files, checked together."""
    right, mistakes = official("vqav2"), Mistakes()
    questions = question_rows(asked, list_of(read_json(asked, right), "questions", asked, right), mistakes)
    if answered is None:
        mistakes.tell()
        return questions, {}
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


def _sample(question: Question, answers: Answers | None, image: Path) -> Sample:
    return Sample(
        id=question.id,
        image_id=question.image_id,
        image=image,
        question=question.question,
        references=answers.answers if answers else (),
        answer_type=answers.answer_type if answers else None,
    )


def image_name(split: str, image_id: Id) -> str:
    """COCO's file names: with the split's name until 2015, the bare number from 2017 on. A text is a name itself."""
    if isinstance(image_id, str):
        return image_id if image_id.lower().endswith(SUFFIXES) else f"{image_id}.jpg"
    return f"{image_id:012d}.jpg" if split.endswith("2017") else f"COCO_{split}_{image_id:012d}.jpg"
