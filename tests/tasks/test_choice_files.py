"""POPE, ScienceQA-IMG and MMMU: official files to samples, and every bad input a typed line."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.files import write_atomic
from blip2sweep.tasks import mmmu, mmmu_pictures
from scripts.miniatures import write
from tests.choices import NAMES, Row, changed, data, load, written
from tests.command_line import blip2sweep, refused

__all__ = ["data", "written"]


def fails(data: Path, name: str, *lines: str, **fields: Any) -> None:
    """One line a mistake, with these words in their order."""
    with pytest.raises(UserError) as raised:
        load(data, name, **fields)
    told = raised.value.lines if isinstance(raised.value, UserErrors) else [str(raised.value)]
    assert len(told) == len(lines), told
    for line, words in zip(told, lines, strict=True):
        assert words in line, told


# ---- POPE


def lines(data: Path, name: str) -> tuple[Path, list[Row]]:
    path = data / "pope" / "annotations" / f"coco_pope_{name}.json"
    return path, [json.loads(line) for line in path.read_text().splitlines()]


def rewritten(data: Path, name: str, *rows: Row) -> None:
    lines(data, name)[0].write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_three_files_are_one_set_with_ids_of_their_own(data: Path) -> None:
    whole = load(data, "pope")
    parts = [load(data, "pope", split=name) for name in ("random", "popular", "adversarial")]
    assert [s for part in parts for s in part.samples] == list(whole.samples)
    assert (len({s.id for s in whole.samples}), len(whole.images)) == (72, 4)
    first, row = whole.samples[0], lines(data, "random")[1][0]
    assert (first.id, first.question, first.references) == ("random-1", row["text"], (row["label"],))
    assert (first.image_id, first.image) == (1000, data / "pope/val2014/COCO_val2014_000000001000.jpg")
    assert whole.rules.targets(first, 1) == (row["label"],)
    assert {"yes_no_f1_mean", "yes_no_f1_popular", "yes_ratio"} <= set(whole.rules.scores(whole))
    assert "yes_no_f1_popular" not in parts[0].rules.scores(parts[0])


def test_pope_read_from_other_files(data: Path) -> None:
    (data / "pope/annotations/coco_pope_popular.json").rename(data / "pope/mine.jsonl")
    (data / "pope/val2014").rename(data / "pope/pictures")
    found = load(data, "pope", split="popular", annotations="mine.jsonl", images="pictures")
    assert found.samples[0].image.parent == data / "pope/pictures"
    fails(data, "pope", "1 files; right: 3", annotations="mine.jsonl")


def test_bad_files_of_pope(data: Path) -> None:
    fails(data, "pope", "task.split=rare: unknown split", split="rare")
    path, rows = lines(data, "random")
    rewritten(
        data, "random", {**rows[0], "label": "maybe"}, rows[1], rows[1], {"question_id": 9, "text": "?", "label": "no"}
    )
    fails(
        data, "pope", "line 1 (question_id 1): 'label' is 'maybe'; right: yes or no",
        "line 4 (question_id 9): has no 'image'", "line 3 (question_id 2): stands twice", split="random",
    )  # fmt: skip
    path.write_text('{"question_id": 1,\n')
    fails(data, "pope", "line 1: not JSON", split="random")
    path.write_text("\n")
    fails(data, "pope", "coco_pope_random.json: empty", split="random")
    path.write_text(json.dumps({"images": [], "annotations": []}))  # captions of COCO
    fails(data, "pope", "its first line has the fields images, annotations; right: the official file", split="random")
    path.unlink()
    fails(data, "pope", "coco_pope_random.json: cannot be read", split="random")
    (data / "pope/val2014/COCO_val2014_000000001007.jpg").unlink()
    fails(data, "pope", "1 of 4 named by", split="popular")


def test_every_bad_line_of_three_files_is_told(data: Path) -> None:
    for name in ("random", "popular", "adversarial"):
        path, rows = lines(data, name)
        path.write_text("\n".join(["", '{"question_id": 1,', "5", json.dumps({**rows[0], "label": "?"})]))
    told = [
        f"coco_pope_{name}.json: line {line}"
        for name in ("random", "popular", "adversarial")
        for line in ("2: not JSON", "3: is 5; right: an object", "4 (question_id 1): 'label' is '?'")
    ]
    fails(data, "pope", *told)


# ---- ScienceQA


def test_scienceqa_with_pictures_alone(data: Path) -> None:
    found = load(data, "scienceqa_img")
    problems = json.loads((data / "scienceqa_img/problems.json").read_text())
    assert [s.id for s in found.samples] == [i for i, p in problems.items() if p["split"] == "test" and p["image"]]
    assert found.notes == ("6 of 18 questions have no picture and are left out",)
    sample, problem = found.samples[0], problems[str(found.samples[0].id)]
    assert sample.image == data / "scienceqa_img/images/test" / str(sample.id) / "image.png"
    assert (sample.choices, sample.references) == (tuple(problem["choices"]), (problem["choices"][problem["answer"]],))
    assert found.rules.targets(sample, 1) == ("ABCDE"[problem["answer"]],)
    by_text = load(data, "scienceqa_img", kind="choice")
    assert by_text.rules.targets(by_text.samples[0], 1) == sample.references
    assert by_text.fingerprint == found.fingerprint
    assert (found.columns["asks_for"], by_text.columns["asks_for"]) == ("letter", "choice")
    assert [s.id for s in load(data, "scienceqa_img", split="minitest").samples] == [s.id for s in found.samples[:4]]


def test_bad_files_of_scienceqa(data: Path) -> None:
    problems, splits = (data / "scienceqa_img" / name for name in ("problems.json", "pid_splits.json"))
    fails(data, "scienceqa_img", "task.split=tests: no such split", split="tests")
    fails(data, "scienceqa_img", "1 files; right: 2", annotations="problems.json")

    def wrong(content: Row) -> None:
        content["16"].update(answer=3, choices=["red", "blue", "grey"])
        content["17"]["choices"] = "red, blue"
        content["19"]["answer"] = "B"
        del content["20"]["answer"]
        content["22"]["choices"] = ["red"]
        content["23"]["hint"] = 5
        content["25"]["choices"] = ["red", " "]

    changed(problems, wrong)
    changed(splits, lambda s: {**s, "test": [*s["test"], "16", "99"]})
    fails(
        data, "scienceqa_img", "test[18] (id '16'): stands twice, first as test[0]", "test[19] (id '99'): is no problem",
        "problems[1] (id '17'): 'choices' is 'red, blue'; right: a list of 2 to 26 texts",
        "problems[2] (id '19'): 'answer' is 'B'; right: the number of the right choice",
        "problems[3] (id '20'): has no 'answer'", "problems[4] (id '22'): 'choices' has 1 entries",
        "problems[6] (id '25'): 'choices' [1] is ' '; right: a choice", "problems[5] (id '23'): 'hint' is 5; right: a text",
        "problems[0] (id '16'): 'answer' is 3 of 3 choices; right: a number from 0 to 2",
    )  # fmt: skip
    problems.write_text("[]")
    fails(data, "scienceqa_img", "problems.json: holds a list; right: an object with a problem for each id")
    write(data, NAMES)
    (data / "scienceqa_img/images/test/16/image.png").unlink()
    fails(data, "scienceqa_img", "no such image (1 of 12 named by")


# ---- MMMU


def parquet(data: Path, change: Callable[[list[Row]], Any], subject: str = "Art") -> Path:
    path = data / "mmmu" / subject / "validation-00000-of-00001.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    return path


def test_mmmu_from_parquet_files(data: Path) -> None:
    found = load(data, "mmmu")
    assert found.notes == ("3 questions with several pictures are asked with the first one",)
    assert [s.id for s in found.samples[:9]] == [
        f"validation_{s}" for s in (*(f"Accounting_{i}" for i in range(1, 9)), "Art_1")
    ]
    rows = {r["id"]: r for r in pq.read_table(data / "mmmu/Art/validation-00000-of-00001.parquet").to_pylist()}
    for sample in found.samples[8:16]:
        assert sample.image.read_bytes() == rows[sample.id]["image_1"]["bytes"]
        assert sample.image.parent == data / "mmmu/extracted_images"
        right = found.rules.targets(sample, 1)[0]
        assert right == rows[sample.id]["answer"] or right in ast.literal_eval(rows[sample.id]["answer"])
    assert {"mmmu_accuracy_art", "mmmu_accuracy_business", "guess_rate"} <= set(found.rules.scores(found))
    assert "mmmu_accuracy_physics" not in found.rules.scores(found)


def test_mmmu_in_parts(data: Path) -> None:
    left = load(data, "mmmu", several_images="skip", subjects="Math", images="pictures")
    assert left.notes == ("1 questions with several pictures are left out",)
    assert [s.id for s in left.samples] == [f"validation_Math_{i}" for i in (1, 2, 3, 4, 6, 7, 8)]
    assert left.samples[0].image.parent == data / "mmmu/pictures"
    fails(data, "mmmu", "(id 'validation_Art_5'): has 2 pictures", several_images="error", subjects=["Art"])
    assert not (data / "mmmu/extracted_images").exists()  # nothing is written of what is refused


def test_several_right_short_answers(data: Path) -> None:
    parquet(data, lambda rows: rows[3].update(answer="['24/7', '3.429']"))
    sample = next(s for s in load(data, "mmmu").samples if s.id == "validation_Art_4")
    assert (sample.references, sample.choices, sample.answer_type) == (("24/7", "3.429"), (), "open")


def closed(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Folders that cannot be written."""

    def write(path: Path, content: bytes) -> None:
        if any(path.is_relative_to(folder) for folder in folders):
            raise UserError(f"{path}: cannot be written")
        write_atomic(path, content)

    monkeypatch.setattr(mmmu_pictures, "write_atomic", write)


