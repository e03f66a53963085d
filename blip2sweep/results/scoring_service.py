"""The process that scores finished cells beside the device.

`python -m blip2sweep.results.scoring_service OUTPUT_DIR MINUTES` reads one JSON line a cell and answers each with a line
(`wire/scoring.py`). What waits is taken together, so that a pile of cells costs one start of the tokenizer; METEOR is one
process for all of them. What is scored is measured against its `baseline`. At the end of its input it finishes what it has.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from blip2sweep import outside
from blip2sweep.canonical import canonical_json
from blip2sweep.console.printing import say_text
from blip2sweep.errors import UserError
from blip2sweep.files import is_disk_full
from blip2sweep.results.predictions import predictions_or_none
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.results.scoring_process import FEWEST_SECONDS, TOGETHER, hanging_seconds, is_score
from blip2sweep.tasks import planned_task
from blip2sweep.wire.lines import Failure
from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.scoring import ScoreAnswer, ScoreRequest, WarmRequest


class Service:
    """Scores requests; tasks and their references are read once."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        from blip2sweep.results.measuring import Measuring

        self.written = False  # statistics of the newest request
        self._scorers: dict[str, Scorer] = {}
        self._measuring = Measuring(output_dir)

    def __call__(self, requests: Sequence[ScoreRequest | WarmRequest]) -> Iterator[ScoreAnswer]:
        """One answer a request. The captions of all are tokenised together."""
        for task in (r["task"] for r in requests if not is_score(r)):
            self._attempt(partial(self._warm, task))
        cells = [r for r in requests if is_score(r)]
        self._attempt(partial(self._prepare, cells))  # what is wrong with one is told when its turn comes
        for request in cells:
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

    def _prepare(self, requests: Sequence[ScoreRequest]) -> None:
        for task in {canonical_json(r["task"]): r["task"] for r in requests}.values():
            names = [r["name"] for r in requests if r["task"] == task]
            self._scorer(task).prepare([p for n in names if (p := predictions_or_none(self.output_dir, n))])

    def _warm(self, task: TaskJob) -> None:
        self._scorer(task).warm()

    def _score(self, request: ScoreRequest) -> None:
        self.written = score_result(self.output_dir, request["name"], self._scorer(request["task"]))

    def _scorer(self, task: TaskJob) -> Scorer:
        name = canonical_json(task)
        if name not in self._scorers:
            outside.take(task.get("planned", {}).get("outside", {}))
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


def batches(lines: IO[str], at_end: Callable[[], None] = lambda: None) -> Iterator[list[ScoreRequest | WarmRequest]]:
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
        hung.expect([r["name"] for r in requests if is_score(r)])
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


def _tell(answer: ScoreAnswer) -> None:
    """Answer; a worker that is gone hears nothing, and what it submitted is scored all the same."""
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
