"""POPE, ScienceQA-IMG and MMMU: prompts and scores. test_choice_files.py has their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2sweep.errors import UserError
from blip2sweep.metrics import METRICS
from blip2sweep.results.scoring import Scorer
from blip2sweep.tasks import TaskData, resolve_generation
from blip2sweep.tasks.predictions import Predictions
from tests.checkpoints import conf
from tests.choices import NAMES, changed, data, load, written
from tests.in_process import jobs, run

__all__ = ["data", "written"]


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
    by_mean = load(data, "scienceqa_img", kind="choice", option_score=["mean", "sum"], limit=2)
    right = [s.references[0] for s in found.samples]
    assert by_mean.readable_outputs(said) == right
    assert found.readable_outputs(said)[0] == found.samples[0].choices[0 if first else 1]
    said.option_nll[1] = [None] * counts[1]  # type: ignore[index]
    assert by_mean.readable_outputs(said) == [right[0], ""]


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
