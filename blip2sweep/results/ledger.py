"""The ledger: append-only journals, one file a process, shared by all sweeps of an output folder.

A line is one JSON object, written whole and fsynced. `result` is a commit: its predictions file was complete before the
line was. A torn last line (a killed writer, a full disk) is ignored by every reader, and every whole line is kept. What is
damaged, or cannot be read, is named once and left out; a result whose predictions are gone or cut is none.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from blip2sweep.console.remarks import many, remark, some
from blip2sweep.files import as_noted, seal_holds
from blip2sweep.results.attempts import Attempts, attempt_id
from blip2sweep.results.journal import OPENED, Journal
from blip2sweep.results.lines import number_of, parse, parse_old

__all__ = ["FAILURES", "Attempts", "Journal", "Ledger", "attempt_id", "no_garbage"]

# Lines: `started`, then one of ENDS (attempts.py) with the same attempt id; `worker` when a process takes up a pack, ends it
# (`ended`) or warns (`warning`); `measured` when a result was compared with its baseline, which tables alone are made from.
MEASURED = b'{"event":"measured",'
KEY = re.compile(rb'"key":"([^"]*)"')
# What `Journal.write` puts first into lines of cells; text with escapes is left to the JSON parser.
HEAD = re.compile(
    rb'\{"event":"(started|result)","time":([0-9.]+),"host":"([^"\\]*)","pid":([0-9]+),'
    rb'"key":"([^"\\]*)","sweep":"([^"\\]*)","run":"([^"\\]*)","attempt":"([^"\\]*)"'
)
FILES = re.compile(rb'"predictions":(?:null|"([^"\\]*)")(?:,"files":(\{[^{}]*\}))?')
KNOWN = re.compile(rb',("replaces":\[[^\[\]]*\],"starts":\[[^\[\]]*\])')
SEMANTICS = re.compile(rb'"semantics":(\d+)')
FAILURES = ("oom", "timeout", "preempted", "disk_full", "bad_config", "crash", "lost")
PARTIAL = "the numbers may be incomplete"
MOST_STATS = 200  # results whose files are looked for one by one; for more the folder is listed
MOST_WHOLE = 20_000  # results of which following asks more than whether their files are there


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


def _brief(head: re.Match[bytes], line: bytes) -> dict[str, Any]:
    """The record of a HEAD: a few times faster than parsing the whole line."""
    record: dict[str, Any] = orjson.loads(head[0] + b"}")
    if head[1] == b"result" and (files := FILES.search(line, head.end())):
        record["predictions"] = files[1].decode() if files[1] else None
        record["files"] = files[2]
        if known := KNOWN.match(line, files.end()):
            record |= orjson.loads(b"{" + known[1] + b"}")
        record["semantics"] = int(found[1]) if (found := SEMANTICS.search(line, files.end())) else None
    return record


@dataclass(slots=True)
class _Journal:
    """How far a journal was read, and what was found odd in it."""

    closed: int = 0  # lines it is known to have
    offset: int = 0
    lines: int = 0
    number: int = 0  # that the next sealed line is to have
    sealed: bool = False
    odd: list[int] = field(default_factory=list)  # lines, from 1
    since: int = 0  # odd ones after the last good one
    missing: int = 0

    def told(self) -> str:
        """`2 damaged or odd lines left out (line 3, 7), 1 line missing`; empty for a whole one."""
        odd = f"{many(len(self.odd), 'damaged or odd line')} left out (line {some([*map(str, self.odd)])})"
        told = [odd] * bool(self.odd) + [f"{many(self.missing, 'line')} missing"] * bool(self.missing)
        return ", ".join(told)

    def follows(self, number: int) -> bool:
        """Take note of a sealed line. False for one that was there before."""
        self.sealed = True
        if number < self.number:
            return False
        self.missing += max(0, number - self.number - self.since)
        self.number, self.since = number + 1, 0
        return True


class Ledger:
    """Reads journals, only what is new since the last look. Writers are other processes and may be running.

    only: keys to remember; all others are skipped unparsed, so that a worker holds its own pack and no more.
    brief: of starts and results only HEAD is kept, which is all that following a sweep needs.
    measured: remember what was measured too; else those lines are skipped unparsed.

    unreadable: files of others that could not be read, so that more may be done than is known here.
    """

    def __init__(
        self, output_dir: Path, only: Collection[str] | None = None, brief: bool = False, measured: bool = False
    ) -> None:
        self.output_dir, self.brief, self.measured = output_dir, brief, measured
        self._only = None if only is None else {k.encode() for k in only}
        self._journals: dict[str, _Journal] = {}
        self._unchecked: list[tuple[Attempts, dict[str, Any]]] = []
        self._rivals: dict[str, Sequence[str]] = {}
        self._expected: dict[str, int] | None = None  # {name: lines} of all journals, as far as they were closed
        self.unreadable: set[str] = set()
        self.attempts: dict[str, Attempts] = {}
        self.workers: list[dict[str, Any]] = []

    def refresh(self) -> Ledger:
        """Read the lines added since the last call."""
        with no_garbage():
            for path in self._grown():
                self._read(path)
            self._check_files()
            self._tell_rivals()
        return self

    def reopen(self) -> Ledger:
        """Have a network file system look again: it does so for a file that is opened."""
        for path in (self.output_dir / "journals").glob("*.jsonl"):
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return self

    def drop(self, result: dict[str, Any]) -> None:
        """A result whose predictions turned out to be damaged when they were read."""
        self.attempts[result["key"]].lose(attempt_id(result))

    # ---- lines

    def _grown(self) -> list[str]:
        """Journals longer than at the last look, found without opening any."""
        first = self._expected is None
        if first:
            self._expected = _sizes(self.output_dir / OPENED)
        try:
            with os.scandir(self.output_dir / "journals") as entries:
                files = {e.path: self._size(e) for e in entries if e.name.endswith(".jsonl")}
        except (FileNotFoundError, NotADirectoryError):
            files = {}
        except OSError as error:
            self._cannot_read(str(self.output_dir / "journals"), error)
            return []
        if first and self._expected:
            self._miss(self._expected.keys() - set(map(os.path.basename, files)))
        for path in files.keys() - self._journals.keys():
            self._journals[path] = _Journal(closed=(self._expected or {}).get(Path(path).name, 0))
        grown = (p for p, size in files.items() if size > self._journals[p].offset or self._journals[p].closed)
        return sorted(grown)

    def _miss(self, names: Collection[str]) -> None:
        folder = self.output_dir / "journals"
        lost = sorted(n for n in names if not os.path.lexists(folder / n))
        if lost:
            remark(f"{folder}: {many(len(lost), 'journal')} gone with all that was in there ({some(lost)}); "
                   f"if that was meant, remove the names from {self.output_dir / OPENED} too")  # fmt: skip

    def _size(self, entry: os.DirEntry[str]) -> int:
        try:
            return entry.stat().st_size
        except OSError as error:
            self._cannot_read(entry.path, error)
            return 0

    def _cannot_read(self, path: str, error: OSError) -> None:
        self.unreadable.add(path)
        remark(f"{path}: cannot be read ({error.strerror}); what it holds is left out and {PARTIAL}")

    def _read(self, path: str) -> None:
        journal = self._journals[path]
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                file.seek(journal.offset)
                data = file.read()
        except OSError as error:
            self._cannot_read(path, error)
            return
        self.unreadable.discard(path)
        whole = data.rfind(b"\n") + 1
        journal.offset += whole
        before = (len(journal.odd), journal.missing)
        take = self._take_sealed
        for line in data[:whole].split(b"\n")[:-1]:
            journal.lines += 1
            number = number_of(line)
            if number == journal.number and not journal.since:  # as nearly all are
                journal.number, journal.sealed = number + 1, True
                good = take(line)
            else:
                good = self._take(line, number, journal)
            if not good:
                journal.odd.append(journal.lines)
                journal.since += 1
        journal.missing += max(0, journal.closed - journal.number - journal.since)
        journal.closed = 0
        if before != (len(journal.odd), journal.missing):
            remark(f"{path}: {journal.told()}")

    def _take(self, line: bytes, number: int | None, journal: _Journal) -> bool:
        """False for a line that is damaged, odd or there a second time. number: of a sealed line."""
        if number is not None:
            return journal.follows(number) and self._take_sealed(line)
        record = None if journal.sealed or seal_holds(line) is False else parse_old(line)
        if record is None:
            return False
        if self._only is None or record.get("key", "").encode() in self._only or "key" not in record:
            self._keep(record)
        return True

    def _take_sealed(self, line: bytes) -> bool:
        if not self.measured and line.startswith(MEASURED):
            return True
        head = HEAD.match(line) if self.brief else None
        if self._only is not None:
            key = head[5] if head else (found[1] if (found := KEY.search(line)) else None)
            if key is not None and key not in self._only:
                return True
        record = _brief(head, line) if head else parse(line)
        if not isinstance(record, dict):
            return False
        self._keep(record)
        return True

    def _keep(self, record: dict[str, Any]) -> None:
        key, event = record.get("key"), record["event"]
        if key is None:
            if event == "worker":
                self.workers.append(record)
        elif event != "measured" or self.measured:
            if key not in self.attempts:
                self.attempts[key] = Attempts()
            self.attempts[key].take(record)
            if event == "result":
                self._see_to(self.attempts[key], record)

    def _see_to(self, attempts: Attempts, result: dict[str, Any]) -> None:
        if result.get("predictions"):
            self._unchecked.append((attempts, result))
        if attempts.rivals:
            self._rivals[result["key"]] = attempts.rivals
        elif self._rivals:
            self._rivals.pop(result["key"], None)

    # ---- what results rest on

    def _check_files(self) -> None:
        """A result whose predictions are gone or cut is none: whoever asks for the cell computes it again."""
        unchecked, self._unchecked = self._unchecked, []
        look = _Look(self.output_dir / "predictions", len(unchecked), self.brief)
        lost, bare = list[str](), list[str]()
        for attempts, record in unchecked:
            (name, note), *seconds = files_of(record)
            if not look.there(name, note):
                attempts.lose(attempt_id(record))
                lost.append(f"{self.output_dir}/predictions/{name}")
            elif seconds and attempts.result is record:
                bare += [f"{self.output_dir}/predictions/{n}" for n, note in seconds if not look.there(n, note)]
        if lost:
            remark(f"{many(len(lost), 'result')} not counted: the predictions are gone or damaged ({some(lost)}); "
                   "right: the command they came from, which computes them again")  # fmt: skip

        if bare:
            remark(
                f"{many(len(bare), 'second run')} gone or damaged, with the noise floor measured by it ({some(bare)})"
            )

    def _tell_rivals(self) -> None:
        rivals = [f"{key} ({max(r)} of {some(r)})" for key, r in self._rivals.items()]
        if rivals:
            remark(f"{many(len(rivals), 'cell')} with results that do not know each other, computed at the same time; the "
                   f"larger attempt id counts: {some(rivals)}")  # fmt: skip

    def done(self, key: str, not_counting: Collection[str] = ()) -> bool:
        """True when a result is committed for the key; some attempts' results may be left out of account."""
        return key in self.attempts and bool(self.attempts[key].results.difference(not_counting))

    def results(self) -> list[dict[str, Any]]:
        """The newest result of every key that has one."""
        return [a.result for a in self.attempts.values() if a.result]


