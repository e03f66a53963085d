"""A copy of the published study that is not whole is refused; a row says which of its configs had no-op entries."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.importing.study import Counts, read_study

pytestmark = [pytest.mark.xdist_group("java"), pytest.mark.thorough]


@pytest.mark.parametrize(("change", "words"), [
    ("cut at a line", "scores.csv: 1499 rows of 1499 configs; right: the whole file"),
    ("cut in quotes", "scores.csv: not a whole CSV file"),
    ("twice", "scores.csv: 1500 rows of 1499 configs"),
    ("size", "config 7 has no score or size that is a number"),
    ("parquet", "predictions.parquet: not a whole parquet file"),
    ("column", "predictions.parquet: not a whole parquet file"),
])  # fmt: skip
def test_files_that_are_not_whole(study: Path, tmp_path: Path, change: str, words: str) -> None:
    for path in study.iterdir():
        (tmp_path / path.name).symlink_to(path)
    name = "predictions.parquet" if change in ("parquet", "column") else "scores.csv"
    spoiled = spoil(study / name, change)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(spoiled)
    with pytest.raises(UserError, match=words) as told:
        read_study(tmp_path)
    assert "\n" not in str(told.value)


def spoil(path: Path, change: str) -> bytes:
    if change == "parquet":
        return path.read_bytes()[:1000]
    if change == "column":
        import io

        buffer = io.BytesIO()
        pd.read_parquet(path).rename(columns={"caption": "text"}).to_parquet(buffer)
        return buffer.getvalue()
    lines = path.read_text().splitlines(keepends=True)
    if change == "cut at a line":
        return "".join(lines[:-1]).encode()
    if change == "cut in quotes":
        return ("".join(lines[:-1]) + '"' + lines[-1][:5]).encode()
    if change == "twice":
        return "".join([*lines[:-1], lines[-2]]).encode()
    words = lines[8].split(",")
    return "".join([*lines[:8], ",".join([*words[:-2], "", words[-1]]), *lines[9:]]).encode()


def test_a_row_says_how_many_of_its_configs_had_a_no_op(imported: tuple[Path, Counts, pd.DataFrame]) -> None:
    table = imported[2]
    assert table["noop_configs"].sum() == 1087
    base = table[table["part"] == "none"].iloc[0]
    assert base["noop_configs"] == 100  # those that do nothing have nothing but no-ops


def test_references_come_with_the_import(imported: tuple[Path, Counts, pd.DataFrame]) -> None:
    from blip2sweep.files import read_json
    from blip2sweep.reporting.captions import captions
    from blip2sweep.reporting.source import load_source

    told = captions(load_source(imported[0], "blip2-coco"))
    assert told is not None
    given = read_json(imported[0] / "sweeps/blip2-coco/references.json")
    assert told["samples"][0]["references"] == given[0]["captions"]
    assert len(told["samples"][0]["references"]) >= 5
