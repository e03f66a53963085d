"""Runs a cell in rounds: the first images of a random order, then more of them, until a rule is satisfied or all are
done.

Between two rounds the cell is compared with its baseline on the same images (`results/looking.py`), at every look that the
round has passed: it stops at the first one that satisfies the rule, by the images up to there alone, and what was computed
beyond is dropped. So how long rounds are changes no result; they go up to the look by which the cell will probably stop
(`metrics/forecast.py`), because small batches are slow. What is known between rounds is kept on disk, so that a worker which
ends there loses nothing. Where the baseline is not there, the cell goes on, look by look.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from blip2sweep.backends.backend import Answered, Artifacts, Backend
from blip2sweep.backends.shares import Joiner, round_of
from blip2sweep.machine import stopping
from blip2sweep.machine.stopping import Stopped as WorkerStopped
from blip2sweep.metrics.stopping import looks
from blip2sweep.results.attempts import Attempts
from blip2sweep.results.committed import predictions_name
from blip2sweep.results.ledger import Ledger
from blip2sweep.results.look_process import LookProcess
from blip2sweep.results.prefixes import Prefix, known_prefix, remove_prefix, write_prefix
from blip2sweep.results.stopped import asked, images_of
from blip2sweep.wire.pack import CellJob, Settings
from blip2sweep.wire.stopping import Stopped, StopRequest
from blip2sweep.workers.rounds import Ask, jobs_of
from blip2sweep.workers.side_by_side import NOBODY, Companions, Later, Rounds, asked_for

NOT_THERE = "some cells went on because their baseline was not there to compare them with"


class Schedule(NamedTuple):
    """How a cell may stop. request: None where it may not. places: after how many images it is looked at, the last of them
    all. least: with fewer it does not stop, because a result with fewer than there are would not count."""

    request: StopRequest | None
    places: list[int]
    least: float


class Judged(NamedTuple):
    """What becomes of a cell after its looks. stopped: where and why it may stop. ahead: if not, up to which of the looks to
    come its next images are asked for at once."""

    stopped: Stopped | None
    ahead: int


class ByRounds:
    """Runs those cells of a worker in rounds that may stop, or that stopped before and go on.

    ledger: knows the cells and their baselines. warn: sends a warning to whoever follows the sweep. say: prints a line about
    a cell, (key, text).
    """

    def __init__(
        self, output_dir: Path, settings: Settings, ledger: Ledger, warn: Callable[[str], None],
        say: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.output_dir, self.settings, self.ledger, self.warn, self.say = output_dir, settings, ledger, warn, say
        self.look, self.joined, self.companions = LookProcess(output_dir), Joiner(), Companions(self._rounds)

    def applies(self, job: CellJob) -> bool:
        """Whether a cell is run in rounds."""
        return "chat" not in job and (asked(self.settings, job["key"]) is not None or self._stopped_at(job)[0] > 0)

    def expect(self, jobs: Iterable[CellJob]) -> None:
        """Have references read before there is something to compare. jobs: those that will come."""
        first = next((j for j in jobs if asked(self.settings, j["key"]) is not None), None)
        if first is not None:
            self.look.warm(first["task"])

    def jobs_of(self, job: CellJob) -> list[CellJob]:
        """What a back end is asked for a cell, as far as it is known before. It may be asked for less. Of a cell that goes on
        the images behind those that it has."""
        request, (there, images) = asked(self.settings, job["key"]), self._stopped_at(job)
        if request is None and ("chat" in job or not there):
            return jobs_of(job)
        places = looks(request["images"][job["key"]]) if request else [images]
        return [round_of(job, first, end) for first, end in pairwise([there, *(n for n in places if n > there)])]

    def __call__(self, job: CellJob, ask: Ask, backend: Backend | None = None, later: Later = NOBODY) -> Answered:
        """The answer of a cell, `stopped` where it does not have all images. Raises what the back end raises.

        backend: what `ask` asks, once it is loaded. later: cells that may go side by side with this one.
        """
        return self.companions(job, ask, backend, later)

    def _rounds(self, job: CellJob) -> Rounds:
        """The rounds of a cell, until it may stop."""
        request, prefix = asked(self.settings, job["key"]), self._prefix(job)
        if request is None and prefix is None:
            return (yield from asked_for(job))
        images = self.joined.images(job)
        known, there = (_answered(prefix), prefix.images) if prefix else (None, 0)
        schedule = Schedule(request, looks(images) if request else [images], self._least(job))
        judged = yield from self._judged(job, schedule, known, range(there + 1), _nothing)
        while judged.stopped is None and there < images:
            if known and stopping.asked():
                raise WorkerStopped(goes_on=True)
            steps = [there, *(n for n in schedule.places if there < n <= judged.ahead)]
            known = self._further(job, known, steps, (yield from asked_for(round_of(job, *steps))))
            keep = self._keeping(job, known, steps)
            judged = yield from self._judged(job, schedule, known, range(there + 1, steps[-1] + 1), keep)
            there = steps[-1]
        assert known is not None
        if judged.stopped is None:
            return known
        return replace(self.joined.first(job, judged.stopped["images"], known), stopped=judged.stopped)

    def _further(self, job: CellJob, known: Answered | None, steps: Sequence[int], found: Answered) -> Answered:
        """What is known after a further round, between these places."""
        found = replace(found, cost=found.cost | {"images_computed": steps[-1] - steps[0]})
        return self.joined.rounds(job, [known, found] if known else [found])

    def _keeping(self, job: CellJob, known: Answered, steps: Sequence[int]) -> Callable[[], None]:
        """What keeps a round on disk; nothing where it is the whole cell and nothing is left to judge."""
        if len(steps) == 2 and steps[-1] == self.joined.images(job):
            return _nothing
        return lambda: write_prefix(self.output_dir, job["key"], _prefix(steps[-1], known))

    def committed(self, job: CellJob) -> None:
        """What was kept of the cell's rounds is no longer needed."""
        remove_prefix(self.output_dir, job["key"])

    def done_elsewhere(self, job: CellJob) -> None:
        """What was begun of a cell in the turn of others is no longer needed."""
        if self.companions.drop(job["key"]):
            self.committed(job)

    def close(self) -> None:
        self.look.close()

    def _attempts(self, key: str) -> Attempts:
        return self.ledger.refresh().attempts.get(key) or Attempts()

    def _stopped_at(self, job: CellJob) -> tuple[int, int]:
        """(images, of how many) of the longest of the cell's results that stopped early; (0, 0) where none did."""
        found = [r["stopped"] for r in self._attempts(job["key"]).all_results.values() if "stopped" in r]
        return max(((one["images"], one["of"]) for one in found), default=(0, 0))

    def _prefix(self, job: CellJob) -> Prefix | None:
        rerun = self.settings.get("rerun", {}).get(job["key"], ())
        found = known_prefix(self.output_dir, job["key"], self._attempts(job["key"]), rerun)
        if found is None or not self.joined.has_first(job, found.images, found.predictions):
            return None  # or other images than the first of today's order
        if self._lacks(job, found):
            self.say(
                job["key"], f"runs its first {found.images} images again, which were not measured as is asked for now"
            )
            return None
        self.say(job["key"], f"goes on after {found.images} images")
        return found

    def _lacks(self, job: CellJob, found: Prefix) -> bool:
        """Whether what is measured beside the answers is asked for, and the rest of the images would not tell it: a noise
        floor is of all images, and how far blocks moved is measured with the first ones."""
        floor = self.settings.get("noise_floor") and job.get("calibration") and "recovery" not in job
        moved = self.settings.get("propagation") and job["key"] != job["baseline"]
        return bool(floor or (moved and "propagation" not in found.artifacts))

    def _least(self, job: CellJob) -> float:
        """How many images the result has that counts now."""
        result = self._attempts(job["key"]).result
        return images_of(result) if result else 0

    def _judged(
        self, job: CellJob, schedule: Schedule, known: Answered | None, new: range, keep: Callable[[], None]
    ) -> Generator[None, None, Judged]:
        """What a cell does at the looks of `new` that count. known: of its first images, as many as `new` ends before. keep:
        keeps it on disk, while it is judged. It yields while it waits."""
        request, places, least = schedule
        coming, at = [n for n in places if n >= new.stop], [n for n in places[:-1] if n in new and n >= least]
        next_one = next((n for n in coming if n >= least), places[-1])
        number = self._asked(job, known, request, at, coming) if request and known and at else None
        keep()
        if number is None:
            return Judged(None, next_one)
        yield
        answer = self.look.answer(number)
        if answer["error"]:
            self.say(job["key"], f"goes on, compared with nothing: {answer['error']}")
            self.warn(f"some cells went on because they could not be compared: {answer['error']}")
        if request and answer["reason"] and answer["images"]:
            return Judged(_stopped(answer["images"], places[-1], answer["reason"], request), 0)
        return Judged(None, answer["ahead"] or next_one)

    def _asked(
        self, job: CellJob, known: Answered, request: StopRequest, at: list[int], coming: list[int]
    ) -> int | None:
        """Ask what is said of a cell after so many images, and of the looks to come; None where nothing can tell. The number
        of the request."""
        baseline = self._attempts(job["baseline"]).result
        if baseline is None or not baseline["predictions"]:
            self.warn(NOT_THERE)
            return None
        return self.look.ask({
            "task": job["task"], "predictions": {k: [*v] for k, v in known.predictions.columns.items()},
            "baseline": predictions_name(baseline), "stop": request["stop"], "margin": request["margin"],
            "looks": at, "coming": coming,
        })  # fmt: skip


def _nothing() -> None:
    """Keeps nothing."""


def _stopped(images: int, of: int, reason: str, request: StopRequest) -> Stopped:
    return {"images": images, "of": of, "reason": reason, "stop": request["stop"], "margin": request["margin"]}


def _answered(prefix: Prefix) -> Answered:
    return Answered(
        prefix.predictions,
        {"images_computed": prefix.images, **prefix.cost},  # earlier versions do not say it
        prefix.layers_changed,
        prefix.provenance,
        artifacts=Artifacts(**prefix.artifacts),  # type: ignore[typeddict-item]
    )


def _prefix(images: int, answered: Answered) -> Prefix:
    return Prefix(
        images, answered.predictions, answered.cost, answered.layers_changed, answered.provenance,
        {folder: content for folder, content in answered.artifacts.items() if content},
    )  # fmt: skip
