"""The worker's side of looks: it asks the process of `looking.py`, and waits for the answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.stopping import LookAnswer, LookRequest, WarmLook, unknown

SECONDS = 300.0  # without an answer it hangs: reading a large set of references takes some ten seconds on a busy node
TRIES = 2  # processes that may die or hang, before no further one is started


class LookProcess:
    """Starts with the first task, and again after one that died.

    seconds: after which a process that owes an answer is killed. given_up: why no process is started any more.
    """

    def __init__(self, output_dir: Path, seconds: float = SECONDS) -> None:
        self.output_dir, self.seconds = output_dir, seconds
        self.given_up = ""
        self._process: subprocess.Popen[str] | None = None
        self._died = 0

    def warm(self, task: TaskJob) -> None:
        """Have it read a task's references while the worker does other things."""
        with contextlib.suppress(OSError):  # the first look says so
            self._send({"task": task})

    def __call__(self, request: LookRequest, meanwhile: Callable[[], object] = lambda: None) -> LookAnswer:
        """The answer, also where there is none: its error then says why. meanwhile: what is done while the process judges;
        what it raises is raised."""
        if self.given_up:
            return unknown(self.given_up)
        late = threading.Timer(self.seconds, self._kill)
        late.start()
        try:
            sent = self._sends(request)
            meanwhile()
            return (self._read() if sent else None) or self._lost(in_time=late.is_alive())
        except BaseException:
            self.close()  # its answer would be taken for that of the next request
            raise
        finally:
            late.cancel()

    def _sends(self, request: LookRequest) -> bool:
        """Whether the process took the request."""
        try:
            self._send(request)
        except OSError:
            return False
        return True

    def _read(self) -> LookAnswer | None:
        """The answer of a process that lives."""
        assert self._process is not None
        try:
            answer: LookAnswer = json.loads(_pipe(self._process.stdout).readline())
        except (OSError, ValueError):
            return None
        return answer

    def _lost(self, in_time: bool) -> LookAnswer:
        """In the place of an answer that did not come."""
        self._died += 1
        why = "it ended without an answer" if in_time else f"no answer within {self.seconds:.0f} s"
        why = f"the process that looks at cells: {why}"
        self.given_up = why if self._died >= TRIES else ""
        self.close()
        return unknown(why)

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
