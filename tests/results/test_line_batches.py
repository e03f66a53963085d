"""Lines that are parsed together are what they are one by one, and damaged ones are found as before."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from blip2sweep.console import remarks
from blip2sweep.results import line_batches as module
from blip2sweep.results.ledger import Ledger, attempt_id
from blip2sweep.results.line_batches import Batches, Kept
from blip2sweep.results.lines import parse, sealed
from blip2sweep.results.record import Tables
from blip2sweep.results.table import build_table
from tests.ledgers import folder
from tests.results.test_record import VALUES, told

# Texts that look like the end of a text, like another name, like objects and lists; and what JSON writes in several ways.
TEXTS = ["a,", ",", '"', '","n":', ',"x":1', "}", '{"x":1}', "[1", "2]", "\n", "é", "\\", "", 'a,"', 'a":"', "1,2"]
ODD: list[list[Any]] = [
    *VALUES,
    TEXTS,
    [*TEXTS, None],
    [[t] for t in TEXTS],
    [[], [1]],
    [["a,", "b"]],
    [{"x": t} for t in TEXTS],
]


@pytest.fixture(autouse=True)
def _together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are parsed together however few they are."""
    monkeypatch.setattr(module, "LEAST", 1)
    monkeypatch.setattr(module, "FEW", 1)


def line(draw: random.Random, values: dict[str, list[Any]]) -> dict[str, Any]:
    """A start with these fields besides those that it needs."""
    head = {
        "event": "started",
        "time": draw.choice([1.5, 2.5, 3]),
        "host": "h",
        "pid": 1,
        "key": draw.choice(["k1", "k2"]),
    }
    return head | {"attempt": draw.choice(["a", "b"])} | {name: draw.choice(own) for name, own in values.items()}


def as_lines(found: Sequence[Any]) -> list[str]:
    return [told(one.record if isinstance(one, Kept) else one) for one in found]


def one_by_one(lines: Sequence[bytes]) -> list[str]:
    parsed: list[Any] = [parse(x) for x in lines]
    return [told({name: value for name, value in one.items() if name != "crc"}) for one in parsed]


@pytest.mark.parametrize("seed", range(40))
def test_lines_are_what_they_are_one_by_one(seed: int) -> None:
    """Of a few shapes that often have as many pieces, in their order, with the types of all values."""
    draw = random.Random(seed)
    kinds = [{f"f{i}": draw.choice(ODD) for i in range(draw.randint(0, 5))} for _ in range(3)]
    records = [line(draw, draw.choice(kinds)) for _ in range(40)]
    records = [r for r in records if "nan" not in repr(r).lower()]
    lines = [sealed(r, i)[:-1] for i, r in enumerate(records)]
    found = Batches(Tables()).read(lines, 0)
    assert found is not None
    assert as_lines(found) == one_by_one(lines)
    own = [(k.event, k.key, k.name) for k in found if isinstance(k, Kept)]
    assert own == [
        ("started", r["key"], r["attempt"]) for k, r in zip(found, records, strict=True) if isinstance(k, Kept)
    ]


def test_alike_lines_are_parsed_together_and_each_journal_fills_one_table() -> None:
    batches, draw = Batches(Tables()), random.Random(0)
    fields: dict[str, list[Any]] = {"x": [0.5, 1.5], "o": [{"a": [1.0, None]}, {"a": [2.0, 3.0]}], "e": [{}], "l": [[]]}
    for start in (0, 30):
        found = batches.read([sealed(line(draw, fields), i)[:-1] for i in range(start, start + 30)], start)
        assert found is not None
        assert all(isinstance(one, Kept) for one in found)
    assert len({id(one.record.table) for one in found if isinstance(one, Kept)}) == 1


@pytest.mark.parametrize("other", [
    {"x": {"y": 1}}, {"x": [[1]]}, {"x": "a,"}, {"y": 1}, {"x": 1, "y": 2}, {"x": float("nan")}, {"x": 2**70}, {"x": {}}, {},
])  # fmt: skip
def test_one_line_of_another_shape_among_many(other: dict[str, Any]) -> None:
    plain = {"event": "started", "time": 1.0, "host": "h", "pid": 1, "key": "k", "attempt": "a"}
    records = [{**plain, **(other if i == 5 else {"x": i})} for i in range(12)]
    lines = [sealed(r, i)[:-1] for i, r in enumerate(records)]
    found = Batches(Tables()).read(lines, 0)
    assert found is not None
    assert as_lines(found) == one_by_one(lines)


