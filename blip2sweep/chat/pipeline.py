"""The three variants of the in-context pipeline, each a few lines from questions to replies.

What the vision-language model says (`rounds`) and what the chat model replies (`ask`) is stored by content. So a cell that
had to stop for want of either begins at its first line again, and gets to where it was without computing or asking
anything. What does not depend on each other is tried together, so that one stop names all that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from blip2sweep.chat import messages
from blip2sweep.chat.asking import Lacking
from blip2sweep.chat.parse import noun, sub_questions
from blip2sweep.chat.replies import Reply, Request
from blip2sweep.wire.chat import ChatRecipe, Message

A = TypeVar("A")
B = TypeVar("B")


class Rounds(Protocol):
    """What the vision-language model says of the pictures that can be read. All questions are about such."""

    def answers(self) -> list[str]:
        """Its own answer to each question."""

    def captions(self) -> list[str]:
        """A caption of each question's picture."""

    def said(self, name: str, texts: Sequence[Sequence[str]]) -> list[list[str]]:
        """What it says of each question's picture when it is asked that question's own texts. name: a key of ROUNDS."""


Ask = Callable[[Sequence[Request]], list[Reply]]


class Told(NamedTuple):
    """The outcome of the pipeline, a value for each question. own: the vision-language model's answer. context: what the
    chat model was told of the picture. replies: what it answered, as it is."""

    own: list[str]
    context: list[list[str]]
    replies: list[Reply]


def run(
    recipe: ChatRecipe, questions: Sequence[str], rounds: Rounds, ask: Ask, lemmas: Callable[[str], str] | None = None
) -> Told:
    """The replies to all questions. lemmas: what makes of an own answer that which messages tell; None leaves it.

    Raises Lacking where it cannot go on here.
    """
    if recipe["variant"] == "questions":
        return _questions(recipe, questions, rounds, ask, lemmas or str)
    return (_caption if recipe["variant"] == "caption" else _noun)(recipe, questions, rounds, ask)


def _caption(recipe: ChatRecipe, questions: Sequence[str], rounds: Rounds, ask: Ask) -> Told:
    own, captions = _both(rounds.answers, rounds.captions)
    context = [[f"{messages.CAPTION_PROMPT} {caption}"] for caption in captions]
    return Told(own, context, ask(_about(recipe, context, questions)))


def _noun(recipe: ChatRecipe, questions: Sequence[str], rounds: Rounds, ask: Ask) -> Told:
    def picked() -> list[str]:
        return [noun(reply.text) for reply in ask([_request(recipe, "noun", messages.noun(q)) for q in questions])]

    (own, captions), nouns = _both(lambda: _both(rounds.answers, rounds.captions), picked)
    described = rounds.said("described", [[one] for one in nouns])
    context = [
        [f"{messages.CAPTION_PROMPT} {caption}", f"{messages.NOUN_PROMPT.replace('{}', one)} {more[0]}"]
        for caption, one, more in zip(captions, nouns, described, strict=True)
    ]
    return Told(own, context, ask(_about(recipe, context, questions)))


def _questions(
    recipe: ChatRecipe, questions: Sequence[str], rounds: Rounds, ask: Ask, lemmas: Callable[[str], str]
) -> Told:
    def listed() -> list[list[str]]:
        replies = ask([_request(recipe, "questions", messages.questions(q)) for q in questions])
        return [sub_questions(reply.text) for reply in replies]

    own, asked = _both(rounds.answers, listed)
    answers, told = rounds.said("asked", asked), map(lemmas, own)
    requests = [
        _request(recipe, "summary", messages.summary(*one)) for one in zip(asked, answers, questions, told, strict=True)
    ]
    context = [[f"{q} {a}" for q, a in zip(qs, found, strict=True)] for qs, found in zip(asked, answers, strict=True)]
    return Told(own, context, ask(requests))


def _about(recipe: ChatRecipe, context: Sequence[Sequence[str]], questions: Sequence[str]) -> list[Request]:
    shots = recipe["shots"] or 0
    both = zip(context, questions, strict=True)
    return [_request(recipe, "context", messages.context(told, question, shots)) for told, question in both]


def _request(recipe: ChatRecipe, step: str, said: list[Message]) -> Request:
    return Request(recipe["model"], said, recipe["steps"][step])


def _both(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """The values of both. Raises Lacking with all that either lacks, after both were tried."""
    found: list[A] = []
    lacking: Lacking | None = None
    try:
        found = [first()]
    except Lacking as why:
        lacking = why
    try:
        other = second()
    except Lacking as why:
        lacking = why if lacking is None else Lacking(lacking.requests + why.requests, (*lacking.rounds, *why.rounds))
    if lacking is not None:
        raise lacking
    return found[0], other
