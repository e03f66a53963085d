"""Whether this process was asked to end. Long work that can go on later looks between its steps, and gives up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """Raised to give up the current cell. It is not an Exception, so that no handler of a cell's errors catches it.

    goes_on: what was done of the cell is kept, so another attempt goes on from there.
    """

    def __init__(self, goes_on: bool = False) -> None:
        super().__init__()
        self.goes_on = goes_on


def _never() -> bool:
    return False


_asked: list[Callable[[], bool]] = [_never]


def asked() -> bool:
    """Whether this process was asked to end."""
    return _asked[-1]()


@contextmanager
def told_by(asks: Callable[[], bool]) -> Iterator[None]:
    """In it `asked` is what `asks` returns."""
    _asked.append(asks)
    try:
        yield
    finally:
        _asked.pop()
