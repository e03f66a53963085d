"""GQA: the official `<split>_questions.json`, or the folder of its pieces, and the images `<imageId>.jpg`.

A split is the beginning of a file's name: testdev_balanced, val_all … What is valid and plausible as an answer is read
from `<tier>_choices.json` where it exists: no such file is published for testdev. It changes scores and no fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics.gqa import steps_of
from blip2sweep.rows import Id, Mistakes, read_json
from blip2sweep.rows.fields import shown
from blip2sweep.rows.gqa import GqaChoices, GqaQuestion, gqa_choices, gqa_rows
from blip2sweep.tasks.sample import Sample, annotation_files, check_images, image_path, inside, limited

KINDS: tuple[str, ...] = ("gqa",)
FOLDERS = ("", "questions1.2", "questions", "eval")  # of the data folder, as the archives are unpacked
FROM = "cs.stanford.edu/people/dorarad/gqa/download.html"
RIGHT = f"GQA's file of questions with answers, such as testdev_balanced_questions.json, from {FROM}"


def read(
    root: Path, split: str, limit: int | None, annotations: object = None, images: object = None
) -> tuple[list[Sample], list[str]]:
    """Questions in file order, the first `limit` of them, each with its one answer; no notes.

    annotations: a questions file in place of the split's own. images: their folder, `images` by default.
    """
    own = annotations is None
    paths = list(_files(root, f"{split}_questions")) if own else annotation_files(root, annotations, split)
    folder = "images" if images is None else inside(root, images, "task.images")
    if not paths:
        there = sorted(p.stem.removesuffix("_questions") for f in FOLDERS for p in (root / f).glob("*_questions*"))
        raise UserError(
            f"task.split={split}: no {split}_questions.json in {root}; {nearest(split, there)}; right: {RIGHT}"
        )
    asked, mistakes = _questions(paths), Mistakes()
    choices = _choices(root, split.split("_")[0])
    if choices:
        _check_choices(paths[0], asked, choices, mistakes)
    mistakes.tell()
    chosen = limited(asked, limit)
    files = {i: image_path(root, folder, f"{i}.jpg", paths[0]) for i in dict.fromkeys(q.image_id for q in chosen)}
    samples = [_sample(q, files[q.image_id], choices.get(q.id)) for q in chosen]
    check_images(samples, root, paths[0], FROM)
    return samples, []


def _files(root: Path, name: str) -> Iterator[Path]:
    """The file of a name, or the files of the folder of that name that it was cut into."""
    for folder in (root / f for f in FOLDERS):
        if (folder / f"{name}.json").is_file():
            return iter([folder / f"{name}.json"])
        if (folder / name).is_dir():
            return iter(sorted((folder / name).glob(f"{name}_*.json")))
    return iter(())


def _questions(paths: Sequence[Path]) -> list[GqaQuestion]:
    mistakes, found, of_file = Mistakes(), list[GqaQuestion](), dict[Id, Path]()
    for path in paths:
        for question in gqa_rows(path, read_json(path, RIGHT), RIGHT, mistakes):
            if question.id in of_file:
                mistakes.add(
                    path,
                    f"question {shown(question.id)}",
                    f"stands in {of_file[question.id].name} too; right: every question once",
                )
            of_file[question.id] = path
            found.append(question)
    mistakes.tell()
    return found


def _choices(root: Path, tier: str) -> Mapping[Id, GqaChoices]:
    right, mistakes, found = f"GQA's {tier}_choices.json, from {FROM}", Mistakes(), dict[Id, GqaChoices]()
    for path in _files(root, f"{tier}_choices"):
        found |= gqa_choices(path, read_json(path, right), right, mistakes)
    mistakes.tell()
    return found


def _check_choices(
    path: Path, asked: Sequence[GqaQuestion], choices: Mapping[Id, GqaChoices], mistakes: Mistakes
) -> None:
    for question in asked:
        if question.balanced and question.id not in choices:
            what = "is not in the choices file beside it; right: the choices of this tier, or none"
            mistakes.add(path, f"question {shown(question.id)}", what)


def _sample(question: GqaQuestion, image: Path, choices: GqaChoices | None) -> Sample:
    return Sample(
        id=question.id,
        image_id=question.image_id,
        image=image,
        question=question.question,
        references=(question.answer,),
        answer_type=question.types.structural,
        details=_details(question),
        scoring=choices._asdict() if choices else {},
    )


def _details(question: GqaQuestion) -> dict[str, object]:
    """What scores read of a question."""
    return {
        "semantic": question.types.semantic,
        "detailed": question.types.detailed,
        "balanced": question.balanced,
        "steps": None if question.program is None else steps_of(question.program),
        "group": question.group,
        "entailed": list(question.entailed),
    }
