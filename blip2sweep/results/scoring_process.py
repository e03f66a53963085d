"""Scoring beside the device: one process scores finished cells while the next ones run.

`python -m blip2sweep.results.scoring_process OUTPUT_DIR` reads one JSON line a cell (`key`, `name`, `task`, `baseline`) and answers each
with a line (`key`, `written`: whether there was something to do, `failure`: null or {kind, error, traceback}). What waits is taken together, so that a pile of cells
costs one start of the tokenizer; METEOR is one process for all of them. What is scored is measured against its `baseline`.
At the end of its input it finishes what it has.
"""

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
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from blip2sweep.canonical import canonical_json
from blip2sweep.console.printing import say_text
from blip2sweep.errors import UserError
from blip2sweep.files import is_disk_full
from blip2sweep.results.predictions import predictions_or_none
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.tasks import planned_task

Failure = dict[str, str]
Request = dict[str, Any]
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
        self._pending: dict[str, Request] = {}  # by key, in the order in which they were sent
        self._alone: list[Request] = []  # in hand, or waiting, when a process hung
        self._heard = 0.0  # when there was something new to wait for
        self._hung: float | None = None  # after how many seconds it was killed for that
        self._closing = threading.Event()
        self._failed: queue.SimpleQueue[tuple[str, Failure]] = queue.SimpleQueue()

    def warm(self, task: dict[str, Any]) -> None:
        """Read a task's references and start METEOR before the first cell is done."""
        self._send({"task": task})

    def submit(self, key: str, name: str, task: dict[str, Any], baseline: str) -> None:
        """Have the predictions `name` of cell `key` scored, and measured against the cell `baseline`."""
        self._send({"key": key, "name": name, "task": task, "baseline": baseline})

    def _send(self, request: Request) -> None:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        if "key" in request:
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

    def _give_up(self, request: Request, why: str) -> None:
        error = f"{why}; right: blip2sweep retry"
        self._failed.put((request["key"], {"kind": "timeout", "error": error, "traceback": ""}))

    def _start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "blip2sweep.results.scoring_process",
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
            answer = json.loads(line)
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


# ---- the process


class Service:
    """Scores requests; tasks and their references are read once."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        from blip2sweep.results.measuring import Measuring

        self.written = False  # statistics of the newest request
        self._scorers: dict[str, Scorer] = {}
        self._measuring = Measuring(output_dir)

    def __call__(self, requests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """One answer a request. The captions of all are tokenised together."""
        for task in (r["task"] for r in requests if "key" not in r):
            self._attempt(partial(self._warm, task))
        requests = [r for r in requests if "key" in r]
        self._attempt(partial(self._prepare, requests))  # what is wrong with one is told when its turn comes
        for request in requests:
            self.written = False
            failure = self._attempt(partial(self._score, request))
            if self.written:
                self._later(partial(self._measuring.add, request["name"], request["baseline"]))
            yield {"key": request["key"], "written": self.written, "failure": failure}
        self._later(self._measuring.again)

    def close(self) -> None:
        self._later(self._measuring.close)

    def _later(self, what: Callable[[], None]) -> None:
        """What fails here is done when tables are made; the worker's log has the reason."""
        if failure := self._attempt(what):
            say_text(failure["traceback"], err=True)

    def _prepare(self, requests: list[dict[str, Any]]) -> None:
        for task in {canonical_json(r["task"]): r["task"] for r in requests}.values():
            names = [r["name"] for r in requests if r["task"] == task]
            self._scorer(task).prepare([p for n in names if (p := predictions_or_none(self.output_dir, n))])

    def _warm(self, task: dict[str, Any]) -> None:
        self._scorer(task).warm()

    def _score(self, request: dict[str, Any]) -> None:
        self.written = score_result(self.output_dir, request["name"], self._scorer(request["task"]))

    def _scorer(self, task: dict[str, Any]) -> Scorer:
        name = canonical_json(task)
        if name not in self._scorers:
            self._scorers[name] = Scorer(planned_task(task))
        return self._scorers[name]

    def _attempt(self, what: Callable[[], None]) -> Failure | None:
        try:
            what()
        except Exception as error:
            first = (str(error).strip().split("\n") or [""])[0][:500]
            kind = "bad_config" if isinstance(error, UserError) else "crash"
            kind = "disk_full" if is_disk_full(error) else kind
            return {"kind": kind, "error": first or type(error).__name__, "traceback": traceback.format_exc()[-4000:]}
        return None


def batches(lines: IO[str], at_end: Callable[[], None] = lambda: None) -> Iterator[list[Request]]:
    """Requests as they come, those that waited together. at_end: told when no more will come."""
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in lines:
            waiting.put(line)
        at_end()
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    open_ = True
    while open_:
        batch = [waiting.get()]
        while len(batch) < TOGETHER and batch[-1] is not None and not waiting.empty():
            batch.append(waiting.get())
        open_ = batch[-1] is not None
        yield [json.loads(line) for line in batch if line is not None]


def main() -> None:
    for told in (signal.SIGUSR2, signal.SIGTERM):  # Slurm tells every process of a job; ours ends with its input
        signal.signal(told, signal.SIG_IGN)
    output_dir, minutes = Path(sys.argv[1]), float(sys.argv[2])
    service, hung = Service(output_dir), Deadline(output_dir, minutes)
    for requests in batches(sys.stdin, hung.watch):
        hung.expect([r["name"] for r in requests if "key" in r])
        for answer in service(requests):
            _tell(answer)
            hung.heard = time.monotonic()
    service.close()


class Deadline:
    """The worker may be gone, and nobody else watches: what hangs then ends itself and all it has started."""

    def __init__(self, output_dir: Path, minutes: float) -> None:
        self.output_dir, self.minutes = output_dir, minutes
        self.heard, self.seconds = time.monotonic(), FEWEST_SECONDS

    def expect(self, names: list[str]) -> None:
        """So many texts come next."""
        self.heard, self.seconds = time.monotonic(), hanging_seconds(self.output_dir, names, self.minutes)

    def watch(self) -> None:
        """From the end of the input on. A worker that is there waits for less."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while time.monotonic() - self.heard < 2 * self.seconds:
            time.sleep(1)
        os.killpg(0, signal.SIGKILL)


def _tell(answer: dict[str, Any]) -> None:
    """Answer; a worker that is gone hears nothing, and what it submitted is scored all the same."""
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
