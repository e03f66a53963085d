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
import socket
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from blip2sweep.errors import UserError
from blip2sweep.lines import number_of, parse, parse_old, sealed
from blip2sweep.remarks import remark, some
from blip2sweep.store import as_noted, make_folder, seal_holds, sync_folder

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
FILES = re.compile(rb'"predictions":"([^"\\]*)"(?:,"files":(\{[^{}]*\}))?')
FAILURES = ("oom", "timeout", "preempted", "disk_full", "bad_config", "crash", "lost")
OPENED = ".journals"  # a folder of empty files: the names of all journals there ever were, so that a lost one is missed
PARTIAL = "the numbers may be incomplete"
MOST_STATS = 200  # results whose files are looked for one by one; for more the folder is listed


class Journal:
    """One process's append-only file. Opened at the first line, so that a reader leaves no file behind."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.path = _new_path(output_dir)
        self._fd: int | None = None
        self._lines = 0  # that are there

    def write(self, event: str, **fields: Any) -> None:
        """Append one line and fsync it. Raises UserError, one line, when the disk refuses."""
        self.write_many(event, [fields])

    def write_many(self, event: str, records: Iterable[dict[str, Any]]) -> None:
        """Append lines of one kind with one fsync: all of them, or none and UserError."""
        head = {"event": event, "time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        try:
            fd = self._open()
            lines = [sealed({**head, **r}, i) for i, r in enumerate(records, self._lines)]
            _write_all(fd, b"".join(lines))
            self._lines += len(lines)
        except OSError as error:
            raise UserError(
                f"ledger {self.path}: cannot be written ({error.strerror}); right: a writable output_dir with space"
            ) from error

    def _open(self) -> int:
        if self._fd is not None and not _is_at(self._fd, self.path):
            remark(f"ledger {self.path}: moved or removed while it was written; going on in a new one there")
            self.close()
            self.path, self._lines = _new_path(self.output_dir), 0
        if self._fd is None:
            make_folder(self.path.parent)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            sync_folder(self.path.parent)
            note_opened(self.path)
        return self._fd

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _new_path(output_dir: Path) -> Path:
    return output_dir / "journals" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open file is still the one with that name: predictions go where the name says."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def note_opened(path: Path) -> None:
    """Leave a journal's name, so that it is missed should it get lost. Nothing depends on it otherwise."""
    folder = path.parent.parent / OPENED
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        (folder / path.name).touch()
        sync_folder(folder)


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
    known: dict[str, dict[str, Any]] = field(default_factory=dict)  # every result, by attempt
    gone: set[str] = field(default_factory=set)  # of these, whose predictions are not what was written
    result: dict[str, Any] | None = None  # the one that counts
    rivals: list[str] = field(default_factory=list)  # results that do not know each other, where there are several
    failures: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)  # by what they were made from

    @property
    def started(self) -> int:
        """How many attempts there were, those included that only the result still knows of."""
        return max(len(self.starts), 1 + len(self.result.get("starts", ())) if self.result else 0)

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
    def results(self) -> set[str]:
        """The attempts whose results are there; none where the newest is not, for what it replaced counts no more."""
        return {a for a in self.known if a not in self.gone} if self.result else set()

    @property
    def last_failure(self) -> dict[str, Any] | None:
        """The newest failure that no later result made good."""
        if not self.failures or (self.result and _made_good(self.failures[-1], self.result)):
            return None
        return self.failures[-1]

    def failed_in(self, runs: Collection[str]) -> list[dict[str, Any]]:
        """Failures of these runs (one launch of a sweep each)."""
        return [f for f in self.failures if f.get("run") in runs]

    def to_know(self) -> dict[str, list[str]]:
        """What a new result says that it knew: the results it replaces, the other attempts there were."""
        return {"replaces": sorted(self.known), "starts": sorted(self.starts)}

    def take(self, record: dict[str, Any]) -> None:
        event, attempt = record["event"], attempt_id(record)
        if event == "started":
            self.starts[attempt] = record
        elif event in ENDS:
            self.ended.add(attempt)
        if event == "result":
            self.known[attempt] = record
            self._choose()
        elif event == "measured":
            known = self.measured.get(record["source"])
            self.measured[record["source"]] = max(known or record, record, key=_generation)
        elif event == "failed":
            self.failures = sorted([*self.failures, record], key=lambda r: r["time"])

    def lose(self, attempt: str) -> None:
        """The predictions of this result are not there."""
        self.gone.add(attempt)
        self._choose()

    def _choose(self) -> None:
        if len(self.known) == 1:
            ((attempt, chosen),) = self.known.items()
        else:
            attempt, self.rivals = newest(self.known)
            chosen = self.known[attempt]
        self.result = None if attempt in self.gone else chosen


def newest(results: Mapping[str, dict[str, Any]]) -> tuple[str, list[str]]:
    """(the attempt whose result counts, those that could as well, when there are several). A result names those it replaces.
    Of two that do not know each other the one with the larger id counts; lines of earlier versions, which name nothing, come
    before all others and among themselves in the order of their times."""
    replaced = {a for attempt, r in results.items() for a in r.get("replaces", ()) if a != attempt}
    heads = [a for a in results if a not in replaced] or list(results)
    named = [a for a in heads if "replaces" in results[a]]
    if not named:
        return max(heads, key=lambda a: (results[a]["time"], a)), []
    return max(named), sorted(named) if len(named) > 1 else []


def _made_good(failure: dict[str, Any], result: dict[str, Any]) -> bool:
    if "starts" in result:
        return attempt_id(failure) in result["starts"]
    return bool(result["time"] >= failure["time"])


