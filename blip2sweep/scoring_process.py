"""Scoring beside the device: one process scores finished cells while the next ones run.

`python -m blip2sweep.scoring_process OUTPUT_DIR` reads one JSON line a cell (`key`, `name`, `task`, `baseline`) and answers each
with a line (`key`, `failure`: null or {kind, error, traceback}). What waits is taken together, so that a pile of cells
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
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.printing import say_text
from blip2sweep.records import read_predictions
from blip2sweep.scoring import Scorer, score_result
from blip2sweep.tasks import load_task

Failure = dict[str, str]


class ScoringProcess:
    """The worker's end: `submit` returns at once. A process that dies leaves its cells unscored; the next cell gets
    another one. Any thread may read `unscored`."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._pending: set[str] = set()
        self._failed: queue.SimpleQueue[tuple[str, Failure]] = queue.SimpleQueue()

    def warm(self, task: dict[str, Any]) -> None:
        """Read a task's references and start METEOR before the first cell is done."""
        self._send({"task": task})

    def submit(self, key: str, name: str, task: dict[str, Any], baseline: str) -> None:
        """Have the predictions `name` of cell `key` scored, and measured against the cell `baseline`."""
        self._send({"key": key, "name": name, "task": task, "baseline": baseline})

    def _send(self, request: dict[str, Any]) -> None:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        if "key" in request:
            self._pending.add(request["key"])
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            self.close()  # which tells that it died, and of what

    def unscored(self) -> Iterator[tuple[str, Failure]]:
        """(key, failure) of cells that could not be scored, each told once."""
        while not self._failed.empty():
            yield self._failed.get()

    def close(self) -> None:
        """Wait until everything submitted is scored."""
        process, self._process = self._process, None
        if process is None or self._reader is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it may be gone already
            process.stdin.close()
        self._reader.join()
        code = process.wait()
        for key in sorted(self._pending):
            error = f"the scoring process ended with code {code}; right: blip2sweep rescore"
            self._failed.put((key, {"kind": "crash", "error": error, "traceback": ""}))
        self._pending.clear()

    def _start(self) -> None:
        command = [sys.executable, "-m", "blip2sweep.scoring_process", str(self.output_dir)]
        # A session of its own: Ctrl-C and job signals are for the worker, who closes the input.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, answers: IO[str]) -> None:
        for line in answers:
            answer = json.loads(line)
            self._pending.discard(answer["key"])
            if answer["failure"]:
                self._failed.put((answer["key"], answer["failure"]))


# ---- the process


class Service:
    """Scores requests; tasks and their references are read once."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        from blip2sweep.beside import Measuring  # pyarrow, which the worker's end can do without

        self._scorers: dict[str, Scorer] = {}
        self._measuring = Measuring(output_dir)

    def __call__(self, requests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """One answer a request. The captions of all are tokenised together."""
        for task in (r["task"] for r in requests if "key" not in r):
            self._attempt(partial(self._warm, task))
        requests = [r for r in requests if "key" in r]
        self._attempt(partial(self._prepare, requests))  # what is wrong with one is told when its turn comes
        for request in requests:
            failure = self._attempt(partial(self._score, request))
            if not failure:
                self._later(partial(self._measuring.add, request["name"], request["baseline"]))
            yield {"key": request["key"], "failure": failure}
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
            self._scorer(task).prepare([t for n in names for t in read_predictions(self.output_dir, n).text])

    def _warm(self, task: dict[str, Any]) -> None:
        self._scorer(task).warm()

    def _score(self, request: dict[str, Any]) -> None:
        score_result(self.output_dir, request["name"], self._scorer(request["task"]))

    def _scorer(self, task: dict[str, Any]) -> Scorer:
        name = canonical_json(task)
        if name not in self._scorers:
            self._scorers[name] = Scorer(load_task(task))
        return self._scorers[name]

    def _attempt(self, what: Callable[[], None]) -> Failure | None:
        try:
            what()
        except Exception as error:
            first = (str(error).strip().split("\n") or [""])[0][:500]
            kind = "bad_config" if isinstance(error, UserError) else "crash"
            return {"kind": kind, "error": first or type(error).__name__, "traceback": traceback.format_exc()[-4000:]}
        return None


def batches(lines: IO[str]) -> Iterator[list[dict[str, Any]]]:
    """Requests as they come, those that waited together."""
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in lines:
            waiting.put(line)
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    open_ = True
    while open_:
        batch = [waiting.get()]
        while not waiting.empty():
            batch.append(waiting.get())
        open_ = batch[-1] is not None
        yield [json.loads(line) for line in batch if line is not None]


def main() -> None:
    for told in (signal.SIGUSR2, signal.SIGTERM):  # Slurm tells every process of a job; ours ends with its input
        signal.signal(told, signal.SIG_IGN)
    service = Service(Path(sys.argv[1]))
    for requests in batches(sys.stdin):
        for answer in service(requests):
            _tell(answer)
    service.close()


def _tell(answer: dict[str, Any]) -> None:
    """Answer; a worker that is gone hears nothing, and what it submitted is scored all the same."""
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
