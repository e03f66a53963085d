"""MMMU: `SUBJECT/SPLIT-*.parquet` as on the Hub, with the pictures inside.

A picture is written to a file once (mmmu_pictures.py), so that everything that reads pictures reads it too. One
without bytes is a missing file, if such may lack. Options are a Python list in a text, as the files have them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from blip2sweep.errors import UserError, nearest
from blip2sweep.metrics.letters import LETTERS
from blip2sweep.metrics.mmmu import SUBJECTS
from blip2sweep.rows import Mistakes, fields
from blip2sweep.rows.fields import Wrong, shown
from blip2sweep.rows.row_list import Field, RowList
from blip2sweep.tasks.existence import may_lack
from blip2sweep.tasks.mmmu_pictures import FIRST, Picture, contents, file_name, written
from blip2sweep.tasks.sample import Sample, check_images, inside, limited

KINDS: tuple[str, ...] = ("exam",)
OPTIONS: tuple[str, ...] = ("several_images", "subjects")
SPLITS = ("dev", "validation")  # the answers of `test` are held back
RIGHT = "the parquet files of MMMU/MMMU on the Hugging Face Hub, a folder for each subject"
FOLDER = "extracted_images"  # in the data folder, unless task.images names another
SEVERAL = ("first", "skip", "error")
MULTIPLE, OPEN = "multiple-choice", "open"
PICTURES = tuple(f"image_{i}" for i in range(1, 8))
COLUMNS = ("id", "question", "options", "answer", "question_type")  # without pictures
_PLACE = re.compile(r"<image (\d)>")

Row = dict[str, object]


def read(
    root: Path,
    split: str,
    limit: int | None,
    images: object = None,
    several_images: str | None = None,
    subjects: object = None,
) -> tuple[list[Sample], list[str]]:
    """The questions of a split, subject by subject, the first `limit` of them, and how many name several pictures.

    The pictures of those alone are read, and checked.     images: the folder where the pictures are written. several_images: what becomes of a question with several pictures:
    asked with its `first` one, as MMMU's own script does; `skip`; `error`. subjects: one or several, in place of all.
    """
    several = several_images or SEVERAL[0]
    if several not in SEVERAL:
        raise UserError(f"task.several_images={several}: right: {', '.join(SEVERAL)}")
    mistakes, found = Mistakes(), list[tuple[Path, Row]]()
    for path in _files(root, split, subjects):
        found += [(path, row) for row in _rows(path, mistakes)]
    _unique(found, mistakes)
    many = [(path, row) for path, row in found if len(_named(row)) > 1]
    for path, row in many if several == "error" else []:
        what = f"has {len(_named(row))} pictures; right: task.several_images=first or skip"
        mistakes.add(path, f"rows[] (id {shown(row['id'])})", what)
    if several == "skip":
        found = [(path, row) for path, row in found if len(_named(row)) < 2]
    chosen = limited(found, limit)
    pictures = _pictures(chosen, mistakes)
    mistakes.tell()
    folder = FOLDER if images is None else inside(root, images, "task.images")
    files = written(root, folder, pictures, RIGHT)
    samples = [_sample(row, file) for (_, row), file in zip(chosen, files, strict=True)]
    check_images(samples, root, root, "its parquet files")
    return samples, _notes(several, len(many))


def _notes(several: str, many: int) -> list[str]:
    fate = "are asked with the first one" if several == "first" else "are left out"
    return [f"{many} questions with several pictures {fate}"] if many else []


# ---- files


def _files(root: Path, split: str, subjects: object) -> list[Path]:
    """The parquet files of a split, subject by subject in the order of the alphabet."""
    if split not in SPLITS:
        held = "its answers are held back" if split == "test" else "unknown split"
        raise UserError(f"task.split={split}: {held}; right: {' or '.join(SPLITS)}")
    given = [str(x) for x in subjects] if isinstance(subjects, list) else [] if subjects is None else [str(subjects)]
    for name in given:
        if name not in SUBJECTS:
            raise UserError(f"task.subjects={name}: no subject of MMMU; {nearest(name, SUBJECTS)}")
    found = {name: sorted((root / name).glob(f"{split}-*.parquet")) for name in sorted(given or SUBJECTS)}
    missing = [name for name, files in found.items() if not files]
    if len(missing) == len(found) or (given and missing):
        raise UserError(f"{root / missing[0]}: no {split}-*.parquet; right: {RIGHT}")
    return [path for files in found.values() for path in files]


def _rows(path: Path, mistakes: Mistakes) -> list[Row]:
    """The rows of a file without a mistake, with options as a tuple and answers as a list."""
    rows = RowList(path, "rows", "id", mistakes)
    objects = _table(path)
    found = rows.typed(
        objects, Field("id", fields.texts), Field("question", fields.questions), Field("options", _option_lists),
        Field("answer", fields.texts), Field("question_type", fields.texts),
    )  # fmt: skip
    good = []
    for i, own, question, options, answer, kind in found:
        row: Row = {"id": own, "question": question, "options": options, "subject": path.parent.name}
        if what := _answer_wrong(kind, options, answer):
            rows.wrong_id(i, own, what)
            continue
        good.append({**row, "answer": answer, "open": kind != MULTIPLE, "row": i})
    return good


def _table(path: Path) -> list[Row]:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        there = file.schema_arrow.names
        rows: list[Row] = file.read([c for c in COLUMNS if c in there]).to_pylist()
    except Exception as error:  # it raises many kinds, all of them about this file
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read: {told}; right: {RIGHT}") from error
    absent = [c for c in (*COLUMNS, FIRST) if c not in there]
    if absent or not rows:
        told = f"no column {', '.join(absent)}" if absent else "no rows"
        raise UserError(f"{path}: {told}; right: {RIGHT}")
    return rows


def _option_lists(column: list[object]) -> list[tuple[str, ...]]:
    return [_options(value) for value in column]


def _options(value: object) -> tuple[str, ...]:
    words = fields.text(value)
    try:
        found = ast.literal_eval(words)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, list) or len(found) > len(LETTERS):
        raise Wrong(f"is {shown(words)}; right: a list of at most {len(LETTERS)} texts, such as \"['1', '2']\"")
    return tuple(fields.texts(found))


def _answer_wrong(kind: str, options: Sequence[str], answer: str) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if answer.strip() in ("", "?"):
        return f"'answer' is {shown(answer)}; right: a file with answers"
    if kind != MULTIPLE:
        return ""
    letters = LETTERS[: len(options)]
    if len(options) < 2:
        return f"has {len(options)} options; right: two or more, or another question_type"
    told = f"'answer' is {shown(answer)}; right: one of {', '.join(letters)}"
    return "" if len(answer) == 1 and answer in letters else told


def _unique(found: Sequence[tuple[Path, Row]], mistakes: Mistakes) -> None:
    first = dict[object, Path]()
    for path, row in found:
        if row["id"] in first:
            what = f"stands twice, first in {first[row['id']]}; right: every question once"
            mistakes.add(path, f"rows (id {shown(row['id'])})", what)
        first.setdefault(row["id"], path)


# ---- pictures and samples


def _named(row: Mapping[str, object]) -> set[str]:
    """The pictures that a question and its options speak of."""
    options = row["options"]
    texts = [str(row["question"]), *(options if isinstance(options, tuple) else [str(options)])]
    return {f"image_{n}" for text in texts for n in _PLACE.findall(text) if f"image_{n}" in PICTURES}


def _pictures(chosen: Sequence[tuple[Path, Row]], mistakes: Mistakes) -> list[Picture]:
    """The first picture of each question. Pictures that a question names and its row lacks are noted."""
    files: dict[Path, dict[int, Row]] = {}
    for path, row in chosen:
        files.setdefault(path, {})[int(str(row["row"]))] = row
    found = []
    for path, rows in files.items():
        listed = RowList(path, "rows", "id", mistakes)
        for i, held in contents(path, {i: {FIRST, *_named(row)} for i, row in rows.items()}, RIGHT):
            own, first = str(rows[i]["id"]), held[FIRST]
            absent = sorted(name for name, content in held.items() if not content)
            if absent and not may_lack():
                listed.wrong_id(i, own, f"'{absent[0]}' holds no picture; right: an image with its bytes")
            found.append(Picture(path, i, file_name(first) if first else f"{own}.img", len(first)))
    return found


def _sample(row: Row, image: Path) -> Sample:
    options, answer = row["options"], str(row["answer"])
    assert isinstance(options, tuple)
    place = LETTERS.find(answer)
    return Sample(
        id=str(row["id"]),
        image_id=str(row["id"]),
        image=image,
        question=str(row["question"]),
        references=tuple(_several(answer)) if row["open"] else (options[place],),
        answer_type=OPEN if row["open"] else MULTIPLE,
        choices=() if row["open"] else options,
        details={"subject": str(row["subject"]), **({} if row["open"] else {"answer": place})},
    )


def _several(answer: str) -> list[str]:
    """The right short answers. Some files have a list of them in a text."""
    try:
        found = ast.literal_eval(answer) if answer.startswith("[") else answer
    except (ValueError, SyntaxError):
        found = answer
    return [str(x) for x in found] if isinstance(found, list) and found else [answer]
