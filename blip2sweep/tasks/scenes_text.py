"""The words of the generated scenes: what is on them, and five captions.

A scene is a list of `Thing`s on a 3 x 3 grid. All text has the casing of COCO captions and VQAv2 questions, so that
nothing downstream needs a special case. Only the standard library is used; every function is pure given its `rng`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "big")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white", "grey")
POSITIONS = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
GRID = 3

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
