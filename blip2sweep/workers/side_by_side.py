"""Cells that are run in rounds go side by side, where a back end computes rounds of several cells at once.

In the turn of one cell, later cells that are like it go with it: each is asked for its next round, until the first of them
has its answer. The others stay where they are, and go on in the turn of the next one. So short rounds, which fill no batch,
come together, although which rounds a cell needs is known only from its answers. What goes wrong with a cell that is not
in its turn is forgotten, and its own turn, which begins it again, tells it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence
from typing import NamedTuple

from blip2sweep.backends.backend import Answered, Backend, SideBySide
from blip2sweep.machine import stopping
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.rounds import Ask

Rounds = Generator[CellJob, Answered, Answered]  # what a cell asks for, one round after the other, and its answer
MOST = 16  # cells that go together: more fill no further batches
# Seconds of one turn for other cells, looked at between two of them: a cell must not wait for others until its job ends.
LONGEST = 60.0


class Later(NamedTuple):
    """Cells whose turn comes later, in their order. may_begin: whether one may go already, as nobody else has it."""

    jobs: Collection[CellJob] = ()
    may_begin: Callable[[CellJob], bool] = lambda job: True


NOBODY = Later()


class Going:
    """A cell on its way. asks: its next round, None when it is answered."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        self.asks: CellJob | None = None
        self.answered: Answered | None = None
        self._step(lambda: next(rounds))

    def go(self, ask: Ask) -> None:
        """Have the next round answered. Raises what `ask` raises, and what comes of the answer."""
        assert self.asks is not None
        found = ask(self.asks)
        self._step(lambda: self.rounds.send(found))

    def _step(self, step: Callable[[], CellJob]) -> None:
        try:
            self.asks = step()
        except StopIteration as end:
            self.asks, self.answered = None, end.value


class Companions:
    """Answers a cell, and takes others along.

    begin: the rounds of a cell. lent: seconds that the last turn spent on others.
    """

    def __init__(self, begin: Callable[[CellJob], Rounds]) -> None:
        self._begin, self.lent, self._alone = begin, 0.0, False
        self._going: dict[str, Going] = {}  # later cells that began
        self._failed: set[str] = set()  # and those that go alone
        self._kinds: dict[str, str | None] = {}  # {cell: what it has in common with others}

    def __call__(self, job: CellJob, ask: Ask, backend: Backend | None, later: Later) -> Answered:
        """The answer of a cell. Raises what its rounds raise."""
        self.lent = 0.0
        own = self._going.pop(job["key"], None) or Going(self._begin(job))
        while own.asks is not None:
            others = self._others(job, own.asks, backend, later)
            if isinstance(backend, SideBySide):
                backend.comes([own.asks, *(o.asks for o in others if o.asks)] if others else [])
            own.go(ask)
            if own.asks is not None:
                self._take_along(others, ask)
        assert own.answered is not None
        return own.answered

    def _others(self, job: CellJob, asks: CellJob, backend: Backend | None, later: Later) -> Sequence[Going]:
        """The later cells that go with this one."""
        found: list[Going] = []
        if self._alone or not isinstance(backend, SideBySide) or backend.fills(asks):
            return found
        kind = self._kind(job, backend)
        for other in later.jobs if kind else ():
            if len(found) + 1 == MOST:
                break
            going = self._began(other, later) if self._kind(other, backend) == kind else None
            if going is not None and going.asks is not None and not backend.fills(going.asks):
                found.append(going)
        return found

    def _kind(self, job: CellJob, backend: SideBySide) -> str | None:
        if job["key"] not in self._kinds:
            self._kinds[job["key"]] = backend.alike(job)
        return self._kinds[job["key"]]

    def _began(self, job: CellJob, later: Later) -> Going | None:
        """A later cell on its way; None for one that has to wait for its turn."""
        key = job["key"]
        if key not in self._going and key not in self._failed and later.may_begin(job):
            try:
                self._going[key] = Going(self._begin(job))
            except Exception:
                self._failed.add(key)
        return self._going.get(key)

    def _take_along(self, others: Sequence[Going], ask: Ask) -> None:
        began = time.monotonic()
        for other in others:
            if stopping.asked() or self.lent > LONGEST:
                return
            try:
                other.go(ask)
            except Exception as error:
                self._give_up(other)
                self._alone |= is_out_of_memory(error)
            self.lent += time.monotonic() - began
            began = time.monotonic()

    def _give_up(self, other: Going) -> None:
        key = next(key for key, going in self._going.items() if going is other)
        del self._going[key]
        self._failed.add(key)