def test_pictures_of_a_folder_that_cannot_be_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLIP2SWEEP_CACHE_DIR", str(tmp_path / "own"))
    with monkeypatch.context() as patch:
        closed(patch, data / "mmmu")
        found = load(data, "mmmu", subjects="Art")
        assert load(data, "mmmu", subjects="Art").samples == found.samples
        content = found.content
    assert {s.image.parent for s in found.samples} == {tmp_path / "own/pictures/extracted_images"}
    assert not (data / "mmmu/extracted_images").exists()
    shutil.rmtree(tmp_path / "own")
    opened = load(data, "mmmu", subjects="Art")
    assert {s.image.parent for s in opened.samples} == {data / "mmmu/extracted_images"}
    assert (opened.fingerprint, opened.content) == (found.fingerprint, content)
    shutil.rmtree(data / "mmmu/extracted_images")
    closed(monkeypatch, data / "mmmu", tmp_path / "own")
    fails(
        data,
        "mmmu",
        "can be written neither into the data folder nor into the user's; right: a data folder",
        subjects="Art",
    )


def test_pictures_of_chosen_rows_alone_are_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[tuple[str, int, tuple[str, ...]]]()

    def contents(path: Path, wanted: dict[int, set[str]], right: str) -> Iterator[tuple[int, dict[str, bytes]]]:
        read.extend((path.parent.name, i, tuple(sorted(names))) for i, names in wanted.items())
        return mmmu_pictures.contents(path, wanted, right)

    monkeypatch.setattr(mmmu, "contents", contents)
    whole = load(data, "mmmu", subjects="Art").samples
    read.clear()
    parquet(data, lambda rows: rows[7].update(image_1=None))  # which nobody asks
    assert load(data, "mmmu", subjects="Art", limit=2).samples == whole[:2]
    assert read == [("Art", 0, ("image_1",)), ("Art", 1, ("image_1",))]
    left = load(data, "mmmu", subjects="Art", several_images="skip", limit=5).samples
    assert [s.id for s in left] == [f"validation_Art_{i}" for i in (1, 2, 3, 4, 6)]
    assert [s.image for s in left] == [whole[i].image for i in (0, 1, 2, 3, 5)]
    fails(data, "mmmu", "rows[7] (id 'validation_Art_8'): 'image_1' holds no picture", subjects="Art")


