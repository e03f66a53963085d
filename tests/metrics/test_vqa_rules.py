"""Each rule of VQA accuracy against what its own code returned, and against a second, plain statement of it.

vqa_rules.json: run once on odd answer sets with salesforce-lavis 1.0.2 (lavis), lmms-eval 0.7.3's EvalAIAnswerProcessor in
the accuracy of facebookresearch/mmf (evalai), and evaluate() of GT-Vision-Lab/VQA a013f00 (official).
"""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path

import pytest

from blip2sweep.metrics.vqa import RULES, vqa_accuracy, vqa_statistics

FROZEN = json.loads((Path(__file__).parent / "vqa_rules.json").read_text())


@pytest.mark.parametrize("rule", RULES)
def test_equals_the_values_of_its_own_code(rule: str) -> None:
    found = [vqa_accuracy(case["answer"], case["references"], rule) for case in FROZEN]
    assert found == pytest.approx([case[rule] for case in FROZEN], abs=1e-11)


def test_the_frozen_cases_tell_the_rules_apart() -> None:
    assert {len({case[rule] for rule in RULES}) for case in FROZEN} == {1, 2, 3}


# ---- a second statement of each rule

MARKS = set(';/[]"{}()=+\\_-><@`,?!')
NUMBERS = "none zero one two three four five six seven eight nine ten".split()
APOSTROPHES = {"dont": "don't", "whats": "what's", "couldnt've": "couldn't've", "oclock": "o'clock"}


@cache
def plain_marks(text: str) -> str:
    """Marks one by one, each judged by the text as it came; then periods, the first 32 of those before no digit."""
    gone = {m for m in MARKS if f" {m}" in text or f"{m} " in text}
    gone = MARKS if any(re.fullmatch(r"\d,\d", text[i : i + 3]) for i in range(len(text))) else gone
    spaced = "".join("" if c in gone else " " if c in MARKS else c for c in text)
    kept, left = "", 32
    for i, c in enumerate(spaced):
        falls = c == "." and not spaced[i + 1 : i + 2].isdecimal() and left > 0
        kept, left = (kept, left - 1) if falls else (kept + c, left)
    return kept


@cache
def plain_words(text: str) -> str:
    words = []
    for word in text.lower().split():
        word = str(max(NUMBERS.index(word) - 1, 0)) if word in NUMBERS else word
        if word not in ("a", "an", "the"):
            words.append(APOSTROPHES.get(word, word))
    return " ".join(words)


def plain_line(text: str) -> str:
    return re.sub("[\n\t]", " ", text).strip()


@cache
def plain_evalai(text: str) -> str:
    text = re.sub("[,?]", "", text.lower())
    return plain_words(plain_marks(plain_line("".join(f" {t}" if t == "'s" else t for t in re.split("('s)", text)))))


def plainly(answer: str, references: list[str], rule: str) -> float:
    if rule == "evalai":
        answer, references = plain_evalai(answer), [plain_evalai(r) for r in references]
    elif rule == "lavis":
        answer = plain_words(plain_marks(plain_line(answer)))
        references = [plain_marks(r) for r in references] if len({*references}) > 1 else references
    else:
        answer, references = plain_line(answer), [plain_line(r) for r in references]
        if len({*references}) > 1:
            answer, *references = (plain_words(plain_marks(t)) for t in (answer, *references))
    nines = [references[:i] + references[i + 1 :] for i in range(len(references))]
    return sum(min(1.0, nine.count(answer) / 3) for nine in nines) / len(nines)


WORDS = ("Yes|yes|no|No.|two|2|Two|none|0|a dog|the dog|dog|dont|don't|couldnt've|what's|whats|1,000|1000|1,,2|1.5|1. 5|"
         "u.s.|U.S.A.|t-shirt|t - shirt|red,white|red, white|half: 12:30|?!||  |\n|yes\n|\tyes|ten|10|the|Ünï|犬|٣,٤|🐕|"
         "\u200byes|" + "." * 40 + "|a.b.c|x/y|x /y|[no]|'s|s's|s,'s|no?|no ,|1,2,3|5-6|5 - 6|oclock").split("|")  # fmt: skip


def odd_text(generator: random.Random) -> str:
    if generator.random() < 0.6:
        return generator.choice(WORDS)
    return "".join(generator.choices("ab1 2,.-/?!'\"(x\n\tsA:;é三", k=generator.randint(0, 12)))


def odd_case(generator: random.Random) -> tuple[str, list[str]]:
    pool = [odd_text(generator) for _ in range(generator.randint(1, 4))]
    pool += [pool[0].upper(), f"{pool[0]}.", f" {pool[0]}"][: generator.randint(0, 3)]
    references = generator.choices(pool, k=generator.choice((10, 10, 10, 5, 2)))
    near = generator.choice(references).lower() + generator.choice(("", ".", " ", "?", "'s"))
    return generator.choice((generator.choice(references), near, odd_text(generator))), references


def test_each_rule_equals_its_second_statement_on_odd_answers() -> None:
    generator, different = random.Random(3), dict.fromkeys(RULES, 0)
    for _ in range(10_000):
        answer, references = odd_case(generator)
        expected = {rule: plainly(answer, references, rule) for rule in RULES}
        for rule in RULES:
            found = vqa_accuracy(answer, references, rule)
            assert abs(found - expected[rule]) < 1e-12, (answer, rule)
            different[rule] += abs(expected[rule] - expected["official"]) > 1e-9
    assert different["lavis"] > 2000  # the cases tell the rules apart
    assert different["evalai"] > 200


def test_what_only_one_rule_counts_as_right() -> None:
    def by_rule(answer: str, references: list[str]) -> tuple[float, ...]:
        return tuple(vqa_accuracy(answer, references, rule) for rule in RULES)

    assert by_rule("two", ["two"] * 9 + ["2"]) == (1, 0.3, 1)  # LAVIS leaves "two" in the references
    assert by_rule("Yes.", ["yes"] * 10) == (0, 1, 1)  # the official rule compares unanimous answers literally
    assert by_rule("Yes.", ["Yes."] * 10) == (1, 0, 1)
    assert by_rule("tims hat", ["tim's hat"] * 9 + ["hat"]) == (0, 0, 0)
    assert by_rule("1,000-2,000", ["1000 2000"] * 9 + ["no"]) == (0, 0, 1)  # EvalAI deletes commas first


@pytest.mark.parametrize("rule", RULES)
def test_a_single_answer_is_matched_exactly(rule: str) -> None:
    assert vqa_accuracy("The 2 dogs.", ["two dogs"], rule) == 1
    assert vqa_accuracy("two cats", ["two dogs"], rule) == 0


def test_unanswerable_has_a_statistic_of_its_own() -> None:
    found = vqa_statistics(["a", "b"], [["a"] * 10] * 2, ["unanswerable", "other"], "evalai")
    assert found["vqa_unanswerable"].tolist() == [[1, 1], [0, 0]]
    assert found["vqa"][:, 8:].tolist() == [[1, 1], [0, 0]]  # it stays one of the types that are not listed
    assert set(vqa_statistics(["a"], [["a"] * 10], ["other"])) == {"vqa"}
