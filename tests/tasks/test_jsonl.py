"""Samples of one's own: the fields of each kind of task, and every mistake of a file by its line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.tasks import TaskData, load_task
from blip2sweep.tasks.jsonl import KINDS, MAIN_METRIC
from scripts.miniature_sets import jsonl as miniature
from tests.checkpoints import conf

Row = dict[str, Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jsonl")
    miniature.write(folder)
    return folder / "pictures"


@pytest.fixture
def data(tmp_path: Path, pictures: Path) -> Path:
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    return tmp_path


def load(data: Path, *rows: Row | str, kind: str = "vqa", **fields: Any) -> TaskData:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (data / "samples.jsonl").write_text(text)
    more = {"k": 2} if kind == "retrieval" else {}
    return load_task(
        {**conf("task/shapes_vqa"), **conf("task/jsonl"), "data_dir": str(data), "kind": kind, **more, **fields}
    )


def asked(i: int = 0, **fields: Any) -> Row:
    return {"image": f"{i}.png", "question": "What is it?", "answer": "a cross", **fields}


# ---- what is read


def test_a_line_is_a_sample(data: Path) -> None:
    found = load(data, asked(answer_type="other"), "", asked(1, answer="1"), asked(answer="2")).samples
    assert [s.id for s in found] == [1, 3, 4]  # the numbers of their lines
    assert [s.image_id for s in found] == ["0.png", "1.png", "0.png"]
    assert (found[0].question, found[0].references, found[0].answer_type) == ("What is it?", ("a cross",), "other")
    assert found[1].image == data / "1.png"


def test_names_that_mean_the_same(data: Path) -> None:
    one, two = (
        {"image": "0.png", "question": "?!a", "answers": ["b"]}, {"prompt": "?!a", "image": "0.png", "references": "b"}
    )  # fmt: skip
    assert load(data, one).fingerprint == load(data, two).fingerprint
    mixed = load(data, one, two).samples
    assert (mixed[0].question, mixed[0].references) == (mixed[1].question, mixed[1].references)


def test_files_and_folders_of_other_names(data: Path) -> None:
    load(data, asked())
    (data / "mine").mkdir()
    (data / "0.png").rename(data / "mine" / "0.png")
    (data / "samples.jsonl").rename(data / "own.jsonl")
    found = load_task(
        {
            **conf("task/shapes_vqa"),
            **conf("task/jsonl"),
            "data_dir": str(data),
            "annotations": "own.jsonl",
            "images": "mine",
        }
    )
    assert found.samples[0].image == data / "mine" / "0.png"


def test_a_caption_may_have_a_prompt_of_its_own(data: Path) -> None:
    rows = [{"image": "0.png", "caption": "a cross"}, {"image": "1.png", "prompt": "a picture of", "caption": "a dot"}]
    found = load(data, *rows, kind="caption")
    assert [found.rules.prompt(s, "a photo of") for s in found.samples] == ["a photo of", "a picture of"]


@pytest.mark.parametrize("kind", ["choice", "letter"])
@pytest.mark.parametrize("answer", ["green", 1, "1"])
def test_a_choice_is_named_by_its_text_or_number(data: Path, kind: str, answer: object) -> None:
    row = {"image": "0.png", "question": "What color?", "choices": ["red", "green"], "answer": answer, "hint": "Look."}
    (sample,) = load(data, row, kind=kind).samples
    assert (sample.choices, sample.references) == (("red", "green"), ("green",))
    assert sample.details == {"answer": 1, "hint": "Look."}


@pytest.mark.parametrize(("answer", "right"), [("0", 2), (0, 0), ("3", 1), (3, 3), (2, 2)])
def test_a_number_is_an_index_and_a_text_that_is_a_choice_is_its_text(data: Path, answer: object, right: int) -> None:
    choices = ["2", "3", "0", "1"]
    row = {"image": "0.png", "question": "How many?", "choices": choices, "answer": answer}
    (sample,) = load(data, row, kind="choice").samples
    assert (sample.references, sample.details["answer"]) == ((choices[right],), right)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_main_metric_of_its_own(data: Path, kind: str) -> None:
    row = asked(choices=["a cross", "yes"], answer="yes")
    found = load(data, *[row] if kind != "retrieval" else [row, {**row, "image": "1.png"}], kind=kind)
    assert found.main_metric == MAIN_METRIC[kind]
    assert found.main_metric in found.rules.scores(found)
    assert found.main_metric in METRICS


def test_the_main_metric_follows_the_rule(data: Path) -> None:
    assert load(data, asked(), kind="gqa", rule="lmms").main_metric == "gqa_accuracy_lmms"
    assert load(data, asked(answer_type="verify"), kind="gqa", main_metric="gqa_binary").main_metric == "gqa_binary"


def test_gqa_is_scored_by_the_types_that_lines_name(data: Path) -> None:
    plain, typed = load(data, asked(), kind="gqa"), load(data, asked(), asked(1, answer_type="query"), kind="gqa")
    assert plain.rules.scores(plain) == ("gqa_accuracy",)
    assert set(typed.rules.scores(typed)) == {"gqa_accuracy", "gqa_open", "gqa_query"}


def test_questions_without_any_answer_are_asked_and_not_scored(data: Path) -> None:
    rows = [{"image": f"{i}.png", "question": "What is it?"} for i in range(2)]
    found = load(data, *rows)
    assert [s.references for s in found.samples] == [(), ()]
    assert found.rules.scores(found) == ()


# ---- bad input


def fails(data: Path, told: str, *rows: Row | str, **fields: Any) -> None:
    with pytest.raises(UserError) as error:
        load(data, *rows, **fields)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": "?a", "answer": "b"}, "line 2: has no 'image'"),
        (asked(image=3), "line 2: 'image' is 3; right: a text"),
        (asked(image="../0.png"), "line 2: 'image' is '../0.png', which leads out of the data folder"),
        (asked(question=""), "line 2: 'question' is ''; right: a question with words"),
        (asked(question=None), "line 2: 'question' is null; right: a text"),
        ({"image": "0.png", "answer": "b"}, "line 2: has no 'question'"),
        ({"image": "0.png", "question": "?a"}, "line 2: has no 'answer'"),  # other lines have one
        (asked(answer=None), "line 2: 'answer' is null; right: a text, or a list of one or more texts"),
        (asked(answer=[]), "line 2: 'answer' is an empty list"),
        (asked(answer=["a", 1]), "line 2: 'answer' [1] is 1"),
        (asked(answers=["a"]), "line 2: has 'answers' and 'answer', which mean the same; right: one of them"),
        (asked(prompt="a"), "line 2: has 'question' and 'prompt', which mean the same"),
        (asked(answer_type=" "), "line 2: 'answer_type' is ' '"),
        (asked(id=1.5), "line 2: 'id' is 1.5"),
        (asked(id=7), "line 1: has no 'id', and other lines have one"),
        ([1], "line 2: is a list; right: an object"),
        ('{"image": ', "line 2: not JSON at line 2 column"),
        ('{"image": "0.png", "image": "1.png"}', "line 2: the key 'image' stands twice"),
    ],
)
def test_a_wrong_line(data: Path, row: Row | str, told: str) -> None:
    fails(data, told, asked(), row)


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        ("caption", {"answer": " "}, "'answer' has no word"),
        ("caption", {"answer": "a " * 600}, "'answer' has 600 words"),
        ("gqa", {"answer": ["a", "b"]}, "'answer' has 2 texts; right: one, which is compared letter by letter"),
        ("yes_no", {"answer": "Yes"}, "'answer' is 'Yes'; right: yes or no"),
        ("choice", {}, "has no 'choices'"),
        ("choice", {"choices": ["a"]}, "'choices' has 1 entries; right: a list of 2 to 26 texts"),
        ("choice", {"choices": ["a", "a"]}, "'choices' has a text twice"),
        ("choice", {"choices": ["a", ""]}, "'choices' [1] is ''; right: a choice with a visible character"),
        ("letter", {"choices": [" \u200b", "a"]}, "'choices' [0] is ' \\u200b'; right: a choice with"),
        (
            "choice",
            {"choices": ["a", "b"]},
            "'answer' is 'a cross'; right: one of the choices, or its number from 0 to 1",
        ),
        ("letter", {"choices": ["a", "b"], "answer": 2}, "'answer' is 2; right: one of the choices"),
        ("letter", {"choices": ["a", "b"], "answer": -1}, "'answer' is -1; right: one of the choices"),
    ],
)
def test_what_a_kind_needs(data: Path, kind: str, fields: Row, told: str) -> None:
    fails(data, f"line 1: {told}", asked(**fields), kind=kind)


def test_a_picture_that_is_looked_for_stands_on_one_line(data: Path) -> None:
    rows = [{"image": f"{i}.png", "caption": text} for i, text in ((0, "a dot"), (1, "a cross"), (0, "a line"))]
    fails(data, "line 3: 'image' is '0.png', as on line 1; right: all captions of a picture", *rows, kind="retrieval")
    assert len(load(data, *rows, kind="caption").samples) == 3


@pytest.mark.parametrize(("mark", "told"), [("", "a number of more than 20 digits"), ('"', f"'{'1' * 57}' … (5000")])
def test_a_number_of_very_many_digits(data: Path, mark: str, told: str) -> None:
    row = json.dumps(asked(choices=["a", "b"], answer="?")).replace('"?"', mark + "1" * 5000 + mark)
    fails(data, f"line 1: 'answer' is {told}", row, kind="choice")


def test_all_mistakes_at_once_and_ids_that_are_doubled(data: Path) -> None:
    rows = [asked(id="a"), asked(id="b", question=""), asked(id="c", answer=3), asked(id="a")]
    with pytest.raises(UserError) as error:
        load(data, *rows)
    assert [f"line {n} (id" in str(error.value) for n in (2, 3, 4)] == [True] * 3
    assert "(id 'a'): stands twice, first as line 1" in str(error.value)


def test_files_that_are_not_there(data: Path) -> None:
    fails(data, "0.jpg: no such image (1 of 1 named by", asked(image="0.jpg"))
    fails(data, "task.annotations=none.jsonl: no such file", asked(), annotations="none.jsonl")
    fails(data, "task.split=sample: no file", asked(), split="sample")
    fails(data, "samples.jsonl: empty", "")
    fails(data, "task.kind=exam: format jsonl holds caption", asked(), kind="exam")
