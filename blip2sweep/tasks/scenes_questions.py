"""Questions about the generated scenes, each with its answer and ten annotators.

All text has the casing of VQAv2 questions. Every function is pure given its `rng`.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from blip2sweep.tasks.scenes_text import (
    COLORS,
    DIRECTIONS,
    POSITIONS,
    SHAPES,
    SIZES,
    Thing,
    plural,
    relations,
    with_article,
)

ANSWER_TYPES = ("yes/no", "number", "other")
# The colour most easily mistaken for each: used for the wrong halves of yes/no questions.
NEAREST = {
    "red": "orange", "orange": "red", "yellow": "orange", "green": "cyan", "cyan": "blue",
    "blue": "cyan", "purple": "blue", "white": "grey", "grey": "white",
}  # fmt: skip
SYNONYMS = {
    "yes": "yeah", "no": "nope", "big": "large", "grey": "gray", "center": "middle",
    "0": "none", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five",
}  # fmt: skip


class Question(NamedTuple):
    """A question as VQAv2 stores it; `question_type` is one of VQAv2's own prefixes."""

    text: str
    answer: str
    answer_type: str
    question_type: str


def _with_unique(things: list[Thing], attribute: str) -> list[Thing]:
    values = [getattr(thing, attribute) for thing in things]
    return [thing for thing in things if values.count(getattr(thing, attribute)) == 1]


def _yes_no(text: str, truth: bool, question_type: str = "is there a") -> Question:
    return Question(text, "yes" if truth else "no", "yes/no", question_type)


def _shape_there(things: list[Thing], rng: random.Random, want: bool) -> Question:
    shape = rng.choice(things).shape if want else rng.choice(SHAPES)
    return _yes_no(f"Is there a {shape}?", any(thing.shape == shape for thing in things))


def _colored_shape_there(things: list[Thing], rng: random.Random, want: bool) -> Question:
    thing = rng.choice(things)
    color, shape = thing.color, thing.shape
    if not want:  # wrong in the near colour, in the shape, or in a colour borrowed from another thing
        options = [(NEAREST[color], shape), (color, rng.choice(SHAPES)), (rng.choice(things).color, shape)]
        color, shape = rng.choices(options, [0.4, 0.3, 0.3])[0]
    truth = any((other.color, other.shape) == (color, shape) for other in things)
    article = with_article(color).split()[0]  # VQAv2 has a type 'is there a', and none for 'an'
    return _yes_no(f"Is there {article} {color} {shape}?", truth, "is there a" if article == "a" else "is there")


def _sized_shape_there(things: list[Thing], rng: random.Random, want: bool) -> Question:
    thing = rng.choice(things)
    size, shape = thing.size, thing.shape
    if not want:
        size, shape = rng.choice([(SIZES[1 - SIZES.index(size)], shape), (size, rng.choice(SHAPES))])
    truth = any((other.size, other.shape) == (size, shape) for other in things)
    return _yes_no(f"Is there a {size} {shape}?", truth)


def _color_there(things: list[Thing], rng: random.Random, want: bool) -> Question:
    color = rng.choice(things).color
    if not want:
        color = NEAREST[color] if rng.random() < 0.6 else rng.choice(COLORS)
    return _yes_no(f"Is anything {color}?", any(thing.color == color for thing in things), "is")


def _related(things: list[Thing], rng: random.Random, want: bool) -> Question | None:
    unique = _with_unique(things, "shape")
    if len(unique) < 2:
        return None
    a, b = rng.sample(unique, 2)
    direction = rng.choice(DIRECTIONS)
    return _yes_no(f"Is the {a.shape} {direction} the {b.shape}?", direction in relations(a, b), "is the")


YES_NO_KINDS = (_shape_there, _colored_shape_there, _sized_shape_there, _color_there, _related)
YES_NO_WEIGHTS = (0.2, 0.3, 0.15, 0.15, 0.2)


