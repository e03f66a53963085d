"""Shows the progress of slow loops: a bar on a terminal and in a notebook, one line on stderr elsewhere. Quick loops print
nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from blip2sweep.console.bar import Bar, verbose, watched
from blip2sweep.console.printing import say

T = TypeVar("T")
SECONDS = 2.0  # a loop that takes longer shows its progress


def shown(items: Iterable[T], total: int, words: str) -> Iterator[T]:
    """The same items, with their progress. words: such as `hashing 500 images of FOLDER`."""
    began, bar, begun = time.monotonic(), None, False
    with ExitStack() as stack:
        for done, item in enumerate(items):
            if not begun and time.monotonic() - began > SECONDS:
                bar, begun = _start(words, total, stack), True
            if bar is not None:
                bar.update(done)
            yield item


def _start(words: str, total: int, stack: ExitStack) -> Bar | None:
    """A running bar, which the stack ends. Where nobody would see it: one line, and None."""
    if watched():
        return stack.enter_context(Bar(words, total, transient=True))
    if verbose():
        say(words, err=True)
    return None
