"""The worker's side of looks: it asks the process of `looking.py`, and waits for the answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.stopping import LookAnswer, LookRequest, WarmLook, unknown

SECONDS = 300.0  # without an answer it hangs: reading a large set of references takes some ten seconds on a busy node
TRIES = 2  # processes that may die or hang, before no further one is started


class LookProcess:
    """Starts with the first task, and again after one that died. Any number of requests may be under way.

    A process answers in the order of its requests. So the oldest one that a dead process owed is what it died of, and has
    no answer; the next process is sent the others again.

    seconds: after which a process that owes an answer, or takes no request, is killed. given_up: why no process is started
    any more.
    """

    def __init__(self, output_dir: Path, seconds: float = SECONDS) -> None:
        self.output_dir, self.seconds = output_dir, seconds
        self.given_up = self._why = ""
        self._process: subprocess.Popen[str] | None = None
        self._died = 0
        self._number = 0  # of the last request
        self._owed: dict[int, LookRequest] = {}  # requests without an answer, by number

    def warm(self, task: TaskJob) -> None:
        """Have it read a task's references while the worker does other things."""
        with contextlib.suppress(OSError):  # the first look says so
            self._send({"task": task})

    def ask(self, request: LookRequest) -> int:
        """Send a request. Returns its number, by which `answer` is asked for."""
        self._number += 1
        if not self.given_up:
            self._owed[self._number] = {**request, "number": self._number}
            with self._in_time() as late:
                try:
                    self._send(self._owed[self._number])
                except OSError:
                    self._lost(in_time=late.is_alive())
        return self._number

    def answer(self, number: int) -> LookAnswer:
        """The answer to a request, also where there is none: its error then says why. Answers to earlier ones, for which
        nobody has asked, are dropped."""
        while number in self._owed:
            with self._in_time() as late:
                found = self._read(number)
                if found is not None:
                    return found
                self._lost(in_time=late.is_alive())
        return unknown(self._why)

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[threading.Timer]:
        """The process is killed where what is done takes too long. What is raised ends it too: half of a line may have been
        sent or read."""
        late = threading.Timer(self.seconds, self._kill)
        late.start()
        try:
            yield late
        except BaseException:
            self.close()
            raise
        finally:
            late.cancel()

    def _read(self, number: int) -> LookAnswer | None:
        """The answer of a process that lives."""
        try:
            if self._process is None:  # the last one died of an earlier request
                self._send()
            assert self._process is not None
            while True:
                answer: LookAnswer = json.loads(_pipe(self._process.stdout).readline())
                self._owed.pop(answer.get("number", 0), None)
                if answer.get("number") == number:
                    return answer
        except (OSError, ValueError):
            return None

    def _lost(self, in_time: bool) -> None:
        """The process answers nothing any more."""
        self._died += 1
        why = "it ended without an answer" if in_time else f"no answer within {self.seconds:.0f} s"
        self._why = f"the process that looks at cells: {why}"
        self._owed.pop(min(self._owed))
        if self._died >= TRIES:
            self.given_up = self._why
            self._owed.clear()
        self.close()

    def close(self) -> None:
        """End the process. It writes nothing, so it may end at any time."""
        process = self._process
        if process is None:
            return
        self._kill()
        self._process = None
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                _pipe(pipe).close()
        process.wait()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # with its children
                os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, *requests: LookRequest | WarmLook) -> None:
        """Send requests to the process. One that starts for it is sent all that is owed instead, where something is."""
        if self._process is None:
            command = [sys.executable, "-m", "blip2sweep.results.looking", str(self.output_dir)]
            # A session of its own: Ctrl-C and job signals are for the worker, which then closes the input.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            requests = (*self._owed.values(),) or requests
        pipe = _pipe(self._process.stdin)
        pipe.writelines(json.dumps(request) + "\n" for request in requests)
        pipe.flush()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
