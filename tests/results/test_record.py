"""Lines in tables are what they were as mappings: values, their types, and the order of names."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from blip2sweep.results import record as module
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.packed import Holes, Lists, Same, packed
from blip2sweep.results.record import Record, Tables

VALUES: list[list[Any]] = [
    ["a"], ["a", "b"], ["a", None], [1], [1, 2], [0, False], [1, True, 1.0], [2**70, 1], [2**63 - 1, -(2**63)], [0.0], [0.0, -0.0],
    [0.5, 1.5], [0.5, None], [None], [math.nan, 0.5], [True], [True, False, None], [1, 2.0], [8, "mixed"], [[1.0, 2.0], [None, 3.0]],
    [[]], [[1], [1, 2]], [["a", "b"], ["c", "d"]], [{"x": 1, "y": None}], [{"x": 1}, {"y": [0.5]}], [{"x": 1}, None], [{}], [{}, {"x": {"y": 1}}],
]  # fmt: skip


def told(value: Any) -> str:
    """The value with its types; a record as the mapping that it stands for."""
    if isinstance(value, Record | dict):
        return "{" + ", ".join(f"{name!r}: {told(value[name])}" for name in value) + "}"
    return f"{value.__class__.__name__} {value!r}"


@pytest.mark.parametrize("most", [3, 1024])
@pytest.mark.parametrize("seed", range(3))
def test_records_are_their_lines(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many shapes, whose fields have values of several types; also before their tables are packed."""
    monkeypatch.setattr(module, "MOST", most)
    draw, tables = random.Random(seed), Tables()
    kinds = [{f"f{i}": draw.choice(VALUES) for i in draw.sample(range(9), draw.randint(0, 6))} for _ in range(4)]
    lines = [{name: draw.choice(values) for name, values in draw.choice(kinds).items()} for _ in range(60)]
    records = [tables.add(line) for line in lines]
    for _ in range(2):
        assert list(map(told, records)) == list(map(told, lines))
        assert [(list(r.keys()), len(r), "f1" in r) for r in records] == [(list(x), len(x), "f1" in x) for x in lines]
        assert [r.get("f1", "none") for r in records if "f1" not in r] == ["none"] * sum("f1" not in x for x in lines)
        assert [dict(r) == x for r, x in zip(records, lines, strict=True) if "nan" not in repr(x)].count(False) == 0
        tables.pack()


def test_equal_values_and_numbers_take_little() -> None:
    assert isinstance(packed(["a"] * 5), Same)
    assert isinstance(packed([None] * 5), Same)
    assert isinstance(packed([0.5, None]), Holes)
    assert isinstance(packed([[0.5, 1], [1.5, 2]]), Lists)
    assert not isinstance(packed([1, True]), Same)
    one, _, other = packed(["a b".replace(" ", c) for c in "- -"])  # type: ignore[misc]
    assert one is other


def test_a_ledger_of_measurements_keeps_lines_in_tables(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    head = {"event": "result", "time": 1.0, "host": "node-1", "pid": 1, "attempt": "a", "predictions": None}
    lines = [
        {**head, "key": key, "columns": {"task": "shapes caption", "bits": bits}}
        for key, bits in (("k1", 4), ("k2", 4.5))
    ]
    (tmp_path / "journals" / "j.jsonl").write_bytes(b"".join(sealed(line, i) for i, line in enumerate(lines)))
    found = Ledger(tmp_path, measured=True).refresh().results()
    assert [json.dumps({**r, "columns": dict(r["columns"])}) for r in found] == [
        json.dumps({**x, "n": i}) for i, x in enumerate(lines)
    ]
    one, two = found
    assert isinstance(one, Record)
    assert isinstance(two, Record)
    assert one.table is two.table
    assert isinstance(Ledger(tmp_path).refresh().results()[0], dict)


def test_a_record_that_is_written_again_is_the_same_line() -> None:
    line = {"event": "result", "columns": {"task": "a", "bits": 4}, "path": Path("x")}
    tables = Tables()
    found = tables.add({**line, "path": "x"})
    tables.pack()
    assert sealed(found, 0) == sealed(dict(found), 0) == sealed(line, 0)
