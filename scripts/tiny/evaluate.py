"""A small self-contained evaluation: files, CIDEr, VQA accuracy, paired bootstrap clustered by image."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocoevalcap.cider.cider import Cider

from blip2sweep.tasks.scenes import ANSWER_TYPES

NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
RESAMPLES = 2000


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.sub(r"[^a-z0-9 ]", " ", text.lower()).split()


def plain_answer(text: str) -> str:
    """An answer without articles, numbers as digits."""
    return " ".join(NUMBERS.get(word, word) for word in words(text) if word not in ("a", "an", "the"))


def vqa_accuracy(prediction: str, answers: list[str]) -> float:
    """Mean over the ten leave-one-out sets of min(1, matches / 3), as the VQA challenge scores it."""
    hits = [answer == plain_answer(prediction) for answer in answers]
    return sum(min(1.0, (sum(hits) - hit) / 3) for hit in hits) / len(hits)


class Predictions(NamedTuple):
    captions: list[str]  # one an image
    answers: list[str]  # one a question, in file order


class Scores(NamedTuple):
    cider: np.ndarray  # (images,)
    vqa: np.ndarray  # (questions,), 0..100


class Split:
    """One split on disk in COCO captions and VQAv2 format, images in id order."""

    def __init__(self, root: Path, split: str) -> None:
        read = {
            name: json.loads((root / "annotations" / f"{name}_{split}{end}.json").read_text())
            for name, end in (("captions", ""), ("v2_OpenEnded_mscoco", "_questions"), ("v2_mscoco", "_annotations"))
        }
        images = sorted(read["captions"]["images"], key=lambda image: image["id"])
        self.ids = [image["id"] for image in images]
        self.files = [root / split / image["file_name"] for image in images]
        self.references: dict[int, list[str]] = {}
        for entry in read["captions"]["annotations"]:
            self.references.setdefault(entry["image_id"], []).append(" ".join(words(entry["caption"])))
        row = {image_id: k for k, image_id in enumerate(self.ids)}
        self.questions = [entry["question"] for entry in read["v2_OpenEnded_mscoco"]["questions"]]
        self.rows = np.array([row[entry["image_id"]] for entry in read["v2_OpenEnded_mscoco"]["questions"]])
        annotations = {entry["question_id"]: entry for entry in read["v2_mscoco"]["annotations"]}
        ordered = [annotations[entry["question_id"]] for entry in read["v2_OpenEnded_mscoco"]["questions"]]
        self.answers = [[plain_answer(given["answer"]) for given in entry["answers"]] for entry in ordered]
        self.answer_types = np.array([entry["answer_type"] for entry in ordered])

    def score(self, predictions: Predictions) -> Scores:
        """CIDEr an image (document frequencies of the whole split) and VQA accuracy a question."""
        results = {k: [" ".join(words(text)) or "x"] for k, text in zip(self.ids, predictions.captions, strict=True)}
        _, cider = Cider().compute_score(self.references, results)
        vqa = [100 * vqa_accuracy(p, a) for p, a in zip(predictions.answers, self.answers, strict=True)]
        return Scores(np.asarray(cider), np.array(vqa))


def summary(split: Split, scores: Scores) -> dict[str, list[float]]:
    """Mean and standard error of CIDEr, VQA accuracy and accuracy by kind of question."""
    groups = {"cider": scores.cider, "vqa": scores.vqa}
    groups |= {kind: scores.vqa[split.answer_types == kind] for kind in ANSWER_TYPES}
    groups["relational"] = scores.vqa[[question.startswith("Is the ") for question in split.questions]]
    return {name: [float(x.mean()), float(x.std(ddof=1) / len(x) ** 0.5), len(x)] for name, x in groups.items()}


def _per_image(split: Split, vqa: np.ndarray) -> np.ndarray:
    """VQA accuracy summed over the questions of each image (as many an image in generated splits)."""
    return np.bincount(split.rows, weights=vqa, minlength=len(split.ids))


def drops(split: Split, base: Scores, cell: Scores) -> dict[str, list[float]]:
    """Loss in per cent of `base` with its 95 % interval, paired and clustered by image."""
    n = len(split.ids)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    pairs = {"cider": (base.cider, cell.cider), "vqa": (_per_image(split, base.vqa), _per_image(split, cell.vqa))}
    result = {}
    for name, (before, after) in pairs.items():
        resampled = 100 * (1 - (weights @ after) / (weights @ before))
        result[name] = [100 * float(1 - after.sum() / before.sum()), *np.percentile(resampled, [2.5, 97.5]).tolist()]
    return result
