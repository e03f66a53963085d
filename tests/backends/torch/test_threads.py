"""How many threads cells are evaluated on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from blip2sweep.backends.torch import threads
from blip2sweep.backends.torch.backend import TorchBackend
from blip2sweep.backends.torch.threads import threads_of_model
from tests.in_process import jobs


@pytest.mark.parametrize(("there", "small", "large"), [(1, 1, 1), (2, 1, 2), (16, 15, 16)])
def test_a_small_model_leaves_a_core_to_scoring(
    there: int, small: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(4, 4)
    assert threads_of_model(model, there) == small
    monkeypatch.setattr(threads, "SMALL", 20)  # as many as it has
    assert threads_of_model(model, there) == large


@pytest.mark.parametrize(("chosen", "used"), [(None, 1), (2, 2)])
def test_cells_say_on_how_many_threads_they_were_evaluated(chosen: int | None, used: int) -> None:
    """Whoever chooses a number has it."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        backend = TorchBackend({"device": "cpu", "threads": chosen})
        (job,) = jobs("part=none", limit=1)
        assert backend(job).provenance["threads"] == used
    finally:
        torch.set_num_threads(before)
