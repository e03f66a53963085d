"""POPE: `annotations/coco_pope_{random,popular,adversarial}.json`, one question a line, and pictures in `val2014/`.

Each file asks six questions of each picture, half of them about what is there, and numbers them from 1 on.
"""

from __future__ import annotations

import random
from pathlib import Path

from scripts.miniature_sets._pictures import Picture, pictures, write_json_lines
from scripts.miniature_sets._things import absent, there

FILES = ("random", "popular", "adversarial")
HALF = 3


def write(folder: Path) -> None:
    found = {f"COCO_val2014_{1000 + 7 * i:012d}.jpg": picture for i, picture in enumerate(pictures("pope", 4))}
    for name, picture in found.items():
        picture.save(folder / "val2014" / name)
    for file in FILES:
        rng = random.Random(file)
        asked = [(name, *one) for name, picture in found.items() for one in _asked(picture, rng)]
        rows = [
            {"question_id": i, "image": name, "text": f"Is there {thing} in the image?", "label": label}
            for i, (name, thing, label) in enumerate(asked, 1)
        ]
        write_json_lines(folder / "annotations" / f"coco_pope_{file}.json", rows)


def _asked(picture: Picture, rng: random.Random) -> list[tuple[str, str]]:
    """Three things that are there, some of them twice where there are fewer, and three that are not."""
    known = (there(picture) * HALF)[:HALF]
    return [*((thing, "yes") for thing in known), *((thing, "no") for thing in absent(picture, HALF, rng))]
