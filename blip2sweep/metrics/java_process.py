"""A Java program that answers on its pipes, and is kept for the next question."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self

from blip2sweep.metrics.java import JAVA_FLAGS, java_binary, last_line


class JavaProcess:
    """One process, started at first use. It ends with ``close()``, at the end of a ``with``, or with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._owner = 0  # the process that started it: one that is forked later asks its own

    def words(self) -> Sequence[str]:
        """What stands behind Java's own flags. Raises UserError where a jar is not there."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the process, if there is one. A later call starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is not None:
            self._stop()  # it ended while nobody asked
        if self._process is None or self._owner != os.getpid():
            command = [java_binary(), *JAVA_FLAGS, *self.words()]
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
            )
            self._owner = os.getpid()
        return self._process

    def _stop(self) -> str:
        """The last line that the process wrote on stderr."""
        process, stderr = self._process, self._stderr
        self._process = self._stderr = None
        if process is None or stderr is None or self._owner != os.getpid():
            return ""
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            _close_quietly(pipe)
        stderr.seek(0)
        with stderr:
            return last_line(stderr.read())


def _close_quietly(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # a dead process: what was still buffered cannot be flushed
