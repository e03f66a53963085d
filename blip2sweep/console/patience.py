"""What takes long is told on stderr: a bar on a terminal, one line elsewhere; what is quick says nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from blip2sweep.console.printing import console, say

T = TypeVar("T")
SECONDS = 2.0  # from then on it is told


def shown(items: Iterable[T], total: int, words: str) -> Iterator[T]:
    """The same items; words: such as `hashing 500 images of FOLDER`."""
    began, bar, told = time.monotonic(), None, False
    try:
        for done, item in enumerate(items):
            if not told and time.monotonic() - began > SECONDS:
                bar, told = _begun(words, total), True
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)
            yield item
    finally:
        if bar is not None:
            bar.stop()


def _begun(words: str, total: int):  # type: ignore[no-untyped-def]  # rich comes late, and with it its types
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        say(words, err=True)
        return None
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(err=True), transient=True)
    bar.add_task(words, total=total)
    bar.start()
    return bar
