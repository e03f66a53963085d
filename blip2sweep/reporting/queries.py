"""The captions that lost their picture: of each cell the worst text queries, with the pictures found before and now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

from blip2sweep.reporting.source import Source
from blip2sweep.results.predictions import predictions_or_none, stem
from blip2sweep.rows import Id
from blip2sweep.tasks.predictions import Predictions

if TYPE_CHECKING:
    from blip2sweep.tasks.retrieval import Found

MOST, PICTURES, SEEN = 8, 5, 20  # queries a cell, pictures a query, and how far down a picture's place is looked for
MOST_CELLS = 100  # the first ones


class LostQuery(TypedDict):
    """A caption, and numbers of samples: that of its own picture, and the pictures found before and now, the best
    first."""

    sample: int
    text: str
    before: list[int]
    now: list[int]


def lost_queries(source: Source, first: Predictions, names: Sequence[tuple[str, str]]) -> list[list[LostQuery]]:
    """For each cell the captions whose own picture fell most, the worst first. Empty where the task ranks nothing.

    first: the baseline's predictions. names: (key, predictions) of each cell.
    """
    pictures = getattr(source.task.rules, "found_pictures", None) if source.task else None
    if pictures is None:
        return []
    numbers = {sample: i for i, sample in enumerate(first.id)}
    before: list[Found] = pictures(source.task, first, SEEN)
    found = [predictions_or_none(source.output_dir, stem(*name)) for name in names[:MOST_CELLS]]
    return [
        _lost(before, pictures(source.task, said, SEEN), numbers) if said and said.id == first.id else []
        for said in found
    ]


def _lost(before: Sequence[Found], now: Sequence[Found], numbers: Mapping[Id, int]) -> list[LostQuery]:
    queries = [
        (_place(new, own) - _place(old, own), number, text, old, new)
        for (own, number), was, is_ in zip(numbers.items(), before, now, strict=True)
        for (text, old), (_, new) in zip(was, is_, strict=True)
    ]
    worst = sorted((q for q in queries if q[0] > 0), key=lambda q: -q[0])[:MOST]
    return [
        {"sample": number, "text": text, "before": _numbers(old, numbers), "now": _numbers(new, numbers)}
        for _, number, text, old, new in worst
    ]


def _place(found: Sequence[Id], own: Id) -> int:
    return list(found).index(own) if own in found else SEEN


def _numbers(found: Sequence[Id], numbers: Mapping[Id, int]) -> list[int]:
    return [numbers[sample] for sample in found[:PICTURES]]
