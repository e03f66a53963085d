"""samples.parquet: whatever workers and makers of tables do to its parts, each cell that counts is in it once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blip2sweep import samples
from blip2sweep.measured import Scored
from blip2sweep.records import Predictions, stem, write_predictions, write_statistics
from blip2sweep.samples import FOLDER, SampleWriter, held, held_as, show


def cell(output_dir: Path, key: str, word: str = "yes", scored: bool = True, n: int = 3) -> Scored:
    """A cell of n samples that always says the same."""
    said = Predictions(list(range(n)), [7] * n, [word] * n, [1] * n, [None] * n, [0] * n)
    name = stem(key, said.hash)
    write_predictions(output_dir, name, said)
    if scored:
        write_statistics(output_dir, name, {"vqa": np.tile([1.0, 2.0, 0, 0, 0, 0, 0, 0], (n, 1))})
    return Scored(output_dir, name)


def part(output_dir: Path, cells: Sequence[Scored]) -> None:
    writer = SampleWriter(output_dir)
    for one in cells:
        writer.add(one)
    writer.flush()


def wanted(*cells: Scored) -> set[str]:
    return {held_as(c.name, bool(c.statistics)) for c in cells}


def rows(output_dir: Path) -> pd.DataFrame:
    return pd.read_parquet(output_dir / FOLDER)


def said(output_dir: Path) -> dict[str, list[str]]:
    table = rows(output_dir)
    return {str(k): sorted(set(group["text"])) for k, group in table.groupby("key") if len(group) == 3}


def test_a_part_is_hidden_until_tables_are_made_and_is_not_copied_then(tmp_path: Path) -> None:
    a, b = cell(tmp_path, "a" * 12), cell(tmp_path, "b" * 12, "no")
    show(tmp_path, [])
    part(tmp_path, [a, b])
    assert rows(tmp_path).empty
    (hidden,) = (tmp_path / FOLDER).glob(".*")
    inode = hidden.stat().st_ino
    show(tmp_path, wanted(a, b))
    assert said(tmp_path) == {a.key: ["yes"], b.key: ["no"]}
    assert (tmp_path / FOLDER / hidden.name[1:]).stat().st_ino == inode
    assert rows(tmp_path)["vqa_accuracy"].tolist() == [0.5] * 6
    assert rows(tmp_path)["cider"].isna().all()


def test_a_cell_is_there_once_however_many_parts_hold_it(tmp_path: Path) -> None:
    a, b, c = (cell(tmp_path, key * 12) for key in "abc")
    for these in ([a, b], [b, c], [a, b, c], [c]):
        part(tmp_path, these)
    show(tmp_path, wanted(a, b, c))
    assert len(rows(tmp_path)) == 9
    assert said(tmp_path).keys() == {a.key, b.key, c.key}


def test_what_no_longer_counts_goes(tmp_path: Path) -> None:
    """A cell that was computed again, or that was scored after its texts were shown."""
    a, old, bare = cell(tmp_path, "a" * 12), cell(tmp_path, "b" * 12, "old"), cell(tmp_path, "c" * 12, scored=False)
    part(tmp_path, [a, old, bare])
    show(tmp_path, wanted(a, old, bare))
    assert rows(tmp_path)["vqa_accuracy"].isna().sum() == 3
    new, scored = cell(tmp_path, "b" * 12, "new"), cell(tmp_path, "c" * 12)
    assert wanted(new, scored).isdisjoint(held(tmp_path))
    part(tmp_path, [new, scored])
    show(tmp_path, wanted(a, new, scored))
    assert said(tmp_path) == {a.key: ["yes"], new.key: ["new"], scored.key: ["yes"]}
    assert rows(tmp_path)["vqa_accuracy"].notna().all()
    assert held(tmp_path) == wanted(a, new, scored)


def test_of_a_cell_that_runs_twice_in_one_process_the_last_counts(tmp_path: Path) -> None:
    part(tmp_path, [cell(tmp_path, "a" * 12, "old"), new := cell(tmp_path, "a" * 12, "new")])
    show(tmp_path, wanted(new))
    assert said(tmp_path) == {new.key: ["new"]}


def test_a_damaged_part_and_the_file_of_an_earlier_version_are_replaced(tmp_path: Path) -> None:
    a = cell(tmp_path, "a" * 12)
    (tmp_path / FOLDER).write_bytes(b"one file")
    assert held(tmp_path) == set()
    part(tmp_path, [a])
    (tmp_path / FOLDER / "cut.parquet").write_bytes(b"PAR1")
    show(tmp_path, wanted(a))
    assert said(tmp_path) == {a.key: ["yes"]}


def test_many_small_parts_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SMALL_PARTS", 4)
    cells = [cell(tmp_path, f"{i:012x}", str(i)) for i in range(6)]
    for one in cells:
        part(tmp_path, [one])
    show(tmp_path, wanted(*cells))
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    assert held(tmp_path) == wanted(*cells)
    assert said(tmp_path) == {c.key: [str(i)] for i, c in enumerate(cells)}


def test_a_large_writer_writes_parts_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "ROWS", 6)
    cells = [cell(tmp_path, f"{i:012x}") for i in range(5)]
    part(tmp_path, cells)
    assert len(list((tmp_path / FOLDER).iterdir())) == 3
    show(tmp_path, wanted(*cells))
    assert len(rows(tmp_path)) == 15


def _make(output_dir: Path, keys: list[str], count: list[str]) -> None:
    """One maker of tables: adds what it thinks is missing and shows what counts, a few times."""
    for _ in range(5):
        there = held(output_dir)
        cells = [cell(output_dir, key) for key in keys]
        part(output_dir, [c for c in cells if not wanted(c) <= there])
        show(output_dir, count)


def test_makers_of_tables_at_the_same_time_agree(tmp_path: Path) -> None:
    keys = [f"{i:012x}" for i in range(8)]
    cells = [cell(tmp_path, key) for key in keys]
    count = sorted(wanted(*cells))
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    makers = [context.Process(target=_make, args=(tmp_path, keys[i : i + 5], count)) for i in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [m.exitcode for m in makers] == [0] * 4
    show(tmp_path, count)
    assert len(rows(tmp_path)) == 24
    assert held(tmp_path) == set(count)
    assert not list((tmp_path / FOLDER).glob(".*"))
