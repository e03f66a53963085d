"""Several processes that share each cell of a worker: each answers the samples of its own images.

The worker is the first of them and starts the others (`helper.py`). It divides the cell, joins the answers in the
task's order, and alone writes to the ledger, so a cell has one attempt. The processes take the worker's GPUs in order,
an equal number each. A process that dies fails the cell; the next cell starts another.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from blip2sweep.backends.backend import Answered, NoImage, load_backend
from blip2sweep.backends.shares import ENDED, Joiner, is_divisible, share_of
from blip2sweep.machine.devices import VISIBLE, divided, visible_gpus
from blip2sweep.tasks.order import segments_of
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject, Settings
from blip2sweep.wire.processes import Failed, Task
from blip2sweep.workers.death import ProcessFailed, crash, temporary_prefix

PATIENCE = 10.0  # seconds for the other processes to end their shares when the first one failed
FOLDER_OF_JOBS = Path()  # of jobs that are only announced


class Processes:
    """A `Backend` of several processes. settings: `processes` says how many; the rest is for the back end of each."""

    def __init__(self, settings: Settings) -> None:
        self.count, self.settings = settings["processes"], settings
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // self.count)))
        gpus = divided(visible_gpus(), self.count)
        self.helpers = [Helper(i, settings, _environment(gpus, i)) for i in range(1, self.count)]
        os.environ.update(_environment(gpus, 0))  # torch looks at it when it is first asked for a device
        self.joined = Joiner()
        self.folder = Path(tempfile.mkdtemp(prefix=temporary_prefix(os.getpid())))
        for helper in self.helpers:
            helper.start()
        self.own = load_backend(settings)

    @classmethod
    def identity(cls, choice: BackendChoice) -> JsonObject:
        """Nobody asks for it: a cell's identity does not depend on the number of processes."""
        raise NotImplementedError

    @property
    def warning(self) -> str | None:
        return getattr(self.own, "warning", None)

    def expect(self, jobs: Sequence[CellJob]) -> None:
        divided_among = [self._shares(job, FOLDER_OF_JOBS) for job in jobs]
        self.own.expect([shares[0] for shares in divided_among])
        for i, helper in enumerate(self.helpers, 1):
            helper.expect([shares[i] for shares in divided_among if len(shares) > 1])

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        """Run one cell. Raises what its share in this process raised, and ProcessFailed where another process failed."""
        if not self._divides(job):
            return self.own(job, batch_size)
        with self._running(job) as folder:
            shares = self._shares(job, folder)
            for helper, share in zip(self.helpers, shares[1:], strict=True):
                helper.send(share, batch_size)
            answers = [self._own(shares[0], batch_size, folder), *(helper.answer() for helper in self.helpers)]
        found = [a for a in answers if isinstance(a, Answered)]
        failed = sorted((a for a in answers if isinstance(a, Failed)), key=lambda f: f.no_image)
        if wrong := next((f for f in failed if not f.no_image or not found), None):
            raise ProcessFailed(wrong.failure)
        return self.joined(job, found, self.count)

    def close(self) -> None:
        """End the other processes."""
        for helper in self.helpers:
            helper.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _shares(self, job: CellJob, folder: Path) -> list[CellJob]:
        if not self._divides(job):
            return [job]
        return [share_of(job, rank, self.count, folder) for rank in range(self.count)]

    def _divides(self, job: CellJob) -> bool:
        """Whether a job is divided: all segments of a round may have fewer images than there are processes."""
        segments = segments_of(job["task"]["places"]) if "places" in job["task"] else []
        return is_divisible(job) and (not segments or max(end - first for first, end in segments) >= self.count)

    @contextlib.contextmanager
    def _running(self, job: CellJob) -> Iterator[Path]:
        """The folder of a cell. When it is left by an exception, no process works on the cell any more."""
        folder = Path(tempfile.mkdtemp(prefix=f"{job['key']}-", dir=self.folder))
        try:
            yield folder
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)  # whoever waits for something in it stops waiting
            deadline = time.monotonic() + (PATIENCE if isinstance(error, Exception) else 0.0)
            for helper in self.helpers:
                helper.settle(deadline)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _own(self, share: CellJob, batch_size: int | None, folder: Path) -> Answered | Failed:
        try:
            return self.own(share, batch_size)
        except NoImage as error:  # the other processes may have readable ones
            (folder / ENDED).touch()
            return Failed({"kind": "bad_config", "error": str(error), "traceback": ""}, no_image=True)


class Helper:
    """Another process of the worker's cells. rank: its number. env: what it has besides the worker's environment."""

    def __init__(self, rank: int, settings: Settings, env: dict[str, str]) -> None:
        self.rank, self.settings, self.env = rank, settings, env
        self.busy = False
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._expected: Sequence[CellJob] = ()
        self._announced = False  # whether the process knows them

    def expect(self, jobs: Sequence[CellJob]) -> None:
        self._expected, self._announced = jobs, False

    def start(self) -> None:
        """Start the process. It loads the model with its first share."""
        self._connection, theirs = Pipe()
        command = [sys.executable, "-m", "blip2sweep.workers.helper", str(theirs.fileno())]
        with theirs, _blocked(signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
            self._process = subprocess.Popen(command, env={**os.environ, **self.env}, pass_fds=[theirs.fileno()])
        self.busy = self._announced = False
        self._connection.send(self.settings)

    def send(self, job: CellJob, batch_size: int | None) -> None:
        """Have it run a share. A process that died since the last one is started again."""
        if self._process is None or self._process.poll() is not None:
            self.end()
            self.start()
        assert self._connection is not None
        with contextlib.suppress(ConnectionError):  # `answer` finds out why
            self._connection.send(Task(job, batch_size, None if self._announced else self._expected))
        self.busy = self._announced = True

    def answer(self) -> Answered | Failed:
        """Wait for the answer to its share. Raises ProcessFailed where the process died."""
        assert self._connection is not None
        try:
            found: Answered | Failed = self._connection.recv()
        except (EOFError, ConnectionError):
            raise ProcessFailed(crash(self._code(), f"process {self.rank} of the cell")) from None
        self.busy = False
        return found

    def settle(self, deadline: float) -> None:
        """Let it end its share until `deadline` (time.monotonic()), then end the process."""
        if not self.busy or self._connection is None:
            return
        try:
            if self._connection.poll(max(0.0, deadline - time.monotonic())):
                self._connection.recv()
                self.busy = False
                return
        except (EOFError, ConnectionError):
            pass
        self.end()

    def end(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        self.busy = False

    def _code(self) -> int:
        """The exit code of the process, whose end of the pipe is closed."""
        assert self._process is not None
        code = self._process.wait()
        self.end()
        return code


def _environment(gpus: Sequence[str], rank: int) -> dict[str, str]:
    return {VISIBLE: gpus[rank]} if gpus else {}


@contextlib.contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    """A process that is started in it never gets these signals, which all processes of a job or terminal get together. This
    process gets them afterwards, and ends the other."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
