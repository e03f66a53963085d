"""GQA's official files to samples, every bad input a typed line, and one command on the miniature with two rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.results.predictions import read_variant, write_predictions
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.tasks import load_task
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.sample import TaskData
from scripts.miniature_sets import gqa as miniature
from tests.checkpoints import conf
from tests.composing import plan
from tests.outside.typed import typed, workers_here

QUESTIONS = "{}_questions.json"
PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    miniature.write(tmp_path / "gqa")
    return tmp_path / "gqa"


def task(data: Path, split: str = "testdev_balanced", **fields: Any) -> dict[str, Any]:
    return {**conf("task/shapes_vqa"), **conf("task/gqa"), "data_dir": str(data), "split": split, **fields}


def rows(data: Path, split: str = "testdev_balanced") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / QUESTIONS.format(split)).read_text())
    return found


def change(data: Path, split: str = "testdev_balanced", **fields: Any) -> None:
    """Give the first question other fields."""
    asked = rows(data, split)
    asked[next(iter(asked))] |= fields
    (data / QUESTIONS.format(split)).write_text(json.dumps(asked))


def scored(data: TaskData, said: Callable[[str], str] = str) -> dict[str, float]:
    """All values of answers that are the references, changed by `said`."""
    ids, texts = [s.id for s in data.samples], [said(s.references[0]) for s in data.samples]
    statistics = data.rules.scorer(data).statistics(Predictions(ids, [s.image_id for s in data.samples], texts))
    return {name: METRICS[name].value(statistics[METRICS[name].statistic]) for name in data.rules.scores(data)}


# ---- what is read


def test_questions_are_read_in_file_order(data: Path) -> None:
    found, asked = load_task(task(data, limit=5)), rows(data)
    assert [s.id for s in found.samples] == list(asked)[:5]
    first, row = found.samples[0], next(iter(asked.values()))
    assert first.image == data / "images" / f"{row['imageId']}.jpg"
    assert (first.question, first.references) == (row["question"], (row["answer"],))
    assert first.answer_type == row["types"]["structural"]
    assert first.details["group"] == "color"
    assert first.details["entailed"] == row["entailed"]


def test_a_split_may_be_a_folder_of_pieces(data: Path) -> None:
    whole, asked = load_task(task(data)), list(rows(data).items())
    (data / QUESTIONS.format("testdev_balanced")).unlink()
    folder = data / "questions1.2" / "testdev_balanced_questions"
    folder.mkdir(parents=True)
    for i, piece in enumerate((asked[:7], asked[7:])):
        (folder / f"testdev_balanced_questions_{i}.json").write_text(json.dumps(dict(piece)))
    assert load_task(task(data)).fingerprint == whole.fingerprint
    (folder / "testdev_balanced_questions_2.json").write_text(json.dumps(dict(asked[:1])))
    fails(data, f"testdev_balanced_questions_2.json: question '{asked[0][0]}': stands in .*_0.json too")


def test_own_names_of_files(data: Path) -> None:
    (data / QUESTIONS.format("testdev_balanced")).rename(data / "mine.json")
    (data / "images").rename(data / "pictures")
    found = load_task(task(data, annotations="mine.json", images="pictures"))
    assert found.samples[0].image.parent == data / "pictures"


def test_consistency_needs_all_questions_and_validity_the_choices(data: Path) -> None:
    """Absent, and not 0, where the official program would print 0 %."""
    testdev, everything = load_task(task(data)), load_task(task(data, "val_all"))
    of_files = {"gqa_consistency", "gqa_validity", "gqa_plausibility"}
    assert not of_files & {*testdev.rules.scores(testdev)}
    assert of_files < {*everything.rules.scores(everything)}
    assert {scored(everything)[name] for name in ("gqa_accuracy", *of_files)} == {1}
    balanced = [s for s in everything.samples if s.details["balanced"]]
    assert len(balanced) < len(everything.samples)


def test_a_choices_file_that_comes_later_changes_no_key(data: Path) -> None:
    choices = data / "val_choices.json"
    with_choices = load_task(task(data, "val_all"))
    choices.unlink()
    without = load_task(task(data, "val_all"))
    assert without.fingerprint == with_choices.fingerprint
    assert {*with_choices.rules.scores(with_choices)} - {*without.rules.scores(without)} == {
        "gqa_validity", "gqa_plausibility"
    }  # fmt: skip


def test_each_chosen_rule_is_scored(data: Path) -> None:
    found = scored(load_task(task(data, rule=["official", "llava", "lmms"])), lambda text: f"{text.capitalize()}.")
    assert [found[f"gqa_accuracy{rule}"] for rule in ("", "_llava", "_lmms")] == [0, 1, 1]


def test_questions_are_reworded_as_lavis_does_and_rules_change_no_key(data: Path) -> None:
    words = "part=none", "task=gqa", f"task.data_dir={data}"
    (raw,), (lavis,) = (plan(*words, f"generation.question={q}").keys for q in ("raw", "lavis"))
    assert raw != lavis
    assert plan(*words, "task.rule=lavis,llava").keys[0] == raw


def test_other_choices_score_what_reads_them_again(data: Path, tmp_path: Path) -> None:
    before = load_task(task(data, "val_all", rule=["official", "llava"]))
    predictions = Predictions(
        [s.id for s in before.samples], [s.image_id for s in before.samples], [s.references[0] for s in before.samples]
    )
    write_predictions(tmp_path, "a", predictions)
    assert score_result(tmp_path, "a", Scorer(before))
    again = load_task(task(data, "val_all", rule=["official", "llava"]))
    assert not score_result(tmp_path, "a", Scorer(again))

    choices = json.loads((data / "val_choices.json").read_text())
    of_first = choices[str(before.samples[0].id)]
    of_first["plausible"] = [*of_first["plausible"], "another"]
    (data / "val_choices.json").write_text(json.dumps(choices))
    after = load_task(task(data, "val_all", rule=["official", "llava"]))
    assert after.fingerprint == before.fingerprint
    scorers = Scorer(after).variants
    held = {suffix: own.holds(read_variant(tmp_path, "a", suffix)) for suffix, own in scorers.items()}
    assert held == {"": False, "_llava": False}
    assert scorers["_llava"].installed.keys() == {"gqa_choices_llava"}


# ---- bad input


def fails(data: Path, match: str, split: str = "testdev_balanced", **fields: Any) -> None:
    with pytest.raises(UserError, match=match, check=lambda error: "\n" not in str(error)):
        load_task(task(data, split, **fields))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("question", " ", "'question' is ' '; right: a question with words"),
        ("answer", None, "'answer' is null; right: a text"),
        ("imageId", 1.5, "'imageId' is 1.5; right: a whole number or a text"),
        ("isBalanced", "yes", "'isBalanced' is 'yes'; right: true or false"),
        ("types", {"structural": "query"}, "'types' is an object; right: an object with structural and semantic"),
        ("groups", "color", "'groups' is 'color'; right: an object with global"),
        ("entailed", "123", "'entailed' is '123'; right: a list of question ids"),
        ("semantic", [{"operation": "select"}], "'semantic' is a list; right: a list of objects with operation and"),
    ],
)
def test_a_wrong_field(data: Path, field: str, value: object, told: str) -> None:
    change(data, **{field: value})
    fails(data, rf"questions\[0\] \(questionId '\d+'\): {told}")


def test_all_mistakes_are_told_at_once(data: Path) -> None:
    asked = rows(data)
    one, two, three = list(asked)[:3]
    asked[one]["answer"], asked[two]["types"], asked[three] = 7, None, "?"
    (data / QUESTIONS.format("testdev_balanced")).write_text(json.dumps(asked))
    with pytest.raises(UserError) as error:
        load_task(task(data))
    lines = str(error.value).split("; also: ")
    assert [f"questions[{i}]" in line for line, i in zip(sorted(lines), range(3), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "holds a list; right: GQA's file of questions with answers"),
        ("{}", "holds an empty object"),
        ('{"info": {}, "questions": [], "data_type": "mscoco"}', "no question in it has an imageId"),
        ('{"1": {"imageId": "n1", "question": "Why?", "isBalanced": true}}', "no question in it has an answer"),
        ('{"1": {"imageId": "n1"}, "1": {"imageId": "n2"}}', "the key '1' stands twice"),
        ('{"1": ', "not JSON at line 1"),
    ],
)
def test_another_file_than_questions(data: Path, content: str, told: str) -> None:
    (data / QUESTIONS.format("testdev_balanced")).write_text(content)
    fails(data, f"testdev_balanced_questions.json: {told}")


def test_files_that_are_not_there(data: Path) -> None:
    fails(
        data,
        "task.split=testdev_balnced: no testdev_balnced_questions.json .*did you mean 'testdev_balanced'",
        "testdev_balnced",
    )
    fails(data, "task.annotations=mine.json: no such file", annotations="mine.json")
    fails(data, "no such image .* are missing", images="pictures")
    image = next(iter((data / "images").iterdir()))
    image.unlink()
    everything = [s for s in ("testdev_balanced", "val_all", "train_balanced") if image.stem in str(rows(data, s))]
    fails(data, "no such image .1 of", everything[0])


def test_choices_of_other_questions(data: Path) -> None:
    (data / "val_choices.json").write_text('{"1": {"valid": ["a"], "plausible": ["a"]}}')
    fails(data, "is not in the choices file beside it", "val_all")
    (data / "val_choices.json").write_text('{"1": {"valid": "a", "plausible": ["a"]}}')
    fails(data, r"choices\[0\] \(questionId '1'\): 'valid' is 'a'; right: a list of texts", "val_all")


def test_an_unknown_rule(data: Path) -> None:
    fails(
        data,
        "task.rule=vqa: kind gqa does not score so; right: one or several of official, lavis, llava, lmms",
        rule="vqa",
    )


# ---- the documented command


@pytest.mark.thorough
def test_two_rules_are_one_cell_with_two_scores(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    command = PAGE.read_text().split("### gqa")[1].split("```console\n")[1].splitlines()[0]
    assert "task.rule=official,lavis" in command
    with workers_here():
        typed(command.replace("data/gqa", str(data)).split()[1:])
    table = pandas.read_parquet("outputs/table.parquet")
    assert len(table) == 2
    assert (table["gqa_open"] > 0.8).all()  # the model was trained on such questions, and not on the others
    assert (table["gqa_accuracy_lavis"] >= table["gqa_accuracy"]).all()
    assert "gqa_validity" not in table
    assert {"gqa_distribution", "gqa_distribution_lavis", "drop_gqa_accuracy_lavis_low"} <= {*table}
