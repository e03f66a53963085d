"""Questions about generated pictures, in the two files of VQA: questions, and annotations with ten answers each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from blip2sweep.tasks.scenes_questions import ANSWER_TYPES, Question, annotators, question
from scripts.miniature_sets._pictures import Picture, write_json

HEAD = {"info": {"version": "2.0"}, "license": {"name": "none"}, "data_type": "mscoco"}


class Asked(NamedTuple):
    """A question about picture `picture`, and its ten answers as VQAv2 stores them."""

    picture: int
    question: Question
    answers: list[dict[str, object]]


def asked_of(name: str, pictures: Sequence[Picture], each: int) -> list[Asked]:
    """`each` questions about each picture, of VQAv2's three answer types in turn; the same at every call."""
    rng, found = random.Random(name), list[Asked]()
    for i, picture in enumerate(pictures):
        for k in range(each):
            one = question(picture.things, rng, ANSWER_TYPES[(i + k) % len(ANSWER_TYPES)])
            found.append(Asked(i, one, annotators(one.answer, one.answer_type, rng)))
    return found


def write_pair(
    folder: Path,
    split: str,
    names: tuple[str, str],
    asked: Sequence[Asked],
    ids: Sequence[int],
    with_answers: bool = True,
) -> None:
    """The question file of a split and its annotation file. names: of both, with `{}` for the split. ids: of the images
    by picture; a question's id is that of its image and its number there."""
    numbers = [sum(a.picture == b.picture for b in asked[:i]) for i, a in enumerate(asked)]
    keys = [
        {"image_id": ids[a.picture], "question_id": 1000 * ids[a.picture] + k}
        for a, k in zip(asked, numbers, strict=True)
    ]
    head = {**HEAD, "data_subtype": split}
    questions = [{**key, "question": a.question.text} for a, key in zip(asked, keys, strict=True)]
    opened = {**head, "task_type": "Open-Ended", "questions": questions}
    write_json(folder / "annotations" / names[0].format(split), opened)
    if with_answers:
        annotations = [{**key, **_annotation(a)} for a, key in zip(asked, keys, strict=True)]
        write_json(folder / "annotations" / names[1].format(split), {**head, "annotations": annotations})


def _annotation(asked: Asked) -> dict[str, object]:
    own = asked.question
    told = {"question_type": own.question_type, "answer_type": own.answer_type, "multiple_choice_answer": own.answer}
    return {**told, "answers": asked.answers}


def save_split(folder: Path, split: str, pictures: Sequence[Picture], ids: Sequence[int]) -> None:
    """The pictures under COCO's names."""
    for picture, own in zip(pictures, ids, strict=True):
        picture.save(folder / split / f"COCO_{split}_{own:012d}.jpg")
