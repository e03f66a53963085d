"""samples.parquet: whatever workers and makers of tables do to its parts, each cell that counts is in it once."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2sweep.errors import UserError
from blip2sweep.results import samples
from blip2sweep.results.predictions import stem, write_predictions, write_statistics
from blip2sweep.results.sample_parts import write_part
from blip2sweep.results.sample_rows import SCHEMA
from blip2sweep.results.samples import HIDDEN, SHOWN, SampleWriter, contents, entry_name, publish
from blip2sweep.results.scored import Scored
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions


def cell(
    output_dir: Path, key: str, word: str = "yes", scored: bool = True, n: int = 3, image: Id = 7, first: str = ""
) -> Scored:
    """A cell of n samples of one image that always says the same. first: makes texts of the ids."""
    ids: list[Id] = [f"{first}{i}" if first else i for i in range(n)]
    said = Predictions(ids, [image] * n, [word] * n, [1] * n, [None] * n, [0] * n)
    name = stem(key, said.hash)
    write_predictions(output_dir, name, said)
    if scored:
        write_statistics(output_dir, name, {"vqa": np.tile([1.0, 2.0, *[0.0] * 8], (n, 1))})
    return Scored(output_dir, name)


def part(output_dir: Path, cells: Sequence[Scored]) -> None:
    writer = SampleWriter(output_dir)
    for one in cells:
        writer.add(one)
    writer.flush()


def counting(*cells: Scored) -> dict[str, str]:
    return {c.key: entry_name(c.name, c.scored) for c in cells}


def rows(output_dir: Path) -> pd.DataFrame:
    return pd.read_parquet(output_dir / SHOWN)


def said(output_dir: Path) -> dict[str, list[str]]:
    """{key: its texts}, every row of them."""
    table = rows(output_dir)
    return {str(k): list(group["text"]) for k, group in table.groupby("key")} if len(table) else {}


def files(output_dir: Path, folder: str) -> list[Path]:
    return sorted((output_dir / folder).iterdir()) if (output_dir / folder).is_dir() else []


def test_a_part_is_hidden_until_tables_are_made_and_is_not_copied_then(tmp_path: Path) -> None:
    a, b = cell(tmp_path, "a" * 12), cell(tmp_path, "b" * 12, "no")
    publish(tmp_path, {})
    part(tmp_path, [a, b])
    assert rows(tmp_path).empty
    (hidden,) = files(tmp_path, HIDDEN)
    inode = hidden.stat().st_ino
    publish(tmp_path, counting(a, b))
    assert said(tmp_path) == {a.key: ["yes"] * 3, b.key: ["no"] * 3}
    assert (tmp_path / SHOWN / hidden.name).stat().st_ino == inode
    assert rows(tmp_path)["vqa_accuracy"].tolist() == [0.5] * 6
    assert rows(tmp_path)["cider"].isna().all()
    assert files(tmp_path, HIDDEN) == []


def test_a_cell_is_there_once_however_many_parts_hold_it(tmp_path: Path) -> None:
    a, b, c = (cell(tmp_path, key * 12) for key in "abc")
    for these in ([a, b], [b, c], [a, b, c], [c]):
        part(tmp_path, these)
    publish(tmp_path, counting(a, b, c))
    assert said(tmp_path) == {k: ["yes"] * 3 for k in (a.key, b.key, c.key)}


def test_what_no_longer_counts_goes(tmp_path: Path) -> None:
    """A cell that was computed again, or that was scored after its texts were shown."""
    a, old, bare = cell(tmp_path, "a" * 12), cell(tmp_path, "b" * 12, "old"), cell(tmp_path, "c" * 12, scored=False)
    part(tmp_path, [a, old, bare])
    publish(tmp_path, counting(a, old, bare))
    assert rows(tmp_path)["vqa_accuracy"].isna().sum() == 3
    new, scored = cell(tmp_path, "b" * 12, "new"), cell(tmp_path, "c" * 12)
    assert contents(tmp_path).isdisjoint(counting(new, scored).values())
    part(tmp_path, [new, scored])
    publish(tmp_path, counting(a, new, scored))
    assert said(tmp_path) == {a.key: ["yes"] * 3, new.key: ["new"] * 3, scored.key: ["yes"] * 3}
    assert rows(tmp_path)["vqa_accuracy"].notna().all()
    assert contents(tmp_path) == set(counting(a, new, scored).values())


def test_what_was_just_finished_by_others_stays(tmp_path: Path) -> None:
    """A maker of tables that read the ledger before them knows nothing of them."""
    a, b, c = (cell(tmp_path, key * 12) for key in "abc")
    part(tmp_path, [a])
    part(tmp_path, [b])
    publish(tmp_path, counting(a, b))
    part(tmp_path, [c])
    publish(tmp_path, counting(a))
    assert contents(tmp_path) == set(counting(a, b, c).values())
    assert {a.key, b.key} <= said(tmp_path).keys()


def test_of_a_cell_that_runs_twice_in_one_process_the_last_counts(tmp_path: Path) -> None:
    part(tmp_path, [cell(tmp_path, "a" * 12, "old"), new := cell(tmp_path, "a" * 12, "new")])
    publish(tmp_path, counting(new))
    assert said(tmp_path) == {new.key: ["new"] * 3}


def test_no_row_is_seen_twice_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old rows go before the new ones come, also where a maker of tables is stopped in between."""
    old, new = cell(tmp_path, "a" * 12, "old"), cell(tmp_path, "a" * 12, "new")
    part(tmp_path, [old, cell(tmp_path, "b" * 12)])
    publish(tmp_path, {})
    part(tmp_path, [new])
    seen = []
    for name in ("_move_in", "write_part"):
        real = getattr(samples, name)

        def looked(*given: object, real: object = real, **more: object) -> object:
            seen.append(said(tmp_path).get(old.key, []))
            found = real(*given, **more)  # type: ignore[operator]
            seen.append(said(tmp_path).get(old.key, []))
            return found

        monkeypatch.setattr(samples, name, looked)
    publish(tmp_path, counting(new))
    assert all(texts in ([], ["old"] * 3, ["new"] * 3) for texts in seen)
    assert seen[-1] == ["new"] * 3


