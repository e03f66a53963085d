"""Images of a round that goes over several segments of the set's order.

Each segment is encoded as the round of its own that other cells have, so that cells share what is known of it wherever
their rounds begin and end. The language model then sees all of them at once, in batches that are filled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from blip2sweep.backends.backend import NoImage
from blip2sweep.backends.shares import segments_of_round
from blip2sweep.backends.torch.batching import Run
from blip2sweep.backends.torch.encode import Source, encode
from blip2sweep.backends.torch.model_state import ModelState
from blip2sweep.backends.torch.sharing import Shared
from blip2sweep.models.images import Features
from blip2sweep.models.ragged import joined
from blip2sweep.tasks.sample import TaskData
from blip2sweep.wire.pack import CellJob


class Segment(NamedTuple):
    """Images that are encoded together. shared: where they look and leave results, asked when it is their turn, because
    what only the segments before them want is then removed."""

    task: TaskData
    source: Source
    shared: Callable[[], Shared | None]


class Segments:
    """The segments of one round, in order."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = [one for one in segments if one.task.images]  # a process may have no share of a short one

    def encoded(self, run: Run, shared: Shared | None) -> Features:
        """What the language model sees of all images. shared: of the round, which receives the hits of all segments.
        Raises NoImage when none could be read."""
        told: list[tuple[int, Mapping[str, float]]] = []
        found: list[Features] = []
        for one in self.segments:
            own = one.shared()
            found.append(_encoded(run, one, own))
            told.append((len(one.task.images), own.told if own else {}))
        read = [f.rows for f in found if f.rows is not None]
        if not read:
            raise NoImage(f"task {self.segments[0].task.name}: none of the round's images could be read")
        ids, bad = (tuple(i for f in found for i in getattr(f, name)) for name in ("ids", "bad"))
        after = run.loaded.images[-1].name
        if shared is not None:
            shared.hits |= _hits(told, {after, "disk"})
        return Features(ids, joined(read), after, bad)


def _encoded(run: Run, segment: Segment, shared: Shared | None) -> Features:
    try:
        return encode(run, segment.task, segment.source, shared)
    except NoImage:  # other segments may have some
        return Features((), bad=tuple(segment.task.images))


def _hits(told: Sequence[tuple[int, Mapping[str, float]]], counts: set[str]) -> dict[str, float]:
    """The hits of all segments, [(images, hits)]: those of `counts` added, the others' means over images."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for _, hits in told for name in hits):
        own = [(n, hits[name]) for n, hits in told if name in hits]
        added = sum(value if name in counts else n * value for n, value in own)
        found[name] = added if name in counts else added / sum(n for n, _ in own)
    return found


def source_of(
    state: ModelState, job: CellJob, task: Callable[[CellJob], TaskData], workers: int,
    shared: Callable[[CellJob], Shared | None],
) -> Source | Segments:  # fmt: skip
    """The images of a job. task: the data of a job's task. workers: processes that decode. shared: where a job looks."""
    jobs = segments_of_round(job)
    if len(jobs) == 1:
        return state.pictures(job, task(job), workers)
    return Segments([Segment(task(j), state.pictures(j, task(j), workers), partial(shared, j)) for j in jobs])
