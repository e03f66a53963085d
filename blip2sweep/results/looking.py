"""Looks at cells between their rounds: `python -m blip2sweep.results.looking OUTPUT_DIR` reads one JSON line for each
request, and answers each look with a line (`wire/stopping.py`).

It is another process than the one that scores finished cells, so that no look waits for METEOR, and references are read
while the worker loads its model. Those of one task are kept, and the statistics of one baseline.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from blip2sweep import outside
from blip2sweep.canonical import canonical_json
from blip2sweep.errors import UserError
from blip2sweep.machine.processes import ends_with_its_input
from blip2sweep.metrics import METRICS, Images, images
from blip2sweep.metrics.forecast import forecast
from blip2sweep.metrics.metric import FloatArray
from blip2sweep.metrics.stopping import Rule, decide, ratio, sums_of
from blip2sweep.results.predictions import read_predictions
from blip2sweep.rows import Id
from blip2sweep.tasks import TaskData, planned_task
from blip2sweep.tasks.order import order_of
from blip2sweep.tasks.predictions import Predictions
from blip2sweep.tasks.task import TaskScorer
from blip2sweep.wire.pack import TaskJob
from blip2sweep.wire.stopping import LookAnswer, LookRequest, WarmLook, unknown


class Looks:
    """Answers requests. output_dir: of the baselines."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self._task: tuple[str, MainMetric] | None = None

    def warm(self, task: TaskJob) -> None:
        """Read the references of a task."""
        self._of(task).warm()

    def __call__(self, request: LookRequest) -> LookAnswer:
        """At which look the cell may stop, or by which it probably will. Raises UserError where that cannot be known."""
        own, predictions = self._of(request["task"]), Predictions(**request["predictions"])  # type: ignore[arg-type]
        cell = own.statistic(predictions)
        baseline, row = own.baseline(self.output_dir, request["baseline"])
        if not row.keys() >= {*predictions.id}:
            raise UserError(f"baseline {request['baseline']}: it lacks samples of these images")
        both, rule = (cell, baseline[[row[i] for i in predictions.id]]), Rule(request["stop"], request["margin"])
        place = own.places(predictions.image_id)
        for look in request["looks"]:
            if reason := decide(rule, ratio(own.metric, *_of_first(look, place, both, predictions))):
                return {"reason": reason, "images": look, "ahead": None, "error": None}
        sums, coming = sums_of(own.metric, *both, images(predictions.image_id)), request["coming"]
        ahead = forecast(rule, sums, int(place.max()) + 1, coming) if sums and coming else None
        return {"reason": None, "images": None, "ahead": ahead, "error": None}

    def _of(self, task: TaskJob) -> MainMetric:
        name = canonical_json(task)
        if self._task is None or self._task[0] != name:
            outside.take(task.get("planned", {}).get("outside", {}))
            self._task = name, MainMetric(task)
        return self._task[1]


def _of_first(
    look: int, place: NDArray[np.intp], both: tuple[FloatArray, FloatArray], predictions: Predictions
) -> tuple[FloatArray, FloatArray, Images]:
    """What `ratio` compares at a look: both statistics of the samples of the first images, and these images. place: of
    each sample's image in the order."""
    rows = np.flatnonzero(place < look)
    return both[0][rows], both[1][rows], images([predictions.image_id[i] for i in rows])


class MainMetric:
    """The main metric of a task's cells, sample by sample."""

    def __init__(self, task: TaskJob) -> None:
        data = planned_task(task)
        one = data.scored_by_one(data.variants[0])
        make: Callable[[TaskData], TaskScorer] = getattr(one.rules, "quick_scorer", one.rules.scorer)
        self.metric, self._scorer = METRICS[data.main_metric], make(one)
        self._place = {image: i for i, image in enumerate(order_of(data.fingerprint, [*data.images]))}
        self._baseline: tuple[str, FloatArray, dict[Id, int]] | None = None

    def warm(self) -> None:
        """Read what depends on the references alone."""
        self._scorer.prepare([Predictions([], [], text=[])])

    def places(self, image_ids: Sequence[Id]) -> NDArray[np.intp]:
        """(n,): the place of each image in the sample set's order."""
        return np.array([self._place[image] for image in image_ids], dtype=np.intp)

    def statistic(self, predictions: Predictions) -> FloatArray:
        """(n, k) float64, in the order of the predictions."""
        self._scorer.prepare([predictions])
        return self._scorer.statistics(predictions)[self.metric.statistic]

    def baseline(self, output_dir: Path, name: str) -> tuple[FloatArray, dict[Id, int]]:
        """(the statistic of a baseline, {sample: its row}). Raises UserError where its predictions cannot be read."""
        if self._baseline is None or self._baseline[0] != name:
            predictions = read_predictions(output_dir, name)
            place = {sample: i for i, sample in enumerate(predictions.id)}
            self._baseline = name, self.statistic(predictions), place
        return self._baseline[1:]


def main() -> None:
    """Answer requests from standard input until it ends."""
    ends_with_its_input()
    looks = Looks(Path(sys.argv[1]))
    for line in sys.stdin:
        request: LookRequest | WarmLook = json.loads(line)
        if "predictions" in request:
            asked = cast("LookRequest", request)
            print(json.dumps({**answer(looks, asked), "number": asked.get("number")}), flush=True)
        else:
            with contextlib.suppress(Exception):  # the first look meets it again, and says so
                looks.warm(request["task"])


def answer(looks: Looks, request: LookRequest) -> LookAnswer:
    """The answer to a request. It never raises."""
    try:
        return looks(request)
    except Exception as error:
        return unknown((str(error).strip().split("\n") or [""])[0][:500] or type(error).__name__)


if __name__ == "__main__":
    main()
