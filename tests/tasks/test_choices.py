"""POPE, ScienceQA-IMG and MMMU: official files to samples, every bad input a typed line, prompts and scores."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.metrics import METRICS
from blip2sweep.results.scoring import Scorer
from blip2sweep.tasks import TaskData, load_task, resolve_generation
from blip2sweep.tasks.predictions import Predictions
from scripts.miniatures import write
from tests.checkpoints import conf
from tests.command_line import blip2sweep, refused
from tests.in_process import jobs, run

NAMES = ("pope", "scienceqa_img", "mmmu")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write(folder, NAMES)
    return folder


@pytest.fixture
def data(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def task(data: Path, name: str, **fields: Any) -> Row:
    return {**conf(f"task/{name}"), "data_dir": str(data / name), **fields}


def load(data: Path, name: str, **fields: Any) -> TaskData:
    return load_task(task(data, name, **fields))


def fails(data: Path, name: str, *lines: str, **fields: Any) -> None:
    """One line a mistake, with these words in their order."""
    with pytest.raises(UserError) as raised:
        load(data, name, **fields)
    told = raised.value.lines if isinstance(raised.value, UserErrors) else [str(raised.value)]
    assert len(told) == len(lines), told
    for line, words in zip(told, lines, strict=True):
        assert words in line, told


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


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
        data, "pope", "lines[0] (question_id 1): 'label' is 'maybe'; right: yes or no",
        "lines[3] (question_id 9): has no 'image'", "lines[2] (question_id 2): stands twice", split="random",
    )  # fmt: skip
    path.write_text('{"question_id": 1,\n')
    fails(data, "pope", "not JSON at line 1", split="random")
    path.write_text("\n")
    fails(data, "pope", "coco_pope_random.json: empty", split="random")
    path.write_text(json.dumps({"images": [], "annotations": []}))  # captions of COCO
    fails(data, "pope", "its first line has the fields images, annotations; right: the official file", split="random")
    path.unlink()
    fails(data, "pope", "coco_pope_random.json: cannot be read", split="random")
    (data / "pope/val2014/COCO_val2014_000000001007.jpg").unlink()
    fails(data, "pope", "1 of 4 named by", split="popular")


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
        "rows[4] (id 'validation_Art_5'): 'image_2' holds no picture", "rows[6] (id 'validation_Art_7'): has 1 options",
        "rows (id 'validation_Accounting_1'): stands twice, first in",
    )  # fmt: skip
    path.write_bytes(b"PAR1")
    fails(data, "mmmu", f"{path}: cannot be read")
    pq.write_table(pa.table({"id": ["a"], "caption": ["b"]}), path)
    fails(data, "mmmu", "no column question, options, answer, question_type, image_1")


def test_the_command_line_says_it_in_one_line(data: Path) -> None:
    words = ("-m", "task=pope", f"task.data_dir={data}/pope", "task.split=popular")
    lines(data, "popular")[0].write_text("[]")
    refused(blip2sweep(*words, cwd=data), "coco_pope_popular.json", "lines[0]: is a list; right: an object with")
    assert not (data / "outputs").exists()


# ---- prompts


def test_how_options_are_worded(data: Path) -> None:
    found = load(data, "scienceqa_img")
    sample = next(s for s in found.samples if s.details.get("hint"))
    a, b, c, *_ = sample.choices
    said = found.rules.prompt(sample, "{}\nAnswer:")
    assert said.startswith(f"Context: Look at the picture.\n{sample.question}\nA. {a}\nB. {b}\nC. {c}")
    assert said.endswith("\nAnswer:")
    llava = conf("model/llava-1.5-7b")["prompts"]["letter"]
    assert found.rules.prompt(sample, llava) == (
        f"Context: Look at the picture.\nQuestion: {sample.question}\nOptions: (A) {a} (B) {b} (C) {c}"
        + "".join(f" ({x}) {o}" for x, o in zip("DE", sample.choices[3:], strict=False))
        + "\nAnswer with the option's letter from the given choices directly."
    )
    plain = next(s for s in found.samples if not s.details.get("hint"))
    assert found.rules.prompt(plain, llava).startswith("Context: N/A\nQuestion: ")
    small = found.rules.prompt(plain, conf("model/instructblip-vicuna-7b")["prompts"]["choice"])
    assert f" Options: (a) {plain.choices[0]} (b) " in small
    assert small.endswith(". Answer:")


def test_mmmu_is_asked_in_its_own_words(data: Path) -> None:
    found = load(data, "mmmu")
    first, short = found.samples[0], found.samples[3]
    listed = "".join(f"({x}) {o}\n" for x, o in zip("ABCD", first.choices, strict=True))
    letter = f"{first.question}\n{listed}\nAnswer with the option's letter from the given choices directly."
    phrase = f"{short.question}\nAnswer the question using a single word or phrase."
    assert [found.rules.prompt(s, "{}") for s in (first, short)] == [letter, phrase]
    assert found.rules.prompt(first, "Question: {} Answer:") == f"Question: {letter} Answer:"
    assert found.rules.prompt(first, "{} {(a)}").startswith(f"{first.question} (a) ")
    assert found.rules.prompt(short, "{} {(a)}") == phrase


def test_places_inside_of_questions_stay(data: Path) -> None:
    changed(data / "scienceqa_img/problems.json", lambda p: p["16"].update(question="Is {options} {}?", hint="{}"))
    found = load(data, "scienceqa_img")
    assert found.rules.prompt(found.samples[0], "{context} {} {(a)}").startswith("{} Is {options} {}? (a) ")


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_needs_a_place_for_the_question(name: str) -> None:
    kind = conf(f"task/{name}")["kind"]
    with pytest.raises(UserError, match="no place for the question"):
        resolve_generation({**conf("generation/greedy"), "prompt": "Answer:"}, kind, "opt")


# ---- scores


def answered(data: TaskData, texts: list[str]) -> Predictions:
    ids, images = [s.id for s in data.samples], [s.image_id for s in data.samples]
    return Predictions(ids, images, texts, [1] * len(ids), [None] * len(ids), [0] * len(ids))


def scored(data: TaskData, predictions: Predictions) -> dict[str, float]:
    found = Scorer(data).statistics(predictions)
    return {name: METRICS[name].value(found[METRICS[name].statistic]) for name in data.rules.scores(data)}


def test_letters_by_two_rules(data: Path) -> None:
    found = load(data, "scienceqa_img", rule=["llava", "lmms"])
    right = [found.rules.targets(s, 1)[0] for s in found.samples]
    texts = [right[0].lower(), f"{right[1]}.", f"{right[2]}. it", f"The answer is {right[3]}.", *right[4:6]]
    values = scored(found, answered(found, texts + ["I see"] * (len(right) - 6)))
    assert values["option_accuracy"] == pytest.approx(4 / 12)
    assert values["option_accuracy_lmms"] == pytest.approx(5 / 12)
    assert (values["unread_rate"], values["unread_rate_lmms"]) == pytest.approx((8 / 12, 7 / 12))
    assert found.main_metric == "option_accuracy"


def test_guesses_are_seeded_and_counted(data: Path) -> None:
    found = load(data, "mmmu", guess=["seeded", "expected"])
    right = [found.rules.targets(s, 1)[0] for s in found.samples]
    values = scored(found, answered(found, ["(" + x + ")" if len(x) == 1 and x.isalpha() else x for x in right]))
    assert (values["mmmu_accuracy"], values["guess_rate"]) == (1, 0)
    some = load(data, "mmmu", limit=16, guess=["seeded", "expected"])
    values = scored(some, answered(some, ["I cannot say"] * 16))
    assert values["guess_rate"] == values["guess_rate_expected"] == 12 / 16  # all but the short answers
    assert values["mmmu_accuracy_multiple_choice_expected"] == 1 / 4
    assert values["mmmu_accuracy_open"] == 0
    fewer = load(data, "mmmu", limit=8)  # a guess does not depend on other samples
    part = scored(fewer, answered(fewer, ["no idea"] * 8))
    assert part["mmmu_accuracy_accounting"] == values["mmmu_accuracy_accounting"]


def test_choices_by_two_scores_need_one_inference(data: Path) -> None:
    found = load(data, "scienceqa_img", kind="choice", option_score=["sum", "mean"], limit=2)
    first, second = (s.details["answer"] for s in found.samples)
    counts = [len(s.choices) for s in found.samples]
    nll = [[1.0 if i == own else 2.0 for i in range(n)] for own, n in zip((first, second), counts, strict=True)]
    tokens = [[4 if i == first else 1 for i in range(counts[0])], [1] * counts[1]]
    nll[0] = [3.0 if i == first else 2.0 for i in range(counts[0])]
    ids = [s.id for s in found.samples]
    said = Predictions(
        ids, ids, nll_sum=[1.0] * 2, nll_tokens=[1] * 2, choice=[0, 0], option_nll=nll, option_tokens=tokens
    )
    values = scored(found, said)
    assert (values["option_accuracy"], values["option_accuracy_mean"]) == (0.5, 1.0)


def test_choices_do_not_depend_on_the_batch(data: Path) -> None:
    words = ("task=scienceqa_img", "task.kind=choice", f"task.data_dir={data}/scienceqa_img", "part=none")
    made = jobs(*words, limit=6)
    alone, together = (next(iter(run(made, batch_size=n).values()))[0] for n in (1, 6))
    assert alone.choice == together.choice
    assert alone.option_tokens == together.option_tokens
    assert alone.option_nll is not None
    assert together.option_nll is not None
    for one, other in zip(alone.option_nll, together.option_nll, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_of_no_samples_at_all(data: Path, name: str) -> None:
    """As where no image could be read."""
    found = load(data, name)
    assert {len(array) for array in found.rules.scorer(found).statistics(answered(found.part([]), [])).values()} == {0}