def test_a_damaged_part_and_the_file_of_an_earlier_version_are_replaced(tmp_path: Path) -> None:
    a = cell(tmp_path, "a" * 12)
    (tmp_path / SHOWN).write_bytes(b"one file")
    assert contents(tmp_path) == set()
    part(tmp_path, [a])
    (tmp_path / HIDDEN / "500000000-cut.parquet").write_bytes(b"PAR1")
    publish(tmp_path, counting(a))
    assert said(tmp_path) == {a.key: ["yes"] * 3}
    assert len(files(tmp_path, SHOWN)) == 1


def test_rests_of_killed_writers_go_and_files_of_others_stay(tmp_path: Path) -> None:
    a = cell(tmp_path, "a" * 12)
    part(tmp_path, [a])
    publish(tmp_path, counting(a))
    old, young, other = (tmp_path / HIDDEN / ".x.tmp", tmp_path / HIDDEN / ".y.tmp", tmp_path / SHOWN / "notes.txt")
    for path in (old, young, other):
        path.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    publish(tmp_path, counting(a))
    assert [p.exists() for p in (old, young, other)] == [False, True, True]


def test_many_small_parts_become_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SMALL_PARTS", 4)
    monkeypatch.setattr(samples, "ROWS", 16)
    cells = [cell(tmp_path, f"{i:012x}", str(i)) for i in range(9)]
    for one in cells:
        part(tmp_path, [one])
    publish(tmp_path, counting(*cells))
    assert len(files(tmp_path, SHOWN)) == 2  # of at most 16 rows
    assert contents(tmp_path) == set(counting(*cells).values())
    assert said(tmp_path) == {c.key: [str(i)] * 3 for i, c in enumerate(cells)}


def test_two_versions_of_a_cell_are_never_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SMALL_PARTS", 0)
    old, new = cell(tmp_path, "a" * 12, "old"), cell(tmp_path, "a" * 12, "new")
    part(tmp_path, [old])
    part(tmp_path, [new])
    assert not samples._merge_small(tmp_path)
    publish(tmp_path, counting(new))
    assert said(tmp_path) == {new.key: ["new"] * 3}


def test_a_large_writer_writes_parts_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "ROWS", 6)
    cells = [cell(tmp_path, f"{i:012x}") for i in range(5)]
    part(tmp_path, cells)
    assert len(files(tmp_path, HIDDEN)) == 3
    publish(tmp_path, counting(*cells))
    assert len(rows(tmp_path)) == 15


def test_where_nothing_may_be_written_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part(tmp_path, [a := cell(tmp_path, "a" * 12)])

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(
        UserError, match=r"samples\.parquet: cannot be written \(Permission denied\); right: a writable"
    ) as told:
        publish(tmp_path, counting(a))
    assert isinstance(told.value.__cause__, PermissionError)


def _make(output_dir: Path, keys: list[str], rounds: int) -> None:
    """One maker of tables that knows these keys: adds what it thinks is missing, shows what counts. Then all its cells must be
    there: nobody may have taken the last copy away."""
    samples.SMALL_PARTS = 2
    cells = [cell(output_dir, key) for key in keys]
    count = counting(*cells)
    for _ in range(rounds):
        there = contents(output_dir)
        part(output_dir, [c for c in cells if count[c.key] not in there])
        publish(output_dir, count)
        gone = set(count.values()) - contents(output_dir)
        # A part may move between two looks at its folders; what is lost stays so.
        assert not gone or not set(count.values()) - contents(output_dir)


