"""The process that scores finished cells while a worker computes the next ones.

`python -m blip2sweep.results.scoring_service OUTPUT_DIR MINUTES` reads one JSON line for each request and answers each
cell with a line (`wire/scoring.py`). Waiting requests are taken together, so that many cells cost one start of the
tokenizer. One METEOR process serves all cells. Each scored cell is measured against its `baseline` and its `control`. At the end of its
input the process finishes what it has.
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
from typing import IO, TYPE_CHECKING

from blip2sweep import outside
from blip2sweep.canonical import canonical_json
from blip2sweep.console.printing import say_text
from blip2sweep.errors import UserError
from blip2sweep.files import is_disk_full
from blip2sweep.machine.processes import ends_with_its_input
from blip2sweep.results.predictions import predictions_or_none
from blip2sweep.results.scoring import Scorer, score_result
from blip2sweep.results.scoring_process import BATCH, FEWEST_SECONDS, hanging_seconds, is_score
from blip2sweep.tasks import planned_task
from blip2sweep.wire.lines import Failure
from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.scoring import ScoreAnswer, ScoreRequest, WarmRequest

if TYPE_CHECKING:
    from blip2sweep.results.sample_questions import Questions


class Service:
    """Answers requests. Each task and its references are read once."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        from blip2sweep.results.drop_writer import DropWriter

        self.written = False  # whether the newest request wrote statistics
        self._scorers: dict[str, Scorer] = {}
        self._questions: dict[str, Questions] = {}
        self._drop_writer = DropWriter(output_dir)

    def __call__(self, requests: Sequence[ScoreRequest | WarmRequest]) -> Iterator[ScoreAnswer]:
        """One answer for each cell. The texts of all cells are tokenized together."""
        for task in (r["task"] for r in requests if not is_score(r)):
            self._attempt(partial(self._warm, task))
        cells = [r for r in requests if is_score(r)]
        self._attempt(partial(self._prepare, cells))  # a cell's own error is reported when it is scored
        for request in cells:
            self.written = False
            failure = self._attempt(partial(self._score, request))
            if self.written:
                self._optional(partial(self._measure, request))
            yield {"key": request["key"], "written": self.written, "failure": failure}
        self._optional(self._drop_writer.retry_waiting)

    def close(self) -> None:
        """Measure the cells that still wait for their baseline."""
        self._optional(self._drop_writer.close)

    def _optional(self, action: Callable[[], None]) -> None:
        """Do what making tables would do again. A failure goes to the worker's log alone."""
        if failure := self._attempt(action):
            say_text(failure["traceback"], err=True)

    def _prepare(self, requests: Sequence[ScoreRequest]) -> None:
        for task in {canonical_json(r["task"]): r["task"] for r in requests}.values():
            names = [r["name"] for r in requests if r["task"] == task]
            self._scorer(task).prepare([p for n in names if (p := predictions_or_none(self.output_dir, n))])

    def _warm(self, task: TaskJob) -> None:
        self._scorer(task).warm()

    def _score(self, request: ScoreRequest) -> None:
        self.written = score_result(self.output_dir, request["name"], self._scorer(request["task"]))

    def _measure(self, request: ScoreRequest) -> None:
        questions = self._questions_of(request["task"])
        self._drop_writer.add(request["name"], request["baseline"], request.get("control"), questions)

    def _questions_of(self, task: TaskJob) -> Questions:
        from blip2sweep.results.sample_questions import questions_of

        name = canonical_json(task)
        if name not in self._questions:
            own = next(iter(self._scorer(task).variants.values()))
            self._questions[name] = questions_of(task, own.task.samples)
        return self._questions[name]

    def _scorer(self, task: TaskJob) -> Scorer:
        name = canonical_json(task)
        if name not in self._scorers:
            outside.take(task.get("planned", {}).get("outside", {}))
            self._scorers[name] = Scorer(planned_task(task))
        return self._scorers[name]

    def _attempt(self, action: Callable[[], None]) -> Failure | None:
        """Run an action. Returns its failure, None when there was none."""
        try:
            action()
        except Exception as error:
            first = (str(error).strip().split("\n") or [""])[0][:500]
            kind = "bad_config" if isinstance(error, UserError) else "crash"
            kind = "disk_full" if is_disk_full(error) else kind
            return {"kind": kind, "error": first or type(error).__name__, "traceback": traceback.format_exc()[-4000:]}
        return None


def batches(lines: IO[str], at_end: Callable[[], None] = lambda: None) -> Iterator[list[ScoreRequest | WarmRequest]]:
    """Requests in the order they arrive; those that waited together are one batch. at_end: called when no more will
    come."""
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
        while len(batch) < BATCH and batch[-1] is not None and not waiting.empty():
            batch.append(waiting.get())
        open_ = batch[-1] is not None
        yield [json.loads(line) for line in batch if line is not None]


def main() -> None:
    """Answer requests from standard input until it ends."""
    ends_with_its_input()
    output_dir, minutes = Path(sys.argv[1]), float(sys.argv[2])
    service, deadline = Service(output_dir), Deadline(output_dir, minutes)
    for requests in batches(sys.stdin, deadline.watch):
        deadline.expect([r["name"] for r in requests if is_score(r)])
        for answer in service(requests):
            _answer(answer)
            deadline.last_answer = time.monotonic()
    service.close()


class Deadline:
    """Ends a process that hangs, with all its children. Nobody else would, once the worker is gone."""

    def __init__(self, output_dir: Path, minutes: float) -> None:
        self.output_dir, self.minutes = output_dir, minutes
        self.last_answer, self.seconds = time.monotonic(), FEWEST_SECONDS

    def expect(self, names: list[str]) -> None:
        """Start the time for these predictions."""
        self.last_answer, self.seconds = time.monotonic(), hanging_seconds(self.output_dir, names, self.minutes)

    def watch(self) -> None:
        """Watch from the end of the input on. A worker that still runs waits half as long, and kills the process
        first."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while time.monotonic() - self.last_answer < 2 * self.seconds:
            time.sleep(1)
        os.killpg(0, signal.SIGKILL)


def _answer(answer: ScoreAnswer) -> None:
    """Print the answer. Without a worker to read it, the remaining requests are scored all the same."""
    try:
        print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
