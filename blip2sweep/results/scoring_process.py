"""Scoring beside the device, the worker's end: a process (`scoring_service.py`) scores finished cells while the next ones run."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TypeGuard

from blip2sweep.wire.lines import Failure
from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.scoring import ScoreAnswer, ScoreRequest, WarmRequest

# METEOR takes 5 to 9 s to start and half a millisecond a text; a busy node is given forty times as long.
FEWEST_SECONDS, SECONDS_A_TEXT, BYTES_A_TEXT = 300.0, 0.02, 100
TOGETHER = 64  # requests that are taken at once
HANGS = 2  # cells in a row, each with a process of its own, after which no other is tried


class ScoringProcess:
    """The worker's end: `submit` returns at once. A process that dies leaves its cells unscored; the next cell gets
    another one. One that hangs is killed with its children: of several cells that wait for it each gets another one of
    its own at the end, and the one that hangs again is given up. Any thread may read `unscored`.

    minutes: without an answer for so long it hangs; None: FEWEST_SECONDS and some for each text that waits.
    """

    def __init__(self, output_dir: Path, minutes: float | None = None) -> None:
        self.output_dir, self.minutes = output_dir, minutes
        self.written: set[str] = set()  # keys whose statistics were not there before
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._pending: dict[str, ScoreRequest] = {}  # by key, in the order in which they were sent
        self._alone: list[ScoreRequest] = []  # in hand, or waiting, when a process hung
        self._heard = 0.0  # when there was something new to wait for
        self._hung: float | None = None  # after how many seconds it was killed for that
        self._closing = threading.Event()
        self._failed: queue.SimpleQueue[tuple[str, Failure]] = queue.SimpleQueue()

    def warm(self, task: TaskJob) -> None:
        """Read a task's references and start METEOR before the first cell is done."""
        self._send({"task": task})

    def submit(self, key: str, name: str, task: TaskJob, baseline: str) -> None:
        """Have the predictions `name` of cell `key` scored, and measured against the cell `baseline`."""
        self._send({"key": key, "name": name, "task": task, "baseline": baseline})

    def _send(self, request: ScoreRequest | WarmRequest) -> None:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        if is_score(request):
            if not self._pending:
                self._heard = time.monotonic()
            self._pending[request["key"]] = request
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._end()  # which tells that it died, and of what

    def unscored(self) -> Iterator[tuple[str, Failure]]:
        """(key, failure) of cells that could not be scored, each told once."""
        while not self._failed.empty():
            yield self._failed.get()

    def close(self) -> None:
        """Wait until everything submitted is scored, or given up."""
        self._end()
        hung = 0
        while self._alone:
            request = self._alone.pop(0)
            if hung == HANGS:  # nothing can be scored here
                self._give_up(request, f"scoring hangs, of {HANGS} other cells too")
                continue
            before = self._failed.qsize()
            self._send(request)
            self._end()
            hung = hung + 1 if self._failed.qsize() > before else 0

    def _end(self) -> None:
        """Have the process finish what it has, and tell what it could not."""
        process, self._process = self._process, None
        if process is None or self._reader is None:
            return
        assert process.stdin is not None
        self._heard = time.monotonic()
        with contextlib.suppress(OSError):  # it may be gone already
            process.stdin.close()
        self._closing.set()
        self._reader.join()
        code, pending = process.wait(), list(self._pending.values())
        self._pending.clear()
        if self._hung is not None and len(pending) > 1:
            self._alone += pending
        elif self._hung is not None:
            for request in pending:
                self._give_up(
                    request, f"scoring did not end within {self._hung:.0f} s and was stopped (scoring_minutes)"
                )
        else:
            for request in pending:
                error = f"the scoring process ended with code {code}; right: blip2sweep rescore"
                self._failed.put((request["key"], {"kind": "crash", "error": error, "traceback": ""}))

    def _give_up(self, request: ScoreRequest, why: str) -> None:
        error = f"{why}; right: blip2sweep retry"
        self._failed.put((request["key"], {"kind": "timeout", "error": error, "traceback": ""}))

    def _start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "blip2sweep.results.scoring_service",
            str(self.output_dir),
            str(self.minutes or 0),
        ]
        # A session of its own: Ctrl-C and job signals are for the worker, who closes the input.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._hung, self._heard, self._closing = None, time.monotonic(), threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, args=(self._process, self._closing), daemon=True).start()

    def _read(self, answers: IO[str]) -> None:
        for line in answers:
            answer: ScoreAnswer = json.loads(line)
            self._heard = time.monotonic()
            self._pending.pop(answer["key"], None)
            if answer["failure"]:
                self._failed.put((answer["key"], answer["failure"]))
            elif answer["written"]:
                self.written.add(answer["key"])

    def _watch(self, process: subprocess.Popen[str], closing: threading.Event) -> None:
        """Kill a process that owes an answer, or its end, for too long, and what it has started."""
        while process.poll() is None:
            together = [r["name"] for r in list(self._pending.values())[:TOGETHER]]
            limit = hanging_seconds(self.output_dir, together, self.minutes)
            if (self._pending or closing.is_set()) and time.monotonic() - self._heard > limit:
                self._hung = limit
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return
            time.sleep(min(1.0, limit / 10))


def hanging_seconds(output_dir: Path, names: Sequence[str], minutes: float | None) -> float:
    """How long scoring may be silent while the predictions `names` wait for it."""
    if minutes:
        return 60 * minutes
    sizes = 0
    for name in names:
        with contextlib.suppress(OSError):
            sizes += (output_dir / "predictions" / f"{name}.json").stat().st_size
    return FEWEST_SECONDS + SECONDS_A_TEXT * sizes / BYTES_A_TEXT


def is_score(request: ScoreRequest | WarmRequest) -> TypeGuard[ScoreRequest]:
    """Whether a request has a cell to score."""
    return "key" in request
