"""TextVQA 0.5.1: `data` of train, val and test, and the words of Rosetta; images of train and val in one folder."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._pictures import Picture, pictures, write_json
from scripts.miniature_sets._questions import asked_of

COUNTS = {"train": 8, "val": 12, "test": 4}


def write(folder: Path) -> None:
    found, first = pictures("textvqa", sum(COUNTS.values())), 0
    for split, n in COUNTS.items():
        own, ids = found[first : first + n], [f"{0x3A8AE2EF + 977 * i:016x}" for i in range(first, first + n)]
        for picture, name in zip(own, ids, strict=True):
            picture.save(folder / ("test_images" if split == "test" else "train_images") / f"{name}.jpg")
        _write_questions(folder, split, own, ids, 34602 + 100 * first)
        words = [{"image_id": i, "ocr_tokens": _words(p)} for i, p in zip(ids, own, strict=True)]
        write_json(folder / f"TextVQA_Rosetta_OCR_v0.2_{split}.json", {"dataset_name": "textvqa", "data": words})
        first += n


def _write_questions(folder: Path, split: str, own: list[Picture], ids: list[str], first: int) -> None:
    rows = []
    for k, asked in enumerate(asked_of(f"textvqa {split}", own, 1)):
        row = {"question": asked.question.text.lower(), "image_id": ids[asked.picture], "question_id": first + k}
        answers = {} if split == "test" else {"answers": [a["answer"] for a in asked.answers]}
        rows.append({**row, "image_width": 48, "image_height": 48, "set_name": split, **answers})
    told = {"dataset_type": split, "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": rows}
    write_json(folder / f"TextVQA_0.5.1_{split}.json", told)


def _words(picture: Picture) -> list[str]:
    """What stands for words in the image: the colours of its things; of every fifth picture none."""
    return [] if len(picture.captions[0]) % 5 == 0 else [thing.color.upper() for thing in picture.things]
