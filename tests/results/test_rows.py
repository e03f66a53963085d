"""Rows made by column are those made one by one, for cells of every kind."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.results import line_batches, record, table
from blip2sweep.results.by_column import by_column
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.sources import Sources
from tests import ledgers
from tests.results.dict_rows import DictRows

STOPPED = {"images": 4, "of": 8, "reason": "known to ±5 %", "stop": "known", "margin": 0.05}
TIMED = {"run": "r", "sweep": "s", "generation": 0, "seconds": 1.0, "device": "cpu", "threads": 2, "images": 4, "turns": 3,
         "ms_median": 5.0, "ms_p90": 6.0, "baseline_ms_median": 4.0, "baseline_ms_p90": 4.5}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells that are done, failed, calibrated, repeated and imported; and those that `others` makes of them."""
    path = tmp_path_factory.mktemp("rows") / "outputs"
    ledgers.folder(path)
    lines = [json.loads(x) for p in sorted((path / "journals").iterdir()) for x in p.read_text().splitlines()]
    made = [
        line
        for i, kind in enumerate((stopped, of_another_version, lacking, beside, uneven))
        for line in others(path, lines, i, kind)
    ]
    (path / "journals" / "zz-more.jsonl").write_bytes(b"".join(sealed(line, n) for n, line in enumerate(made)))
    return path


def others(path: Path, lines: list[dict[str, Any]], i: int, change: Any) -> Iterable[dict[str, Any]]:
    """Cells with keys of their own and lines that are changed: what was measured of them counts."""
    known = {line["key"]: f"{i}{line['key'][1:]}" for line in lines if line["event"] == "measured"}
    for line in lines:
        if line.get("key") in known and line["event"] in ("started", "result", "measured", "failed"):
            text = json.dumps({k: v for k, v in line.items() if k not in ("n", "crc")}).replace(
                line["key"], known[line["key"]]
            )
            yield from change(json.loads(text))
    for old, new in known.items():
        for file in (path / "predictions").glob(f"{old}-*"):
            copy = file.with_name(file.name.replace(old, new))
            copy.write_bytes(file.read_bytes())
            os.utime(copy, ns=(file.stat().st_mtime_ns, file.stat().st_mtime_ns))


def stopped(line: dict[str, Any]) -> list[dict[str, Any]]:
    if line["event"] == "result":
        return [{**line, "stopped": STOPPED}]
    return [{**line, "of": 8} if line["event"] == "measured" and line["key"] > "08" else line]


def of_another_version(line: dict[str, Any]) -> list[dict[str, Any]]:
    """Without sizes of today, and without columns of roles."""
    if "columns" in line:
        gone = ("stored", "bits_vision", "bits_connector", "bits_language", "backend")
        line["columns"] = {k: v for k, v in line["columns"].items() if k not in gone}
    return [line]


def lacking(line: dict[str, Any]) -> list[dict[str, Any]]:
    """Without cost, without a baseline, with a column of nobody's and with latency."""
    if line["event"] == "measured":
        alone = {"metrics": {m: v[:1] for m, v in line["metrics"].items()}, "noise": {"flip_rate": 0.5}}
        timed = [
            {**TIMED, "event": "latency", **{k: line[k] for k in ("time", "host", "pid", "key")}, "batch": b}
            for b in (1, 8)
        ]
        return [{k: v for k, v in line.items() if k not in ("same", "images", "retained")} | alone, *timed]
    line.pop("cost", None)
    if "columns" in line:
        line["columns"] |= {"mine": [1, 2]} if line["key"] > "08" else {"yours": None}
    return [line]


def beside(line: dict[str, Any]) -> list[dict[str, Any]]:
    if line["event"] == "result":
        line["columns"] |= {"beside": f"1{line['key'][1:]}", "backend": "openvino"}
        line["cost"] |= {"seconds_load": 1, "seconds_image": None if line["key"] > "38" else 0.5}
    return [line]


def uneven(line: dict[str, Any]) -> list[dict[str, Any]]:
    """Of one metric some have no interval; others have a control."""
    if line["event"] == "measured":
        first = next(iter(line["metrics"]))
        if line["key"] > "48":
            line["metrics"][first] = line["metrics"][first][:1]
        else:
            line["controlled"] = {first: [1.0, 0.5, None, 0.75]}
    return [line]


@pytest.mark.parametrize("most", [2, 1024])
def test_rows_by_column_are_those_made_one_by_one(folder: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST", most)
    for name in ("LEAST", "FEW"):  # so that lines of a small folder are parsed together too
        monkeypatch.setattr(line_batches, name, most)
    ledger = Ledger(folder, measured=True).refresh()
    expected = pd.DataFrame(DictRows(ledger).all())
    columns = by_column(*table._rows(ledger, Sources(ledger, {})))
    found = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert [[type(v) for v in found[c]] for c in found] == [[type(v) for v in expected[c]] for c in expected]
    assert {"done", "failed"} == set(found["status"])
    for column in (
        "stopped",
        "mine",
        "torch_vqa_accuracy",
        "control_vqa_accuracy",
        "latency_ms_median_batch",
        "noise_flip_rate",
        "imported",
    ):
        assert found[column].notna().any(), column
    assert (found["images"] == 4).any()
    assert len(found) > 25


def test_a_column_more_says_nothing_of_how_the_table_lies_in_memory(folder: Path) -> None:
    """pandas warns, on a user's screen, where more than a hundred columns lie apart."""
    found = table.build_table(Ledger(folder, measured=True).refresh())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(20):
            found = found.assign(**{f"more_{i}": 0.5})
    assert found.shape[1] > 110