@pytest.mark.thorough
def test_makers_of_tables_at_the_same_time_agree(tmp_path: Path) -> None:
    keys = [f"{i:012x}" for i in range(8)]
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    makers = [context.Process(target=_make, args=(tmp_path, keys[i : i + 5], 12)) for i in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [m.exitcode for m in makers] == [0] * 4
    texts = said(tmp_path)
    assert texts.keys() == set(keys)
    assert files(tmp_path, HIDDEN) == []
    publish(tmp_path, {})  # what two merged at the same moment is there twice until somebody looks again
    assert said(tmp_path) == {k: ["yes"] * 3 for k in keys}


def test_tasks_with_texts_as_ids_and_with_numbers_are_one_table(tmp_path: Path) -> None:
    a, b = cell(tmp_path, "a" * 12, image=2**63 - 1), cell(tmp_path, "b" * 12, image="<b>.jpg", first="q_")
    part(tmp_path, [a])
    part(tmp_path, [b])
    publish(tmp_path, counting(a, b))
    of = {
        str(k): group
        for k, group in pq.read_table(tmp_path / SHOWN).to_pandas(types_mapper=pd.ArrowDtype).groupby("key")
    }
    assert of[a.key]["id"].tolist() == [0, 1, 2]
    assert set(of[a.key]["image_id"]) == {2**63 - 1}
    assert of[a.key]["id_text"].isna().all()
    assert of[b.key]["id_text"].tolist() == ["q_0", "q_1", "q_2"]
    assert set(of[b.key]["image_id_text"]) == {"<b>.jpg"}
    assert of[b.key]["image_id"].isna().all()
    publish(tmp_path, counting(a))
    assert pd.read_parquet(tmp_path / SHOWN, filters=[("key", "=", a.key)])["image_id"].dtype == np.int64


def test_parts_of_before_text_ids_take_todays_columns(tmp_path: Path) -> None:
    a, b = cell(tmp_path, "a" * 12), cell(tmp_path, "b" * 12, first="q_")
    part(tmp_path, [a])
    (path,) = files(tmp_path, HIDDEN)
    before = pq.read_table(path).drop_columns(["id_text", "image_id_text"])
    (tmp_path / SHOWN).mkdir()
    pq.write_table(before, tmp_path / SHOWN / f"{path.name.partition('.')[0]}.parquet")  # no checksum then
    path.unlink()
    part(tmp_path, [b])
    publish(tmp_path, counting(a, b))
    assert said(tmp_path) == {a.key: ["yes"] * 3, b.key: ["yes"] * 3}
    assert rows(tmp_path)["id_text"].notna().sum() == 3


def test_columns_of_a_later_version_keep_their_type(tmp_path: Path) -> None:
    """In the parts of this version too, which have nulls there; also where those were written as float64 before."""
    a, b, c = (cell(tmp_path, x * 12) for x in "abc")
    for one in (a, b):
        part(tmp_path, [one])
    later, harmed = files(tmp_path, HIDDEN)
    for path, column in ((later, pa.array(["x"] * 3)), (harmed, pa.nulls(3, pa.float64()))):
        table = pq.read_table(path)
        kept = table.append_column("later", column).replace_schema_metadata(table.schema.metadata)
        pq.write_table(kept, path.with_name(f"{path.name.partition('.')[0]}.parquet"))
        path.unlink()
    part(tmp_path, [c])
    publish(tmp_path, counting(a, b, c))
    assert sorted(said(tmp_path)) == [a.key, b.key, c.key]
    assert {str(pq.read_schema(p).field("later").type) for p in files(tmp_path, SHOWN)} == {"string"}
    assert rows(tmp_path)["later"].value_counts().to_dict() == {"x": 3}
    settled = files(tmp_path, SHOWN)
    publish(tmp_path, counting(a, b, c))
    assert files(tmp_path, SHOWN) == settled


def test_samples_are_appended_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {f"k{i}": f"k{i}-p s" for i in range(3)}
    for key, name in entries.items():
        part = pa.table({f.name: pa.array([key] if f.name == "key" else [None], f.type) for f in SCHEMA}, schema=SCHEMA)
        write_part(tmp_path, part, [name])
        monkeypatch.setattr(samples, "read_part", lambda path: pytest.fail(f"{path} is read"))
        samples.publish(tmp_path, entries)
    assert sorted(pd.read_parquet(tmp_path / SHOWN)["key"]) == sorted(entries)
