"""Events of timing: which line counts, what a row gets of it, and what damage costs."""

from __future__ import annotations

import itertools
import json
import resource
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from blip2sweep.errors import UserError
from blip2sweep.results import latency
from blip2sweep.results.attempts import Attempts
from blip2sweep.results.collect import collect
from blip2sweep.results.latency import LOST, PREEMPTED, is_timed, next_generation, untimed, was_tried
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.lines import sealed
from blip2sweep.results.sweeps import Sweep
from blip2sweep.wire.latency import Latency
from tests import ledgers

KEY = "a" * 12


def measured(ms: float = 2.0, batch: int = 1, device: str = "d", threads: int = 2, **more: Any) -> Latency:
    found: Latency = {
        "device": device, "threads": threads, "batch": batch, "runs": 4, "ms_median": ms, "ms_p90": 2 * ms,
        "baseline_ms_median": 4.0, "baseline_ms_p90": 8.0, "seconds": 1.0,
    }  # fmt: skip
    return {**found, **more}  # type: ignore[typeddict-item]


def write(journal: Journal, *found: Latency, key: str = KEY, run: str = "r", generation: int = 0) -> None:
    who = {"key": key, "sweep": "s", "run": run, "generation": generation}
    journal.write_many("latency", [{**who, **one} for one in found])


def attempts(folder: Path, **asked: Any) -> Attempts:
    return Ledger(folder, **asked).refresh().attempts.get(KEY, Attempts())


# ---- which line counts


def test_a_row_has_single_images_and_the_largest_batch_with_where_that_was(tmp_path: Path) -> None:
    write(Journal(tmp_path), measured(2.0), measured(1.0, 8), measured(0.5, 64))
    assert latency.columns(attempts(tmp_path)) == {
        "latency_ms_median": 2.0, "latency_ms_p90": 4.0, "latency_ms_baseline": 4.0, "latency_ratio": 0.5,
        "latency_ms_median_batch": 0.5, "latency_ms_p90_batch": 1.0, "latency_ms_baseline_batch": 4.0,
        "latency_ratio_batch": 0.125,
        "latency_batch": 64, "latency_device": "d", "latency_threads": 2,
    }  # fmt: skip
    assert latency.columns(Attempts()) == {}


def test_one_image_alone_is_no_batch(tmp_path: Path) -> None:
    write(Journal(tmp_path), measured())
    assert not [c for c in latency.columns(attempts(tmp_path)) if "batch" in c]


def test_energy_is_a_column_where_the_device_told_it(tmp_path: Path) -> None:
    write(Journal(tmp_path), measured(joules=3.0, baseline_joules=4.0), measured(batch=8))
    found = latency.columns(attempts(tmp_path))
    assert (found["energy_joules"], found["energy_ratio"]) == (3.0, 0.75)
    assert "energy_joules_batch" not in found


def test_the_newest_counts_whatever_the_order_of_the_files_and_the_clocks(tmp_path: Path) -> None:
    """A writer that knew of a line is newer than it, though its clock be behind."""
    told = [(0, 100.0, 9.0), (1, 50.0, 7.0), (0, 200.0, 8.0)]
    for order in itertools.permutations(told):
        folder = tmp_path / str(order)
        (folder / "journals").mkdir(parents=True)
        for i, (generation, when, ms) in enumerate(order):
            line = {"event": "latency", "time": when, "host": "h", "pid": 1, "key": KEY, "run": "r"}
            made = sealed({**line, "generation": generation, **measured(ms)}, 0)
            (folder / "journals" / f"{i}.jsonl").write_bytes(made)
        assert latency.columns(attempts(folder))["latency_ms_median"] == 7.0
        assert next_generation(attempts(folder)) == 2


def test_each_place_keeps_its_own_and_a_row_shows_the_last_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for i, (device, threads) in enumerate([("gpu", 8), ("cpu", 1), ("cpu", 2)]):
        write(journal, measured(1.0 + i, device=device, threads=threads), generation=i)
    write(journal, measured(9.0, 64, device="gpu", threads=8), generation=1)
    found = attempts(tmp_path)
    assert set(found.latency) == {("gpu", 8, 1), ("gpu", 8, 64), ("cpu", 1, 1), ("cpu", 2, 1)}
    row = latency.columns(found)
    assert (row["latency_device"], row["latency_threads"], row["latency_ms_median"]) == ("cpu", 2, 3.0)
    assert "latency_batch" not in row  # that of another device says nothing of this one
    assert is_timed(found, {"gpu"})
    assert is_timed(found, None)
    assert not is_timed(found, {"tpu"})
    assert not is_timed(Attempts(), None)


def test_a_follower_and_a_worker_know_them_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    write(journal, measured())
    write(journal, measured(), key="b" * 12)
    assert attempts(tmp_path, brief=True).latency == attempts(tmp_path, only={KEY}).latency != {}
    assert set(Ledger(tmp_path, only={KEY}).refresh().attempts) == {KEY}


