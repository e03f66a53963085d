"""VQAv2, OK-VQA, TextVQA and VizWiz from their official files: what is read, and what is refused in a line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.results.scoring import VariantScorer
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.question_text import prompts
from scripts.miniatures import write
from tests.data_files import edit, load, refused

NAMES = ("okvqa", "textvqa", "vizwiz", "vqav2")
VAL, ANSWERED = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
TEXTVQA, OCR, VIZWIZ = "TextVQA_0.5.1_val.json", "TextVQA_Rosetta_OCR_v0.2_val.json", "Annotations/val.json"
Content = Any


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path, NAMES)
    return tmp_path


# ---- what is read


def test_each_is_scored_by_its_own_rule(data: Path) -> None:
    assert {name: load(data, name).main_metric for name in NAMES} == {
        "okvqa": "vqa_accuracy", "textvqa": "vqa_accuracy_evalai", "vizwiz": "vqa_accuracy_evalai", "vqav2": "vqa_accuracy",
    }  # fmt: skip
    several = load(data, "okvqa", rule=["lavis", "official"])
    assert several.main_metric == "vqa_accuracy_lavis"
    assert {"vqa_accuracy", "vqa_accuracy_number_lavis"} <= {*several.rules.scores(several)}


def test_okvqa_compares_with_the_stemmed_answers(data: Path) -> None:
    path = data / "okvqa/annotations/mscoco_val2014_annotations.json"
    edit(path, lambda c: c["annotations"][0]["answers"][0].update(raw_answer="surfing", answer="surf"))
    found = load(data, "okvqa").samples
    assert len(found) == 12
    assert found[0].references[0] == "surf"
    assert found[0].image.name == f"COCO_val2014_{found[0].image_id:012d}.jpg"


@pytest.mark.parametrize(("split", "n"), [("test2015", 12), ("test-dev2015", 6)])
def test_a_test_split_of_vqav2_has_questions_alone(data: Path, split: str, n: int) -> None:
    found = load(data, "vqav2", split=split)
    assert [s.references for s in found.samples] == [()] * n
    assert found.samples[0].image.parent.name == "test2015"
    assert found.rules.scores(found) == ()
    assert found.main_metric == ""
    assert any("not scored" in note for note in found.notes)
    assert found.columns == {}


def test_a_question_file_alone_has_no_answers_whatever_its_split(data: Path) -> None:
    found = load(data, "vqav2", annotations=f"annotations/{VAL}")
    assert len(found.samples) == 24
    assert found.rules.scores(found) == ()


def test_textvqa_reads_the_words_of_rosetta(data: Path) -> None:
    plain, read = load(data, "textvqa"), load(data, "textvqa", ocr_tokens=True)
    assert plain.samples[0].image == data / "textvqa/train_images" / f"{plain.samples[0].image_id}.jpg"
    assert len(plain.samples[0].references) == 10
    words = {r["image_id"]: r["ocr_tokens"] for r in json.loads((data / "textvqa" / OCR).read_text())["data"]}
    assert [s.details["ocr_tokens"] for s in read.samples] == [words[s.image_id] for s in read.samples]
    assert [] in words.values()
    assert plain.fingerprint != read.fingerprint
    template = "{}\nAnswer the question using a single word or phrase."
    question, own = read.samples[0].question, words[read.samples[0].image_id]
    expected = f"{question}\nReference OCR token: {', '.join(own)}\nAnswer the question using a single word or phrase."
    assert prompts(read.rules, read.samples[:1], template) == [expected]
    assert prompts(plain.rules, plain.samples[:1], template) == [template.replace("{}", str(question))]


def test_textvqa_takes_words_from_its_own_rows(data: Path) -> None:
    (data / "textvqa" / OCR).unlink()
    edit(data / "textvqa" / TEXTVQA, lambda c: [row.update(ocr_tokens=["STOP"]) for row in c["data"]])
    assert {str(s.details) for s in load(data, "textvqa", ocr_tokens=True).samples} == {"{'ocr_tokens': ['STOP']}"}


def test_own_words_of_two_questions_on_one_image(data: Path) -> None:
    def same_image(content: Content) -> None:
        for number, row in enumerate(content["data"]):
            row.update(image_id=content["data"][0]["image_id"], ocr_tokens=[f"word {number}"])

    edit(data / "textvqa" / TEXTVQA, same_image)
    found = load(data, "textvqa", ocr_tokens=True).samples
    assert [s.details["ocr_tokens"] for s in found] == [[f"word {i}"] for i in range(len(found))]


def test_rewriting_questions_leaves_their_words_alone(data: Path) -> None:
    read = load(data, "textvqa", ocr_tokens=True)
    words = "STOP, U.S."
    edit(data / "textvqa" / OCR, lambda c: [row.update(ocr_tokens=["STOP", "U.S."]) for row in c["data"]])
    read = load(data, "textvqa", ocr_tokens=True)
    assert prompts(read.rules, read.samples[:1], "{}", "lavis")[0].endswith(f"\nReference OCR token: {words}")


def test_vizwiz_is_named_by_its_images(data: Path) -> None:
    found = load(data, "vizwiz")
    assert [s.id for s in found.samples] == [f"VizWiz_val_{k:08d}.jpg" for k in range(12)]
    assert found.samples[0].image == data / "vizwiz/val/VizWiz_val_00000000.jpg"
    assert found.samples[3].answer_type == "unanswerable"
    assert "vqa_accuracy_unanswerable_evalai" in found.rules.scores(found)
    assert load(data, "vizwiz", split="test").rules.scores(load(data, "vizwiz", split="test")) == ()


def test_unanswerable_questions_that_were_all_skipped_leave_the_cell_scored(data: Path) -> None:
    task = load(data, "vizwiz", on_bad_image="skip")
    left = [s for s in task.samples if s.answer_type != "unanswerable"]
    assert 0 < len(left) < len(task.samples)
    own = VariantScorer(task)
    found = own.statistics(Predictions([s.id for s in left], [s.image_id for s in left], ["a"] * len(left)))
    assert {*own.names} <= {*found}
    assert found["vqa_unanswerable_evalai"].tolist() == [[0, 0]] * len(left)


# ---- what is refused


def test_the_wrong_file_for_a_task(data: Path) -> None:
    vqav2, textvqa, vizwiz = f"annotations/{VAL}", TEXTVQA, VIZWIZ
    (data / "vqav2" / TEXTVQA).write_text((data / "textvqa" / TEXTVQA).read_text())
    refused(lambda: load(data, "vqav2", annotations=[TEXTVQA, f"annotations/{ANSWERED}"]), "no list 'questions'")
    (data / "textvqa/v.json").write_text((data / "vqav2" / vqav2).read_text())
    refused(lambda: load(data, "textvqa", annotations="v.json"), "no list 'data'")
    (data / "vizwiz/v.json").write_text((data / "textvqa" / textvqa).read_text())
    refused(lambda: load(data, "vizwiz", annotations="v.json"), "holds an object; right: a list of questions")
    (data / "textvqa/w.json").write_text((data / "vizwiz" / vizwiz).read_text())
    refused(lambda: load(data, "textvqa", annotations="w.json"), "holds a list; right: an object with the list 'data'")


def test_a_split_that_is_not_there(data: Path) -> None:
    refused(lambda: load(data, "vqav2", split="val2015"), "task.split=val2015: no question file")
    refused(lambda: load(data, "textvqa", split="vol"), "did you mean 'val'")
    refused(lambda: load(data, "vizwiz", split="vol"), "did you mean 'val'")
    of_another = {"data_dir": str(data / "vqav2")}
    refused(lambda: load(data, "textvqa", **of_another), f"no file {data}/vqav2/TextVQA_0.5.1_val.json; known: none;")
    refused(lambda: load(data, "vizwiz", **of_another), "Annotations/val.json; known: test, train, val;")


def test_questions_without_annotations_where_scores_are_wanted(data: Path) -> None:
    (data / "vqav2/annotations" / ANSWERED).unlink()
    refused(lambda: load(data, "vqav2"), ANSWERED)
    edit(data / "vizwiz" / VIZWIZ, lambda c: [c[i].pop("answers") for i in (2, 5)])
    lines = ["[2] (image 'VizWiz_val_00000002.jpg'): has no 'answers'", "[5] (image 'VizWiz_val_00000005.jpg')"]
    refused(lambda: load(data, "vizwiz"), *lines)


ROWS = {"textvqa": (TEXTVQA, lambda c: c["data"]), "vizwiz": (VIZWIZ, lambda c: c)}


@pytest.mark.parametrize("name", ROWS)
def test_a_split_whose_answers_are_all_missing_is_refused_unless_its_file_is_given(data: Path, name: str) -> None:
    file, rows = ROWS[name]
    plain = [s.references for s in load(data, name).samples]
    assert [s.references for s in load(data, name, annotations=file).samples] == plain
    edit(data / name / file, lambda c: [row.pop("answers") for row in rows(c)])
    refused(lambda: load(data, name), "no question has 'answers'; right: the official file, or task.annotations=FILE")
    found = load(data, name, annotations=file)
    assert {s.references for s in found.samples} == {()}
    assert any("not scored" in note for note in found.notes)


@pytest.mark.parametrize("name", ROWS)
def test_an_empty_list_of_answers_is_none_in_a_test_split(data: Path, name: str) -> None:
    file, rows = ROWS[name]
    test = file.replace("val", "test")
    edit(data / name / test, lambda c: [row.update(answers=[]) for row in rows(c)])
    assert {s.references for s in load(data, name, split="test").samples} == {()}
    edit(data / name / file, lambda c: rows(c)[1].update(answers=[]))
    refused(lambda: load(data, name), "'answers'")


def test_doubled_ids_and_wrong_rows_are_said_all_at_once(data: Path) -> None:
    def twice(content: Content) -> None:
        content["data"][3]["question_id"] = content["data"][0]["question_id"]
        content["data"][5]["question"] = " "
        content["data"][7]["answers"] = []

    edit(data / "textvqa" / TEXTVQA, twice)
    refused(lambda: load(data, "textvqa"), "data[5]", "data[7]", "data[3]")
    edit(data / "vizwiz" / VIZWIZ, lambda c: c[4].update(image=c[1]["image"]))
    refused(lambda: load(data, "vizwiz"), "stands twice, first as [1]")


def test_words_that_are_missing_or_none(data: Path) -> None:
    edit(data / "textvqa" / OCR, lambda c: c["data"].pop())
    refused(lambda: load(data, "textvqa", ocr_tokens=True), "(1 images of TextVQA_0.5.1_val.json lack their words)")
    edit(data / "textvqa" / OCR, lambda c: c["data"][0].update(ocr_tokens="STOP"))
    refused(lambda: load(data, "textvqa", ocr_tokens=True), "'ocr_tokens' is 'STOP'; right: a list of texts")
    (data / "textvqa" / OCR).unlink()
    refused(lambda: load(data, "textvqa", ocr_tokens=True), "no file")
    refused(lambda: load(data, "textvqa", ocr_tokens="some"), "task.ocr_tokens=some: right: true or false")
    refused(lambda: load(data, "vizwiz", ocr_tokens=True), "task.ocr_tokens=True")


def test_images_that_are_missing(data: Path) -> None:
    (data / "vizwiz/val/VizWiz_val_00000007.jpg").unlink()
    refused(lambda: load(data, "vizwiz"), "no such image (1 of 12")
    edit(data / "vizwiz" / VIZWIZ, lambda c: c[0].update(image="../val/x.jpg"))
    refused(lambda: load(data, "vizwiz"), "leads out of the data folder")


def test_a_rule_that_there_is_none_of(data: Path) -> None:
    refused(lambda: load(data, "okvqa", rule="vqa"), "task.rule=vqa: kind vqa does not score so")
    refused(lambda: load(data, "okvqa", rule="vqa", lemmatize="nltk"), "task.rule=vqa", "task.lemmatize=nltk")
