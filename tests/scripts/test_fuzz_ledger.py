"""A short run of scripts/fuzz_ledger.py: whatever is damaged, nothing false is shown without a word."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from blip2sweep.console import remarks
from blip2sweep.results.collect import collect
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.lines import parse_old
from blip2sweep.results.predictions import read_statistics, write_statistics
from scripts import fuzz_ledger
from scripts.fuzz_ledger import ODD, QUICK, Found, fuzz, looked_at
from tests import ledgers


@pytest.mark.thorough
def test_a_damaged_folder_shows_nothing_false(tmp_path: Path) -> None:
    found = fuzz(ledgers.folder(tmp_path / "whole"), tmp_path, tries=16, seed=0, looks=QUICK)
    assert found.tries == 16
    assert found.silent == []
    assert found.tracebacks == []


@pytest.mark.thorough
def test_the_fuzzer_finds_what_a_ledger_without_checksums_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its noughts would say nothing."""
    whole = ledgers.folder(tmp_path / "whole")
    truth = looked_at(whole, QUICK)[0]
    assert {"table", "status", "samples", "predictions"} <= {k[0] for k in truth}
    path = next(p for p in (whole / "journals").iterdir() if b'"metrics":{"' in p.read_bytes())
    data = path.read_bytes()
    at = data.index(b'"samples":8,"noise"') + len(b'"samples":')
    path.write_bytes(data[:at] + b"9" + data[at + 1 :])

    def number(line: bytes) -> int:
        return int(json.loads(line)["n"])

    monkeypatch.setattr("blip2sweep.results.ledger.number_of", number)
    found = Found()
    fuzz_ledger._compare(found, truth, *looked_at(whole, QUICK), path, "here")
    assert len(found.silent) == 1
    assert "scored_samples" in found.silent[0]


@pytest.mark.parametrize("seed", range(3))
def test_score_files_can_be_damaged_in_any_way(tmp_path: Path, seed: int) -> None:
    """A zip file has more ways to be wrong than its readers have errors. Damage to the mark alone leaves the zip's own sums."""
    wanted = {"vqa": np.random.default_rng(0).random((9, 5)), "nll": np.ones((9, 2))}
    write_statistics(tmp_path, "a-b", wanted)
    path, draw = tmp_path / "scores" / "a-b.npz", random.Random(seed)
    data, broken = path.read_bytes(), 0
    for _ in range(300):
        path.write_bytes(fuzz_ledger.FILES[draw.choice(sorted(fuzz_ledger.FILES))](data, draw))
        found = read_statistics(tmp_path, "a-b")
        broken += not found
        assert not found or all(np.array_equal(found[k], wanted[k]) for k in wanted)
    assert broken > 200


def test_lines_that_are_not_odd_pass() -> None:
    """Else the odd ones would be left out for another reason than their one field."""
    files = b'"files":{"predictions":[1,2,3],"noise-seed":[1,2,3]}'
    for more in (b"", b',"replaces":[],"starts":["a"]', b"," + files, b',"files":null'):
        assert parse_old((fuzz_ledger.RESULT + more + b"}").replace(b"KEY", b"a" * 12))
    for values in (b"[0.1]", b"[1,2,3,4,5]", b"[1,2,3,4,5,6]", b"[1,2,null,4,5,null]"):
        line = fuzz_ledger.MEASURED.replace(b"{}", b'{"cider":' + values + b"}").replace(
            b'"noise":{"cider', b'"noise":{"c'
        )
        assert parse_old(line + b',"generation":1,"images":4,"same":0.5}')


@pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
def test_an_odd_line_is_left_out_and_told(tmp_path: Path, line: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """In a journal of its own, as an earlier version would have left it."""
    remarks.forget()
    (tmp_path / "journals").mkdir()
    (tmp_path / "journals" / "old.jsonl").write_bytes(line.replace(b"KEY", b"a" * 12) + b"\n")
    for more in ({}, {"brief": True}, {"measured": True}):
        ledger = Ledger(tmp_path, **more).refresh()  # type: ignore[arg-type]
        assert ledger.results() == []
        assert ledger.workers == []
    collect(tmp_path)
    told = capsys.readouterr().err
    assert "old.jsonl: 1 damaged or odd line left out (line 1)" in told or line.startswith(
        b'{"event":"requeued","time":1'
    )
    assert told.count("old.jsonl") == 1
