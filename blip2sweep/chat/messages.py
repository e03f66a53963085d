"""The messages of the published in-context pipeline, letter for letter, typing errors and odd spaces included.

Source: github.com/EricLangezaal/Blip2-GPT3-Fusion, src/extensions/gpt_utils.py, commit 0b31d97. tests/chat has what that
code sends.
"""

from __future__ import annotations

from collections.abc import Sequence

from blip2sweep.wire.chat import Message

VERSION = 1  # of all texts below; part of a cell's key
SHOTS = (3, 0)  # worked examples before the question

CAPTION_PROMPT = "a photo of"
NOUN_PROMPT = "the {} can be described as"

CONTEXT_SYSTEM = "Give a single answer to the question in one or two words by using the context"
CONTEXT_EXAMPLES = (
    (
        "Context: A photo of a zebra. Question: What is the name of the famous dreamworks animated film where this animal "
        "was voiced by chris rock?.",
        "madagascar",
    ),
    (
        "Context: a photo of a man standing next to a bike in front of a building with a golden gate. Question: What is "
        "the name of the bridge in the background?.",
        "golden gate",
    ),
    (
        "Context: 'a photo of a group of boys playing soccer on a field. Question: What are the most popular countries "
        "for this sport?.",
        "brazil",
    ),
)
NOUN_SYSTEM = "Pick the most important noun that needs to be described to answer the question"
NOUN_EXAMPLES = (
    ("Is this a room for a boy or girl?", "room"),
    ("In what year was this desert first introduced?", "desert"),
    ("what could this gentleman be carrying in that red bag?", "bag"),
    ("who leaves a toilet like this?", "toilet"),
)
QUESTIONS_SYSTEM = "You are a helpful assistant that generates open-ended questions that extract visual information"
SUMMARY_SYSTEM = (
    "You are truthful assistant that answers the main question in one or two words. You can utilise the information from "
    "multiple partial questions that have been answered."
)


def context(told: Sequence[str], question: str, shots: int) -> list[Message]:
    """Ask for an answer from what is told of the picture. shots: 3 worked examples, or 0."""
    user = f"Context: {'. '.join(told)}. Question: {question}"
    return [_said("system", CONTEXT_SYSTEM), *_examples(CONTEXT_EXAMPLES[:shots]), _said("user", user)]


def noun(question: str) -> list[Message]:
    """Ask for the noun of a question that has to be described."""
    return [_said("system", NOUN_SYSTEM), *_examples(NOUN_EXAMPLES), _said("user", question)]


def questions(question: str) -> list[Message]:
    """Ask for three questions about the picture. The runs of spaces are the published ones."""
    user = (
        f"Someone asked you '{question}'. List the three best distinct open-ended questions you would like to be answered "
        f"         by a visual information retrieval system, such that you can best answer '{question}'. Only list "
        "open-ended questions that can be answered             without modifying the image. I want only the distinct "
        "questions, don't say anything else."
    )
    return [_said("system", QUESTIONS_SYSTEM), _said("user", user)]


def summary(asked: Sequence[str], answers: Sequence[str], question: str, own: str) -> list[Message]:
    """Ask for an answer from questions about the picture and their answers. own: the answer to the question itself."""
    first = (
        f"The main question is '{question}'. The original answer from the visual question answering model was '{own}'"
    )
    last = (
        f"Please answer the main question in one or two words: '{question}'. You can either repeat the original answer "
        f"'{own}', or improve it if necessary, still using only one or two words."
    )
    pairs = [(f"We asked: {a}", f"The answer: {b}") for a, b in zip(asked, answers, strict=True)]
    users = [first, *(text for pair in pairs for text in pair), last]
    return [_said("system", SUMMARY_SYSTEM), *(_said("user", text) for text in users)]


def _examples(pairs: Sequence[tuple[str, str]]) -> list[Message]:
    return [_said(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
