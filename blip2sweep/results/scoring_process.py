"""The worker's side of scoring: a separate process (`scoring_service.py`) scores finished cells while the next ones
run."""

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

# METEOR takes 5 to 9 s to start and 0.5 ms for each text. A busy node gets forty times as long.
FEWEST_SECONDS, SECONDS_A_TEXT, BYTES_A_TEXT = 300.0, 0.02, 100
BATCH = 64  # most requests that are scored together
HANGS = 2  # after so many cells in a row that hang, each in a process of its own, the rest is given up


class ScoringProcess:
    """The worker's side: `submit` returns at once.

    When the process dies, its cells stay unscored and the next cell starts another process. When it hangs, it is killed
    with its children. Of several cells that waited for it, each is tried again at the end in a process of its own, and
    a cell that hangs again is given up. Any thread may read `unscored`.

    minutes: a process that is silent for so long hangs. None: FEWEST_SECONDS, and SECONDS_A_TEXT for each text that
    waits.
    """

    def __init__(self, output_dir: Path, minutes: float | None = None) -> None:
        self.output_dir, self.minutes = output_dir, minutes
        self.written: set[str] = set()  # keys whose statistics were not there before
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._pending: dict[str, ScoreRequest] = {}  # {key: request}, in the order they were sent
        self._retries: list[ScoreRequest] = []  # were pending when a process hung
        self._last_answer = 0.0  # time.monotonic() of the last answer, or of the first request after a pause
        self._hung: float | None = None  # it was killed after so many seconds without an answer
        self._closing = threading.Event()
        self._failed: queue.SimpleQueue[tuple[str, Failure]] = queue.SimpleQueue()

    def warm(self, task: TaskJob) -> None:
        """Read a task's references and start METEOR before the first cell is done."""
        self._send({"task": task})

    def submit(self, key: str, name: str, task: TaskJob, baseline: str, control: str | None = None) -> None:
        """Request that the predictions `name` of cell `key` are scored, and measured against the cells with the keys
        `baseline` and `control`."""
        request: ScoreRequest = {"key": key, "name": name, "task": task, "baseline": baseline}
        self._send({**request, "control": control} if control else request)

    def _send(self, request: ScoreRequest | WarmRequest) -> None:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        if is_score(request):
            if not self._pending:
                self._last_answer = time.monotonic()
            self._pending[request["key"]] = request
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._end()  # records the failure

    def unscored(self) -> Iterator[tuple[str, Failure]]:
        """(key, failure) of cells that could not be scored. Each is yielded once."""
        while not self._failed.empty():
            yield self._failed.get()

    def close(self) -> None:
        """Wait until everything submitted is scored or given up."""
        self._end()
        hung = 0
        while self._retries:
            request = self._retries.pop(0)
            if hung == HANGS:  # scoring hangs on this machine
                self._give_up(request, f"scoring hangs, of {HANGS} other cells too")
                continue
            before = self._failed.qsize()
            self._send(request)
            self._end()
            hung = hung + 1 if self._failed.qsize() > before else 0

    def _end(self) -> None:
        """Let the process finish what it has, and record the cells that it did not score."""
        process, self._process = self._process, None
        if process is None or self._reader is None:
            return
        assert process.stdin is not None
        self._last_answer = time.monotonic()
        with contextlib.suppress(OSError):  # the process may have ended already
            process.stdin.close()
        self._closing.set()
        self._reader.join()
        code, pending = process.wait(), list(self._pending.values())
        self._pending.clear()
        if self._hung is not None and len(pending) > 1:
            self._retries += pending
        elif self._hung is not None:
            for request in pending:
                self._give_up(
                    request, f"scoring did not end within {self._hung:.0f} s and was stopped (scoring_minutes)"
                )
        else:
            for request in pending:
                error = f"the scoring process ended with code {code}; right: blip2sweep rescore"
                self._failed.put((request["key"], {"kind": "crash", "error": error, "traceback": ""}))

    def _give_up(self, request: ScoreRequest, reason: str) -> None:
        """Record that a cell's scoring timed out."""
        error = f"{reason}; right: blip2sweep retry"
        self._failed.put((request["key"], {"kind": "timeout", "error": error, "traceback": ""}))

    def _start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "blip2sweep.results.scoring_service",
            str(self.output_dir),
            str(self.minutes or 0),
        ]
        # A session of its own: Ctrl-C and job signals are for the worker, which then closes the input.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._hung, self._last_answer, self._closing = None, time.monotonic(), threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, args=(self._process, self._closing), daemon=True).start()

    def _read(self, answers: IO[str]) -> None:
        for line in answers:
            answer: ScoreAnswer = json.loads(line)
            self._last_answer = time.monotonic()
            self._pending.pop(answer["key"], None)
            if answer["failure"]:
                self._failed.put((answer["key"], answer["failure"]))
            elif answer["written"]:
                self.written.add(answer["key"])

    def _watch(self, process: subprocess.Popen[str], closing: threading.Event) -> None:
        """Kill the process and its children when it owes an answer, or its end, for too long."""
        while process.poll() is None:
            next_batch = [r["name"] for r in list(self._pending.values())[:BATCH]]
            limit = hanging_seconds(self.output_dir, next_batch, self.minutes)
            if (self._pending or closing.is_set()) and time.monotonic() - self._last_answer > limit:
                self._hung = limit
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return
            time.sleep(min(1.0, limit / 10))


def hanging_seconds(output_dir: Path, names: Sequence[str], minutes: float | None) -> float:
    """How many seconds scoring may be silent while the predictions `names` wait for it."""
    if minutes:
        return 60 * minutes
    sizes = 0
    for name in names:
        with contextlib.suppress(OSError):
            sizes += (output_dir / "predictions" / f"{name}.json").stat().st_size
    return FEWEST_SECONDS + SECONDS_A_TEXT * sizes / BYTES_A_TEXT


def is_score(request: ScoreRequest | WarmRequest) -> TypeGuard[ScoreRequest]:
    """Whether a request is for a cell. A request without a key only warms up."""
    return "key" in request