# ---- tries


def test_a_launch_tries_once_and_again_where_it_was_stopped(tmp_path: Path) -> None:
    journal, tried = Journal(tmp_path), []
    for kind, run in [(LOST, "r"), (PREEMPTED, "r"), (LOST, "r"), ("oom", "r"), (LOST, "other")]:
        journal.write("untimed", key=KEY, sweep="s", run=run, kind=kind, error=kind, traceback="")
        tried.append(was_tried(attempts(tmp_path), "r"))
    assert tried == [True, False, True, True, True]
    assert not was_tried(attempts(tmp_path), "third")


def test_why_a_cell_is_not_timed_is_what_a_process_told_of_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    sweep = Sweep("s", "", 0.0, [KEY], [], settings={"latency": [KEY, "b" * 12]})
    sweep.submissions = [type("Launch", (), {"run": "r"})()]
    assert untimed(Ledger(tmp_path).refresh(), sweep) == {}  # it is not done
    journal.write("result", key=KEY, predictions=None)
    assert untimed(Ledger(tmp_path).refresh(), sweep) == {KEY: None}
    journal.write("untimed", key=KEY, sweep="s", run="r", kind="oom", error="too large", traceback="")
    journal.write("untimed", key=KEY, sweep="s", run="r", kind=LOST, error="died", traceback="")
    found = untimed(Ledger(tmp_path).refresh(), sweep)
    assert latency.not_timed(sweep, found) == (
        f"1 cell is done and not timed, the first is {KEY} (too large); right: `blip2sweep retry s` times them"
    )
    write(journal, measured())
    assert untimed(Ledger(tmp_path).refresh(), sweep) == {}


# ---- damage


def test_a_cut_journal_keeps_what_is_whole(tmp_path: Path) -> None:
    """Wherever the writer was killed: a cell is as done as before, and has the latencies whose lines are whole."""
    journal = Journal(tmp_path)
    journal.write("result", key=KEY, predictions=None)
    write(journal, measured(), measured(batch=8))
    data = journal.path.read_bytes()
    for cut in range(data.index(b"\n") + 1, len(data), 5):
        journal.path.write_bytes(data[:cut])
        found = attempts(tmp_path)
        assert found.done
        assert len(found.latency) == data[:cut].count(b"\n") - 1


def test_a_line_with_a_flipped_bit_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path)
    journal.write("result", key=KEY, predictions=None)
    write(journal, measured(), measured(batch=8))
    first, second, third = journal.path.read_bytes().splitlines(keepends=True)
    place = second.index(b'"ms_median":') + 12
    flipped = second[:place] + bytes([second[place] ^ 1]) + second[place + 1 :]
    journal.path.write_bytes(first + flipped + third)
    found = attempts(tmp_path)
    assert found.done
    assert [place[2] for place in found.latency] == [8]
    assert "1 damaged or odd line left out (line 2)" in capsys.readouterr().err


def test_a_line_without_a_field_that_tables_use_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for name in ("device", "threads", "batch", "ms_median", "baseline_ms_median", "seconds"):
        write(journal, {k: v for k, v in measured().items() if k != name})  # type: ignore[arg-type]
    assert attempts(tmp_path).latency == {}


def test_a_full_disk_keeps_all_lines_of_a_cell_or_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("result", key=KEY, predictions=None)
    size = journal.path.stat().st_size
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, limits[1]))  # one of two lines would fit
    try:
        with pytest.raises(UserError, match="cannot be written"):
            write(journal, measured(), measured(batch=8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert attempts(tmp_path).done
    assert attempts(tmp_path).latency == {}


def test_tables_have_the_columns_where_some_cell_was_timed(tmp_path: Path) -> None:
    made = ledgers.jobs()
    ledgers.ran(tmp_path, made[:2])
    before = collect(tmp_path)
    assert not [c for c in before if str(c).startswith(("latency", "energy"))]
    write(Journal(tmp_path), measured(2.0), measured(1.0, 8), key=made[1]["key"])
    table = collect(tmp_path).set_index("key")
    assert table.loc[made[1]["key"], "latency_ratio"] == 0.5
    assert pd.isna(table.loc[made[0]["key"], "latency_ratio"])
    plain = table.reset_index().drop(columns=[c for c in table if str(c).startswith("latency")])
    pd.testing.assert_frame_equal(plain, before)


def test_lines_are_json_of_the_fields_that_are_described(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    write(journal, measured(joules=1.0, baseline_joules=2.0, torch_ms_median=3.0, torch_ms_p90=4.0))
    line = json.loads(journal.path.read_text())
    assert set(line) - {"event", "time", "host", "pid", "n", "crc"} == {
        "key", "sweep", "run", "generation", *Latency.__annotations__
    }  # fmt: skip
