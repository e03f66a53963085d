"""What all tests of chat models have."""

from __future__ import annotations

import pytest

from blip2sweep.chat import client as clients
from tests.chat.asking import SECRET


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
