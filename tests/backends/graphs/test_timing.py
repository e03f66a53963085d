"""What a cell of graphs is timed beside. No graph is run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from blip2sweep.backends.graphs import timing
from blip2sweep.backends.graphs.cells import Cells
from blip2sweep.machine.devices import cpu_name
from blip2sweep.models.load import Loaded


@pytest.mark.parametrize(
    ("device", "sides"),
    [(cpu_name(), ["baseline", "cell", "torch"]), ("a GPU", ["baseline", "cell"])],
    ids=["same", "other"],
)
def test_torch_is_timed_on_the_same_device_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, device: str, sides: list[str]
) -> None:
    """Its model is on the CPU, also where the graphs are not."""
    ready = SimpleNamespace(loaded=SimpleNamespace(device=torch.device("cpu")))

    class Given:
        def __call__(self, job: object) -> object:
            return ready

        baseline = __call__

    monkeypatch.setattr(timing, "latency", lambda current, job, task, sides, most, device: sorted(sides))
    job: Any = {"key": "a", "baseline": "b"}
    told = timing.latency_of(
        cast("Cells", Given()), job, cast("Any", None), lambda: cast("Loaded", ready), None, device
    )
    assert told == sides
