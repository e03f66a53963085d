"""Waits that end, and processes and threads that do not outlive their test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import AnyStr, TypeVar

import psutil

from blip2sweep.workers.supervisor import Supervisor

T = TypeVar("T")


def wait_until(found: Callable[[], T], seconds: float = 120) -> T:
    """The first truthy value of `found`. Raises AssertionError where there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return value


@contextmanager
def ending(process: Popen[AnyStr]) -> Iterator[Popen[AnyStr]]:
    """A process that is killed, with all its children, where the block leaves it behind."""
    try:
        yield process
    finally:
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


@contextmanager
def running(supervisor: Supervisor) -> Iterator[list[int]]:
    """Runs a supervisor in a thread; its exit code is in the list once it has ended. Where the block leaves its worker
    behind, that is killed."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()), daemon=True)
    thread.start()
    try:
        yield codes
    finally:
        supervisor.stop()
        if supervisor.child and supervisor.child.poll() is None:
            supervisor.child.kill()
        thread.join(timeout=20)


def gone(pid: int) -> bool:
    """Whether no process has this id, or one that has ended and that nobody has waited for."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
