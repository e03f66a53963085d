"""OK-VQA: the files of VQA 1.0's names, with raw answers beside the stemmed ones, topics as question types."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._pictures import pictures
from scripts.miniature_sets._questions import Asked, asked_of, save_split, write_pair

NAMES = ("OpenEnded_mscoco_{}_questions.json", "mscoco_{}_annotations.json")
COUNTS = {"train2014": 12, "val2014": 12}
TOPICS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "other")


def write(folder: Path) -> None:
    found, first = pictures("okvqa", sum(COUNTS.values())), 0
    for split, n in COUNTS.items():
        own, ids = found[first : first + n], [50 + 11 * i for i in range(first, first + n)]
        save_split(folder, split, own, ids)
        write_pair(
            folder, split, NAMES, [_as_okvqa(a, k) for k, a in enumerate(asked_of(f"okvqa {split}", own, 1))], ids
        )
        first += n


def _as_okvqa(asked: Asked, k: int) -> Asked:
    """Five annotators, each twice, and one answer type."""
    question = asked.question._replace(answer_type="other", question_type=TOPICS[k % len(TOPICS)])
    five = [asked.answers[i // 2] for i in range(10)]
    answers = [
        {**a, "answer_id": i + 1, "raw_answer": a["answer"], "answer_confidence": "yes"} for i, a in enumerate(five)
    ]
    return Asked(asked.picture, question, answers)
