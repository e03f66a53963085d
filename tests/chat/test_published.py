"""Messages and parsers against what the published code sends and reads.

published.json: made by running the functions of github.com/EricLangezaal/Blip2-GPT3-Fusion, src/extensions/gpt_utils.py
(commit 0b31d97), with a stand-in for the openai module: the requests that they send, and of each of 160 replies what
`context_gpt` (own answer OWN), `summarized_gpt`, `get_single_answer(noun_gpt)` and `gpt_generate_questions` (null where it
fails) return. Both sides agreed on 20,000 odd replies, but for those at which the published code fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.chat import messages, parse
from blip2sweep.chat.recipe import STEPS
from blip2sweep.metrics.in_context import PARSE

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "published.json").read_text())
QUESTION = 'what is the man\'s "sport" called?'
WAVE = "a photo of a man on a wave"

SENT = {
    "caption": ("context", messages.context([WAVE], QUESTION, 3)),
    "noun": ("noun", messages.noun(QUESTION)),
    "noun context": ("context", messages.context([WAVE, "the man can be described as wet"], QUESTION, 3)),
    "summary": ("summary", messages.summary(["Who is it?", "Where?"], ["a man", "sea"], QUESTION, "surf")),
    "questions": ("questions", messages.questions(QUESTION)),
}


@pytest.mark.parametrize("name", SENT)
def test_messages_and_sampling_are_the_published_ones(name: str) -> None:
    step, said = SENT[name]
    golden = GOLDEN["messages"][name]
    assert said == golden["messages"]
    assert STEPS[step] == (golden["temperature"], golden["max_tokens"])


def test_without_shots_the_worked_examples_alone_are_left_out() -> None:
    with_examples, without = (messages.context([WAVE], QUESTION, shots) for shots in (3, 0))
    assert without == [with_examples[0], with_examples[-1]]
    assert len(with_examples) == 8


@pytest.mark.parametrize(("reply", "answer", "summary", "noun", "listed"), GOLDEN["replies"])
def test_replies_are_read_as_the_published_code_reads_them(
    reply: str, answer: str, summary: str, noun: str, listed: list[str] | None
) -> None:
    assert parse.answer(reply, "OWN", "caption", "published") == answer
    assert parse.answer(reply, "OWN", "noun", "published") == answer
    assert parse.answer(reply, "OWN", "questions", "published") == summary
    assert parse.noun(reply) == noun
    if listed is not None:
        assert parse.sub_questions(reply) == listed[:3]


QUIRKS = {
    "15 feet": ("feet", "15 feet"),
    "Café": ("caf", "café"),
    "a (small) dog": ("a ", "a dog"),
    "Certainly": ("OWN", "certainly"),
    "42": ("42", "42"),
    "red or green": ("red", "red"),
    "I'm sorry, I can't tell.": ("OWN", "OWN"),
    "The answer is blue.": ("OWN", "blue"),
    "New York - City": ("new york", "new york"),
    "'surfing'": ("surfing", "surfing"),
    "rock 'n' roll": ("rock 'n' roll", "rock 'n' roll"),
    "question mark?": ("OWN", "OWN"),
    "": ("", "OWN"),
    "\n\nfrisbee\nbecause": ("frisbee", "frisbee"),
    "[unknown]": ("OWN", "OWN"),
}


@pytest.mark.parametrize("reply", QUIRKS)
def test_the_sane_rule_keeps_what_the_published_one_loses(reply: str) -> None:
    found = tuple(parse.answer(reply, "OWN", "caption", rule) for rule in ("published", "sane"))
    assert found == QUIRKS[reply]


def test_there_are_36_words_of_a_refusal_and_two_rules() -> None:
    assert len(parse.NO_ANSWER) == len({*parse.NO_ANSWER}) == 36
    assert PARSE["parse"] == parse.RULES


def test_lists_of_questions_lose_their_numbers_and_have_at_most_three() -> None:
    reply = "1. What is it?\n\n2) Where is it?\n- Who is there?\n4. Why?"
    assert parse.sub_questions(reply) == ["What is it?", "Where is it?", "Who is there?"]
    assert parse.sub_questions("…") == []
