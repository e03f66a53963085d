"""VizWiz: `Annotations/train.json`, `val.json` with ten answers a question, and `test.json` without; images by split."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._pictures import pictures, write_json
from scripts.miniature_sets._questions import Asked, asked_of

COUNTS = {"train": 8, "val": 12, "test": 4}
CANNOT = [{"answer": "unanswerable", "answer_confidence": "yes"} for _ in range(7)]


def write(folder: Path) -> None:
    found, first = pictures("vizwiz", sum(COUNTS.values())), 0
    for split, n in COUNTS.items():
        own, rows = found[first : first + n], []
        for k, asked in enumerate(asked_of(f"vizwiz {split}", own, 1)):
            name = f"VizWiz_{split}_{k:08d}.jpg"
            own[k].save(folder / split / name)
            row = {"image": name, "question": asked.question.text}
            rows.append(row if split == "test" else {**row, **_answered(asked, k)})
        write_json(folder / "Annotations" / f"{split}.json", rows)
        first += n


def _answered(asked: Asked, k: int) -> dict[str, object]:
    """Ten answers; every fourth question cannot be answered."""
    answers = [{"answer": a["answer"], "answer_confidence": a["answer_confidence"]} for a in asked.answers]
    if k % 4 == 3:
        return {"answers": CANNOT + answers[:3], "answer_type": "unanswerable", "answerable": 0}
    return {"answers": answers, "answer_type": asked.question.answer_type, "answerable": 1}
