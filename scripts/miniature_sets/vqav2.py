"""VQAv2: questions and annotations of train2014 and val2014, questions alone of test2015 and its part test-dev2015."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._pictures import pictures
from scripts.miniature_sets._questions import asked_of, save_split, write_pair

NAMES = ("v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json")
COUNTS = {"train2014": 12, "val2014": 12, "test2015": 6}


def write(folder: Path) -> None:
    found, first = pictures("vqav2", sum(COUNTS.values())), 0
    for split, n in COUNTS.items():
        own, ids = found[first : first + n], [100 + 7 * i for i in range(first, first + n)]
        save_split(folder, split, own, ids)
        asked = asked_of(f"vqav2 {split}", own, 2)
        write_pair(folder, split, NAMES, asked, ids, with_answers=split != "test2015")
        if split == "test2015":
            write_pair(folder, "test-dev2015", NAMES, asked[: len(asked) // 2], ids, with_answers=False)
        first += n
