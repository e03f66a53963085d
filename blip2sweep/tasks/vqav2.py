"""VQAv2: official question and annotation files, images named as COCO names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blip2sweep.errors import UserError, nearest
from blip2sweep.tasks.sample import ORIGIN, Sample, check_images, image_path, limited, read_json, rows

QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"


def read(root: Path, split: str, limit: int | None) -> tuple[list[Sample], list[str]]:
    """Questions in file order, the first `limit` of them, with their ten answers as references; no notes."""
    asked, answered = (root / "annotations" / name.format(split) for name in (QUESTIONS, ANNOTATIONS))
    if not asked.is_file():
        there = sorted(p.name.split("_")[3] for p in asked.parent.glob(QUESTIONS.format("*")))
        raise UserError(
            f"task.split={split}: no question file {asked}; {nearest(split, there)}; official files: {ORIGIN['vqav2']}"
        )
    keys = ("question_id", "image_id", "question")
    questions = limited(rows(read_json(asked, "vqav2"), "questions", keys, asked, "vqav2"), limit)
    if len({q["question_id"] for q in questions}) != len(questions):
        raise UserError(f"{asked}: a question id occurs twice; right: the official file, from {ORIGIN['vqav2']}")
    answers = _answers(answered)
    for q in questions:
        if not answers.get(q["question_id"], {}).get("answers"):
            raise UserError(
                f"{answered}: no annotation for question {q['question_id']} of {asked.name}; right: the matching pair"
            )
    ids = dict.fromkeys(q["image_id"] for q in questions)
    images = {i: image_path(root, split, image_name(split, int(i)), asked) for i in ids}
    samples = [_sample(q, answers[q["question_id"]], images[q["image_id"]]) for q in questions]
    check_images(samples, root, asked, "coco")
    return samples, []


def _answers(path: Path) -> dict[int, Mapping[str, Any]]:
    keys = ("question_id", "answers", "answer_type")
    return {row["question_id"]: row for row in rows(read_json(path, "vqav2"), "annotations", keys, path, "vqav2")}


def _sample(question: Mapping[str, Any], answer: Mapping[str, Any], image: Path) -> Sample:
    return Sample(
        id=int(question["question_id"]),
        image_id=int(question["image_id"]),
        image=image,
        question=str(question["question"]),
        references=tuple(str(a["answer"]) for a in answer["answers"]),
        answer_type=answer["answer_type"],
    )


def image_name(split: str, image_id: int) -> str:
    """COCO's file names: with the split's name until 2015, the bare number from 2017 on."""
    return f"{image_id:012d}.jpg" if split.endswith("2017") else f"COCO_{split}_{image_id:012d}.jpg"
