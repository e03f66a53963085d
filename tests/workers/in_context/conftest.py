"""A chat model, its endpoint, and what the vision-language model was asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from blip2sweep.backends.backend import Answered
from blip2sweep.backends.dummy import Dummy
from blip2sweep.chat import client as clients
from tests.chat.server import Endpoint as Server
from tests.chat.server import serving
from tests.workers.in_context.cells import (
    SECRET,
    reply,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(reply) as found:
        yield found


@pytest.fixture
def asked_model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rounds that back ends were asked for, in order."""
    found: list[str] = []
    own = Dummy.__call__

    def call(self: Dummy, job: Any, batch_size: int | None = None) -> Answered:
        found.append(job["task"].get("round", {}).get("name", "whole"))
        return own(self, job, batch_size)

    monkeypatch.setattr(Dummy, "__call__", call)
    return found
