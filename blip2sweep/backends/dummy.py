"""A back end without a model, `backend=dummy`, for tests and benchmarks of everything around one.

Its answers depend on the cell alone. BLIP2SWEEP_DUMMY is JSON with its behaviour. `seconds`: for each cell. `slow`,
`raise`, `exit`, `break`, `oom`: words in the recipes of cells that take ten times as long, raise an error, end the
process, break the device for the rest of the process, or run out of memory unless the batch is halved. `warning`: a
text. `deaf`: cells ignore TERM, like a long call outside of Python. `untimed`: words in the recipes of cells that cannot
be timed, and `dies_timed` of those whose timing ends the process. `timed_seconds`: for each. `kept`: {word in a recipe:
share of samples that are answered as the baseline answers them}.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence

from blip2sweep.backends.backend import Answered
from blip2sweep.canonical import digest
from blip2sweep.errors import UserError
from blip2sweep.machine.devices import cpu_name
from blip2sweep.tasks import PlannedTasks, TaskData
from blip2sweep.tasks.predictions import Predictions, columns_of
from blip2sweep.tasks.sample import Sample
from blip2sweep.tasks.task import candidates, ranked
from blip2sweep.wire.latency import Latency
from blip2sweep.wire.pack import BackendChoice, CellJob, JsonObject, Settings

WORDS = ("yes", "no", "red", "blue", "green", "circle", "square", "2", "3", "a small red circle")
VERSION = 1  # of its answers


class Dummy:
    """Answers from a hash of the cell's key and the sample's id."""

    ROUNDS = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.behaviour = json.loads(os.environ.get("BLIP2SWEEP_DUMMY", "{}"))
        self.warning: str | None = self.behaviour.get("warning")
        self.task_of = PlannedTasks()
        self.broken = False

    @classmethod
    def identity(cls, choice: BackendChoice) -> JsonObject:
        if options := choice.get("options"):
            raise UserError(f"backend.options.{min(options)}: dummy has no such option; right: leave it out")
        return {"name": choice["name"], "version": VERSION}

    def expect(self, jobs: Sequence[CellJob]) -> None:
        """Does nothing: cells share nothing."""

    def task(self, job: CellJob) -> TaskData:
        return self.task_of(job["task"])

    def __call__(self, job: CellJob, batch_size: int | None = None) -> Answered:
        start = time.perf_counter()
        if self.behaviour.get("deaf"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        slow = 10 if self._listed("slow", job["columns"]["recipe"]) else 1
        time.sleep(slow * self.behaviour.get("seconds", 0))
        batch_size = batch_size or self.settings.get("batch_size")
        self._misbehave(job["columns"]["recipe"], batch_size)
        like = self._like(job)
        records = [_record(s, like(s), self.task(job)) for s in self.task(job).samples]
        return Answered(Predictions.of(records), {"seconds": time.perf_counter() - start, "batch_size": batch_size})

    def _like(self, job: CellJob) -> Callable[[Sample], str]:
        """The key of the cell that a sample is answered as: the baseline for the share `kept` of samples."""
        kept = next(
            (share for word, share in self.behaviour.get("kept", {}).items() if word in job["columns"]["recipe"]), 0.0
        )
        return lambda s: job["baseline"] if int(digest([s.id, "kept"])[:6], 16) < kept * 2**24 else job["key"]

    # ---- latency

    RUNS_ALL = False

    @property
    def device_name(self) -> str:
        return str(self.behaviour.get("device_name", cpu_name()))

    def measure(self, job: CellJob) -> list[Latency]:
        recipe = job["columns"]["recipe"]
        time.sleep(self.behaviour.get("timed_seconds", 0))
        if self._listed("dies_timed", recipe):
            os._exit(9)
        if self._listed("untimed", recipe):
            raise RuntimeError(f"told not to time {recipe}")
        ms = 1.0 if job["key"] == job["baseline"] else 1.0 + int(digest(["latency", job["key"]])[:6], 16) / 2**24
        return [_latency(self.device_name, batch, ms) for batch in (1, 8)]

    def _misbehave(self, recipe: str, batch_size: int | None) -> None:
        if self._listed("exit", recipe):
            os._exit(9)
        if self._listed("raise", recipe):
            raise RuntimeError(f"told to raise at {recipe}")
        if self._listed("break", recipe):
            self.broken = True
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if self._listed("oom", recipe) and not batch_size:
            raise MemoryError(f"told to run out of memory at {recipe}")

    def _listed(self, what: str, recipe: str) -> bool:
        return any(word in recipe for word in self.behaviour.get(what, ()))


def _latency(device: str, batch: int, ms: float) -> Latency:
    return {
        "device": device, "threads": 1, "batch": batch, "runs": 4, "ms_median": ms / batch, "ms_p90": 1.5 * ms / batch,
        "baseline_ms_median": 1.0 / batch, "baseline_ms_p90": 1.5 / batch, "seconds": 0.1,
    }  # fmt: skip


def _record(sample: Sample, key: str, task: TaskData) -> dict[str, object]:
    """An answer in the columns of the task's requests."""
    number = int(digest([key, sample.id])[:6], 16)
    text, options = WORDS[number % len(WORDS)], range(len(sample.choices))
    tokens, requests = len(text.split()), task.rules.REQUESTS
    known: dict[str, object] = {
        "id": sample.id,
        "image_id": sample.image_id,
        "text": text,
        "tokens": tokens,
        "nll_sum": float(tokens),
        "nll_tokens": tokens,
        **_match(sample, number, task),
        "choice": number % max(1, len(options)),
        "option_nll": [float((i - number) % len(options)) for i in options],
        "option_tokens": [1 for _ in options],
    }
    return {name: known[name] for name in columns_of(requests, ranked(task) > 0)}


def _match(sample: Sample, number: int, task: TaskData) -> dict[str, object]:
    """Scores where the task requests a match. Of a ranking, the first k texts and the first k pictures are the best."""
    if "match" not in task.rules.REQUESTS:
        return {}
    texts, k = range(len(candidates(task))), ranked(task)
    scores = [float((number + i) % 7) for i in texts]
    asks = k and sample in task.samples[:k]
    asking = list(texts) if asks else []
    return {
        "texts": list(texts[:k]),
        "scores": scores[: k or None],
        "asking": asking,
        "asking_scores": scores if asks else [],
    }
