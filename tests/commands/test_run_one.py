"""One cell in this process, as launchers of other packages run it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blip2sweep.commands import run_one


@pytest.mark.parametrize(("measured", "value"), [(0.0, 0.0), (0.5, 0.5), (None, math.nan)])
def test_the_metric_of_a_stopped_cell_may_be_0(
    monkeypatch: pytest.MonkeyPatch, measured: float | None, value: float
) -> None:
    line = {"key": "c", "predictions": "1", "columns": {"baseline": "b"}, "stopped": {"images": 64}}
    ledger: Any = SimpleNamespace(attempts={k: SimpleNamespace(result=line) for k in "bc"})
    for name, made in (("Scored", object()), ("Baseline", object()), ("measure", {"metrics": {"cider": [measured]}})):
        monkeypatch.setattr(run_one, name, lambda *asked, made=made: made)
    assert run_one._main_value(Path(), "c", ledger, "cider") == pytest.approx(value, nan_ok=True)
