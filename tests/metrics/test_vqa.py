"""The official VQA rule, against golden cases and an independent, literal derivation of it."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from blip2sweep.metrics import METRICS, normalize_answer, rule_of, vqa_accuracy, vqa_statistics

GOLDEN = {
    "two": "2",
    "None": "0",
    "ten": "10",
    "eleven": "eleven",
    "a dog": "dog",
    "An apple": "apple",
    "the": "",
    "dont": "don't",
    "don't": "don't",
    "couldnt've": "couldn't've",
    "couldn'tve": "couldn't've",
    "oclock": "o'clock",
    "twas": "'twas",
    "yall'd've": "y'all'd've",
    "somebody'd": "somebodyd",
    "Im": "im",  # the official table's key "Im" never meets a lower-cased word
    "1,000": "1000",
    "1,000-2,000!": "10002000",
    "1.5": "1.5",
    "yes.": "yes",
    "U.S.": "us",
    "red, white": "red white",
    "red,white": "red white",
    "t-shirt": "t shirt",
    "t- shirt-x": "t shirtx",
    "black/white": "black white",
    "it's": "it's",
    "half: 12:30": "half: 12:30",  # the colon is no mark in the official list
    "what?!": "what",
    "": "",
    " . ": "",
    "." * 40: "." * 8,  # only 32 periods vanish
    "Ünïcode 🐕": "ünïcode 🐕",
}


@pytest.mark.parametrize(("text", "expected"), GOLDEN.items())
def test_normalisation(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def _literal_rule(answer: str, references: list[str]) -> float:
    """The rule as its authors state it: average over all ten sets of nine of min(1, matches / 3)."""
    if len(set(references)) > 1:
        answer, references = normalize_answer(answer), [normalize_answer(reference) for reference in references]
    accuracies = []
    for left_out in range(len(references)):
        others = references[:left_out] + references[left_out + 1 :]
        accuracies.append(min(1, others.count(answer) / 3))
    return sum(accuracies) / len(accuracies)


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (8, 1), (10, 1)])
def test_ten_answers(matches: int, accuracy: float) -> None:
    references = ["yes"] * matches + [f"other {number}" for number in range(10 - matches)]
    assert vqa_accuracy("yes", references) == pytest.approx(accuracy, abs=1e-12)


def test_equals_the_literal_rule() -> None:
    generator = random.Random(0)
    words = ["Yes", "yes", "no.", "two", "2", "a dog", "dog", "don't", "dont", "1,000", "1000"]
    for _ in range(500):
        references = generator.choices(words[: generator.randint(1, len(words))], k=10)
        answer = generator.choice(words)
        assert vqa_accuracy(answer, references) == pytest.approx(_literal_rule(answer, references), abs=1e-12)


def test_marks_by_a_second_derivation() -> None:
    """Per mark: with a digit-comma-digit or a space beside it anywhere, drop it; otherwise a space. Then periods."""
    generator = random.Random(1)
    for _ in range(2000):
        text = "".join(generator.choices("ab1, .-/?!'\"(x", k=generator.randint(0, 12)))
        spaced = {mark for mark in text if f" {mark}" in text or f"{mark} " in text}
        drop_all = re.search("[0-9],[0-9]", text) is not None
        plain = "".join(
            character if character not in ';/[]"{}()=+\\_-><@`,?!' else "" if drop_all or character in spaced else " "
            for character in text
        )
        plain = "".join(c for i, c in enumerate(plain) if c != "." or plain[i + 1 : i + 2].isdigit())
        expected = " ".join(word for word in plain.lower().split() if word != "a")
        assert normalize_answer(text) == expected


def test_unanimous_references_are_compared_literally() -> None:
    assert vqa_accuracy("Yes.", ["yes"] * 10) == 0
    assert vqa_accuracy(" yes\n", ["yes"] * 10) == 1
    assert vqa_accuracy("Yes.", ["yes"] * 10, "lavis") == vqa_accuracy("Yes.", ["yes"] * 10, "evalai") == 1
    assert vqa_accuracy("Yes.", ["yes"] * 9 + ["no"]) == 1


def test_statistics_by_answer_type() -> None:
    references = [["yes"] * 9 + ["no"], ["2"] * 2 + ["3"] * 8, ["red"] * 10]
    array = vqa_statistics(["yes", "two", "blue"], references, ["yes/no", "number", "other"])["vqa"]
    assert array.shape == (3, 10)
    assert METRICS["vqa_accuracy"].value(array) == pytest.approx(1.6 / 3)
    assert METRICS["vqa_accuracy_yes_no"].value(array) == 1
    assert METRICS["vqa_accuracy_number"].value(array) == pytest.approx(0.6)
    assert METRICS["vqa_accuracy_other"].value(array) == 0
    assert np.isnan(METRICS["vqa_accuracy_other"].value(array[:2]))


def test_bad_input_says_what_and_where() -> None:
    with pytest.raises(ValueError, match=r"references\[0\]"):
        vqa_statistics(["yes"], [[]], ["other"])
    with pytest.raises(ValueError, match="2 answers, 1 references"):
        vqa_statistics(["yes", "no"], [["yes"]], ["other"])


def test_a_single_answer_is_matched_exactly_after_normalisation() -> None:
    """Leaving one out of one leaves nothing to be right about."""
    assert vqa_accuracy("Two dogs.", ["two dogs"]) == vqa_accuracy("the 2 dogs", ["two dogs"]) == 1
    assert vqa_accuracy("two cats", ["two dogs"]) == vqa_accuracy("", ["two dogs"]) == 0
    assert vqa_accuracy("yes", ["yes"] * 2) == pytest.approx(
        1 / 3
    )  # from two on the official rule, whatever it can reach


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [([10, 10], "leave_one_out"), ([1, 1], "exact_match"), ([2, 3], "leave_one_out"),
     ([1, 10, 10], "exact_match:1,leave_one_out:2")],
)  # fmt: skip
def test_the_rule_has_a_name(numbers: list[int], rule: str) -> None:
    assert rule_of([["a"] * n for n in numbers]) == rule


def test_types_that_are_not_listed_are_a_group_and_no_type_is_none() -> None:
    kinds = ["yes/no", "unanswerable", "color", None]
    array = vqa_statistics(["a", "a", "b", "a"], [["a"] * 10] * 4, kinds)["vqa"]
    values = {name: METRICS[name].value(array) for name in METRICS if name.startswith("vqa_")}
    assert values["vqa_accuracy"] == 0.75
    assert (values["vqa_accuracy_yes_no"], values["vqa_accuracy_unlisted"]) == (1, 0.5)
    assert np.isnan([values["vqa_accuracy_number"], values["vqa_accuracy_other"]]).all()
