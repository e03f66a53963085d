"""What is on a picture and what is not, in words."""

from __future__ import annotations

import random

from blip2sweep.tasks.scenes_text import COLORS, SHAPES, with_article
from scripts.miniature_sets._pictures import Picture


def there(picture: Picture) -> list[str]:
    """The things of a picture, each once: `a red circle`."""
    return list(dict.fromkeys(with_article(f"{thing.color} {thing.shape}") for thing in picture.things))


def of_color(picture: Picture, n: int, rng: random.Random) -> tuple[str, list[str], int]:
    """A question for a color, n colors in any order, and the place of the right one. The others are nowhere on the
    picture."""
    thing, present = picture.things[0], {other.color for other in picture.things}
    options = [thing.color, *rng.sample([color for color in COLORS if color not in present], n - 1)]
    rng.shuffle(options)
    return f"What color is the {thing.shape}?", options, options.index(thing.color)


def absent(picture: Picture, n: int, rng: random.Random) -> list[str]:
    """n things that are not on a picture."""
    every = [with_article(f"{color} {shape}") for color in COLORS for shape in SHAPES]
    return rng.sample([words for words in every if words not in there(picture)], n)
