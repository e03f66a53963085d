"""Segments of a round: what is read of each, what is told of all, and images that cannot be read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blip2sweep.backends.backend import NoImage
from blip2sweep.backends.torch import segments
from blip2sweep.backends.torch.segments import Segment, Segments
from blip2sweep.models.images import Features
from blip2sweep.models.ragged import Rows

RUN: Any = SimpleNamespace(loaded=SimpleNamespace(images=[SimpleNamespace(name="bridge")]))


def segment(*images: int, hits: dict[str, float] | None = None) -> Segment:
    task: Any = SimpleNamespace(name="t", images=dict.fromkeys(images))
    shared: Any = None if hits is None else SimpleNamespace(told=hits)
    return Segment(task, Features(()), lambda: shared)


@pytest.fixture(autouse=True)
def _encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's row is its number; one below 0 cannot be read."""

    def encode(run: Any, task: Any, source: Any, shared: Any) -> Features:
        ids = tuple(i for i in task.images if i >= 0)
        if not ids:
            raise NoImage("none")
        return Features(ids, Rows(torch.tensor(ids)[:, None]), "bridge", tuple(i for i in task.images if i < 0))

    monkeypatch.setattr(segments, "encode", encode)


def test_all_rows_come_in_the_order_of_segments() -> None:
    found = Segments([segment(5, 3), segment(-1), segment(), segment(4, -2)]).encoded(RUN, None)
    assert found.ids == (5, 3, 4)
    assert found.rows is not None
    assert found.rows.values.tolist() == [[5], [3], [4]]
    assert (found.bad, found.after) == ((-1, -2), "bridge")


def test_a_round_without_a_readable_image_has_none() -> None:
    with pytest.raises(NoImage):
        Segments([segment(-1), segment(-2)]).encoded(RUN, None)


def test_hits_are_those_of_all_segments() -> None:
    """Pictures whose whole way was known are added; blocks are a mean over pictures."""
    shared: Any = SimpleNamespace(hits={})
    own = [
        segment(1, 2, 3, hits={"bridge": 3, "vision_blocks": 6}),
        segment(4, hits={"bridge": 0, "vision_blocks": 2.0}),
    ]
    Segments(own).encoded(RUN, shared)
    assert shared.hits == {"bridge": 3, "vision_blocks": 5.0}