@pytest.mark.parametrize("odd", [
    {"o": {"": 1}}, {"o": {"": 1, "a": 2}}, {"": {"": 1}}, {"": 1}, {"crc": 1}, {"crc": {"x": 1}}, {"o": {"crc": 1}},
    {"attempt": {"x": 1}}, {"attempt": {}}, {"attempt": [1]}, {"time": {"x": 1}}, {"time": {}, "attempt": None}, {"key": {"x": 1}},
], ids=str)  # fmt: skip
def test_fields_that_no_version_writes_are_what_they_are_one_by_one(odd: dict[str, Any]) -> None:
    """Empty names, the checksum's name, and objects where a text names the line."""
    plain = {"event": "started", "time": 1.0, "host": "h", "pid": 1, "key": "k", "attempt": "a"}
    lines = [sealed(plain | odd, i)[:-1] for i in range(12)]
    found = Batches(Tables()).read(lines, 0)
    assert found is not None
    assert as_lines(found) == one_by_one(lines)
    names = {one.name for one in found if isinstance(one, Kept)}
    assert names <= {attempt_id(cast("Any", plain | odd))}


def test_a_ledger_of_lines_that_all_differ_is_soon_read_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 8)
    monkeypatch.setattr(module, "WASTED", 20)
    batches, plain = Batches(Tables()), {"event": "started", "time": 1.0, "host": "h", "pid": 1, "key": "k"}
    lines = [sealed({**plain, f"f{i}": i}, i)[:-1] for i in range(30)]
    assert batches.read(lines, 0) is not None
    assert batches.read([sealed(plain, 0)[:-1]] * 2, 0) is None


# ---- damage


def damaged(draw: random.Random, lines: list[bytes]) -> list[bytes]:
    """The lines of a journal after one accident."""
    at = draw.randrange(len(lines))
    flipped = bytearray(lines[at])
    flipped[draw.randrange(len(flipped) - 1)] ^= 1 << draw.randrange(7)
    changes = [
        lambda: [*lines[:at], bytes(flipped), *lines[at + 1 :]],
        lambda: [*lines[:at], *lines[at + 1 :]],
        lambda: [*lines[:at], lines[at], *lines[at:]],
        lambda: [*lines[:at], lines[at][: draw.randrange(len(lines[at]))]],
        lambda: [*lines[:at], b"{}\n", *lines[at:]],
        lambda: [*lines[:at], sealed({"event": "result", "time": 1.0}, at), *lines[at + 1 :]],
        lambda: draw.sample(lines, len(lines)),
    ]
    return draw.choice(changes)()


def seen(output_dir: Path, capsys: pytest.CaptureFixture[str]) -> tuple[object, ...]:
    """What a ledger of measurements knows and says, and the table."""
    remarks.forget()
    ledger = Ledger(output_dir, measured=True).refresh()
    cells = [
        (k, [*a.starts], [*a.all_results], a.missing, [*a.measured], len(a.failures))
        for k, a in ledger.attempts.items()
    ]
    table = build_table(ledger)
    values = [(str(c), str(table[c].dtype), [told(v) for v in table[c].tolist()]) for c in table]
    return cells, values, [dict(w) for w in ledger.workers], capsys.readouterr()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("made") / "outputs"
    folder(found)
    return found


@pytest.fixture
def kept(made: Path) -> Iterator[Path]:
    """The folder, whose journals are put back."""
    before = {path: path.read_bytes() for path in (made / "journals").glob("*.jsonl")}
    yield made
    for path, data in before.items():
        path.write_bytes(data)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_read_of_damaged_journals_is_what_it_was_one_by_one(
    seed: int, kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    path = draw.choice(sorted((kept / "journals").glob("*.jsonl")))
    if seed:
        path.write_bytes(b"".join(damaged(draw, path.read_bytes().splitlines(keepends=True))))
    capsys.readouterr()
    together = seen(kept, capsys)
    monkeypatch.setattr(module, "LEAST", 10**9)
    assert seen(kept, capsys) == together


def test_rivals_are_told_at_the_next_line_of_a_cell_whose_longest_result_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are of lines that are read one by one: no result came with these lines."""
    (tmp_path / "predictions").mkdir()
    head = {"time": 1.0, "host": "h", "pid": 1, "key": "k"}
    cut = {"reason": "r", "stop": "close", "margin": 0.1, "images": 3, "of": 8}
    results = [
        {"event": "result", **head, "attempt": a, "predictions": a * 12, "replaces": [], **more}
        for a, more in (("a", {"stopped": cut}), ("b", {"stopped": cut}), ("c", {}))
    ]
    for name in "ab":
        (tmp_path / "predictions" / f"k-{name * 12}.json").write_text("{}")
    lines = [sealed(one, i) for i, one in enumerate([*results, {"event": "started", **head, "attempt": "d"}])]
    path, found = tmp_path / "journals" / "w.jsonl", []
    path.parent.mkdir()
    for least in (1, 10**9):
        monkeypatch.setattr(module, "LEAST", least)
        remarks.forget()
        path.write_bytes(b"".join(lines[:3]))
        ledger = Ledger(tmp_path, measured=True).refresh()
        path.write_bytes(b"".join(lines))
        ledger.refresh()
        found.append((ledger.attempts["k"].rivals, capsys.readouterr().err))
    assert found[0] == found[1]
    assert found[0][0] == ["a", "b"]
    assert "1 cell with results that do not know each other" in found[0][1]
