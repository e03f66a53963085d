"""Generated scenes of coloured shapes, written as COCO captions and VQAv2 with JPEG images.

The data of the embedded tiny model. One scene is 1 to 5 shapes on a 3 x 3 grid in a 48 x 48 image; the same seed
gives the same bytes. `HARD` scenes have overlapping colour pairs (red/orange, cyan/blue, white/grey) and uneven sizes,
so that full precision is not saturated and small losses show. Needs numpy and Pillow, never torch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from blip2sweep.tasks.scenes_questions import ANSWER_TYPES, Question, annotators, question, yes_no_question
from blip2sweep.tasks.scenes_text import COLORS, GRID, POSITIONS, SHAPES, SIZES, Thing, captions, relations

__all__ = [
    "ANSWER_TYPES", "CELL", "COLORS", "EASY", "GRID", "HARD", "IMAGE_SIZE", "POSITIONS", "SHAPES", "SIZES",
    "Difficulty", "Question", "Thing", "annotators", "captions", "question", "relations", "render", "scene",
    "write_split", "yes_no_question",
]  # fmt: skip

CELL = 16  # pixels a grid cell, two ViT patches
IMAGE_SIZE = GRID * CELL
RADIUS = {"small": 4, "big": 7}  # pixels
JPEG_QUALITY = 85

_RGB = {
    "red": (220, 40, 40), "orange": (232, 96, 40), "yellow": (235, 215, 50), "green": (40, 180, 60),
    "cyan": (50, 150, 225), "blue": (50, 80, 230), "purple": (150, 50, 180), "white": (240, 240, 240),
    "grey": (182, 182, 182),
}  # fmt: skip


@dataclass(frozen=True)
class Difficulty:
    """How a scene is painted: mean colours, the spread of a thing's colour (8-bit units), uneven radii or not."""

    rgb: Mapping[str, tuple[int, int, int]]
    color_spread: float
    uneven_radius: bool


EASY = Difficulty(_RGB, color_spread=10, uneven_radius=False)
HARD = Difficulty(
    {**_RGB, "orange": (228, 86, 40), "cyan": (50, 134, 228), "grey": (200, 200, 200)},
    color_spread=16,
    uneven_radius=True,
)


def scene(rng: random.Random) -> list[Thing]:
    """1 to 5 things in different cells, in reading order; half the scenes repeat one shape or colour on purpose."""
    n = rng.choice([1, 2, 2, 3, 3, 4, 4, 5])
    cells = sorted(rng.sample(range(GRID * GRID), n))
    looks = [{"shape": rng.choice(SHAPES), "color": rng.choice(COLORS), "size": rng.choice(SIZES)} for _ in cells]
    if n > 1 and rng.random() < 0.5:
        source, copy = rng.sample(range(n), 2)
        attribute = rng.choice(["shape", "color"])
        looks[copy][attribute] = looks[source][attribute]
    return [
        Thing(cell, **look, jx=rng.randint(-1, 1), jy=rng.randint(-1, 1))
        for cell, look in zip(cells, looks, strict=True)
    ]