def _generation(measured: dict[str, Any]) -> tuple[int, str, float]:
    """Of measurements of one thing the one that knew of the others counts."""
    return measured.get("generation", 0), measured["scored"], measured["time"] if "n" not in measured else 0.0


def attempt_id(record: dict[str, Any]) -> str:
    """The attempt a line belongs to."""
    return str(record.get("attempt") or record.get("time"))


def _brief(head: re.Match[bytes], line: bytes) -> dict[str, Any]:
    """The record of a HEAD: a few times faster than parsing the whole line."""
    event, when, host, pid, key, sweep, run, attempt = head.groups()
    record = {"event": event.decode(), "time": float(when), "host": host.decode(), "pid": int(pid), "key": key.decode(),
              "sweep": sweep.decode(), "run": run.decode(), "attempt": attempt.decode()}  # fmt: skip
    if event == b"result" and (files := FILES.search(line, head.end())):
        record["predictions"] = files[1].decode()
        record["files"] = orjson.loads(files[2]) if files[2] else None
    return record


@dataclass(slots=True)
class _Journal:
    """How far a journal was read, and what was found odd in it."""

    offset: int = 0
    lines: int = 0
    number: int = 0  # that the next sealed line is to have
    sealed: bool = False
    odd: list[int] = field(default_factory=list)  # lines, from 1
    since: int = 0  # odd ones after the last good one
    missing: int = 0

    def told(self) -> str:
        """`2 damaged or odd lines (3, 7) are left out, 1 line is missing`; empty for a whole one."""
        many = len(self.odd)
        skipped = (
            f"{many} damaged or odd line{'s' * (many > 1)} ({some([*map(str, self.odd)])}) left out" if many else ""
        )
        return ", ".join(filter(None, (skipped, f"{self.missing} lines are missing" if self.missing else "")))

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
        self._rivals: dict[str, list[str]] = {}
        self._expected: set[str] | None = None
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
            self._expected = _names(self.output_dir / OPENED)
        try:
            with os.scandir(self.output_dir / "journals") as entries:
                files = {e.path: self._size(e) for e in entries if e.name.endswith(".jsonl")}
        except (FileNotFoundError, NotADirectoryError):
            files = {}
        except OSError as error:
            self._cannot_read(str(self.output_dir / "journals"), error)
            return []
        if first and self._expected:
            self._miss(self._expected.difference(map(os.path.basename, files)))
        return sorted(p for p, size in files.items() if size > self._journals.setdefault(p, _Journal()).offset)

    def _miss(self, names: Collection[str]) -> None:
        folder = self.output_dir / "journals"
        lost = sorted(n for n in names if not (folder / n).exists())
        if lost:
            remark(f"{folder}: {len(lost)} journals are gone, with all they held ({some(lost)}); "
                   f"were they removed on purpose, remove their names from {self.output_dir / OPENED}")  # fmt: skip

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
        for line in data[:whole].split(b"\n")[:-1]:
            journal.lines += 1
            if not self._take(line, journal):
                journal.odd.append(journal.lines)
                journal.since += 1
        if before != (len(journal.odd), journal.missing):
            remark(f"{path}: {journal.told()}")

    def _take(self, line: bytes, journal: _Journal) -> bool:
        """False for a line that is damaged, odd or there a second time."""
        number = number_of(line)
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

    # ---- what results rest on

    def _check_files(self) -> None:
        """A result whose predictions are gone or cut is none: whoever asks for the cell computes it again."""
        unchecked, self._unchecked = self._unchecked, []
        look = _Look(self.output_dir / "predictions", len(unchecked) > MOST_STATS)
        lost = [(attempts, r) for attempts, r in unchecked if not all(look.there(*file) for file in files_of(r))]
        for attempts, record in lost:
            attempts.lose(attempt_id(record))
        if lost:
            paths = [f"{self.output_dir}/predictions/{files_of(r)[0][0]}" for _, r in lost]
            remark(f"{len(lost)} results do not count, because their predictions are gone or damaged ({some(paths)}); "
                   "right: the command they came from, which computes them again")  # fmt: skip

    def _tell_rivals(self) -> None:
        rivals = [f"{key} ({max(r)} of {some(r)})" for key, r in self._rivals.items()]
        if rivals:
            remark(f"{len(rivals)} cells have results that do not know each other, computed at the same time; the larger "
                   f"attempt id counts: {some(rivals)}")  # fmt: skip

    def done(self, key: str, not_counting: Collection[str] = ()) -> bool:
        """True when a result is committed for the key; some attempts' results may be left out of account."""
        return key in self.attempts and bool(self.attempts[key].results.difference(not_counting))

    def results(self) -> list[dict[str, Any]]:
        """The newest result of every key that has one."""
        return [a.result for a in self.attempts.values() if a.result]


def files_of(result: dict[str, Any]) -> list[tuple[str, list[int] | None]]:
    """(name in `predictions/`, what it was when it was written) of the files that a `result` line rests on."""
    name, noted = f"{result['key']}-{result['predictions'][:12]}", result.get("files") or {}
    noise = [(f"{name}-noise.json", noted["noise"])] if noted.get("noise") else []
    return [(f"{name}.json", noted.get("predictions")), *noise]


class _Look:
    """Whether files of a folder are there and as they were written."""

    def __init__(self, folder: Path, many: bool) -> None:
        self.folder, self._stats = str(folder), dict[str, os.DirEntry[str]]()
        if many:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                self._stats = {e.name: e for e in entries}

    def there(self, name: str, note: list[int] | None) -> bool:
        path = f"{self.folder}/{name}"
        try:
            stat = self._stats[name].stat() if name in self._stats else os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # somebody else's: who wants to read it is told
        return as_noted(path, stat, note)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return set()
