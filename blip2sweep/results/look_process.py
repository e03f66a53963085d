"""The worker's side of looks: it asks the process of `looking.py`, and waits for the answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.stopping import LookAnswer, LookRequest, WarmLook, unknown

SECONDS = 300.0  # without an answer it hangs: reading a large set of references takes some ten seconds on a busy node
TRIES = 2  # processes that may die or hang, before no further one is started


class LookProcess:
    """Starts with the first task, and again after one that died. Any number of requests may be under way; what a process
    that died owed is lost.

    seconds: after which a process that owes an answer is killed. given_up: why no process is started any more.
    """

    def __init__(self, output_dir: Path, seconds: float = SECONDS) -> None:
        self.output_dir, self.seconds = output_dir, seconds
        self.given_up = ""
        self._process: subprocess.Popen[str] | None = None
        self._died = 0
        self._number = 0  # of the last request
        self._lost_before, self._why = 0, ""  # requests up to this number have no answer, and why

    def warm(self, task: TaskJob) -> None:
        """Have it read a task's references while the worker does other things."""
        with contextlib.suppress(OSError):  # the first look says so
            self._send({"task": task})

    def ask(self, request: LookRequest) -> int:
        """Send a request. Returns its number, by which `answer` is asked for."""
        self._number += 1
        if self.given_up:
            self._lost_before, self._why = self._number, self.given_up
            return self._number
        try:
            self._send({**request, "number": self._number})
        except OSError:
            self._lost(in_time=True)
        return self._number

    def answer(self, number: int) -> LookAnswer:
        """The answer to a request, also where there is none: its error then says why. Answers to earlier ones, for which
        nobody has asked, are dropped."""
        if number <= self._lost_before:
            return unknown(self._why)
        late = threading.Timer(self.seconds, self._kill)
        late.start()
        try:
            return self._read(number) or self._lost(in_time=late.is_alive())
        except BaseException:
            self.close()  # half of a line may have been read
            raise
        finally:
            late.cancel()

    def _read(self, number: int) -> LookAnswer | None:
        """The answer of a process that lives."""
        assert self._process is not None
        try:
            while True:
                answer: LookAnswer = json.loads(_pipe(self._process.stdout).readline())
                if answer.get("number") == number:
                    return answer
        except (OSError, ValueError):
            return None

    def _lost(self, in_time: bool) -> LookAnswer:
        """In the place of an answer that did not come."""
        self._died += 1
        why = "it ended without an answer" if in_time else f"no answer within {self.seconds:.0f} s"
        self._why = f"the process that looks at cells: {why}"
        self.given_up = self._why if self._died >= TRIES else ""
        self.close()
        return unknown(self._why)

    def close(self) -> None:
        """End the process. It writes nothing, so it may end at any time."""
        process, self._lost_before = self._process, self._number
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

    def _send(self, request: LookRequest | WarmLook) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, "-m", "blip2sweep.results.looking", str(self.output_dir)]
            # A session of its own: Ctrl-C and job signals are for the worker, which then closes the input.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
        pipe = _pipe(self._process.stdin)
        pipe.write(json.dumps(request) + "\n")
        pipe.flush()
        return self._process


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
