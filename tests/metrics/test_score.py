"""`score_file`: formats in, columns out, one line when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.errors import UserError, UserErrors
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
    if isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in content))
    elif path.suffix == ".csv":
        pd.DataFrame(content).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(content).to_parquet(path)
    else:
        path.write_text(json.dumps(content))
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


FORMS = {
    "a comma at each end": "image_id,caption,\n1,a dog runs,\n2,,\n",
    "an object": {"predictions": PREDICTIONS, "config": 7},
    "text ids for numbers": [{**p, "image_id": str(p["image_id"])} for p in PREDICTIONS],
    "whole floats": [{**p, "image_id": float(p["image_id"])} for p in PREDICTIONS],
    "our own": {
        "id": [1, 2],
        "image_id": [1, 2],
        "text": ["a dog runs", ""],
        "tokens": [3, 0],
        "nll_sum": [None, None],
    },
    "further fields": [{**p, "score": float("nan"), "caption_id": None} for p in PREDICTIONS],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_that_predictions_come_in_are_one(tmp_path: Path, form: str) -> None:
    references = _write(tmp_path, "captions.json", CAPTIONS)
    plain = score_file(_write(tmp_path, "plain.json", PREDICTIONS), references)
    assert (
        score_file(
            _write(tmp_path, f"form.{'csv' if isinstance(FORMS[form], str) else 'json'}", FORMS[form]), references
        )
        == plain
    )


def test_captions_are_scored_by_each_tokenizer_that_is_named(tmp_path: Path) -> None:
    files = _write(tmp_path, "p.json", PREDICTIONS), _write(tmp_path, "captions.json", CAPTIONS)
    plain, both = score_file(*files), score_file(*files, scoring={"tokenizer": ["ptb", "none"]})
    none = score_file(*files, scoring={"tokenizer": ["none"]})
    assert {**plain, **none} == both
    assert {c for c in none if c.startswith("bleu_1") or "cider" in c} == {"bleu_1_none", "cider_none"}
    found = [row[name] for row, name in ((none, "bleu_1_none"), (plain, "bleu_1"))]
    assert found == pytest.approx([2 / 3 * 0.5134171, 0.5134171])  # "runs." is another word than "runs"
    with pytest.raises(UserError, match="--tokenizer pbt: captions are not scored so; right: ptb, none"):
        score_file(*files, scoring={"tokenizer": ["pbt"]})


def test_references_of_nocaps_give_the_domains(tmp_path: Path) -> None:
    images = [{"id": 1, "domain": "in-domain"}, {"id": 2, "domain": "out-domain"}, {"id": 3, "domain": "out-domain"}]
    captions = [("a dog runs", 1), ("two cats sit on it", 2), ("two red cats", 2), ("a table", 3), ("a man", 3)]
    nocaps = {"images": images, "annotations": [{"image_id": i, "caption": c} for c, i in captions]}
    said = [{"image_id": i, "caption": f"two cats of {i}"} for i in (1, 2, 3)]
    files = _write(tmp_path, "p.json", said), _write(tmp_path, "nocaps.json", nocaps)
    row = score_file(*files, scoring={"tokenizer": ["ptb", "none"]})
    alone = score_file(_write(tmp_path, "out.json", said[1:]), files[1], subset=True)
    assert row["cider_out_domain"] == row["cider_out_domain_none"] == alone["cider_out_domain"] == alone["cider"]
    assert (alone["cider_in_domain"], row["cider_near_domain"]) == (None, None)
    assert row["cider"] != row["cider_out_domain"]
    images[1]["domain"] = "far"
    with pytest.raises(UserError, match=r"images\[1\] \(id 2\): 'domain' is 'far'; right: in-domain, near-domain"):
        score_file(files[0], _write(tmp_path, "nocaps.json", nocaps))


def test_own_predictions_of_questions_go_by_question(tmp_path: Path) -> None:
    own = {"id": [10, 11], "image_id": [1, 1], "text": ["NA", "two"]}
    row = score_file(_write(tmp_path, "own.json", own), _write(tmp_path, "vqa.json", VQA))
    assert (row["vqa_accuracy"], row["vqa_rule"]) == (1, "leave_one_out")


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_text_ids_are_scored_from_every_format(tmp_path: Path, suffix: str) -> None:
    said = [{"question_id": f"q{a['question_id']}", "answer": a["answer"]} for a in ANSWERS]
    known = [
        {"question_id": f"q{a['question_id']}", "answers": [a["answers"][0]["answer"]]} for a in VQA["annotations"]
    ]
    row = score_file(_write(tmp_path, f"p.{suffix}", said), _write(tmp_path, "r.json", {"annotations": known}))
    assert (row["vqa_accuracy"], row["vqa_rule"], row["vqa_accuracy_other"]) == (1, "exact_match", None)


def test_a_caption_without_end_gets_a_score_and_the_longer_the_lower(tmp_path: Path) -> None:
    references = _write(tmp_path, "captions.json", CAPTIONS)

    def meteor(words: int) -> float:
        said = [{"image_id": 1, "caption": "a dog runs " + "on " * words}, PREDICTIONS[1]]
        found = score_file(_write(tmp_path, "p.json", said), references)["meteor"]
        assert isinstance(found, float)
        return found

    assert meteor(5) > meteor(450) > meteor(600) > meteor(20_000) > 0
    with pytest.raises(UserError, match=r"references\[0\] \(image_id 1\): 'captions' \[0\] has 600 words"):
        score_file(tmp_path / "p.json", _write(tmp_path, "long.json", [{"image_id": 1, "captions": ["dog " * 600]}]))


def test_a_subset_only_when_asked_for(tmp_path: Path) -> None:
    paths = _write(tmp_path, "one.json", PREDICTIONS[:1]), _write(tmp_path, "coco.json", COCO)
    with pytest.raises(UserError, match="no prediction for image_id 2 of"):
        score_file(*paths)
    assert score_file(*paths, subset=True)["bleu_1"] == pytest.approx(1)


BAD = {
    "no such file": ("gone.json", None, CAPTIONS, "gone.json: cannot be read .No such file"),
    "another suffix": ("p.txt", "x", CAPTIONS, "ends in '.txt'; right: .json"),
    "truncated": ("p.json", json.dumps(PREDICTIONS)[:30], CAPTIONS, "not JSON at line 1 column .*truncated"),
    "truncated line": ("p.jsonl", [*PREDICTIONS, "x"], CAPTIONS, "predictions.2.: is 'x'; right: an object"),
    "an object": ("p.json", {"a": 1}, CAPTIONS, "no list of predictions"),
    "nothing": ("p.json", [], CAPTIONS, "no list of predictions"),
    "other columns": (
        "p.json",
        [{"id": 1, "text": "a"}],
        CAPTIONS,
        "has the fields id, text; right: a list of objects with image_id",
    ),
    "null caption": (
        "p.json",
        [{"image_id": 1, "caption": None}],
        CAPTIONS,
        "predictions.0. .image_id 1.: 'caption' is null; right: a text",
    ),
    "twice": (
        "p.json",
        PREDICTIONS * 2,
        CAPTIONS,
        "predictions.2. .image_id 1.: stands twice, first as predictions.0.",
    ),
    "stranger": ("p.json", [*PREDICTIONS, {"image_id": 9, "caption": "a"}], CAPTIONS, "image_id 9 not in"),
    "other task": ("p.json", ANSWERS, CAPTIONS, "has question_id, .* has image_id"),
    "broken parquet": ("p.json", PREDICTIONS, {"annotations": 3}, "no list of references"),
    "reference form": (
        "p.json",
        PREDICTIONS,
        [{"image_id": 1, "text": "a"}],
        r"annotations\[0\] \(image_id 1\): has no 'caption'",
    ),
    "no captions": (
        "p.json",
        PREDICTIONS[:1],
        [{"image_id": 1, "captions": []}],
        r"references\[0\] \(image_id 1\): 'captions' is an empty list",
    ),
    "captions as one text": (
        "p.json",
        PREDICTIONS,
        [{"image_id": 1, "captions": "a dog"}],
        "'captions' is 'a dog'; right: a list",
    ),
    "answers as one text": (
        "p.json",
        ANSWERS,
        [{"question_id": 10, "answers": "yes"}],
        "'answers' is 'yes'; right: a list",
    ),
    "an empty list": ("p.json", {"predictions": []}, CAPTIONS, "no list of predictions"),
    "columns of unequal length": (
        "p.json",
        {"id": [1], "image_id": [1], "text": []},
        CAPTIONS,
        "no lists of one length",
    ),
    "a number and its spelling": (
        "p.csv",
        [*PREDICTIONS, {"image_id": "1.0", "caption": "a"}],
        CAPTIONS,
        "written in two ways",
    ),
    "kinds mixed": (
        "p.json",
        [PREDICTIONS[0], {"image_id": "2", "caption": ""}],
        CAPTIONS,
        r"predictions\[1\] \(image_id '2'\): the id is a text",
    ),
    "a float": ("p.parquet", [{"image_id": 1.5, "caption": "a"}], CAPTIONS, "'image_id' is 1.5; right: a whole number"),
    "a null in a table": (
        "p.parquet",
        [*PREDICTIONS, {"image_id": 3, "caption": None}],
        CAPTIONS,
        "predictions.2. .*'caption' is null",
    ),
    "a short row": ("p.csv", "image_id,caption\n1,a\n2\n", CAPTIONS, "predictions.1. .*has no 'caption'"),
    "a comma without quotes": (
        "p.csv",
        "image_id,caption\n1,a dog, running\n",
        CAPTIONS,
        "predictions.0. has 3 fields, the header 2",
    ),
    "a column twice": ("p.csv", "image_id,caption,caption\n1,a,b\n", CAPTIONS, "the column 'caption' stands twice"),
    "a quote without end": ("p.csv", 'image_id,caption\n1,"a\n', CAPTIONS, "not CSV .unexpected end"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path: Path, case: str) -> None:
    name, predictions, references, message = BAD[case]
    path = tmp_path / name if predictions is None else _write(tmp_path, name, predictions)
    with pytest.raises(UserError, match=message) as caught:
        score_file(path, _write(tmp_path, "references.json", references))
    assert "\n" not in str(caught.value)


def test_a_broken_parquet_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.parquet: cannot be read"):
        score_file(_write(tmp_path, "x.json", "").rename(tmp_path / "x.parquet"), _write(tmp_path, "r.json", CAPTIONS))


def test_answers_by_several_rules_have_columns_of_their_own(tmp_path: Path) -> None:
    """LAVIS's rule leaves "na" and "2" of people as they are, and normalises the answer."""
    files = _write(tmp_path, "p.json", ANSWERS), _write(tmp_path, "r.json", VQA)
    plain, both = score_file(*files), score_file(*files, scoring={"rule": ["official", "lavis"]})
    assert {k: v for k, v in both.items() if not k.endswith("_lavis")} == plain
    assert {k for k in both if k.endswith("_lavis")} == {f"{k}_lavis" for k in plain if k.startswith("vqa_accuracy")}
    alone = score_file(*files, scoring={"rule": ["lavis"]})
    assert alone["vqa_accuracy_lavis"] == both["vqa_accuracy_lavis"]
    assert "vqa_accuracy" not in alone


def test_captions_without_a_tokenizer(tmp_path: Path) -> None:
    files = _write(tmp_path, "p.json", PREDICTIONS), _write(tmp_path, "r.json", COCO)
    found = score_file(*files, scoring={"tokenizer": ["none"]})
    assert {"cider_none", "bleu_4_none", "meteor_none", "mean_length"} <= found.keys()
    assert "cider" not in found


def test_settings_that_references_do_not_have_are_told_at_once(tmp_path: Path) -> None:
    files = _write(tmp_path, "p.json", ANSWERS), _write(tmp_path, "r.json", VQA)
    with pytest.raises(UserErrors) as told:
        score_file(*files, scoring={"rule": ["lavi"], "tokenizer": ["none"]})
    assert told.value.lines == (
        "--tokenizer: questions have no such setting; right: without it",
        "--rule lavi: questions are not scored so; right: official, lavis, evalai",
    )
