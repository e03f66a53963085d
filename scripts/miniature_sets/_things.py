"""What is on a picture and what is not, in words."""

from __future__ import annotations

import random

from blip2sweep.tasks.scenes_text import COLORS, SHAPES, with_article
from scripts.miniature_sets._pictures import Picture


def there(picture: Picture) -> list[str]:
    """The things of a picture, each once: `a red circle`."""
    return list(dict.fromkeys(with_article(f"{thing.color} {thing.shape}") for thing in picture.things))


def absent(picture: Picture, n: int, rng: random.Random) -> list[str]:
    """n things that are not on a picture."""
    every = [with_article(f"{color} {shape}") for color in COLORS for shape in SHAPES]
    return rng.sample([words for words in every if words not in there(picture)], n)
