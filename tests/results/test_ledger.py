"""The ledger keeps whole lines, whatever happens to its writers."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blip2sweep.errors import UserError
from blip2sweep.files import read_json, write_atomic, write_json
from blip2sweep.results.ledger import Journal, Ledger
from blip2sweep.results.lines import sealed
from tests.waiting import ending, wait_until


def test_a_result_counts_once_it_is_a_whole_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert not (tmp_path / "journals").exists()  # a process that writes nothing leaves nothing
    journal.write("started", key="a")
    journal.write("result", key="a", predictions=None)
    ledger = Ledger(tmp_path).refresh()
    assert ledger.done("a")
    assert not ledger.done("b")


def test_a_journal_cut_in_the_middle_keeps_its_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for key in "abc":
        journal.write("result", key=key, said=key * 50)
    data = journal.path.read_bytes()
    for cut in range(len(data)):
        journal.path.write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        assert len(Ledger(tmp_path).refresh().results()) == whole


def test_a_line_torn_before_a_later_writers_newline_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("result", key="a")
    with journal.path.open("ab") as file:
        file.write(b'{"event":"result","key":"b"\n')
    journal.write("result", key="c")
    assert {r["key"] for r in Ledger(tmp_path).refresh().results()} == {"a", "c"}


def test_refresh_reads_only_what_is_new_and_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    ledger, path = Ledger(tmp_path), tmp_path / "journals" / "x.jsonl"
    path.parent.mkdir()
    first, second = (sealed({"event": "result", "key": key, "time": 1}, i) for i, key in enumerate("ab"))
    path.write_bytes(first + second[:20])
    assert ledger.refresh().done("a")
    with path.open("ab") as file:
        file.write(second[20:])
    assert ledger.refresh().done("b")
    assert ledger.attempts["a"].started == 0


def test_the_newest_result_counts_and_a_failure_before_it_is_made_good(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("failed", key="a", kind="oom", error="x")
    assert Ledger(tmp_path).refresh().attempts["a"].last_failure is not None
    journal.write("result", key="a", said="1")
    Journal(tmp_path).write("result", key="a", said="2")
    attempts = Ledger(tmp_path).refresh().attempts["a"]
    assert attempts.last_failure is None
    assert attempts.result is not None
    assert attempts.result["said"] == "2"


WRITER = """
import sys; from pathlib import Path; from blip2sweep.results.ledger import Journal
journal = Journal(Path(sys.argv[1]))
for i in range(int(sys.argv[2])): journal.write("result", key=f"{sys.argv[3]}{i}", said="p" * 1000)
"""


def test_many_writers_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), "50"]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(ending(subprocess.Popen([*command, name]))) for name in "abcd"]
        assert [w.wait(timeout=120) for w in writers] == [0] * 4
    assert len(Ledger(tmp_path).refresh().results()) == 200


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    with ending(subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "100000", "k"])) as writer:
        wait_until(lambda: Ledger(tmp_path).refresh().results())
        writer.kill()
        writer.wait()
    path = next((tmp_path / "journals").iterdir())
    whole = path.read_bytes().count(b"\n")
    assert len(Ledger(tmp_path).refresh().results()) == whole


def test_a_full_disk_is_one_line_and_takes_nothing_with_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write("result", key="a")
    size = journal.path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            journal.write("result", key="b", said="x" * 100)
        with pytest.raises(UserError, match="cannot be written"):  # lines written together come together or not at all
            journal.write_many("result", [{"key": "d"}, {"key": "e", "said": "x" * 100}])
        with pytest.raises(UserError, match="cannot be written"):
            write_atomic(tmp_path / "big", b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    journal.write("result", key="c")
    assert {r["key"] for r in Ledger(tmp_path).refresh().results()} == {"a", "c"}
    assert journal.path.read_bytes().count(b"\n") == 2
    assert not list(tmp_path.glob("*big*"))


def test_atomic_files_are_whole_or_not_there(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "x.json", {"ä": [1, 2]})
    assert read_json(tmp_path / "a" / "x.json") == {"ä": [1, 2]}
    (tmp_path / "cut.json").write_text(json.dumps([1, 2])[:-1])
    with pytest.raises(UserError, match="not whole JSON"):
        read_json(tmp_path / "cut.json")