def files_of(result: dict[str, Any]) -> list[tuple[str, list[int] | None]]:
    """(name in `predictions/`, what it was when it was written) of the file that a `result` line rests on, and of its second
    runs: without them there is no noise floor, and no more is lost."""
    name, noted = f"{result['key']}-{result['predictions'][:12]}", result.get("files") or {}
    if isinstance(noted, bytes):
        noted = orjson.loads(noted)
    second = [(f"{name}-{k}.json", note) for k, note in noted.items() if k.startswith("noise")]
    return [(f"{name}.json", noted.get("predictions")), *second]


class _Look:
    """Whether files of a folder are there and as they were written."""

    def __init__(self, folder: Path, files: int, brief: bool) -> None:
        self.folder, self._stats = str(folder), dict[str, os.DirEntry[str]]()
        self._by_name = brief and files > MOST_WHOLE
        if files > MOST_STATS:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                self._stats = {e.name: e for e in entries}

    def there(self, name: str, note: list[int] | None) -> bool:
        path, entry = f"{self.folder}/{name}", self._stats.get(name)
        if entry and self._by_name:
            return True
        try:
            stat = entry.stat() if entry else os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # somebody else's: who wants to read it is told
        return as_noted(path, stat, note)


def _sizes(folder: Path) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {e.name: e.stat().st_size for e in entries}
    except OSError:
        return {}
