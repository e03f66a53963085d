"""The outputs of a cell for the samples of a task, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from blip2sweep.canonical import digest
from blip2sweep.rows import Id
from blip2sweep.tasks.task import RequestType

# The columns of every cell, and those of each type of request. A cell that generates has both columns of likelihoods,
# also where they were not measured, as in files of earlier versions.
SAMPLE = ("id", "image_id")
COLUMNS: dict[RequestType, tuple[str, ...]] = {
    "generate": ("text", "tokens", "nll_sum", "nll_tokens"),
    "likelihood": ("nll_sum", "nll_tokens"),
    "match": ("scores",),
    "choose": ("choice", "option_nll", "option_tokens"),
}
FIELDS = (*SAMPLE, *COLUMNS["generate"])  # of texts; their hash is of all columns in this order
SHOWN = 10
RANKED = ("texts", "scores", "asking", "asking_scores")  # of a match, where only the best of either side are scored


@dataclass(frozen=True)
class Predictions:
    """The outputs of a cell in the order of the task's samples. A column that was not requested is null.

    text, tokens: the generated text and its number of tokens. nll_sum, nll_tokens: the negative log-likelihood of the
    targets in nats, and their tokens; None where it is not finite or not measured. scores: of each sample against each
    candidate of the task, or where `texts` is there against those that it numbers: the best of the sample by contrast.
    asking: the candidates among whose best samples this one is; asking_scores: their scores. choice: the index of the
    likeliest of a sample's options. option_nll, option_tokens: the same as nll of each option, so that other rules of
    choosing need no inference. answer, context: of the in-context pipeline, whose text is a chat model's reply as it is:
    the model's own answer, and what it told of the picture.
    """

    id: list[Id]
    image_id: list[Id]
    text: list[str] | None = None
    tokens: list[int] | None = None
    nll_sum: list[float | None] | None = None
    nll_tokens: list[int] | None = None
    texts: list[list[int]] | None = None
    scores: list[list[float]] | None = None
    asking: list[list[int]] | None = None
    asking_scores: list[list[float]] | None = None
    choice: list[int] | None = None
    option_nll: list[list[float | None]] | None = None
    option_tokens: list[list[int]] | None = None
    answer: list[str] | None = None
    context: list[list[str]] | None = None

    def __post_init__(self) -> None:
        if len({len(column) for column in self.columns.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in self.columns.items())
            raise ValueError(f"columns of several lengths: {lengths}")

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> Predictions:
        """The predictions from one dict for each sample. Without samples the columns are those of texts."""
        names = tuple(records[0]) if records else FIELDS
        return cls(**{name: [record[name] for record in records] for name in names})

    @classmethod
    def joined(cls, parts: Sequence[Predictions], ids: Sequence[Id]) -> Predictions:
        """The predictions of several processes, which answered other samples each, in the order of `ids`.

        Raises ValueError where a sample is answered twice or unknown, or where columns differ.
        """
        place = {sample: i for i, sample in enumerate(ids)}
        found = [sample for part in parts for sample in part.id]
        if len({*found}) < len(found) or not place.keys() >= {*found}:
            raise ValueError("processes of one cell answered the same samples, or unknown ones")
        if len({tuple(part.columns) for part in parts}) > 1:
            raise ValueError("processes of one cell answered with other columns")
        order = sorted(range(len(found)), key=lambda i: place[found[i]])
        names = parts[0].columns
        together = {name: [value for part in parts for value in part.columns[name]] for name in names}
        return cls(**{name: [column[i] for i in order] for name, column in together.items()})  # type: ignore[arg-type]

    def take(self, rows: Sequence[int]) -> Predictions:
        """The predictions of some samples, by their numbers, in this order."""
        return Predictions(**{name: [column[i] for i in rows] for name, column in self.columns.items()})  # type: ignore[arg-type]

    @property
    def columns(self) -> Mapping[str, Sequence[object]]:
        """{name: column} of the columns that are not null, in the order in which they are written."""
        return {name: column for name, column in self.__dict__.items() if column is not None}

    @property
    def hash(self) -> str:
        """The sha256 of all columns, likelihoods too."""
        columns = self.columns
        return digest(list(columns.values()) if tuple(columns) == FIELDS else columns)

    @property
    def outputs(self) -> list[str]:
        """The output for each sample as one text: the generated text, or the number of the choice or of the best
        candidate.
        """
        if self.text is not None:
            return self.text
        if self.choice is not None:
            return [str(chosen) for chosen in self.choice]
        if self.texts is not None:
            return [str(text) for ((_, text),) in self.rankings(1)]
        return [str(max(range(len(row)), key=row.__getitem__)) for row in self.scores or ()]

    def rankings(self, most: int) -> list[list[tuple[float, int]]]:
        """For each sample (score, number) of its best candidates, the best first; the later one of equals comes first."""
        pairs = zip(self.texts or (), self.scores or (), strict=True)
        return [nlargest(most, zip(scores, texts, strict=True)) for texts, scores in pairs]

    @property
    def of_samples(self) -> Mapping[str, Sequence[object]]:
        """`columns` as a table of samples has them: of a ranking the first SHOWN candidates of each sample, in order."""
        if self.texts is None:
            return self.columns
        best = self.rankings(SHOWN)
        texts, scores = ([[pair[i] for pair in row] for row in best] for i in (1, 0))
        return {**{name: self.columns[name] for name in SAMPLE}, "texts": texts, "scores": scores}


def columns_of(requests: Sequence[RequestType], ranked: bool = False) -> tuple[str, ...]:
    """The columns of a cell with these requests, in their order. ranked: whether only the best of a match are scored."""
    requested = {column for request in requests for column in COLUMNS[request]} | {*(RANKED if ranked else ())}
    return tuple(c for c in Predictions.__dataclass_fields__ if c in SAMPLE or c in requested)
