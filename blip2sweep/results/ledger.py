"""The ledger: append-only journals, one file for each process, shared by all sweeps of an output folder.

A line is one JSON object, written whole and fsynced. A `result` line is a commit: its predictions file was complete
before the line was written. Every reader ignores a torn last line, which a killed writer or a full disk leaves, and
keeps every whole line. A damaged or unreadable line or file is named once and left out. A result whose predictions are
gone or cut does not count.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from blip2sweep.console.remarks import many, remark, some
from blip2sweep.files import seal_holds
from blip2sweep.results.attempts import Attempts, attempt_id
from blip2sweep.results.brief import HEAD, KEY, MEASURED, brief
from blip2sweep.results.committed import discard_lost
from blip2sweep.results.journal import Journal
from blip2sweep.results.journal_files import JournalFiles
from blip2sweep.results.line_batches import LINES, Batches, Kept
from blip2sweep.results.lines import number_of, parse, parse_old
from blip2sweep.results.progress import JournalRead
from blip2sweep.results.record import Tables
from blip2sweep.results.stopped import images_of, is_unfinished
from blip2sweep.wire.lines import Line, ResultLine, WorkerLine, line_of
from blip2sweep.wire.stopping import StopRequest

__all__ = ["FAILURES", "Attempts", "Journal", "Ledger", "attempt_id", "no_garbage"]

FAILURES = ("oom", "timeout", "preempted", "disk_full", "bad_config", "chat", "crash", "lost")
ANY: StopRequest = {"stop": "verdict", "margin": 1.0, "images": {}}  # stands for no question at all


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Switch the garbage collector off inside. A large ledger makes a million small objects, none of which is garbage;
    looking for some would take half of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class Ledger:
    """Reads journals. Each refresh reads only lines that are new. Writers are other processes, which may be running.

    only: the keys to remember. Lines of other keys are skipped without parsing, so that a worker holds its own pack and
    no more. brief: keep only the HEAD of starts and results, which is all that following a sweep needs. measured: also
    remember `measured` lines, which are skipped without parsing otherwise.

    unreadable: files that could not be read. Cells in them may be done although this ledger does not know it.
    """

    def __init__(
        self, output_dir: Path, only: Collection[str] | None = None, brief: bool = False, measured: bool = False
    ) -> None:
        self.output_dir, self.brief, self.measured = output_dir, brief, measured
        self._only = None if only is None else {k.encode() for k in only}
        self._files = JournalFiles(output_dir)
        self._unchecked: list[tuple[Attempts, ResultLine]] = []
        self._rivals: dict[str, Sequence[str]] = {}
        self._tables = Tables()  # of all lines where those of measurements are among them
        self._batches = Batches(self._tables) if measured and only is None and not brief else None
        self.unreadable = self._files.unreadable
        self.attempts: dict[str, Attempts] = {}
        self.workers: list[WorkerLine] = []

    def refresh(self) -> Ledger:
        """Read the lines that were added since the last call."""
        with no_garbage():
            for path in self._files.grown():
                self._read(path)
            self._tables.pack()
            found = self._unchecked
            self._unchecked = [(a, r) for a, r in found if a.hidden and attempt_id(r) in a.hidden]  # may come back
            counting = found if not self._unchecked else [(a, r) for a, r in found if attempt_id(r) not in a.hidden]
            discard_lost(self.output_dir, counting, self.brief)
            self._remark_rivals()
        return self

    def reopen(self) -> Ledger:
        """Open every journal once. A network file system then fetches the file's current size."""
        for path in (self.output_dir / "journals").glob("*.jsonl"):
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return self

    def discard(self, result: ResultLine) -> None:
        """Stop counting a result whose predictions turned out to be damaged when they were read."""
        self.attempts[result["key"]].mark_missing(attempt_id(result))

    # ---- lines

    def _read(self, path: str) -> None:
        journal = self._files.known[path]
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                file.seek(journal.offset)
                data = file.read()
        except OSError as error:
            self._files.cannot_read(path, error)
            return
        self.unreadable.discard(path)
        complete = data.rfind(b"\n") + 1
        journal.offset += complete
        seen_before = (len(journal.odd), journal.missing)
        lines = data[:complete].split(b"\n")[:-1]
        del data
        for start in range(0, len(lines), LINES):
            batch = lines[start : start + LINES]
            if not self._take_together(batch, journal):
                self._take_each(batch, journal)
        journal.missing += max(0, journal.closed - journal.number - journal.since)
        journal.closed = 0
        if seen_before != (len(journal.odd), journal.missing):
            remark(f"{path}: {journal.summary()}")

    def _take_together(self, lines: Sequence[bytes], journal: JournalRead) -> bool:
        """Take in lines at once. False where that cannot be done, and nothing was."""
        batch = self._batches.read(lines, journal.number) if self._batches and not journal.since else None
        if batch is None:
            return False
        journal.lines += len(lines)
        journal.number, journal.sealed = journal.number + len(lines), True
        for line in batch:
            if isinstance(line, Kept):
                event, key, name, record = line
                attempts = self._attempts_of(key)
                attempts.add_known(event, name, record)
                if event == "result" or self._rivals or attempts.rivals:
                    self._note(key, event, attempts, record)
            else:
                self._keep(line)
        return True

    def _take_each(self, lines: Iterable[bytes], journal: JournalRead) -> None:
        """Take in lines one by one, and note those that are damaged or odd."""
        take = self._take_sealed
        for line in lines:
            journal.lines += 1
            number = number_of(line)
            if number == journal.number and not journal.since:  # the usual case
                journal.number, journal.sealed = number + 1, True
                accepted = take(line)
            else:
                accepted = self._take(line, number, journal)
            if not accepted:
                journal.odd.append(journal.lines)
                journal.since += 1

    def _take(self, line: bytes, number: int | None, journal: JournalRead) -> bool:
        """Take in one line. False for a line that is damaged, malformed or a repetition. number: None for a line
        without a seal."""
        if number is not None:
            return journal.follows(number) and self._take_sealed(line)
        record = None if journal.sealed or seal_holds(line) is False else parse_old(line)
        if record is None:
            return False
        if self._only is None or record["event"] == "worker" or record["key"].encode() in self._only:
            self._keep(record)
        return True

    def _take_sealed(self, line: bytes) -> bool:
        of_measurement = line.startswith(MEASURED)
        if of_measurement and not self.measured:
            return True
        head = HEAD.match(line) if self.brief else None
        if self._only is not None:
            key = head[5] if head else (found[1] if (found := KEY.search(line)) else None)
            if key is not None and key not in self._only:
                return True
        record = brief(head, line) if head else line_of(parse(line))
        if record is None:
            return False
        record.pop("crc", None)  # type: ignore[typeddict-item]
        self._keep(record)
        return True

    def _keep(self, line: Line) -> None:
        if line["event"] == "worker":
            self.workers.append(line)
        elif "key" in line and (line["event"] != "measured" or self.measured):
            attempts, kept = self._attempts_of(line["key"]), self._tables.add(line) if self.measured else line
            attempts.add(line, kept)
            self._note(line["key"], line["event"], attempts, kept)

    def _attempts_of(self, key: str) -> Attempts:
        attempts = self.attempts.get(key)
        if attempts is None:
            attempts = self.attempts[key] = Attempts()
        return attempts

    def _note(self, key: str, event: str, attempts: Attempts, kept: Any) -> None:
        """Note what has to be looked at when all lines are read. kept: the line that was added last."""
        if event == "result" and kept.get("predictions"):
            self._unchecked.append((attempts, kept))
        if attempts.rivals:
            self._rivals[key] = attempts.rivals
        elif self._rivals:
            self._rivals.pop(key, None)

    # ---- results

    def _remark_rivals(self) -> None:
        rivals = [f"{key} ({max(r)} of {some(r)})" for key, r in self._rivals.items()]
        if rivals:
            remark(f"{many(len(rivals), 'cell')} with results that do not know each other, computed at once or merged; the "
                   f"larger attempt id counts: {some(rivals)}")  # fmt: skip

    def done(self, key: str, not_counting: Collection[str] = (), request: StopRequest | None = ANY) -> bool:
        """Whether a result is committed for the key. not_counting: attempts whose results are ignored. request: who asks
        for what a stopped result may have; None for all images. By default any result counts.

        Of results with the same images, which sweeps with other rules have committed, it is enough that one satisfies.
        """
        attempts = self.attempts.get(key)
        if attempts and len(attempts.all_results) == 1 and not not_counting:  # the usual case
            return attempts.done and (request is ANY or not is_unfinished(attempts.result, request))
        counting = attempts.results.difference(not_counting) if attempts else ()
        if not attempts or not counting or request is ANY:
            return bool(counting)
        results = [attempts.all_results[a] for a in counting]
        most = max(map(images_of, results))
        return any(images_of(r) == most and not is_unfinished(r, request) for r in results)

    def results(self) -> list[ResultLine]:
        """The result that counts, of every key that has one."""
        return [a.result for a in self.attempts.values() if a.result is not None]
