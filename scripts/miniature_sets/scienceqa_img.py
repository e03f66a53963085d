"""ScienceQA: `problems.json`, `pid_splits.json` and `images/SPLIT/ID/image.png`; every third problem has no picture."""

from __future__ import annotations

import random
from pathlib import Path

from scripts.miniature_sets._pictures import Picture, pictures, write_json
from scripts.miniature_sets._things import of_color

COUNTS = {"train": 12, "val": 3, "test": 18}
SUBJECTS = ("natural science", "social science", "language science")
HINTS = ("", "Look at the picture.")


def write(folder: Path) -> None:
    splits = [split for split, count in COUNTS.items() for _ in range(count)]
    problems = dict[str, dict[str, object]]()
    for i, (split, picture) in enumerate(zip(splits, pictures("scienceqa_img", len(splits)), strict=True), 1):
        pictured = i % 3 > 0
        problems[str(i)] = {**_problem(picture, i), "image": "image.png" if pictured else None, "split": split}
        if pictured:
            picture.save(folder / "images" / split / str(i) / "image.png")
    write_json(folder / "problems.json", problems)
    ids = {split: [i for i, own in problems.items() if own["split"] == split] for split in COUNTS}
    write_json(
        folder / "pid_splits.json", {**ids, "trainval": [*ids["train"], *ids["val"]], "minitest": ids["test"][:6]}
    )


def _problem(picture: Picture, i: int) -> dict[str, object]:
    question, choices, answer = of_color(picture, 2 + i % 3, random.Random(i))
    further = {
        "task": "closed choice",
        "topic": "shapes",
        "category": "Shapes",
        "skill": "Name the color",
        "lecture": "",
    }
    return {
        "question": question, "choices": choices, "answer": answer,
        "hint": HINTS[i % 2], "grade": f"grade{1 + i % 12}", "subject": SUBJECTS[i // 3 % 3], **further,
        "solution": f"It is {choices[answer]}.",
    }  # fmt: skip
