"""The cells of tests in rounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blip2sweep.backends.dummy import Dummy
from blip2sweep.workers import by_rounds
from tests.composing import plan
from tests.workers.rounds.work import OF, WORDS, Here


@pytest.fixture(scope="module")
def cells() -> dict[str, Any]:
    """The jobs of a baseline, of a cell that answers as it, and of one that answers anything."""
    base, same, other = (c.job() for c in plan(*WORDS).cells.values())
    assert len({x["image_id"] for x in _records(base)}) == OF
    return {"base": base, "same": same, "other": other}


def _records(job: Any) -> list[dict[str, Any]]:
    found = Dummy({})(job).predictions
    return [{"id": i, "image_id": image} for i, image in zip(found.id, found.image_id, strict=True)]


@pytest.fixture(autouse=True)
def _dummy(monkeypatch: pytest.MonkeyPatch, cells: dict[str, Any]) -> None:
    monkeypatch.setenv("BLIP2SWEEP_DUMMY", json.dumps({"kept": {cells["same"]["columns"]["recipe"]: 1.0}}))
    monkeypatch.setattr(by_rounds, "LookProcess", Here)
