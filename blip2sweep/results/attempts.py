"""What the journals hold about one cell, and which of its results counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypedDict

from blip2sweep.results.rivals import differ, longest, newest
from blip2sweep.wire.lines import (
    WAITING,
    CellLine,
    FailureLine,
    ForgottenLine,
    LatencyLine,
    MeasuredLine,
    RequeuedLine,
    ResultLine,
    StartLine,
    UnforgottenLine,
    UnscoredLine,
    UntimedLine,
)

Place = tuple[str, int, int]  # where latency is measured: the device, threads of the CPU, images in a batch
NONE: frozenset[str] = frozenset()
# What most cells have none of is one object for all of them, which nothing changes.
NEVER: Mapping[str, frozenset[str]] = MappingProxyType({})
NO_LINES: Mapping[str, RequeuedLine] = MappingProxyType({})
NO_LATENCY: Mapping[Place, LatencyLine] = MappingProxyType({})


class KnownAttempts(TypedDict):
    """The attempts that the writer of a result knew about."""

    replaces: list[str]  # attempts whose results the new one replaces
    starts: list[str]  # every other attempt that was started


@dataclass(slots=True)
class Attempts:
    """All lines of the journals about one key. An attempt is named by an id, because the clocks of several hosts cannot
    be compared."""

    starts: dict[str, StartLine] = field(default_factory=dict)
    given_up: frozenset[str] = NONE  # attempts that ended without a result and without a failure
    all_results: dict[str, ResultLine] = field(default_factory=dict)  # {attempt: its result}
    missing: frozenset[str] = frozenset()  # the attempts among them whose predictions are gone or damaged
    result: ResultLine | None = None  # the one that counts
    rivals: Sequence[str] = ()  # attempts with results that do not know each other; empty where one result counts
    failures: Sequence[FailureLine] = ()  # by their times
    measured: dict[str, MeasuredLine] = field(default_factory=dict)  # {source: the newest measurement}
    unscored: UnscoredLine | None = None  # why the newest attempt to score the cell failed
    waiting: Mapping[str, RequeuedLine] = field(
        default_factory=lambda: NO_LINES
    )  # {attempt that stopped for replies: its end}
    latency: Mapping[Place, LatencyLine] = field(default_factory=lambda: NO_LATENCY)  # the newest of each place
    untimed: Sequence[UntimedLine] = ()  # tries to measure it
    forgotten: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: NEVER
    )  # {act of forgetting: attempts that do not count by it}
    taken_back: frozenset[str] = NONE  # acts of forgetting that do not count
    hidden: frozenset[str] = NONE  # the attempts that do not count: as if they had never been

    @property
    def started(self) -> int:
        """The number of attempts, including those that only the result still names."""
        others = self.result.get("starts") if self.result else None
        return len(self.starts) if others is None else max(len(self.starts), 1 + len(others))

    @property
    def last_start(self) -> StartLine | None:
        """The newest start, by its time."""
        return max(self.starts.values(), key=lambda r: r["time"], default=None)

    @property
    def waits(self) -> RequeuedLine | None:
        """The end of the newest attempt, where it stopped to wait for a chat model's replies."""
        newest = self.last_start
        if newest is None or not self.waiting or attempt_id(newest) in self.hidden:
            return None
        return self.waiting.get(attempt_id(newest))

    @property
    def ended(self) -> set[str]:
        """The attempts with a result or a failure, and those that were given up."""
        return {*self.all_results, *map(attempt_id, self.failures), *self.given_up}

    @property
    def open(self) -> list[StartLine]:
        """Starts without an end. A process is computing the cell, or died while it did."""
        return [start for attempt, start in self.starts.items() if attempt not in self.ended | self.hidden]

    @property
    def done(self) -> bool:
        """Whether a result counts."""
        return self.result is not None

    @property
    def results(self) -> set[str]:
        """The attempts whose results are intact. Empty when the newest result is not, because it replaced the
        others."""
        return {a for a in self.all_results if a not in self.missing | self.hidden} if self.result else set()

    @property
    def last_failure(self) -> FailureLine | None:
        """The newest failure, unless a later result made up for it."""
        failures = self.counting_failures
        if not failures or (self.result and _recovered(failures[-1], self.result)):
            return None
        return failures[-1]

    @property
    def counting_failures(self) -> Sequence[FailureLine]:
        """The failures that nobody forgot, by their times."""
        return [f for f in self.failures if attempt_id(f) not in self.hidden] if self.hidden else self.failures

    def failed_in(self, runs: Collection[str]) -> list[FailureLine]:
        """The failures of these runs. A run is one launch of a sweep."""
        return [f for f in self.counting_failures if f.get("run") in runs]

    def known_attempts(self) -> KnownAttempts:
        """What a new result has to name: the results it replaces, and all other attempts."""
        return {"replaces": sorted(self.all_results), "starts": sorted(self.starts)}

    def add(self, line: CellLine, kept: Any = None) -> None:
        """Add one line of this cell. A line of an event that this version does not know changes nothing.

        kept: what is remembered in the line's place, with the same fields.
        """
        kept = line if kept is None else kept
        if line["event"] == "started":
            self.starts[attempt_id(line)] = kept
        elif line["event"] == "result":
            self._add_result(attempt_id(line), kept)
        elif line["event"] == "measured":
            self._add_measured(line["source"], kept)
        elif line["event"] == "unscored":
            self.unscored = line
        elif line["event"] == "failed":
            self.failures = sorted([*self.failures, kept], key=lambda r: r["time"])
        elif line["event"] == "requeued":
            self.given_up |= {attempt_id(line)}
            if line.get("reason") == WAITING:
                self.waiting = {**self.waiting, attempt_id(line): line}
        elif line["event"] == "latency":
            place = line["device"], line["threads"], line["batch"]
            newest = max(self.latency.get(place, line), line, key=latency_order)
            self.latency = {**self.latency, place: newest}
        elif line["event"] == "untimed":
            self.untimed = [*self.untimed, line]
        elif line["event"] == "forgotten" or line["event"] == "unforgotten":
            self._forget(line)

    def add_known(self, event: str, name: str, kept: Any) -> None:
        """Add a start, a result or a measurement. name: of its attempt or source."""
        if event == "started":
            self.starts[name] = kept
        elif event == "result":
            self._add_result(name, kept)
        else:
            self._add_measured(name, kept)

    def _add_measured(self, source: str, kept: MeasuredLine) -> None:
        before = self.measured.get(source)
        self.measured[source] = kept if before is None else max(before, kept, key=_generation)

    def _add_result(self, attempt: str, line: ResultLine) -> None:
        self.all_results[attempt] = line
        if len(self.all_results) == 1 and not self.missing and not self.hidden:
            self.result = line
        else:
            self._choose()

    def _forget(self, line: ForgottenLine | UnforgottenLine) -> None:
        """Take in that attempts do not count, or count again. The order of lines, and so of clocks, does not matter."""
        if line["event"] == "forgotten":
            self.forgotten = {**self.forgotten, line["forget"]: frozenset(line.get("attempts", ()))}
        else:
            self.taken_back |= {line["forget"]}
        self.hidden = NONE.union(*(a for act, a in self.forgotten.items() if act not in self.taken_back))
        self._choose()

    def mark_missing(self, attempt: str) -> None:
        """Record that the predictions of this result are gone or damaged."""
        self.missing |= {attempt}
        self._choose()

    def _choose(self) -> None:
        counting = (
            {a: r for a, r in self.all_results.items() if a not in self.hidden} if self.hidden else self.all_results
        )
        self.rivals, self.result = (), None
        if counting:
            attempt, rivals = (
                newest(longest(counting, self.missing)) if len(counting) > 1 else (next(iter(counting)), ())
            )
            self.rivals = rivals if differ([counting[a] for a in rivals]) else []
            self.result = None if attempt in self.missing else counting[attempt]


def _recovered(failure: FailureLine, result: ResultLine) -> bool:
    """Whether a result was computed after a failure, and so makes up for it."""
    if "starts" in result:
        return attempt_id(failure) in result["starts"]
    return bool(result["time"] >= failure["time"])


def _generation(measured: MeasuredLine) -> tuple[int, str, float]:
    """The order of measurements from one source. The one whose writer knew the others counts."""
    return measured.get("generation", 0), measured["scored"], measured["time"] if "n" not in measured else 0.0


def latency_order(line: LatencyLine) -> tuple[int, float, str, int]:
    """The order of measurements: the one whose writer knew the others is newer. Then the clocks decide."""
    return line["generation"], line["time"], line["host"], line["pid"]


def attempt_id(line: StartLine | ResultLine | FailureLine | RequeuedLine) -> str:
    """The id of the attempt that a line belongs to. Lines of the first versions have no id and are named by their
    time."""
    return str(line.get("attempt") or line.get("time"))
