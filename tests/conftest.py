"""What every test has."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from blip2sweep.cache import disk as cache
from blip2sweep.machine.signal_stack import signal_stack, signal_stack_kept


@pytest.fixture(scope="session", autouse=True)
def _own_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered for a user is remembered for these tests alone, those of started processes too."""
    before = os.environ.get(cache.USER)
    os.environ[cache.USER] = str(tmp_path_factory.mktemp("user-cache"))
    yield
    os.environ.pop(cache.USER)
    if before is not None:
        os.environ[cache.USER] = before


@pytest.fixture(scope="session")
def _first_signal_stack() -> Iterator[int | None]:
    with signal_stack_kept():
        yield place()


@pytest.fixture(autouse=True)
def _own_signal_stack(_first_signal_stack: int | None) -> Iterator[None]:
    """No library leaves its own signal stack, which it frees: the next signal would end this process without a word."""
    yield
    assert place() == _first_signal_stack


def place() -> int | None:
    found = signal_stack()
    return found.start if found else None