def _mask(shape: str, radius: int, x: int, y: int) -> np.ndarray:
    """Boolean (48, 48): the pixels of a shape of `radius` pixels centred at column `x`, row `y`."""
    rows, cols = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]
    dx, dy = np.abs(cols - x), rows - y
    if shape == "circle":
        return dx**2 + dy**2 <= radius**2
    inside = (dx <= radius) & (np.abs(dy) <= radius)
    if shape == "square":
        return inside & (np.maximum(dx, np.abs(dy)) <= 0.85 * radius)
    if shape == "triangle":  # tip up
        return inside & (2 * dx <= dy + radius)
    return inside & (np.minimum(dx, np.abs(dy)) <= radius // 3)


def render(things: list[Thing], nrng: np.random.Generator, difficulty: Difficulty = HARD) -> np.ndarray:
    """The scene as a uint8 RGB image (48, 48, 3) on a noisy dark ground."""
    image = nrng.normal(70, 10, (IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)
    for thing in things:
        radius = RADIUS[thing.size]
        if difficulty.uneven_radius:  # 4..5 against 6..7
            radius += int(nrng.integers(0, 2)) * (1 if thing.size == "small" else -1)
        x, y = (position * CELL + CELL // 2 for position in (thing.col, thing.row))
        mask = _mask(thing.shape, radius, x + thing.jx, y + thing.jy)
        color = np.array(difficulty.rgb[thing.color], np.float32) + nrng.normal(0, difficulty.color_spread, 3)
        image[mask] = color + nrng.normal(0, 6, (int(mask.sum()), 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def _questions(things: list[Thing], rng: random.Random, image_id: int) -> tuple[list[dict], list[dict]]:
    """One question an answer type: VQAv2 question entries and annotation entries."""
    asked, answered = [], []
    for k, wanted in enumerate(ANSWER_TYPES):
        made = question(things, rng, wanted)
        ids = {"image_id": image_id, "question_id": image_id * 1000 + k}
        asked.append({**ids, "question": made.text})
        answered.append(
            {
                "question_type": made.question_type,
                "multiple_choice_answer": made.answer,
                "answers": annotators(made.answer, made.answer_type, rng),
                "answer_type": made.answer_type,
                **ids,
            }
        )
    return asked, answered


def _write_json(folder: Path, name: str, content: dict) -> None:
    (folder / name).write_text(json.dumps(content, separators=(",", ":")) + "\n")


def _write_annotations(root: Path, split: str, images: list, caps: list, asked: list, answered: list) -> None:
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "description": "blip2sweep generated shapes", "url": "", "version": "1.0", "year": 2026,
        "contributor": "blip2sweep", "date_created": "2026-01-01 00:00:00",
    }  # fmt: skip
    licence = {"url": "https://creativecommons.org/publicdomain/zero/1.0/", "id": 1, "name": "CC0 1.0"}
    vqa = {"info": info, "license": licence, "data_type": "mscoco", "data_subtype": split}
    coco = {"info": info, "images": images, "licenses": [licence], "annotations": caps}
    _write_json(folder, f"captions_{split}.json", coco)
    _write_json(
        folder, f"v2_OpenEnded_mscoco_{split}_questions.json", {**vqa, "task_type": "Open-Ended", "questions": asked}
    )
    _write_json(folder, f"v2_mscoco_{split}_annotations.json", {**vqa, "annotations": answered})


def write_split(root: str | Path, split: str, n: int, seed: int, first_id: int = 1, hard_fraction: float = 1.0) -> None:
    """Write `n` scenes under `root` in the official layout of COCO captions and VQAv2.

    `root/<split>/COCO_<split>_%012d.jpg`, and in `root/annotations/` the captions (5 an image), questions (3 an image,
    one an answer type) and answers (10 a question). Image ids run from `first_id`; caption ids are `10 * id + k`,
    question ids `1000 * id + k`. Each scene is `HARD` with probability `hard_fraction`.
    """
    root = Path(root)
    rng, nrng = random.Random(f"{seed}-{split}"), np.random.default_rng([seed, first_id])
    (root / split).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, object]] = []
    caps: list[dict[str, object]] = []
    asked: list[dict[str, object]] = []
    answered: list[dict[str, object]] = []
    for image_id in range(first_id, first_id + n):
        things = scene(rng)
        difficulty = HARD if rng.random() < hard_fraction else EASY
        name = f"COCO_{split}_{image_id:012d}.jpg"
        Image.fromarray(render(things, nrng, difficulty)).save(root / split / name, quality=JPEG_QUALITY, subsampling=0)
        images.append({"license": 1, "file_name": name, "height": IMAGE_SIZE, "width": IMAGE_SIZE, "id": image_id})
        for k, text in enumerate(captions(things, rng)):
            caps.append({"image_id": image_id, "id": image_id * 10 + k, "caption": text})
        for entries, made in zip((asked, answered), _questions(things, rng, image_id), strict=True):
            entries.extend(made)
    _write_annotations(root, split, images, caps, asked, answered)
