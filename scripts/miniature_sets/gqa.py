"""GQA: `testdev_balanced_questions.json`, `val_all_questions.json` with `val_choices.json`, `train_balanced_questions.json`.

Most questions of `val_all` are balanced, and some entail others of the file, so that consistency can be measured. As
GQA has it, balanced files lack the others, and there are no choices for testdev.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from blip2sweep.tasks.scenes import COLORS, SHAPES, Thing
from scripts.miniature_sets._pictures import pictures, write_json

Row = dict[str, object]
SPLITS = (("testdev_balanced", 16, False), ("val_all", 6, True), ("train_balanced", 16, False))
UNBALANCED = (1, 2)  # of the questions about one picture


class Asked(NamedTuple):
    """group: the global group, whose answers have one distribution; entails: how many of the next questions follow from it."""

    text: str
    answer: str
    structural: str
    semantic: str
    detailed: str
    steps: Sequence[str]
    group: str | None = None
    entails: int = 0


def write(folder: Path) -> None:
    found, first = pictures("gqa", sum(n for _, n, _ in SPLITS)), 0
    for split, n, everything in SPLITS:
        asked: dict[str, Row] = {}
        for i, picture in enumerate(found[first : first + n], first):
            image = f"n{161313 + 97 * i}"
            picture.save(folder / "images" / f"{image}.jpg")
            asked |= _rows(image, 201640614 + 100 * i, list(_questions(picture.things)), everything)
        first += n
        write_json(folder / f"{split}_questions.json", asked)
        if everything:
            write_json(folder / "val_choices.json", {own: _choices(row) for own, row in asked.items()})


def _questions(things: Sequence[Thing]) -> Iterator[Asked]:
    thing = next((t for t in things if [o.shape for o in things].count(t.shape) == 1), None)
    if thing is not None:
        yield from _of_one(thing.shape, thing.color)
    shapes = sorted({t.shape for t in things})
    absent = next((s for s in SHAPES if s not in shapes), None)
    if absent is not None:
        steps = (f"select: {shapes[0]} (0)", "exist: ?", f"select: {absent} (-)", "exist: ?", "and: ")
        yield Asked(f"Are there both a {shapes[0]} and a {absent}?", "no", "logical", "obj", "existAnd", steps)
    if len(things) > 1:
        same, program = things[0].color == things[1].color, ("select: shape (0,1)", "same color: ?")
        answer = "yes" if same else "no"
        yield Asked("Do the first two shapes have the same color?", answer, "compare", "attr", "twoSame", program)


def _of_one(shape: str, color: str) -> Iterator[Asked]:
    """Questions on the one thing of its shape."""
    at, other = f"select: {shape} (0)", COLORS[(COLORS.index(color) + 1) % len(COLORS)]
    which, either = (at, "query: color"), (at, f"choose color: {color}|{other}")
    yield Asked(f"What color is the {shape}?", color, "query", "attr", "directWhich", which, "color", 2)
    yield Asked(f"Is the {shape} {color}?", "yes", "verify", "attr", "verifyAttr", (at, f"verify color: {color}"))
    yield Asked(f"Is there a {shape}?", "yes", "verify", "obj", "exist", (at, "exist: ?"))
    yield Asked(f"Is the {shape} {color} or {other}?", color, "choose", "attr", "chooseAttr", either)


def _rows(image: str, first: int, asked: Sequence[Asked], everything: bool) -> dict[str, Row]:
    """everything: the questions that are not balanced too."""
    ids = [str(first + k) for k in range(len(asked))]
    return {
        own: _row(image, question, ids[k : k + 1 + question.entails], balanced=k not in UNBALANCED)
        for k, (own, question) in enumerate(zip(ids, asked, strict=True))
        if everything or k not in UNBALANCED
    }


def _row(image: str, asked: Asked, entailed: list[str], balanced: bool) -> Row:
    program = [dict(zip(("operation", "argument"), step.split(": "), strict=True)) for step in asked.steps]
    return {
        "semantic": [{**step, "dependencies": [i - 1] if i else []} for i, step in enumerate(program)],
        "entailed": entailed,
        "equivalent": entailed[:1],
        "question": asked.text,
        "imageId": image,
        "isBalanced": balanced,
        "groups": {"global": asked.group, "local": None},
        "answer": asked.answer,
        "semanticStr": "->".join(f"{step['operation']}: {step['argument']}" for step in program),
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {"detailed": asked.detailed, "semantic": asked.semantic, "structural": asked.structural},
        "fullAnswer": f"{asked.answer.capitalize()}.",
    }


def _choices(row: Row) -> Row:
    valid = list(COLORS) if row["answer"] in COLORS else ["yes", "no"]
    return {"valid": valid, "plausible": valid[:4] if row["answer"] in valid[:4] else valid}
