"""What the journals say of one cell, and which of its results counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from blip2sweep.wire.lines import CellLine, FailureLine, MeasuredLine, RequeuedLine, ResultLine, StartLine, UnscoredLine


class Known(TypedDict):
    """What a new result says that it knew."""

    replaces: list[str]
    starts: list[str]


@dataclass(slots=True)
class Attempts:
    """All that the journals say of one key. An attempt is named by an id: clocks of different hosts are not compared."""

    starts: dict[str, StartLine] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    known: dict[str, ResultLine] = field(default_factory=dict)  # every result, by attempt
    gone: frozenset[str] = frozenset()  # of these, whose predictions are not what was written
    result: ResultLine | None = None  # the one that counts
    rivals: Sequence[str] = ()  # results that do not know each other, where there are several
    failures: list[FailureLine] = field(default_factory=list)
    measured: dict[str, MeasuredLine] = field(default_factory=dict)  # by what they were made from
    unscored: UnscoredLine | None = None  # why the newest try to score it failed

    @property
    def started(self) -> int:
        """How many attempts there were, those included that only the result still knows of."""
        known = self.result.get("starts") if self.result else None
        return len(self.starts) if known is None else max(len(self.starts), 1 + len(known))

    @property
    def last_start(self) -> StartLine | None:
        return max(self.starts.values(), key=lambda r: r["time"], default=None)

    @property
    def open(self) -> list[StartLine]:
        """Starts that nothing has ended: the cell is in hand, or was when its process died."""
        return [start for attempt, start in self.starts.items() if attempt not in self.ended]

    @property
    def done(self) -> bool:
        return self.result is not None

    @property
    def results(self) -> set[str]:
        """The attempts whose results are there; none where the newest is not, for what it replaced counts no more."""
        return {a for a in self.known if a not in self.gone} if self.result else set()

    @property
    def last_failure(self) -> FailureLine | None:
        """The newest failure that no later result made good."""
        if not self.failures or (self.result and _made_good(self.failures[-1], self.result)):
            return None
        return self.failures[-1]

    def failed_in(self, runs: Collection[str]) -> list[FailureLine]:
        """Failures of these runs (one launch of a sweep each)."""
        return [f for f in self.failures if f.get("run") in runs]

    def to_know(self) -> Known:
        """What a new result says that it knew: the results it replaces, the other attempts there were."""
        return {"replaces": sorted(self.known), "starts": sorted(self.starts)}

    def take(self, line: CellLine) -> None:
        """Take note of one line of this cell; those of an event that this version does not know say nothing."""
        if line["event"] == "started":
            self.starts[attempt_id(line)] = line
        elif line["event"] == "result":
            attempt = attempt_id(line)
            self.ended.add(attempt)
            self.known[attempt] = line
            if len(self.known) == 1 and not self.gone:
                self.result = line
            else:
                self._choose()
        elif line["event"] == "measured":
            known = self.measured.get(line["source"])
            self.measured[line["source"]] = max(known or line, line, key=_generation)
        elif line["event"] == "unscored":
            self.unscored = line
        elif line["event"] == "failed":
            self.ended.add(attempt_id(line))
            self.failures = sorted([*self.failures, line], key=lambda r: r["time"])
        elif line["event"] == "requeued":
            self.ended.add(attempt_id(line))

    def lose(self, attempt: str) -> None:
        """The predictions of this result are not there."""
        self.gone |= {attempt}
        self._choose()

    def _choose(self) -> None:
        if len(self.known) == 1:
            ((attempt, chosen),) = self.known.items()
        else:
            attempt, self.rivals = newest(self.known)
            chosen = self.known[attempt]
        self.result = None if attempt in self.gone else chosen


def newest(results: Mapping[str, ResultLine]) -> tuple[str, list[str]]:
    """(the attempt whose result counts, those that could as well, when there are several). A result names those it replaces.
    Of two that do not know each other the one with the larger id counts; lines of earlier versions, which name nothing, come
    before all others and among themselves in the order of their times."""
    replaced = {a for attempt, r in results.items() for a in r.get("replaces", ()) if a != attempt}
    heads = [a for a in results if a not in replaced] or list(results)
    named = [a for a in heads if "replaces" in results[a]]
    if not named:
        return max(heads, key=lambda a: (results[a]["time"], a)), []
    return max(named), sorted(named) if len(named) > 1 else []


def _made_good(failure: FailureLine, result: ResultLine) -> bool:
    if "starts" in result:
        return attempt_id(failure) in result["starts"]
    return bool(result["time"] >= failure["time"])


def _generation(measured: MeasuredLine) -> tuple[int, str, float]:
    """Of measurements of one thing the one that knew of the others counts."""
    return measured.get("generation", 0), measured["scored"], measured["time"] if "n" not in measured else 0.0


def attempt_id(line: StartLine | ResultLine | FailureLine | RequeuedLine) -> str:
    """The attempt a line belongs to; those of the first versions are named by their time."""
    return str(line.get("attempt") or line.get("time"))
