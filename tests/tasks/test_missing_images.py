"""A picture that is not there, for every data set with files: one line, or a counted skip with task.on_bad_image=skip."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2sweep.errors import UserError, UserErrors
from blip2sweep.tasks import load_task
from scripts.miniatures import SETS, write
from tests.checkpoints import conf
from tests.composing import plan
from tests.in_process import jobs, run

OWN = {
    "coco_retrieval": ("model=tiny-itm", "task.k=4"),
    "flickr30k_retrieval": ("model=tiny-itm", "task.k=4"),
    "jsonl": ("task.images=pictures",),
}
SAMPLES = 8


def words(folder: Path, name: str) -> tuple[str, ...]:
    return (f"task={name}", f"task.data_dir={folder / name}", "part=none", *OWN.get(name, ()))


def first_picture(folder: Path, name: str) -> Path:
    images = {"images": "pictures"} if name == "jsonl" else {}
    return load_task({**conf(f"task/{name}"), "data_dir": str(folder / name), **images}).samples[0].image


def without_first(folder: Path) -> None:
    """Take the picture out of MMMU's first row, as its files are the pictures'."""
    path = sorted((folder / "mmmu").glob("*/validation-*.parquet"))[0]
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["image_1"] = None
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def remove(folder: Path, name: str) -> None:
    if name == "mmmu":
        without_first(folder)
    else:
        first_picture(folder, name).unlink()


@pytest.mark.parametrize("name", SETS)
def test_a_missing_picture_is_one_line_or_a_counted_skip(name: str, tmp_path: Path) -> None:
    write(tmp_path, (name,))
    remove(tmp_path, name)
    with pytest.raises(UserError) as caught:
        plan(*words(tmp_path, name))
    (line,) = caught.value.lines if isinstance(caught.value, UserErrors) else (str(caught.value),)
    assert ("holds no picture" if name == "mmmu" else "no such image (1 of ") in line
    (job,) = jobs(*words(tmp_path, name), "task.on_bad_image=skip", limit=SAMPLES)
    predictions, told = run([job])[job["key"]]
    assert told["cost"]["bad_images"] == 1
    assert len(predictions.id) < SAMPLES


@pytest.mark.parametrize("name", ["mmmu", "nocaps"])
def test_where_all_are_missing_nothing_is_skipped(name: str, tmp_path: Path) -> None:
    write(tmp_path, (name,))
    if name == "mmmu":
        without_first(tmp_path)
    for image in (tmp_path / "nocaps" / "val").glob("*"):
        image.unlink()
    with pytest.raises(UserError, match=r"no such image \((1 of 1|16 of 16) named by"):
        plan(*words(tmp_path, name), "task.on_bad_image=skip", *(["task.limit=1"] if name == "mmmu" else []))
