"""The ledger: append-only journals, one file a process, shared by all sweeps of an output folder.

A line is one JSON object, written whole and fsynced. `result` is a commit: its predictions file was complete before the
line was. A torn last line (a killed writer, a full disk) is ignored by every reader, and every whole line is kept.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from blip2sweep.errors import UserError

# Lines: `started`, then one of ENDS with the same attempt id; `worker` when a process takes up a pack, ends it (`ended`) or warns (`warning`); `measured` when a
# result was compared with its baseline, which tables alone are made from.
ENDS = ("result", "failed", "requeued")
MEASURED = b'{"event":"measured",'
KEY = re.compile(rb'"key":"([^"]*)"')
# What `Journal.write` puts first into lines of cells; text with escapes is left to the JSON parser.
HEAD = re.compile(
    rb'\{"event":"(started|result)","time":([0-9.]+),"host":"([^"\\]*)","pid":([0-9]+),'
    rb'"key":"([^"\\]*)","sweep":"([^"\\]*)","run":"([^"\\]*)","attempt":"([^"\\]*)"'
)
FAILURES = ("oom", "timeout", "preempted", "bad_config", "crash", "lost")


class Journal:
    """One process's append-only file. Opened at the first line, so that a reader leaves no file behind."""

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / "journals" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        self._fd: int | None = None

    def write(self, event: str, **fields: Any) -> None:
        """Append one line and fsync it. Raises UserError, one line, when the disk refuses."""
        self.write_many(event, [fields])

    def write_many(self, event: str, records: Iterable[dict[str, Any]]) -> None:
        """Append lines of one kind with one fsync: all of them, or none and UserError."""
        head = {"event": event, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        lines = [json.dumps({**head, **r}, separators=(",", ":"), default=str).encode() + b"\n" for r in records]
        try:
            _write_all(self._open(), b"".join(lines))
        except OSError as error:
            raise UserError(
                f"ledger {self.path}: cannot be written ({error.strerror}); right: a writable output_dir with space"
            ) from error

    def _open(self) -> int:
        if self._fd is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        return self._fd

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """A large ledger is a million small objects, none of them garbage: looking for it takes half of the time otherwise."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _write_all(fd: int, lines: bytes) -> None:
    """Whole lines or nothing: what a full disk cut off is taken back, so that a later line does not join it."""
    start = os.fstat(fd).st_size
    try:
        written = os.write(fd, lines)
        if written < len(lines):
            raise OSError(28, "No space left on device")
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, start)
        raise


@dataclass(slots=True)
class Attempts:
    """All that the journals say of one key. An attempt is named by an id: clocks of different hosts are not compared."""

    starts: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    result: dict[str, Any] | None = None
    results: set[str] = field(default_factory=set)
    failures: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)  # by what they were made from
    unscored: dict[str, Any] | None = None  # why the newest try to score it failed

    @property
    def started(self) -> int:
        return len(self.starts)

    @property
    def last_start(self) -> dict[str, Any] | None:
        return max(self.starts.values(), key=lambda r: r["time"], default=None)

    @property
    def open(self) -> list[dict[str, Any]]:
        """Starts that nothing has ended: the cell is in hand, or was when its process died."""
        return [start for attempt, start in self.starts.items() if attempt not in self.ended]

    @property
    def done(self) -> bool:
        return self.result is not None

    @property
    def last_failure(self) -> dict[str, Any] | None:
        """The newest failure that no later result made good."""
        if not self.failures or (self.result and self.result["time"] >= self.failures[-1]["time"]):
            return None
        return self.failures[-1]

    def failed_in(self, runs: Collection[str]) -> list[dict[str, Any]]:
        """Failures of these runs (one launch of a sweep each)."""
        return [f for f in self.failures if f.get("run") in runs]

    def take(self, record: dict[str, Any]) -> None:
        event, attempt = record["event"], attempt_id(record)
        if event == "started":
            self.starts[attempt] = record
        elif event in ENDS:
            self.ended.add(attempt)
        if event == "result":
            self.results.add(attempt)
            self.result = max(self.result or record, record, key=lambda r: r["time"])
        elif event == "measured":
            known = self.measured.get(record["source"])
            self.measured[record["source"]] = max(known or record, record, key=lambda r: r["time"])
        elif event == "unscored":
            self.unscored = record
        elif event == "failed":
            self.failures = sorted([*self.failures, record], key=lambda r: r["time"])


def attempt_id(record: dict[str, Any]) -> str:
    """The attempt a line belongs to."""
    return str(record.get("attempt") or record.get("time"))


def _brief(head: re.Match[bytes]) -> dict[str, Any]:
    """The record of a HEAD: a few times faster than parsing the whole line."""
    event, when, host, pid, key, sweep, run, attempt = head.groups()
    return {"event": event.decode(), "time": float(when), "host": host.decode(), "pid": int(pid), "key": key.decode(),
            "sweep": sweep.decode(), "run": run.decode(), "attempt": attempt.decode()}  # fmt: skip


class Ledger:
    """Reads journals, only what is new since the last look. Writers are other processes and may be running.

    only: keys to remember; all others are skipped unparsed, so that a worker holds its own pack and no more.
    brief: of starts and results only HEAD is kept, which is all that following a sweep needs.
    measured: remember what was measured too; else those lines are skipped unparsed.
    """

    def __init__(
        self, output_dir: Path, only: Collection[str] | None = None, brief: bool = False, measured: bool = False
    ) -> None:
        self.output_dir, self.brief, self.measured = output_dir, brief, measured
        self._only = None if only is None else {k.encode() for k in only}
        self._offsets: dict[str, int] = {}
        self.attempts: dict[str, Attempts] = {}
        self.workers: list[dict[str, Any]] = []

    def refresh(self) -> Ledger:
        """Read the lines added since the last call."""
        with no_garbage():
            for path in self._grown():
                for line in self._new_lines(path):
                    self._take(line)
        return self

    def reopen(self) -> Ledger:
        """Have a network file system look again: it does so for a file that is opened."""
        for path in (self.output_dir / "journals").glob("*.jsonl"):
            os.close(os.open(path, os.O_RDONLY))
        return self

    def _grown(self) -> list[str]:
        """Journals longer than at the last look, found without opening any."""
        try:
            with os.scandir(self.output_dir / "journals") as entries:
                files = [e for e in entries if e.name.endswith(".jsonl")]
                return sorted(e.path for e in files if e.stat().st_size > self._offsets.get(e.path, 0))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _new_lines(self, path: str) -> list[bytes]:
        offset = self._offsets.get(path, 0)
        with open(path, "rb") as file:  # noqa: PTH123
            file.seek(offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offsets[path] = offset + whole
        return data[:whole].splitlines()

    def _take(self, line: bytes) -> None:
        if not self.measured and line.startswith(MEASURED):
            return
        head = HEAD.match(line) if self.brief and line.endswith(b"}") else None
        if self._only is not None:
            key = head[5] if head else (found[1] if (found := KEY.search(line)) else None)
            if key is not None and key not in self._only:
                return
        record = _brief(head) if head else self._parsed(line)
        if isinstance(record, dict) and "key" in record:
            if record["key"] not in self.attempts:
                self.attempts[record["key"]] = Attempts()
            self.attempts[record["key"]].take(record)
        elif isinstance(record, dict) and record.get("event") == "worker":
            self.workers.append(record)

    def _parsed(self, line: bytes) -> Any:
        for loads in (orjson.loads, json.loads):  # the second knows NaN, and takes three times as long
            with contextlib.suppress(ValueError):
                return loads(line)
        return None  # a line torn by a crash before a later writer's newline

    def done(self, key: str, not_counting: Collection[str] = ()) -> bool:
        """True when a result is committed for the key; some attempts' results may be left out of account."""
        return key in self.attempts and bool(self.attempts[key].results.difference(not_counting))

    def results(self) -> list[dict[str, Any]]:
        """The newest result of every key that has one."""
        return [a.result for a in self.attempts.values() if a.result]
