"""The words of the generated scenes: five captions, a question with its answer, ten annotators.

A scene is a list of `Thing`s on a 3 x 3 grid. All text has the casing of COCO captions and VQAv2 questions, so that
nothing downstream needs a special case. Only the standard library is used; every function is pure given its `rng`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "big")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white", "grey")
POSITIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
GRID = 3
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
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five")
DIRECTIONS = ("left of", "right of", "above", "below")

# The caption style most annotators choose, by number of things. It makes a model that decodes greedily vary its style.
FAVOURITE_STYLE = {1: 1, 2: 1, 3: 0, 4: 2, 5: 4}


@dataclass(frozen=True)
class Thing:
    """One coloured shape in grid cell 0..8 (reading order), drawn `jx`, `jy` pixels (-1..1) off the cell's centre."""

    cell: int
    shape: str
    color: str
    size: str
    jx: int = 0
    jy: int = 0

    @property
    def row(self) -> int:
        return self.cell // GRID

    @property
    def col(self) -> int:
        return self.cell % GRID


class Question(NamedTuple):
    """A question as VQAv2 stores it; `question_type` is one of VQAv2's own prefixes."""

    text: str
    answer: str
    answer_type: str
    question_type: str


def relations(a: Thing, b: Thing) -> list[str]:
    """Directions in which `a` lies from `b`, the longer distance first; one or two of `DIRECTIONS`."""
    dx, dy = a.col - b.col, a.row - b.row
    found = [(abs(dx), "left of" if dx < 0 else "right of")] if dx else []
    found += [(abs(dy), "above" if dy < 0 else "below")] if dy else []
    return [name for _, name in sorted(found, key=lambda pair: -pair[0])]


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def enumerate_words(words: list[str]) -> str:
    """'x', 'x and y', 'x, y and z'."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _named(thing: Thing, size: bool = False) -> str:
    return with_article(f"{thing.size} {thing.color} {thing.shape}" if size else f"{thing.color} {thing.shape}")


# --- captions ---------------------------------------------------------------------------------------------------------


def _list_caption(things: list[Thing], rng: random.Random) -> str:
    return enumerate_words([_named(thing, size=True) for thing in things[:3]])


def _place_caption(things: list[Thing], rng: random.Random) -> str:
    first = things[0]
    if len(things) == 1:
        return f"{_named(first)} in the {POSITIONS[first.cell]}"
    return f"{_named(first)} {relations(first, things[1])[0]} {_named(things[1])}"


def _count_caption(things: list[Thing], rng: random.Random) -> str:
    counts = [(shape, sum(thing.shape == shape for thing in things)) for shape in SHAPES]
    words = [f"{NUMBER_WORDS[n]} {plural(shape) if n > 1 else shape}" for shape, n in counts if n]
    return f"there {'is' if words[0].startswith('one ') else 'are'} {enumerate_words(words)}"


def _salient_caption(things: list[Thing], rng: random.Random) -> str:
    others = len(things) - 1
    rest = f"and {NUMBER_WORDS[others]} more shape{'s' * (others > 1)}" if others else "alone"
    return f"{_named(things[0], size=True)} {rest}"


def _picture_caption(things: list[Thing], rng: random.Random) -> str:
    start = rng.choices(["a picture of", "an image with"], [0.75, 0.25])[0]
    rest = f" and {NUMBER_WORDS[len(things) - 2]} more" if len(things) > 2 else ""
    return f"{start} {enumerate_words([_named(thing) for thing in things[:2]])}{rest}"


CAPTION_STYLES = (_list_caption, _place_caption, _count_caption, _salient_caption, _picture_caption)


def _attention_order(things: list[Thing], rng: random.Random) -> list[Thing]:
    """Big before small, then reading order; one annotator in seven follows no order."""
    if rng.random() < 0.15:
        return rng.sample(things, len(things))
    return sorted(things, key=lambda thing: (thing.size != "big", thing.cell))


def captions(things: list[Thing], rng: random.Random) -> list[str]:
    """Five captions in COCO's casing, one a style; the scene's favourite style tends to come first."""
    styles = rng.sample(range(5), 5)
    if rng.random() < 0.6:
        favourite = FAVOURITE_STYLE[len(things)]
        styles = [favourite] + [style for style in styles if style != favourite]
    texts = [CAPTION_STYLES[style](_attention_order(things, rng), rng) for style in styles]
    return [text.capitalize() + "." for text in texts]


# --- questions --------------------------------------------------------------------------------------------------------


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
