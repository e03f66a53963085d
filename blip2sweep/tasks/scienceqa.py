"""ScienceQA with a picture: `problems.json`, `pid_splits.json` and `images/SPLIT/ID/image.png`.

Questions without a picture are left out, as in every published ScienceQA-IMG.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.rows import Id, Mistakes, fields, read_json
from blip2sweep.rows.fields import Wrong, each_value, shown
from blip2sweep.rows.row_list import Field, RowList
from blip2sweep.tasks.sample import Sample, annotation_files, check_images, image_path, inside, limited

KINDS: tuple[str, ...] = ("letter", "choice")
PROBLEMS, SPLITS = "problems.json", "pid_splits.json"
RIGHT = "the official files problems.json and pid_splits.json, from github.com/lupantech/ScienceQA, data/scienceqa"
OPTIONAL = ("hint", "subject", "grade")  # what is kept of a problem where it has one
FIELDS = ("image", "question", "choices", "answer", "split", *OPTIONAL)

Problem = Mapping[str, object]


def read(
    root: Path,
    split: str,
    limit: int | None,
    annotations: object = None,
    images: object = None,
) -> tuple[list[Sample], list[str]]:
    """The problems of a split that have a picture, in the order of pid_splits.json, the first `limit` of them, and how
    many have none.

    split: a name of pid_splits.json: test, val, train, minival, minitest. annotations: the two files. images: the
    folder that has a folder for each split.
    """
    problems, splits = _paths(root, split, annotations)
    mistakes = Mistakes()
    known = _known(problems)
    ids = _ids(splits, split, known, problems, mistakes)
    pictured = [i for i in ids if isinstance(known.get(i), dict) and _problem(known, i).get("image") is not None]
    found = _problems(problems, {i: known[i] for i in pictured}, mistakes)
    mistakes.tell()
    if not found:
        raise UserError(f"task.split={split}: no problem of {problems} has a picture there; right: {RIGHT}")
    own = (problems.parent / "images").relative_to(root).as_posix()
    home = own if images is None else inside(root, images, "task.images")
    samples = limited([_sample(root, home, problems, i, p) for i, p in found.items()], limit)
    check_images(samples, root, problems, "github.com/lupantech/ScienceQA, tools/download.sh")
    left = len(ids) - len(pictured)
    return samples, [f"{left} of {len(ids)} questions have no picture and are left out"] if left else []


def _paths(root: Path, split: str, annotations: object) -> tuple[Path, Path]:
    """The files of the problems and of the splits."""
    if annotations is not None:
        problems, splits = annotation_files(root, annotations, split, 2)
        return problems, splits
    places = [root, root / "data" / "scienceqa"]
    there = next((p for p in places if (p / PROBLEMS).is_file()), root)
    return there / PROBLEMS, there / SPLITS


def _known(path: Path) -> dict[str, object]:
    data = read_json(path, RIGHT)
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path}: holds {shown(data)}; right: an object with a problem for each id: {RIGHT}")
    return data


def _ids(path: Path, split: str, known: Mapping[str, object], problems: Path, mistakes: Mistakes) -> list[str]:
    """The ids of a split; those that are doubled, or of no problem, are noted."""
    data = read_json(path, RIGHT)
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path}: holds {shown(data)}; right: an object with the ids of each split: {RIGHT}")
    if split not in data:
        raise UserError(f"task.split={split}: no such split in {path}; {nearest(split, [str(s) for s in data])}")
    listed = data[split]
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{path}: '{split}' is {shown(listed)}; right: a list of one or more ids of problems")
    ids = [str(own) for own in listed]
    rows = RowList(path, split, "id", mistakes)
    rows.check_unique(list(enumerate(ids)), "every problem once")
    whats = f"is no problem of {problems.name}; right: the pair of files of one release"
    rows.check_known(list[tuple[int, Id]](enumerate(ids)), known, whats)
    return ids


def _problem(known: Mapping[str, object], own: str) -> Problem:
    found = known[own]
    return found if isinstance(found, dict) else {}


def _problems(path: Path, chosen: Mapping[str, object], mistakes: Mistakes) -> dict[str, Problem]:
    """The problems without a mistake, by id."""
    ids = list(chosen)
    objects = [{**_problem(chosen, i), "id": i} for i in ids]
    rows = RowList(path, "problems", "id", mistakes)
    needed = rows.typed(
        objects, Field("image", fields.file_names), Field("question", fields.questions),
        Field("choices", each_value(fields.choices)), Field("answer", _numbers), Field("split", fields.texts),
    )  # fmt: skip
    hint, subject, grade = (Field(name, _texts_or_none, needed=False) for name in OPTIONAL)
    further = {i: values for i, *values in rows.typed(objects, hint, subject, grade)}
    for i, _, _, choices, answer, _ in needed:
        if answer >= len(choices):
            what = f"'answer' is {answer} of {len(choices)} choices; right: a number from 0 to {len(choices) - 1}"
            rows.wrong(i, objects[i], what)
    return {ids[i]: dict(zip(FIELDS, (*values, *further.get(i, ())), strict=False)) for i, *values in needed}


def _numbers(column: list[object]) -> list[int]:
    for value in column:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise Wrong(f"is {shown(value)}; right: the number of the right choice, from 0 on")
    return [int(str(value)) for value in column]


def _texts_or_none(column: list[object]) -> list[str | None]:
    return [None if value is None else fields.text(value) for value in column]


def _sample(root: Path, home: str, path: Path, own: str, problem: Problem) -> Sample:
    choices, answer = problem["choices"], problem["answer"]
    assert isinstance(choices, tuple)
    assert isinstance(answer, int)
    return Sample(
        id=own,
        image_id=own,
        image=image_path(root, f"{home}/{problem['split']}/{own}", str(problem["image"]), path),
        question=str(problem["question"]),
        references=(choices[answer],),
        choices=choices,
        details={"answer": answer, **{k: problem[k] for k in OPTIONAL if problem.get(k)}},
    )