def test_bad_files_of_mmmu(data: Path) -> None:
    fails(data, "mmmu", "task.split=test: its answers are held back", split="test")
    fails(data, "mmmu", "task.subjects=Arts: no subject of MMMU", subjects=["Arts"])
    fails(data, "mmmu", "task.several_images=all: right: first, skip, error", several_images="all")
    fails(data, "mmmu", "no validation-*.parquet", subjects="Physics")

    def wrong(rows: list[Row]) -> None:
        rows[0].update(options="red, blue")
        rows[1].update(answer="E")
        rows[2].update(answer="?")
        rows[4].update(image_2=None)
        rows[5].update(id="validation_Accounting_1")
        rows[6].update(options="['red']")

    path = parquet(data, wrong)
    told = "right: a list of at most 26 texts"
    fails(
        data, "mmmu", f"rows[0] (id 'validation_Art_1'): 'options' is 'red, blue'; {told}",
        "rows[1] (id 'validation_Art_2'): 'answer' is 'E'; right: one of A, B, C, D",
        "rows[2] (id 'validation_Art_3'): 'answer' is '?'; right: a file with answers",
        "rows[6] (id 'validation_Art_7'): has 1 options", "rows (id 'validation_Accounting_1'): stands twice, first in",
        "rows[4] (id 'validation_Art_5'): 'image_2' holds no picture",
    )  # fmt: skip
    path.write_bytes(b"PAR1")
    fails(data, "mmmu", f"{path}: cannot be read")
    pq.write_table(pa.table({"id": ["a"], "caption": ["b"]}), path)
    fails(data, "mmmu", "no column question, options, answer, question_type, image_1")


def test_the_command_line_says_it_in_one_line(data: Path) -> None:
    words = ("-m", "task=pope", f"task.data_dir={data}/pope", "task.split=popular")
    lines(data, "popular")[0].write_text("[]")
    refused(blip2sweep(*words, cwd=data), "coco_pope_popular.json", "line 1: is a list; right: an object with")
    assert not (data / "outputs").exists()
