"""What every test has."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from blip2sweep.cache import disk as cache


@pytest.fixture(scope="session", autouse=True)
def _own_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered for a user is remembered for these tests alone, those of started processes too."""
    before = os.environ.get(cache.USER)
    os.environ[cache.USER] = str(tmp_path_factory.mktemp("user-cache"))
    yield
    os.environ.pop(cache.USER)
    if before is not None:
        os.environ[cache.USER] = before
