"""MMMU: `SUBJECT/SPLIT-00000-of-00001.parquet` with the pictures inside; some short answers, some with two pictures."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from scripts.miniature_sets._pictures import Picture, pictures
from scripts.miniature_sets._things import of_color

SUBJECTS = ("Accounting", "Art", "Math")
COUNTS = {"dev": 3, "validation": 8}
PICTURES = 7
LETTERS = "ABCD"


def write(folder: Path) -> None:
    for subject in SUBJECTS:
        for split, count in COUNTS.items():
            found = pictures(f"mmmu {subject} {split}", count + 1)
            rows = [_row(f"{split}_{subject}_{i}", i, found[i - 1 : i + 1]) for i in range(1, count + 1)]
            path = folder / subject / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, _schema()), path)


def _schema() -> pa.Schema:
    texts = ("id", "question", "options", "explanation", "img_type", "answer", "topic_difficulty", "question_type")
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    own = [(name, pa.string()) for name in (*texts, "subfield")]
    return pa.schema([*own, *((f"image_{k}", image) for k in range(1, PICTURES + 1))])


def _row(own: str, i: int, found: Sequence[Picture]) -> dict[str, object]:
    """Question i of a file: each fourth one wants a short answer, each fifth one has two pictures."""
    images = {f"image_{k}": _image(own, k, p) for k, p in enumerate(found[: 2 if i % 5 == 0 else 1], 1)}
    count = len(found[0].things)
    question = "How many shapes are there? <image 1>"
    options, answer, kind = list[str](), str(["3", "three"]) if count == 3 else str(count), "open"
    if i % 4:
        question, options, right = of_color(found[0], 4, random.Random(own))
        answer, kind = LETTERS[right], "multiple-choice"
        question += "".join(f" <image {k}>" for k in range(1, len(images) + 1))
    further = {"explanation": "", "img_type": "['Pictures']", "topic_difficulty": "Easy", "subfield": "Shapes"}
    return {"id": own, "question": question, "options": str(options), "answer": answer, "question_type": kind,
            **further, **images}  # fmt: skip


def _image(own: str, k: int, picture: Picture) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.fromarray(picture.pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{own}_{k}.png"}
