"""`score_file`: formats in, columns out, one line when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.metrics import score_file

pytestmark = pytest.mark.xdist_group("java")

PREDICTIONS = [{"image_id": 1, "caption": "a dog runs"}, {"image_id": 2, "caption": ""}]
CAPTIONS = [{"image_id": 1, "captions": ["A dog runs.", "the dog"]}, {"image_id": 2, "captions": ["two cats\n"]}]
COCO = {
    "images": [],
    "annotations": [
        {"image_id": 1, "id": 7, "caption": "A dog runs."},
        {"image_id": 2, "id": 8, "caption": "two cats\n"},
        {"image_id": 1, "id": 9, "caption": "the dog"},
    ],
}
ANSWERS = [{"question_id": 10, "answer": "NA"}, {"question_id": 11, "answer": "two"}]
VQA = {
    "annotations": [
        {
            "question_id": 10,
            "image_id": 1,
            "answer_type": "other",
            "answers": [{"answer": "na"}] * 9 + [{"answer": "x"}],
        },
        {
            "question_id": 11,
            "image_id": 1,
            "answer_type": "number",
            "answers": [{"answer": "2"}] * 9 + [{"answer": "3"}],
        },
    ]
}
CAPTION_COLUMNS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "empty_rate", "mean_length"]


def _write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in content))
    elif path.suffix == ".csv":
        pd.DataFrame(content).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(content).to_parquet(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_captions_row(tmp_path: Path, suffix: str) -> None:
    predictions = _write(tmp_path, f"predictions.{suffix}", PREDICTIONS)
    row = score_file(predictions, _write(tmp_path, "coco.json", COCO))
    assert list(row) == CAPTION_COLUMNS
    assert row == score_file(predictions, _write(tmp_path, "captions.json", CAPTIONS))
    assert row["empty_rate"] == 0.5
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_vqa_row(tmp_path: Path, suffix: str) -> None:
    row = score_file(_write(tmp_path, f"answers.{suffix}", ANSWERS), _write(tmp_path, "vqa.json", VQA))
    assert row["vqa_accuracy"] == row["vqa_accuracy_number"] == row["vqa_accuracy_other"] == 1
    assert row["vqa_accuracy_yes_no"] is None
    assert row["mean_length"] == 1


def test_a_subset_only_when_asked_for(tmp_path: Path) -> None:
    paths = _write(tmp_path, "one.json", PREDICTIONS[:1]), _write(tmp_path, "coco.json", COCO)
    with pytest.raises(UserError, match="no prediction for image_id 2 of"):
        score_file(*paths)
    assert score_file(*paths, subset=True)["bleu_1"] == pytest.approx(1)


BAD = {
    "no such file": ("gone.json", None, CAPTIONS, "does not exist"),
    "another suffix": ("p.txt", "x", CAPTIONS, "ends in '.txt'; give .json"),
    "truncated": ("p.json", json.dumps(PREDICTIONS)[:30], CAPTIONS, "line 1, column .*not JSON.*complete"),
    "truncated line": ("p.jsonl", [*PREDICTIONS, "x"], CAPTIONS, "line 3: not an object"),
    "an object": ("p.json", {"a": 1}, CAPTIONS, "not a list of objects"),
    "nothing": ("p.json", [], CAPTIONS, "no predictions"),
    "other columns": ("p.json", [{"id": 1, "text": "a"}], CAPTIONS, "columns id, text; give columns image_id"),
    "null caption": ("p.json", [{"image_id": 1, "caption": None}], CAPTIONS, "record 1.*caption None"),
    "twice": ("p.json", PREDICTIONS * 2, CAPTIONS, "image_id 1 twice"),
    "stranger": ("p.json", [*PREDICTIONS, {"image_id": 9, "caption": "a"}], CAPTIONS, "image_id 9 not in"),
    "other task": ("p.json", ANSWERS, CAPTIONS, "has question_id, .* has image_id"),
    "broken parquet": ("p.json", PREDICTIONS, {"annotations": 3}, "no list of references"),
    "reference form": ("p.json", PREDICTIONS, [{"image_id": 1, "text": "a"}], "another form"),
    "no captions": ("p.json", PREDICTIONS[:1], [{"image_id": 1, "captions": []}], r"references\[0\]"),
    "answer type": ("p.json", ANSWERS[:1], [VQA["annotations"][0] | {"answer_type": "odd"}], "answer_types"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path: Path, case: str) -> None:
    name, predictions, references, message = BAD[case]
    path = tmp_path / name if predictions is None else _write(tmp_path, name, predictions)
    with pytest.raises(UserError, match=message) as caught:
        score_file(path, _write(tmp_path, "references.json", references))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_a_broken_parquet_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        score_file(_write(tmp_path, "x.json", "").rename(tmp_path / "x.parquet"), _write(tmp_path, "r.json", CAPTIONS))
