"""Shows the progress of slow loops on stderr: a bar on a terminal, one line elsewhere. Quick loops print nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from blip2sweep.console.printing import console, say

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
SECONDS = 2.0  # a loop that takes longer shows its progress


def shown(items: Iterable[T], total: int, words: str) -> Iterator[T]:
    """The same items, with progress on stderr. words: such as `hashing 500 images of FOLDER`."""
    began, bar, begun = time.monotonic(), None, False
    try:
        for done, item in enumerate(items):
            if not begun and time.monotonic() - began > SECONDS:
                bar, begun = _start(words, total), True
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)
            yield item
    finally:
        if bar is not None:
            bar.stop()


def _start(words: str, total: int) -> Progress | None:
    """A running bar. Without a terminal: one line, and None."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        say(words, err=True)
        return None
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(err=True), transient=True)
    bar.add_task(words, total=total)
    bar.start()
    return bar
