"""The answers of several cells of one language recipe in one run of the language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

from blip2sweep.backends.torch.batching import Batches
from blip2sweep.backends.torch.sharing import Account, Shared
from blip2sweep.machine import stopping
from blip2sweep.machine.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from blip2sweep.backends.torch.answers import Answer, Answers
    from blip2sweep.models.images import Features
    from blip2sweep.tasks.sample import TaskData


class Other(NamedTuple):
    """A later cell, or a round of one, that is answered now. shared: where its answers go. features: what the language
    model sees of its images, all of which could be read."""

    shared: Shared
    task: TaskData
    features: Features


class Joint:
    """Answers a cell's questions with those of others. ended: what is called where they do not fit together."""

    def __init__(self, shared: Shared, others: Sequence[Other], ended: Callable[[], None]) -> None:
        self.shared, self.others, self.ended = shared, others, ended

    def __call__(self, asking: Answers, question: object) -> list[Answer] | None:
        """The answers of the cell, while those of others are kept for them. None where it has to be answered alone."""
        new = dict(self._new(asking, question))
        if not new or stopping.asked():
            return None
        clock = copy(asking.run.clock)
        clock.seconds = {}
        run = asking.run._replace(sequences=Whole(asking.run.sequences.size), clock=clock)
        try:
            found = asking.beside([own for own, _ in new.values()], run).all()
        except Exception as error:  # whose fault it is, each one's own turn tells
            if is_out_of_memory(error):
                self.ended()
            return None
        start = len(asking.prompts)
        share = {stage: seconds / len(found) for stage, seconds in clock.seconds.items()}  # of a sample
        for key, (own, other) in new.items():
            n = len(own.prompts)
            self.shared.answered.put(key, found[start : start + n])
            start += n
            _take(other.shared.account, {stage: n * seconds for stage, seconds in share.items()}, asking.stage)
            self.shared.account.lent += n * sum(share.values())
        n = len(asking.prompts)
        asking.run.clock.add({stage: n * seconds for stage, seconds in share.items()})
        return found[:n]

    def _new(self, asking: Answers, question: object) -> Iterator[tuple[str, tuple[Answers, Other]]]:
        """(key of its answers, (its questions, cell)) of those that nobody has answered: not this cell either, whose
        features may be equal."""
        mine = self.shared.language_key(asking.pictures, question)
        for other in self.others:
            own = asking.of(other.features, other.task)
            key = other.shared.language_key(own.pictures, own.question)
            if key != mine and self.shared.answered.get(key) is None:
                yield key, (own, other)


def _take(account: Account, share: Mapping[str, float], stage: str) -> None:
    for name, seconds in share.items():
        account.seconds[name] = account.seconds.get(name, 0.0) + seconds
    account.hits[stage] = 0


class Whole(Batches):
    """Batches that are not halved: cells together have to fit, or each is alone."""

    def _halve(self, tried: int) -> None:
        raise MemoryError(f"{tried} sequences of several cells do not fit")
