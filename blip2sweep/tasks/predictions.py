"""What a cell said of the samples of a task, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blip2sweep.canonical import digest
from blip2sweep.rows import Id
from blip2sweep.tasks.task import RequestType

# The columns of every cell, and those of each type of request. A cell that generates has both columns of likelihoods, measured or
# not: so it was always written.
SAMPLE = ("id", "image_id")
COLUMNS: dict[RequestType, tuple[str, ...]] = {
    "generate": ("text", "tokens", "nll_sum", "nll_tokens"),
    "likelihood": ("nll_sum", "nll_tokens"),
    "match": ("scores",),
    "choose": ("choice", "option_nll", "option_tokens"),
}
FIELDS = (*SAMPLE, *COLUMNS["generate"])  # of texts: hashes of these are of all columns in this order


@dataclass(frozen=True)
class Predictions:
    """What a cell said, column by column, in the order of the task's samples; null for columns that nobody asked for.

    text, tokens: what was generated and of how many tokens. nll_sum, nll_tokens: of the targets, in nats; None where not finite or
    not measured. scores: of each sample against each candidate of the task. choice: the index of the likeliest of a sample's
    choices; option_nll, option_tokens: of each of them, in nats, so that other rules of choosing need no inference.
    """

    id: list[Id]
    image_id: list[Id]
    text: list[str] | None = None
    tokens: list[int] | None = None
    nll_sum: list[float | None] | None = None
    nll_tokens: list[int] | None = None
    scores: list[list[float]] | None = None
    choice: list[int] | None = None
    option_nll: list[list[float | None]] | None = None
    option_tokens: list[list[int]] | None = None

    def __post_init__(self) -> None:
        if len({len(column) for column in self.columns.values()}) > 1:
            told = ", ".join(f"{name} {len(column)}" for name, column in self.columns.items())
            raise ValueError(f"columns of several lengths: {told}")

    @classmethod
    def of(cls, records: Sequence[dict[str, Any]]) -> Predictions:
        """From one dict per sample; of no sample, those of texts."""
        names = tuple(records[0]) if records else FIELDS
        return cls(**{name: [record[name] for record in records] for name in names})

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The columns that are there, by name, in the order in which they are written."""
        return {name: column for name, column in self.__dict__.items() if column is not None}

    @property
    def hash(self) -> str:
        """sha256 of all columns: texts that stay while likelihoods change are other predictions."""
        columns = self.columns
        return digest(list(columns.values()) if tuple(columns) == FIELDS else columns)

    @property
    def outputs(self) -> list[str]:
        """What was said of each sample, as one text: what was generated, else the choice, else the best candidate, by number."""
        if self.text is not None:
            return self.text
        if self.choice is not None:
            return [str(chosen) for chosen in self.choice]
        return [str(max(range(len(row)), key=row.__getitem__)) for row in self.scores or ()]


def columns_of(requests: Sequence[RequestType]) -> tuple[str, ...]:
    """The columns of a cell that is asked so, in their order."""
    asked = {column for request in requests for column in COLUMNS[request]}
    return tuple(c for c in Predictions.__dataclass_fields__ if c in SAMPLE or c in asked)