def yes_no_question(things: list[Thing], rng: random.Random, relational: bool = False) -> Question:
    """A yes/no question whose answer is 'yes' half the time; `relational` asks for 'Is the X left of the Y?' where
    the scene has two unmistakable shapes."""
    want = rng.random() < 0.5
    weights = (0, 0, 0, 0, 1) if relational and len(_with_unique(things, "shape")) > 1 else YES_NO_WEIGHTS
    while True:
        question = rng.choices(YES_NO_KINDS, weights)[0](things, rng, want)
        if question and (question.answer == "yes") == want:
            return question


def _count(text: str, n: int) -> Question:
    return Question(text, str(n), "number", "how many")


def number_question(things: list[Thing], rng: random.Random) -> Question:
    """How many things there are: in all, of a shape, of a colour or of a size (one in five asks for any value)."""
    kind = rng.choices(("all", "shape", "color", "size"), (0.3, 0.25, 0.25, 0.2))[0]
    if kind == "all":
        text = rng.choice(["How many objects are there?", "How many shapes are in the picture?"])
        return _count(text, len(things))
    present = rng.random() < 0.8 and kind != "size"
    values = {"shape": SHAPES, "color": COLORS, "size": SIZES}[kind]
    value = getattr(rng.choice(things), kind) if present else rng.choice(values)
    words = plural(value) if kind == "shape" else f"{value} objects"
    return _count(f"How many {words} are there?", sum(getattr(thing, kind) == value for thing in things))


def _about_shape(things: list[Thing], rng: random.Random) -> Question | None:
    candidates = _with_unique(things, "shape")
    if not candidates:
        return None
    thing = rng.choice(candidates)
    options = [
        Question(f"What color is the {thing.shape}?", thing.color, "other", "what color is the"),
        Question(f"What size is the {thing.shape}?", thing.size, "other", "what"),
        Question(f"Where is the {thing.shape}?", POSITIONS[thing.cell], "other", "where is the"),
    ]
    return rng.choices(options, [0.5, 0.2, 0.3])[0]


def _about_color(things: list[Thing], rng: random.Random) -> Question | None:
    candidates = _with_unique(things, "color")
    if not candidates:
        return None
    thing = rng.choice(candidates)
    if rng.random() < 0.6:
        return Question(f"What shape is the {thing.color} object?", thing.shape, "other", "what")
    return Question(f"Where is the {thing.color} object?", POSITIONS[thing.cell], "other", "where is the")


def _about_edge(things: list[Thing], rng: random.Random) -> Question | None:
    axis, words = rng.choice([("row", "at the top"), ("col", "on the left")])
    nearest = min(getattr(thing, axis) for thing in things)
    found = [thing for thing in things if getattr(thing, axis) == nearest]
    if len(found) != 1:
        return None
    return Question(f"What is {words}?", f"{found[0].color} {found[0].shape}", "other", "what is")


def other_question(things: list[Thing], rng: random.Random) -> Question:
    """A question about one thing that its words single out; a number question where the scene offers none."""
    for _ in range(20):
        kind = rng.choices((_about_shape, _about_color, _about_edge), (0.5, 0.35, 0.15))[0]
        question = kind(things, rng)
        if question:
            return question
    return number_question(things, rng)


def question(things: list[Thing], rng: random.Random, answer_type: str) -> Question:
    """A question of the wanted answer type ('yes/no', 'number', 'other'); its own `answer_type` is the true one."""
    makers = {"yes/no": yes_no_question, "number": number_question, "other": other_question}
    return makers[answer_type](things, rng)


def annotators(answer: str, answer_type: str, rng: random.Random) -> list[dict[str, object]]:
    """Ten answers as VQAv2 stores them: 90 % agree, 6 % use a synonym, 4 % guess."""
    guesses = {"yes/no": ("yes", "no"), "number": tuple("012345"), "other": COLORS + SHAPES}[answer_type]
    answers = []
    for answer_id in range(1, 11):
        given = rng.choices([answer, SYNONYMS.get(answer, answer), rng.choice(guesses)], [0.9, 0.06, 0.04])[0]
        confidence = rng.choices(["yes", "maybe", "no"], [0.85, 0.1, 0.05])[0]
        answers.append({"answer": given, "answer_confidence": confidence, "answer_id": answer_id})
    return answers
