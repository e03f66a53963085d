"""Runs a cell in rounds: the first images of a random order, then more of them, until a rule is satisfied or all are
done.

Between two rounds the cell is compared with its baseline on the same images (`results/looking.py`). What is known then
is kept on disk, so that a worker which ends between two rounds loses nothing. Where the baseline is not there, the cell
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from blip2sweep.backends.backend import Answered, Artifacts
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

NOT_THERE = "some cells went on because their baseline was not there to compare them with"


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
        self.look, self.joined = LookProcess(output_dir), Joiner()

    def applies(self, job: CellJob) -> bool:
        """Whether a cell is run in rounds."""
        return "chat" not in job and (asked(self.settings, job["key"]) is not None or self._stopped(job))

    def expect(self, jobs: Iterable[CellJob]) -> None:
        """Have references read before there is something to compare. jobs: those that will come."""
        first = next((j for j in jobs if asked(self.settings, j["key"]) is not None), None)
        if first is not None:
            self.look.warm(first["task"])

    def jobs_of(self, job: CellJob) -> list[CellJob]:
        """What a back end is asked for a cell, as far as it is known before. It may be asked for less."""
        if (request := asked(self.settings, job["key"])) is None:
            return jobs_of(job)
        steps = [0, *looks(request["images"][job["key"]])]
        return [round_of(job, first, end) for first, end in pairwise(steps)]

    def __call__(self, job: CellJob, ask: Ask) -> Answered:
        """The answer of a cell, `stopped` where it does not have all images. Raises what the back end raises."""
        request, prefix = asked(self.settings, job["key"]), self._prefix(job)
        images = self.joined.images(job)
        known, there = ([_answered(prefix)], prefix.images) if prefix else ([], 0)
        if request is None and prefix is None:
            return ask(job)
        least = self._least(job)
        for end in (n for n in (looks(images) if request else [images]) if n >= there):
            if end > there:
                known = [self.joined.rounds(job, [*known, ask(round_of(job, there, end))])]
                there = end
                if there < images:
                    write_prefix(self.output_dir, job["key"], _prefix(there, known[0]))
            if request and least <= there < images and (reason := self._why(job, known[0], request)):
                return replace(known[0], stopped=_stopped(there, images, reason, request))
            if there < images and stopping.asked():
                raise WorkerStopped(goes_on=True)
        return known[0]

    def committed(self, job: CellJob) -> None:
        """What was kept of the cell's rounds is no longer needed."""
        remove_prefix(self.output_dir, job["key"])

    def close(self) -> None:
        self.look.close()

    def _attempts(self, key: str) -> Attempts:
        return self.ledger.refresh().attempts.get(key) or Attempts()

    def _stopped(self, job: CellJob) -> bool:
        """Whether the ledger has a result of the cell that stopped early."""
        return any("stopped" in r for r in self._attempts(job["key"]).all_results.values())

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
        """After how many images a cell may stop: a result with fewer than there are would not count."""
        result = self._attempts(job["key"]).result
        return images_of(result) if result else 0

    def _why(self, job: CellJob, known: Answered, request: StopRequest) -> str | None:
        """Why the cell may stop now; None where it goes on, also because nothing can tell."""
        baseline = self._attempts(job["baseline"]).result
        if baseline is None or not baseline["predictions"]:
            self.warn(NOT_THERE)
            return None
        answer = self.look({
            "task": job["task"], "predictions": {k: [*v] for k, v in known.predictions.columns.items()},
            "baseline": predictions_name(baseline), "stop": request["stop"], "margin": request["margin"],
        })  # fmt: skip
        if answer["error"]:
            self.say(job["key"], f"goes on, compared with nothing: {answer['error']}")
            self.warn(f"some cells went on because they could not be compared: {answer['error']}")
        return answer["reason"]


def _stopped(images: int, of: int, reason: str, request: StopRequest) -> Stopped:
    return {"images": images, "of": of, "reason": reason, "stop": request["stop"], "margin": request["margin"]}


def _answered(prefix: Prefix) -> Answered:
    return Answered(
        prefix.predictions,
        prefix.cost,
        prefix.layers_changed,
        prefix.provenance,
        artifacts=Artifacts(**prefix.artifacts),  # type: ignore[typeddict-item]
    )


def _prefix(images: int, answered: Answered) -> Prefix:
    return Prefix(
        images, answered.predictions, answered.cost, answered.layers_changed, answered.provenance,
        {folder: content for folder, content in answered.artifacts.items() if content},
    )  # fmt: skip
