"""Says how far something is: a bar on a terminal and in a notebook, nothing where nobody looks.

In a notebook rich's own bar needs ipywidgets; this one replaces its output by the display protocol alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from blip2sweep.console.printing import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SECONDS = 0.2  # between two pictures in a notebook
_verbose: ContextVar[bool] = ContextVar("verbose", default=True)


def verbose() -> bool:
    """Whether what goes on is said. Warnings are said anyway."""
    return _verbose.get()


def watched() -> bool:
    """Whether a bar can be seen: on a terminal, and in a notebook."""
    return verbose() and (sys.stderr.isatty() or in_notebook())


def in_notebook() -> bool:
    """Whether output is shown by a notebook."""
    return "IPython" in sys.modules and console(err=True).is_jupyter


@contextmanager
def telling(progress: bool | None) -> Iterator[None]:
    """Inside, what goes on is said or not; None: said where a bar can be seen."""
    before = _verbose.set(True)
    _verbose.set(watched() if progress is None else progress)
    try:
        yield
    finally:
        _verbose.reset(before)


class Bar:
    """A bar, as a context. words: what stands before it. screen: what else prints meanwhile. transient: the bar goes when
    the work has ended."""

    def __init__(self, words: str, total: int, screen: Console | None = None, transient: bool = False) -> None:
        self._progress = _progress(screen or console(err=True), transient)
        self._task = self._progress.add_task(words, total=total)
        self._handle: Any = None  # of IPython, for the output that is replaced
        self._shown = 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        if watched() and in_notebook():
            from IPython.display import display

            self._handle = display(self._picture(), display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        self._show()

    def update(self, done: int, words: str | None = None) -> None:
        """Say that `done` of all are done."""
        self._progress.update(self._task, completed=done, description=words)
        if time.monotonic() - self._shown > SECONDS:
            self._show()

    def _show(self) -> None:
        if self._handle is not None:
            self._shown = time.monotonic()
            self._handle.update(self._picture())

    def _picture(self) -> object:
        return self._progress.make_tasks_table(self._progress.tasks)


def _progress(screen: Console, transient: bool) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    hidden = not (verbose() and sys.stderr.isatty())
    return Progress(*columns, console=screen, transient=transient, disable=hidden)
