"""References are read in pieces: the likelihoods are those of one pass over all rows."""

from __future__ import annotations

import pytest

from blip2sweep.models import pieces as module
from blip2sweep.models.pieces import NOTHING, in_pieces, pieces
from blip2sweep.models.text import Ids


def test_a_piece_goes_on_while_its_padding_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    found = list(pieces([3, 3, 2, 3, 4, 1, 5]))
    assert [(p.start, p.stop) for p in found] == [(0, 4), (4, 6), (6, 7)]
    assert list(pieces([])) == []


def test_a_piece_without_a_token_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as where of all samples only some have a second reference."""
    monkeypatch.setattr(module, "ROWS", 1)

    def logits(references: list[Ids], rows: slice) -> None:
        raise AssertionError(references)

    assert in_pieces([[], []], 0, logits) == [NOTHING] * 2  # type: ignore[arg-type]
