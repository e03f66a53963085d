"""Cells that are run in rounds go side by side, where a back end computes rounds of several cells at once.

In the turn of one cell, later cells that are like it go with it: each is asked for its next round, until the first of them
has its answer. The others stay where they are, and go on in the turn of the next one. So short rounds, which fill no batch,
come together, although which rounds a cell needs is known only from its answers. What goes wrong with a cell that is not
in its turn is forgotten, and its own turn, which begins it again, tells it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Mapping
from functools import partial
from itertools import islice
from typing import NamedTuple

from blip2sweep.backends.backend import Answered, Backend, SideBySide
from blip2sweep.machine import stopping
from blip2sweep.machine.memory import is_out_of_memory
from blip2sweep.machine.stopping import Stopped
from blip2sweep.wire.pack import CellJob
from blip2sweep.workers.rounds import Ask

# What a cell asks for, one round after the other, and its answer. It yields nothing where it waits for another process.
Rounds = Generator[CellJob | None, Answered | None, Answered]
MOST = 16  # cells that go together: more fill no further batches
# Seconds of one turn for other cells, looked at between two of them: a cell must not wait for others until its job ends.
LONGEST = 60.0


class Later(NamedTuple):
    """Cells whose turn comes later, in their order. may_begin: whether one may go already, as nobody else has it."""

    jobs: Collection[CellJob] = ()
    may_begin: Callable[[CellJob], bool] = lambda job: True


NOBODY = Later()


def asked_for(job: CellJob) -> Generator[CellJob | None, Answered | None, Answered]:
    """In `Rounds`: the answer to a round."""
    found = yield job
    assert found is not None
    return found


class Going:
    """A cell on its way. asks: its next round, None while it waits and when it is answered."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        self.asks: CellJob | None = None
        self.answered: Answered | None = None
        self._step(None)

    def go(self, ask: Ask) -> None:
        """Have the next round answered. Raises what `ask` raises, and what comes of the answer."""
        assert self.asks is not None
        self._step(ask(self.asks))

    def settle(self) -> None:
        """Wait until it asks for a round or is answered. Raises what comes of what it waited for."""
        while self.asks is None and self.answered is None:
            self._step(None)

    def _step(self, found: Answered | None) -> None:
        try:
            self.asks = self.rounds.send(found)
        except StopIteration as end:
            self.asks, self.answered = None, end.value


class Companions:
    """Answers a cell, and takes others along.

    begin: the rounds of a cell. lent: seconds of the current turn that went to others, which whoever begins a
    turn sets to 0.
    """

    def __init__(self, begin: Callable[[CellJob], Rounds]) -> None:
        self._begin, self.lent, self._alone = begin, 0.0, False
        self._going: dict[str, Going] = {}  # later cells that began
        self._failed: set[str] = set()  # and those that go alone
        self._kinds: dict[str, str | None] = {}  # {cell: what it has in common with others}

    def __call__(self, job: CellJob, ask: Ask, backend: Backend | None, later: Later) -> Answered:
        """The answer of a cell. Raises what its rounds raise."""
        own = self._going.pop(job["key"], None) or Going(self._begin(job))
        own.settle()
        while own.asks is not None:
            others = self._others(job, own.asks, backend, later)
            if isinstance(backend, SideBySide):
                backend.comes([own.asks, *(o.asks for o in others.values() if o.asks)] if others else [])
            own.go(ask)
            own.settle()
            if own.asks is not None and others:
                self._take_along(others, ask)
                if stopping.asked():  # it goes on from the rounds that are kept, and no further one is begun
                    raise Stopped(goes_on=True)
        assert own.answered is not None
        return own.answered

    def _others(self, job: CellJob, asks: CellJob, backend: Backend | None, later: Later) -> Mapping[str, Going]:
        """{key: later cell} that go with this one."""
        if self._alone or not isinstance(backend, SideBySide) or backend.fills(asks):
            return {}
        kind = self._kind(job, backend, later)
        alike = (other for other in later.jobs if kind and self._kinds.get(other["key"]) == kind)
        began = ((other["key"], going) for other in alike if (going := self._began(other, later)) and going.asks)
        first = dict(islice(began, MOST - 1))  # no further ones are begun, however few of these have a short round
        return {key: going for key, going in first.items() if going.asks and not backend.fills(going.asks)}

    def _kind(self, job: CellJob, backend: SideBySide, later: Later) -> str | None:
        """What a cell has in common with others, which is found out for all later ones of its model at once."""
        if job["key"] not in self._kinds:
            of_model = [job, *(other for other in later.jobs if other["model"] == job["model"])]
            self._kinds |= {one["key"]: backend.alike(one) for one in of_model}
        return self._kinds[job["key"]]

    def _began(self, job: CellJob, later: Later) -> Going | None:
        """A later cell on its way; None for one that has to wait for its turn, also where somebody else has it by now."""
        key = job["key"]
        if stopping.asked() or key in self._failed or not later.may_begin(job):
            return None
        if key not in self._going:
            try:
                self._going[key] = Going(self._begin(job))
                self._going[key].settle()
            except Exception:  # its own turn, which begins it again, tells it
                self._give_up(key)
        return self._going.get(key)

    def drop(self, key: str) -> bool:
        """Forget a cell that is done. Returns whether it was on its way."""
        return self._going.pop(key, None) is not None

    def _take_along(self, others: Mapping[str, Going], ask: Ask) -> None:
        """Each of the others has its next round. They are judged while later ones are asked for."""
        began, last = time.monotonic(), self.lent
        for key, other in others.items():
            if stopping.asked() or self.lent > LONGEST:
                break
            self._try(key, partial(other.go, ask))
            self.lent = last + time.monotonic() - began
        for key, other in others.items():
            self._try(key, other.settle)
        self.lent = last + time.monotonic() - began

    def _try(self, key: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # the same
            self._give_up(key)
            self._alone |= is_out_of_memory(error)

    def _give_up(self, key: str) -> None:
        self._going.pop(key, None)
        self._failed.add(key)
