"""What a cell said of the samples of a task, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blip2sweep.canonical import digest
from blip2sweep.rows import Id

FIELDS = ("id", "image_id", "text", "tokens", "nll_sum", "nll_tokens")


@dataclass(frozen=True)
class Predictions:
    """What a cell said, column by column, in the order of the task's samples."""

    id: list[Id]
    image_id: list[Id]
    text: list[str]
    tokens: list[int]
    nll_sum: list[float | None]  # None: not finite, or not measured
    nll_tokens: list[int]

    @classmethod
    def of(cls, records: Sequence[dict[str, Any]]) -> Predictions:
        """From one dict per sample."""
        return cls(**{f: [r[f] for r in records] for f in FIELDS})

    @property
    def hash(self) -> str:
        """sha256 of all columns: texts that stay while likelihoods change are other predictions."""
        return digest([self.__dict__[name] for name in FIELDS])
