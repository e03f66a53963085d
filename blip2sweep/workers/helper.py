"""A process that runs its shares of a worker's cells: `python -m blip2sweep.workers.helper DESCRIPTOR`.

The descriptor is the end of a pipe to the worker. The worker alone writes to the ledger. The helper ends with it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from multiprocessing.connection import Connection

from blip2sweep import outside
from blip2sweep.backends.backend import Answered, Backend, NoImage, load_backend
from blip2sweep.console import work_log
from blip2sweep.machine.garbage import as_usual, seldom
from blip2sweep.wire.pack import Settings
from blip2sweep.wire.processes import Failed, Task
from blip2sweep.workers.run_cell import failure
from blip2sweep.workers.signals import end_with_parent


def serve(connection: Connection) -> None:
    """Run shares until the worker closes the pipe. The first message is the settings of the back end."""
    try:
        runner = Runner(connection.recv())
        while True:
            connection.send(runner(connection.recv()))
    except (EOFError, ConnectionError):
        return


class Runner:
    """Runs shares in one back end. Its library is imported while the worker imports its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backend: Backend | None = None
        with contextlib.suppress(Exception):  # the first share tries again, and its answer says why
            self.backend = load_backend(settings)
        as_usual()

    def __call__(self, task: Task) -> Answered | Failed:
        """The answer to one share. It never raises."""
        try:
            outside.take(task.job.get("outside", {}))
            self.backend = self.backend or load_backend(self.settings)
            if task.jobs is not None:
                self.backend.expect(task.jobs)
            return self.backend(task.job, task.batch_size)
        except Exception as error:
            return Failed({**failure(error)}, isinstance(error, NoImage))


def main(argv: list[str]) -> int:
    """Serve from the command line."""
    end_with_parent(signal.SIGKILL)
    work_log.to_stderr()
    with Connection(int(argv[0])) as connection:
        serve(connection)
    return 0


if __name__ == "__main__":
    seldom()
    sys.exit(main(sys.argv[1:]))
